import Glibc
import Testing

@testable import BPF

@Suite(.enabled(if: isRoot, needsRoot))
struct LinkTests {
    let folder = TemporaryFolder()

    private func load() throws -> BPFObject {
        let path = try compile(
            """
            SEC("xdp.frags") int pass(struct xdp_md *c) { return 2; }
            SEC("xdp.frags") int pass2(struct xdp_md *c) { return 2; }
            SEC("tcx/ingress") int guard(struct __sk_buff *c) { return -1; }
            """, in: folder)
        let object = try BPFObject(path: path)
        try object.load()
        return object
    }

    @Test func xdpLinkIsPinnedUpdatedAndEndsWithItsDevice() throws {
        try BPFFileSystem.mount()
        let pins = TemporaryFolder(in: "/sys/fs/bpf")
        let object = try load()
        let first = try object.program("pass")
        let second = try object.program("pass2")
        do {
            let pair = try VethPair()
            let namespace = try NetworkNamespace(path: pair.nearPath)
            let index = try namespace.run { Int32(if_nametoindex("v0")) }.get()
            try namespace.run { () throws(BPFError) in
                let link = try BPFLink.attachXDP(first, interfaceIndex: index)
                try link.pin(at: "\(pins.path)/xdp")
                // One program a device.
                #expect(throws: BPFError.self) { _ = try BPFLink.attachXDP(second, interfaceIndex: index) }
            }.get()
            let link = try BPFLink(pinned: "\(pins.path)/xdp")
            #expect(try link.info().interfaceIndex == index)
            #expect(try link.info().programID == first.info().id)
            try link.update(to: second)
            #expect(try link.info().programID == second.info().id)
            // A process in the namespace cannot take it off.
            #expect(command("ip", "-n", pair.near, "link", "set", "dev", "v0", "xdp", "off") != 0)
        }
        // The namespaces are gone, the device goes soon after.
        let link = try BPFLink(pinned: "\(pins.path)/xdp")
        var remaining = 500
        while try link.info().interfaceIndex != 0, remaining > 0 {
            usleep(10_000)
            remaining -= 1
        }
        #expect(try link.info().interfaceIndex == 0)
    }

    @Test func tcxLinkAttachesAndUpdates() throws {
        let object = try load()
        let program = try object.program("guard")
        let pair = try VethPair()
        let link = try NetworkNamespace.run(path: pair.farPath) { () throws(BPFError) in
            Box(try BPFLink.attachTCX(program, interfaceIndex: Int32(if_nametoindex("v1"))))
        }.get()
        #expect(try link.value.info().programID == program.info().id)
        #expect(try link.value.info().interfaceIndex > 0)
        let again = try load().program("guard")
        try link.value.update(to: again)
        #expect(try link.value.info().programID == again.info().id)
        try link.value.detach()
        #expect(try link.value.info().interfaceIndex == 0)
    }

    @Test func attachingToNothingFails() throws {
        let object = try load()
        let program = try object.program("pass")
        #expect(throws: BPFError.self) { _ = try BPFLink.attachXDP(program, interfaceIndex: 0x7fff_fff0) }
        let guardProgram = try object.program("guard")
        #expect(throws: BPFError.self) { _ = try BPFLink.attachTCX(guardProgram, interfaceIndex: 0x7fff_fff0) }
    }

    private final class Box: Sendable {
        let value: BPFLink
        init(_ value: consuming BPFLink) { self.value = value }
    }
}

@Suite(.enabled(if: isRoot, needsRoot))
struct NamespaceTests {
    @Test func runsInsideAndLeavesTheCallerOutside() throws {
        let pair = try VethPair()
        let before = try NetworkNamespace.current().identity
        let namespace = try NetworkNamespace(path: pair.nearPath)
        #expect(namespace.identity != before)
        let inside = try namespace.run { () throws(BPFError) in try NetworkNamespace.current().identity }.get()
        #expect(inside == namespace.identity)
        #expect(try NetworkNamespace.current().identity == before)
    }

    @Test func pathsThatAreNoNamespaces() {
        #expect(throws: BPFError.self) { _ = try NetworkNamespace(path: "/run/netns/base-none") }
        #expect(throws: BPFError.self) { _ = try NetworkNamespace(path: "/etc/hostname") }
        #expect(throws: BPFError.self) { _ = try NetworkNamespace(path: "/proc/self/ns/mnt") }
    }

    @Test func errorsOfTheBodyComeBack() throws {
        let namespace = try NetworkNamespace.current()
        let outcome = try namespace.run { () throws(BPFError) -> Int in throw BPFError(operation: "test", errno: ENOENT)
        }
        #expect(throws: BPFError.self) { _ = try outcome.get() }
    }
}

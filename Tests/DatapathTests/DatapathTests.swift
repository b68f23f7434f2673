import BPF
import Glibc
import Keys
import Netlink
import Secrets
import Testing

@testable import Datapath

@Suite(.enabled(if: isRoot, needsRoot))
struct DatapathTests {
    let node: TestNode

    init() throws { node = try TestNode() }

    private func key(_ id: UInt8, epoch: Epoch = 1) throws -> AssociationKey {
        let keyID = try #require(KeyID(bytes: [UInt8](repeating: id, count: 16)))
        return AssociationKey(
            epoch: epoch, peerNodeID: 9, spi: 0x8100_0009, keyID: keyID, key: SecretBytes(random: 32))
    }

    @Test func comesUpFreshAndIsPickedUp() throws {
        let incarnation: Incarnation
        do {
            let datapath = try Datapath(options: node.options)
            #expect(datapath.isFresh)
            #expect(datapath.warnings.isEmpty)
            let state = try datapath.state()
            #expect(state.nodeID == 7)
            #expect(state.incarnation.bytes.contains { $0 != 0 })
            incarnation = state.incarnation
            try datapath.setSending(epoch: 3)
            // One process at a time.
            #expect {
                _ = try Datapath(options: node.options)
            } throws: {
                "\($0)".contains("another process")
            }
        }
        let again = try Datapath(options: node.options)
        #expect(!again.isFresh)
        #expect(again.warnings.isEmpty)
        #expect(try again.state().incarnation == incarnation)
        #expect(try again.state().sending == 3)
    }

    @Test func everythingWrittenIsReadBack() throws {
        let datapath = try Datapath(options: node.options)
        let local = try IPAddress("10.8.0.2")
        let remote = try IPAddress("fd09::1")
        let here = EndpointEntry(place: .local(since: 4, until: 9), strict: true, withdrawing: true)
        let there = EndpointEntry(place: .remote(slot: 3), strict: false, hidden: true)
        try datapath.setPeer(slot: 3, PeerEntry(nodeID: 9, acknowledged: 12))
        try datapath.setEndpoint(local, here)
        try datapath.setEndpoint(remote, there)
        let cidrs: Set<IPPrefix> = [try IPPrefix("10.0.0.0/8"), try IPPrefix("fd00::/8"), try IPPrefix("0.0.0.0/0")]
        try datapath.setStrictCIDRs(cidrs)
        try datapath.setStrictEtherType(true)
        try datapath.setEpochFloor(2)
        try datapath.setEpochFloor(1)
        let id = AssociationID(slot: 3, direction: .receive, epoch: 5)
        let key = try key(1, epoch: 5)
        try datapath.install(key, at: id)
        var state = try datapath.state()
        #expect(state.endpoints == [local: here, remote: there])
        #expect(state.peers == [3: PeerEntry(nodeID: 9, acknowledged: 12)])
        #expect(state.strictCIDRs == cidrs)
        #expect(state.strictEtherType)
        #expect(state.epochFloor == 2)
        #expect(
            state.associations == [
                id: AssociationInfo(epoch: 5, peerNodeID: 9, spi: 0x8100_0009, keyID: key.keyID, engine: .ecb)
            ])

        // A peer with keys cannot go: its counters would start again under them.
        #expect(throws: DatapathError.self) { try datapath.removePeer(slot: 3) }
        try datapath.removeAssociation(id)
        try datapath.removePeer(slot: 3)
        try datapath.removeEndpoint(local)
        try datapath.removeEndpoint(local)
        try datapath.setStrictCIDRs([])
        state = try datapath.state()
        #expect(state.peers.isEmpty)
        #expect(state.associations.isEmpty)
        #expect(state.endpoints.count == 1)
        #expect(state.strictCIDRs.isEmpty)
        #expect(throws: DatapathError.self) { try datapath.setPeer(slot: 0, PeerEntry(nodeID: 9, acknowledged: 0)) }
        #expect(throws: DatapathError.self) { try datapath.setPeer(slot: 16, PeerEntry(nodeID: 9, acknowledged: 0)) }
        #expect(throws: DatapathError.self) { try datapath.setPeer(slot: 1, PeerEntry(nodeID: 0, acknowledged: 0)) }
    }

    @Test func noKeyComesTwice() throws {
        let datapath = try Datapath(options: node.options)
        let id = AssociationID(slot: 1, direction: .send, epoch: 1)
        let first = try key(1)
        try datapath.install(first, at: id)
        // The same again changes nothing.
        try datapath.install(first, at: id)
        let second = try key(2)
        try datapath.install(second, at: id)
        #expect(try datapath.state().associations[id]?.keyID == second.keyID)
        func expectUsed() {
            #expect {
                try datapath.install(first, at: id)
            } throws: {
                ($0 as? DatapathError)?.code == .keyUsedBefore
            }
        }
        expectUsed()
        #expect(try datapath.state().associations.isEmpty)
        let before = try datapath.state().incarnation
        let renewed = try datapath.renewIncarnation()
        #expect(renewed != before)
        #expect(try datapath.state().incarnation == renewed)
        // The agent derives new keys for it; for the kernel a key of the same fingerprint is a new one now.
        try datapath.install(first, at: id)
        try datapath.setEpochFloor(2)
        try datapath.removeAssociation(id)
        let late = try key(3)
        #expect(throws: DatapathError.self) { try datapath.install(late, at: id) }
    }

    @Test func windowsOfRemovedKeysGo() throws {
        let instance = try KernelInstance(programs: [])
        #expect(try instance.counters().peers.isEmpty)
        try instance.sweepWindows()
        #expect(try instance.counters().verdicts.count == Verdict.allCases.count)
    }

    // MARK: attaching

    @Test func attachesAndPutsEverythingBack() throws {
        let before = node.podSettings()
        try node.inNode {
            let datapath = try Datapath(options: node.options)
            let attachment = try datapath.attach(node.pod)
            #expect(attachment.isWhole)
            #expect(try datapath.state().attachments == [node.pod.name: attachment])
            #expect(try node.attachedPrograms() == ["encrypt", "decrypt"])
            let features = node.podSettings()[2]
            #expect(features.contains("tx-checksum-ip-generic: off"))
            #expect(features.contains("tcp-segmentation-offload: off"))
            #expect(features.contains("generic-segmentation-offload: off"))
            #expect(
                features.contains("generic-receive-offload") && !features.contains("generic-receive-offload: fixed"))
            let routes = node.podSettings()[0]
            #expect(routes.contains("default via 10.8.0.1 dev eth0 mtu 1440"))
            #expect(routes.contains("10.77.0.0/16 via 10.8.0.1 dev eth0 mtu 1300"))
            #expect(node.podSettings()[1].contains("default via fd08::1 dev eth0 metric 1024 mtu 1420"))
            // Again changes nothing, and what was before is still known.
            #expect(try datapath.attach(node.pod) == attachment)
            try datapath.detach(name: node.pod.name)
            #expect(try datapath.state().attachments.isEmpty)
            try datapath.detach(name: node.pod.name)
        }
        #expect(try node.attachedPrograms().isEmpty)
        #expect(node.podSettings() == before)
    }

    @Test func linksOutliveTheProcessAndRemoveAllEndsThem() throws {
        let before = node.podSettings()
        try node.inNode {
            do {
                let datapath = try Datapath(options: node.options)
                _ = try datapath.attach(node.pod)
            }
            #expect(try node.attachedPrograms() == ["encrypt", "decrypt"])
            do {
                let datapath = try Datapath(options: node.options)
                #expect(try datapath.state().attachments[node.pod.name]?.isWhole == true)
                #expect(throws: DatapathError.self) {
                    try Datapath.removeAll(
                        pinPath: node.options.pinPath, stateDirectory: node.options.stateDirectory)
                }
            }
            try Datapath.removeAll(pinPath: node.options.pinPath, stateDirectory: node.options.stateDirectory)
            try Datapath.removeAll(pinPath: node.options.pinPath, stateDirectory: node.options.stateDirectory)
        }
        #expect(node.pins.isEmpty)
        #expect(try node.attachedPrograms().isEmpty)
        #expect(node.podSettings() == before)
    }

    @Test func vanishedNamespacesAreLetGo() throws {
        try node.inNode {
            let datapath = try Datapath(options: node.options)
            _ = try datapath.attach(node.pod)
            #expect(shell("ip netns del \(node.podNamespace)") != nil)
            // The kernel takes the devices down on its own time.
            var remaining = 500
            while shell("ip -n \(node.node) link show host0 2> /dev/null") != nil, remaining > 0 {
                usleep(10_000)
                remaining -= 1
            }
            #expect(try datapath.state().attachments[node.pod.name]?.isWhole == false)
            #expect {
                _ = try datapath.attach(node.pod)
            } throws: {
                ($0 as? DatapathError)?.code == .interfaceGone
            }
            try datapath.detach(name: node.pod.name)
            #expect(try datapath.state().attachments.isEmpty)

            // A new pod at the same place.
            for line in [
                "ip netns add \(node.podNamespace)",
                "ip -n \(node.node) link add host0 type veth peer name eth0 netns \(node.podNamespace)",
            ] {
                try #require(shell(line) != nil)
            }
            #expect(try datapath.attach(node.pod).isWhole)
        }
    }

    @Test func podReplacedUnderTheSameName() throws {
        try node.inNode {
            let datapath = try Datapath(options: node.options)
            let first = try datapath.attach(node.pod)
            for line in [
                "ip netns del \(node.podNamespace)", "ip netns add \(node.podNamespace)",
                "ip -n \(node.node) link add host1 type veth peer name eth0 netns \(node.podNamespace)",
            ] {
                try #require(shell(line) != nil)
            }
            #expect(try datapath.state().attachments[node.pod.name]?.isWhole == false)
            let second = try datapath.attach(node.pod)
            #expect(second.isWhole)
            #expect(second.hostIndex != first.hostIndex)
            #expect(try datapath.state().attachments == [node.pod.name: second])
        }
    }

    /// Whatever of the links is missing, attaching repairs it.
    @Test(arguments: [
        ["encrypt"], ["decrypt"], ["guard"], ["local"], ["encrypt", "decrypt"],
        ["encrypt", "decrypt", "guard", "local"],
    ])
    func repairs(missing: [String]) throws {
        try node.inNode {
            let datapath = try Datapath(options: node.options)
            _ = try datapath.attach(node.pod)
            for hook in missing {
                try #require(unlink("\(node.options.pinPath)/links/default%2Eweb-0/\(hook)") == 0)
            }
            #expect(try datapath.state().attachments[node.pod.name]?.isWhole == false)
            var remaining = 200
            var isWhole = false
            // The kernel lets go of an unpinned XDP link a moment later.
            while !isWhole, remaining > 0 {
                isWhole = (try? datapath.attach(node.pod).isWhole) ?? false
                remaining -= 1
                usleep(10_000)
            }
            #expect(isWhole)
            #expect(try datapath.state().attachments[node.pod.name]?.isWhole == true)
        }
    }

    @Test func failedAttachLeavesNothingBehind() throws {
        let before = node.podSettings()
        try node.inNode {
            // Somebody else's XDP program at the host's end: the last step fails.
            let other = try KernelInstance(programs: [.encrypt])
            let squatter = try Squatter(namespace: node.node, device: "host0", instance: other)
            let datapath = try Datapath(options: node.options)
            #expect {
                _ = try datapath.attach(node.pod)
            } throws: {
                "\($0)".contains("another XDP program")
            }
            #expect(try datapath.state().attachments.isEmpty)
            withExtendedLifetime(squatter) {}
        }
        #expect(!node.pins.contains { $0.hasPrefix("links/") })
        #expect(node.podSettings() == before)
    }

    @Test func podsThatCannotBe() throws {
        try node.inNode {
            let datapath = try Datapath(options: node.options)
            for name in ["", ".", "..", "a/b", "a b", ".hidden", "ü", String(repeating: "a", count: 201)] {
                var pod = node.pod
                pod.name = name
                #expect(throws: DatapathError.self) { _ = try datapath.attach(pod) }
            }
            var pod = node.pod
            pod.interface = "eth7"
            #expect {
                _ = try datapath.attach(pod)
            } throws: {
                ($0 as? DatapathError)?.code == .interfaceGone
            }
            pod = node.pod
            pod.interface = "lo"
            #expect(throws: DatapathError.self) { _ = try datapath.attach(pod) }
            pod = node.pod
            pod.networkNamespace = "/run/netns/base-none"
            #expect {
                _ = try datapath.attach(pod)
            } throws: {
                ($0 as? DatapathError)?.code == .interfaceGone
            }
        }
        // Seen from another namespace the host's end is not ours.
        let datapath = try Datapath(options: node.options)
        #expect(throws: DatapathError.self) { _ = try datapath.attach(node.pod) }
    }

    @Test func devicesTooSmallForIPv6AreRefused() throws {
        let small = try TestNode(podMTU: 1300)
        try small.inNode {
            let datapath = try Datapath(options: small.options)
            #expect {
                _ = try datapath.attach(small.pod)
            } throws: {
                "\($0)".contains("MTU of 1300")
            }
        }
    }

    // MARK: cuts

    /// A process killed while it pinned: the next one starts afresh.
    @Test(arguments: ["maps/windows", "programs/*/xe_guard", "programs/*/associations", "maps/*", "programs/*"])
    func interruptedStartIsCleaned(missing: String) throws {
        let first: Incarnation
        do { first = try Datapath(options: node.options).state().incarnation }
        #expect(shell("rm -rf \(node.options.pinPath)/\(missing)") != nil)
        let datapath = try Datapath(options: node.options)
        #expect(datapath.isFresh)
        #expect(try datapath.state().incarnation != first)
        #expect(node.pins.count == KernelMaps.shared.count + KernelProgram.pinned.count + 1)
    }

    /// With programs attached nothing is thrown away: it says what to do.
    @Test(arguments: ["maps/windows", "programs/*"])
    func damagedPinsUnderTrafficAreAnError(missing: String) throws {
        try node.inNode {
            do {
                let datapath = try Datapath(options: node.options)
                _ = try datapath.attach(node.pod)
            }
            #expect(shell("rm -rf \(node.options.pinPath)/\(missing)") != nil)
            #expect {
                _ = try Datapath(options: node.options)
            } throws: {
                "\($0)".contains("ebpf-xdp-keymgr detach")
            }
            #expect(try node.attachedPrograms() == ["encrypt", "decrypt"])
        }
    }

    @Test func lostRecordsDoNotStopDetaching() throws {
        try node.inNode {
            let datapath = try Datapath(options: node.options)
            _ = try datapath.attach(node.pod)
            #expect(shell("rm -rf \(node.options.stateDirectory)") != nil)
            #expect(try datapath.state().attachments[node.pod.name]?.isWhole == false)
            #expect(try datapath.attach(node.pod).isWhole)
            #expect(shell("echo garbage > \(node.options.stateDirectory)/attachments/\(node.pod.name).json") != nil)
            try datapath.detach(name: node.pod.name)
            #expect(try datapath.state().attachments.isEmpty)
        }
    }

    // MARK: bad options

    @Test func optionsAreChecked() {
        var wrong: [Datapath.Options] = []
        for window in [0, 32, 63, 100, 16384] as [UInt32] {
            var options = node.options
            options.window = window
            wrong.append(options)
        }
        for nodeID in [0, 1 << 24] as [NodeID] {
            var options = node.options
            options.nodeID = nodeID
            wrong.append(options)
        }
        var options = node.options
        options.capacity.peers = 0
        wrong.append(options)
        options = node.options
        options.pinPath = "/tmp/base-no-bpf"
        wrong.append(options)
        for options in wrong { #expect(throws: DatapathError.self) { _ = try Datapath(options: options) } }
        #expect(node.pins.isEmpty)
    }

    @Test func kernelVersions() {
        #expect(KernelVersion(release: "6.12.9-amd64") == KernelVersion(major: 6, minor: 12))
        #expect(KernelVersion(release: "6.18.44-fc-v657") ?? .init(major: 0, minor: 0) > KernelRequirements.oldest)
        #expect(KernelVersion(release: "6.6.1") ?? .init(major: 9, minor: 0) < KernelRequirements.oldest)
        #expect(KernelVersion(release: "7.0-rc1") ?? .init(major: 0, minor: 0) > KernelRequirements.oldest)
        #expect(KernelVersion(release: "nonsense") == nil)
    }
}

/// An XDP program of somebody else's on a device.
private final class Squatter {
    private let link: BPFLink

    init(namespace: String, device: String, instance: KernelInstance) throws {
        let folder = "/sys/fs/bpf/base-squatter-\(getpid())-\(UInt32.random(in: 0..<1 << 24))"
        var options = Datapath.Options(nodeID: 3, pinPath: folder, stateDirectory: "/tmp")
        options.capacity = Datapath.Capacity(peers: 1, endpoints: 1, strictCIDRs: 1, windows: 1)
        let datapath = try Datapath(options: options)
        defer { shell("rm -rf \(folder)") }
        let program = try BPFProgram(pinned: "\(folder)/programs/\(Pins.embeddedBuild)/xe_encrypt")
        let index = Int32(if_nametoindex(device))
        link = try BPFLink.attachXDP(program, interfaceIndex: index)
        withExtendedLifetime(datapath) {}
    }
}

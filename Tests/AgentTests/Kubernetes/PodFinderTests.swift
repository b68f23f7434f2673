import Cluster
import Datapath
import Glibc
import Keys
import Netlink
import Testing

@testable import Agent

/// Pods found in namespaces of this machine.
@Suite(.serialized, .enabled(if: geteuid() == 0, "makes network namespaces"))
struct PodFinderTests {
    private func shell(_ script: String) {
        #expect(system("set -eu; \(script)") == 0, "\(script)")
    }

    /// Namespaces in a folder of their own: a host's, where the finder would run, and pods'.
    private func withPods(_ count: Int, _ body: (_ root: String, _ name: (Int) -> String) async throws -> Void)
        async throws
    {
        let prefix = "xepf\(getpid())"
        func name(_ pod: Int) -> String { "\(prefix)-\(pod)" }
        try await withFolder { root in
            for pod in 1...count {
                shell("ip netns add \(name(pod)) && ip -n \(name(pod)) link add eth0 type veth peer name peer0")
                shell("ip -n \(name(pod)) addr add 10.77.0.\(pod)/24 dev eth0; ip -n \(name(pod)) link set eth0 up")
                shell(
                    "ip -n \(name(pod)) -6 addr add fd00:77::\(pod)/64 dev eth0 nodad; ln -s /run/netns/\(name(pod)) \(root)/"
                )
            }
            do {
                try await body(root, name)
            } catch {
                for pod in 1...count { system("ip netns del \(name(pod)) 2> /dev/null") }
                throw error
            }
            for pod in 1...count { system("ip netns del \(name(pod)) 2> /dev/null") }
        }
    }
    private func pod(_ name: String, _ address: String) -> WantedPod {
        WantedPod(name: name, label: "shop/\(name)", addresses: [try! IPAddress(address)])
    }

    @Test("By address of either family; what is not there is missing; ours is never looked into")
    func finds() async throws {
        try await withPods(2) { root, name in
            let finder = PodFinder(roots: [root, "/nonexistent"])
            let found = finder.find([
                pod("a", "10.77.0.1"), pod("b", "fd00:77::2"), pod("c", "10.77.0.9"), pod("d", "127.0.0.1"),
            ])
            #expect(found.locations["a"]?.path == "\(root)/\(name(1))")
            #expect(found.locations["b"]?.path == "\(root)/\(name(2))")
            #expect(found.missing == ["c", "d"])
            #expect(found.locations["a"]?.interface == "eth0")
        }
    }

    @Test("A namespace that vanishes, and one that comes at its path with the same address")
    func comesAndGoes() async throws {
        try await withPods(1) { root, name in
            let finder = PodFinder(roots: [root])
            let first = try #require(finder.find([pod("a", "10.77.0.1")]).locations["a"])
            #expect(finder.confirms(PodInterface(name: "a", networkNamespace: first.path, interface: "eth0")))
            shell("ip netns del \(name(1))")
            #expect(finder.find([pod("a", "10.77.0.1")]).missing == ["a"])
            #expect(!finder.confirms(PodInterface(name: "a", networkNamespace: first.path, interface: "eth0")))
            shell("ip netns add \(name(1)) && ip -n \(name(1)) link add eth0 type veth peer name peer0")
            #expect(finder.find([pod("a", "10.77.0.1")]).missing == ["a"])
            shell("ip -n \(name(1)) addr add 10.77.0.1/24 dev eth0")
            let second = try #require(finder.find([pod("a", "10.77.0.1")]).locations["a"])
            #expect(second.path == first.path && second.identity != first.identity)
        }
    }

    @Test("Processes' namespaces, by the oldest process; a path that is in use stays")
    func processes() async throws {
        try await withPods(1) { root, name in
            var pids: [pid_t] = []
            for _ in 0..<2 {
                let words = ["ip", "netns", "exec", name(1), "sleep", "60"]
                let arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
                var pid: pid_t = 0
                #expect(posix_spawnp(&pid, "ip", nil, nil, arguments, environ) == 0)
                pids.append(pid)
            }
            defer { for pid in pids { kill(pid, SIGKILL); waitpid(pid, nil, 0) } }
            let identity = try #require(NamespaceIdentity(path: "/run/netns/\(name(1))"))
            for _ in 0..<400 where !pids.allSatisfy({ NamespaceIdentity(path: "/proc/\($0)/ns/net") == identity }) {
                usleep(5000)
            }
            let oldest = "/proc/\(pids.min() ?? 0)/ns/net"
            #expect(NamespaceList(roots: ["/proc"]).paths()[identity] == oldest)
            let other = "/proc/\(pids.max() ?? 0)/ns/net"
            #expect(NamespaceList(roots: ["/proc"]).paths(inUse: [identity: other])[identity] == other)
            #expect(NamespaceList(roots: [root, "/proc"]).paths()[identity] == "\(root)/\(name(1))")
            #expect(PodFinder(roots: ["/proc"]).find([pod("a", "10.77.0.1")]).locations["a"]?.path == oldest)
        }
    }

    @Test("Programs are only attached to what is the pod's, and not taken from an interface that is still there")
    func confirmed() throws {
        let kernel = FakeDatapath(nodeID: 1)
        kernel.with { $0.namespaces = ["/a"] }
        let pod = PodInterface(name: "p", networkNamespace: "/a", interface: "eth0")
        func attach(confirms: Bool, isLive: Bool) -> DatapathError.Code? {
            let datapath = ConfirmedDatapath(base: kernel, confirms: { _ in confirms }, isLive: { _ in isLive })
            do throws(DatapathError) {
                _ = try datapath.attach(pod)
                return nil
            } catch {
                return error.code
            }
        }
        #expect(attach(confirms: false, isLive: false) == .interfaceGone)
        #expect(kernel.now.attachments.isEmpty)
        #expect(attach(confirms: true, isLive: false) == nil)
        #expect(attach(confirms: false, isLive: true) == .failed)
        #expect(kernel.now.attachments["p"] != nil)
        kernel.with { $0.namespaces = [] }
        #expect(attach(confirms: true, isLive: true) == .failed)
        #expect(attach(confirms: true, isLive: false) == .interfaceGone)
    }

    @Test("Changes are told")
    func watches() async throws {
        try await withPods(1) { root, name in
            let (events, told) = AsyncStream.makeStream(of: Void.self)
            let watcher = try PodWatcher(roots: [root]) { told.yield() }
            defer { watcher.stop() }
            try await Task.sleep(for: .milliseconds(100))
            shell("ln -s /run/netns/\(name(1)) \(root)/another")
            var iterator = events.makeAsyncIterator()
            _ = await iterator.next()
            unlink("\(root)/another")
            _ = await iterator.next()
        }
    }
}

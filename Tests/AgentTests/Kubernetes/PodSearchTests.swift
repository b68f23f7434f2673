import Datapath
import Netlink
import Testing

@testable import Agent

/// Which interface a pod's is, from what the namespaces hold.
@Suite struct PodSearchTests {
    private func address(_ text: String) -> IPAddress { try! IPAddress(text) }

    private func view(_ number: UInt64, _ addresses: [String], host: Int32? = nil, isUp: Bool = true) -> NamespaceView {
        NamespaceView(
            path: "/run/netns/ns\(number)", identity: NamespaceIdentity(device: 4, inode: number),
            interfaces: [
                .init(
                    name: "eth0", hostIndex: host ?? Int32(number), isUp: isUp,
                    addresses: Set(addresses.map(address)))
            ])
    }
    private func pod(
        _ name: String, _ addresses: [String], sandbox: UInt64? = nil, previous: UInt64? = nil
    ) -> WantedPod {
        WantedPod(
            name: name, label: "ns/\(name)", addresses: Set(addresses.map(address)),
            sandbox: sandbox.map {
                PodLocation(
                    path: "/host/ns\($0)", interface: "eth0", identity: NamespaceIdentity(device: 4, inode: $0))
            },
            previous: previous.map {
                PodInterface(name: name, networkNamespace: "/run/netns/ns\($0)", interface: "eth0")
            })
    }
    private func find(_ views: [NamespaceView], _ pods: [WantedPod]) -> (places: [String: UInt64], problems: Int) {
        var search = PodSearch(views)
        search.find(pods)
        return (search.locations.mapValues { $0.identity.inode }, search.problems.count)
    }

    @Test func byAddress() {
        let found = find(
            [view(1, ["10.0.0.1"]), view(2, ["10.0.0.2", "fd00::2"])],
            [pod("a", ["10.0.0.1"]), pod("b", ["fd00::2", "10.0.0.2"]), pod("c", ["10.0.0.3"])])
        #expect(found.places == ["a": 1, "b": 2])
        #expect(found.problems == 0)
    }

    @Test(
        "An address in two namespaces: the one that holds all of the pod's addresses, else the newest, and it is reported"
    )
    func twice() {
        let both = find(
            [view(1, ["10.0.0.1", "fd00::1"]), view(2, ["10.0.0.1"])], [pod("a", ["10.0.0.1", "fd00::1"])])
        #expect(both.places == ["a": 1] && both.problems == 0)
        let newest = find([view(1, ["10.0.0.1"]), view(2, ["10.0.0.1"])], [pod("a", ["10.0.0.1"])])
        #expect(newest.places == ["a": 2] && newest.problems == 1)
        let alive = find([view(1, ["10.0.0.1"]), view(2, ["10.0.0.1"], isUp: false)], [pod("a", ["10.0.0.1"])])
        #expect(alive.places == ["a": 1])
    }

    @Test("A pod stays where it is; a new pod with its address gets the other namespace")
    func stays() {
        let views = [view(1, ["10.0.0.1"]), view(2, ["10.0.0.1"])]
        let old = find(views, [pod("old", ["10.0.0.1"], previous: 1)])
        #expect(old.places == ["old": 1] && old.problems == 0)
        let reused = find(views, [pod("a-new", ["10.0.0.1"]), pod("old", ["10.0.0.1"], previous: 1)])
        #expect(reused.places == ["old": 1, "a-new": 2] && reused.problems == 0)
    }

    @Test("What the plugin has said counts more than addresses, and nobody else gets that namespace")
    func sandbox() {
        let views = [view(1, ["10.0.0.1"]), view(2, ["10.0.0.1"])]
        let known = find(views, [pod("a", ["10.0.0.1"], sandbox: 1)])
        #expect(known.places == ["a": 1] && known.problems == 0)
        let other = find(views, [pod("a", ["10.0.0.1"]), pod("b", ["10.0.0.1"], sandbox: 2)])
        #expect(other.places == ["a": 1, "b": 2])
        // Its path as we see it, not as the plugin saw it.
        var search = PodSearch(views)
        search.find([pod("a", ["10.0.0.1"], sandbox: 1)])
        #expect(search.locations["a"]?.path == "/run/netns/ns1")
        // A sandbox whose namespace has gone says nothing.
        #expect(find(views, [pod("a", ["10.0.0.1"], sandbox: 9)]).places == ["a": 2])
    }

    @Test("Two pods never get one namespace")
    func exclusive() {
        let found = find([view(1, ["10.0.0.1"])], [pod("a", ["10.0.0.1"]), pod("b", ["10.0.0.1"])])
        #expect(found.places == ["a": 1])
    }
}

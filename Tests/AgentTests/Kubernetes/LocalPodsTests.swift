import Cluster
import Datapath
import Netlink
import Testing

@testable import Agent

/// What the operator wants and what the CNI plugin has told, put together.
@Suite struct LocalPodsTests {
    private func endpoint(
        _ uid: String, _ addresses: [String], mode: Mode = .strict, headers: Headers = .visible
    ) -> EncryptionNodeObject.Endpoint {
        .init(
            name: uid, pod: .init(namespace: "shop", name: "web", uid: uid),
            addresses: addresses.map { try! IPAddress($0) }, mode: mode, headers: headers, policies: [])
    }
    private func sandbox(
        _ uid: String, _ addresses: [String], _ protection: Mode? = .strict, inode: UInt64 = 1, at: Int64 = 0
    ) -> Sandbox {
        Sandbox(
            containerID: "c\(inode)", interface: "eth0", uid: uid, podNamespace: "shop", podName: "web",
            networkNamespace: "/run/netns/\(inode)", identity: NamespaceIdentity(device: 4, inode: inode),
            addresses: addresses.map { try! IPAddress($0) }, protection: protection, added: Timestamp(milliseconds: at))
    }

    @Test("A pod that starts is protected before it stands in the spec, and the spec takes over")
    func takesOver() throws {
        let early = LocalPods(spec: [], sandboxes: [sandbox("a", ["10.0.0.1"])])
        #expect(early.pods["a"]?.mode == .strict && early.pods["a"]?.label == "shop/web" && early.takenOver.isEmpty)
        let known = LocalPods(spec: [endpoint("a", ["10.0.0.1", "fd00::1"])], sandboxes: [sandbox("a", ["10.0.0.1"])])
        #expect(known.pods["a"]?.addresses.count == 2 && known.takenOver.count == 1)
        #expect(known.pods["a"]?.sandbox?.identity.inode == 1)
        // Released, it lends its place only.
        #expect(LocalPods(spec: [], sandboxes: [sandbox("a", ["10.0.0.1"], nil)]).pods.isEmpty)
    }

    @Test("A sandbox that was made anew with other addresses goes before an older spec")
    func newAddresses() throws {
        let pods = LocalPods(
            spec: [endpoint("a", ["10.0.0.1"])],
            sandboxes: [sandbox("a", ["10.0.0.1"], nil, inode: 1), sandbox("a", ["10.0.0.2"], inode: 2, at: 1)])
        #expect(pods.pods["a"]?.addresses == [try IPAddress("10.0.0.2")])
        #expect(pods.pods["a"]?.sandbox?.identity.inode == 2)
        #expect(pods.takenOver.isEmpty)
    }

    @Test("The stricter mode holds while both speak")
    func modes() {
        let pods = LocalPods(
            spec: [endpoint("a", ["10.0.0.1"], mode: .permissive)], sandboxes: [sandbox("a", ["10.0.0.1"], .strict)])
        #expect(pods.pods["a"]?.mode == .strict)
    }

    @Test("Headers are as the spec says, whatever the plugin told before")
    func headers() {
        let wanted = [endpoint("a", ["10.0.0.1"], headers: .hidden), endpoint("b", ["10.0.0.2"])]
        let told = [sandbox("a", ["10.0.0.1"]), sandbox("c", ["10.0.0.3"], inode: 3)]
        let pods = LocalPods(spec: wanted, sandboxes: told)
        let endpoints = pods.endpoints(node: "n", PodFinder.Findings(missing: ["a", "b", "c"]), attached: [:])
        #expect(endpoints.mapValues(\.headers) == ["a": .hidden, "b": .visible, "c": .visible])
    }

    @Test("A pod that was not found keeps its place; one that never had one is nowhere, and not gone")
    func notFound() throws {
        let pods = LocalPods(spec: [endpoint("a", ["10.0.0.1"]), endpoint("b", ["10.0.0.2"])], sandboxes: [])
        let attached = ["a": PodInterface(name: "a", networkNamespace: "/run/netns/x", interface: "net1")]
        let endpoints = pods.endpoints(node: "n", PodFinder.Findings(missing: ["a", "b"]), attached: attached)
        #expect(endpoints["a"]?.networkNamespace == "/run/netns/x" && endpoints["a"]?.interface == "net1")
        #expect(endpoints["b"]?.networkNamespace == "/no-namespace-has-10.0.0.2")
        for endpoint in endpoints.values { try endpoint.check() }
    }
}

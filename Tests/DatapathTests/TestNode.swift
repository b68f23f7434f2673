import BPF
import Datapath
import Glibc
import Keys
import Testing

/// A node's network namespace with a pod behind a veth, and folders for pins and records; all go when the value does.
final class TestNode {
    let suffix = "\(getpid())-\(UInt32.random(in: 0..<1 << 24))"
    let node: String
    let podNamespace: String
    let options: Datapath.Options

    init(podMTU: Int = 1500) throws {
        node = "base-node-\(suffix)"
        podNamespace = "base-pod-\(suffix)"
        options = Datapath.Options(
            nodeID: 7, pinPath: "/sys/fs/bpf/base-test-\(suffix)", stateDirectory: "/tmp/base-test-\(suffix)",
            capacity: Datapath.Capacity(peers: 15, endpoints: 64, strictCIDRs: 16, windows: 64))
        try BPFFileSystem.mount()
        for line in [
            "ip netns add \(node)", "ip netns add \(podNamespace)",
            "ip -n \(node) link add host0 mtu \(podMTU) type veth peer name eth0 mtu \(podMTU) netns \(podNamespace)",
            "ip -n \(node) addr add 10.8.0.1/24 dev host0", "ip -n \(node) link set host0 up",
            "ip -n \(podNamespace) addr add 10.8.0.2/24 dev eth0",
            "ip -n \(podNamespace) addr add fd08::2/64 dev eth0 nodad", "ip -n \(podNamespace) link set eth0 up",
            "ip -n \(podNamespace) route add default via 10.8.0.1",
            "ip -n \(podNamespace) route add 10.77.0.0/16 via 10.8.0.1 mtu 1300",
            "ip -n \(podNamespace) -6 route add default via fd08::1",
        ] {
            try #require(shell(line) != nil, "\(line)")
        }
    }

    deinit {
        try? Datapath.removeAll(pinPath: options.pinPath, stateDirectory: options.stateDirectory)
        for name in [podNamespace, node] { shell("ip netns del \(name) 2>&1") }
        shell("rm -rf \(options.stateDirectory)")
    }

    var pod: PodInterface {
        PodInterface(name: "default.web-0", networkNamespace: "/run/netns/\(podNamespace)", interface: "eth0")
    }

    /// Runs as a daemon of this node would: in its network namespace.
    func inNode<R>(_ body: () throws -> R) throws -> R {
        try NetworkNamespace.run(path: "/run/netns/\(node)", body).get()
    }

    /// Everything that attaching may change in the pod, as the tools show it.
    func podSettings() -> [String] {
        [
            shell("ip -n \(podNamespace) -4 route show table all") ?? "",
            // The kernel makes the link's own routes a moment after the link is up.
            shell("ip -n \(podNamespace) -6 route show table all | grep -v -e fe80 -e ^multicast") ?? "",
            shell("ip netns exec \(podNamespace) ethtool -k eth0") ?? "",
        ]
    }

    /// Programs on the devices, as the kernel reports them.
    func attachedPrograms() throws -> [String] {
        let host = shell("ip -n \(node) -d link show host0") ?? ""
        let inside = shell("ip -n \(podNamespace) -d link show eth0") ?? ""
        return [host.contains("prog/xdp") ? "encrypt" : "", inside.contains("prog/xdp") ? "decrypt" : ""].filter {
            !$0.isEmpty
        }
    }

    var pins: [String] {
        (shell("find \(options.pinPath) -type f 2> /dev/null | sort") ?? "").split(separator: "\n").map {
            String($0.dropFirst(options.pinPath.utf8.count + 1))
        }
    }
}

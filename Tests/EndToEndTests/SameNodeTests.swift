import FoundationEssentials
import Glibc
import Netlink
import Testing

@testable import Lab

extension EndToEnd {
    /// Pods of one node talk in clear. Nobody in the network can say that he is one of them.
    @Suite struct SameNodeTests {
        /// Two pods on node 2; node 1 is where the forger sits.
        private static let plan = Lab.Plan(nodes: 2, podsPerNode: 2)

        /// Traffic from the first pod of node 2 to the second.
        private func neighbours(_ bench: Bench) throws -> Traffic {
            let pods = bench.nodes[1].pods
            return try Traffic(bench.lab, from: pods[0], to: pods[1], marker: EndToEnd.marker)
        }

        /// How strictly node 2 checks source addresses: 0 not at all, 1 as the lab does, 2 as systemd's distributions do.
        private func setReversePathFilter(_ mode: Int, _ bench: Bench) throws {
            for name in ["all", "default", bench.nodes[1].uplink] {
                try bench.lab.require(
                    ["sysctl", "-qw", "net.ipv4.conf.\(name).rp_filter=\(mode)"], in: bench.nodes[1].namespace)
            }
        }

        /// Who says that he is a neighbour of the pod.
        private enum Forger {
            case network
            /// On the host's end of the pod's veth.
            case host
            /// Another pod of the node, to this device of the host's namespace.
            case pod(Lab.Pod, by: String)
        }

        /// Sends packets under the address of a neighbour of the pod, and waits for their verdict.
        private func forge(
            _ bench: Bench, source: Lab.Pod? = nil, _ name: String, family: Int, count: Int,
            as forger: Forger = .network, verdict: String = "spoofed", _ what: String
        ) throws {
            let (lab, receiver) = (bench.lab, bench.nodes[1])
            let pod = receiver.pods[0]
            let (place, interface, mac, options): (Namespace, String, String, [String]) =
                switch forger {
                case .network:
                    (
                        bench.nodes[0].namespace, bench.nodes[0].uplink,
                        try lab.hardwareAddress(of: receiver.uplink, in: receiver.namespace), []
                    )
                case .host:
                    (
                        receiver.namespace, pod.hostInterface,
                        try lab.hardwareAddress(of: pod.interface, in: pod.namespace), ["--once"]
                    )
                case .pod(let other, by: let device):
                    (
                        other.namespace, other.interface,
                        try lab.hardwareAddress(of: device, in: receiver.namespace), []
                    )
                }
            let before = try bench.encryption.verdicts(receiver)
            let output = try lab.require(
                [
                    Python.interpreter, try Python.script("inject.py"), "same-node", "--keys", bench.encryption.keys,
                    "--interface", interface, "--mac", mac, "--from", "1", "--to", "2",
                    "--source", (source ?? receiver.pods[1]).address(family: family), "--destination",
                    pod.address(family: family), "--protocol", name, "--count", "\(count)",
                ] + options, in: place, seconds: 300)
            #expect(output.contains("\"expected\": {\"spoofed\": \(count)}"), "\(output)")
            var counted = Verdicts(packets: [:])
            try? wait(for: "the verdicts", until: .seconds(5)) {
                counted = try bench.encryption.verdicts(receiver).since(before)
                return counted[verdict] >= count
            }
            // What gets through is answered.
            #expect(
                verdict == "pass_same_node" ? counted[verdict] >= count : counted[verdict] == count,
                "\(what): \(name) over IPv\(family): \(counted)")
            #expect(counted.drops == (verdict == "spoofed" ? ["spoofed": count] : [:]), "\(what)")
        }

        @Test("Packets from the network under the address of a pod of the receiving node", arguments: [0, 2])
        func forged(reversePathFilter: Int) throws {
            try Bench.with(Self.plan) { bench in
                try bench.encryption.refreshKeys()
                try setReversePathFilter(reversePathFilter, bench)
                let (across, inside) = (try bench.traffic(), try neighbours(bench))
                let before = try bench.verdicts()
                let streams = [
                    (across, try across.start("stream", family: 4, "--rate", "500")),
                    (inside, try inside.start("stream", family: 4, "--rate", "500")),
                    (inside, try inside.start("stream", family: 6, "--rate", "200")),
                ]
                let what = "rp_filter \(reversePathFilter)"
                for family in [4, 6] {
                    for name in ["udp", "tcp", "echo"] {
                        try forge(bench, name, family: family, count: size(300, full: 10_000), what)
                    }
                    // Under its own address, and as the host itself, which no pod is.
                    let pod = bench.nodes[1].pods[0]
                    try forge(bench, source: pod, "udp", family: family, count: 100, "its own address")
                    try forge(bench, "tcp", family: family, count: 100, as: .host, "on the veth")
                }
                for (traffic, stream) in streams { expectUnharmed(try traffic.finish(stream)) }
                let counted = try bench.encryption.verdicts(bench.nodes[1]).since(before[1])
                // Each packet of the two streams leaves one pod and enters the other, there and back.
                #expect(counted["pass_same_node"] > 4000)
                #expect(counted["decrypted"] > 1000)
                #expect(counted["pass_cleartext"] == 0)
                #expect(try bench.encryption.verdicts(bench.nodes[0]).since(before[0]).drops == [:])
            }
        }

        @Test("Permissive pods accept them, and count them")
        func permissive() throws {
            try Bench.with(Self.plan, mode: "permissive") { bench in
                try bench.encryption.refreshKeys()
                try setReversePathFilter(0, bench)
                for family in [4, 6] {
                    try forge(bench, "udp", family: family, count: 100, verdict: "pass_cleartext", "permissive")
                }
            }
        }

        @Test("Pods on a bridge, routed and switched")
        func bridged() throws {
            try onBridge(Self.plan) { bench in
                let (lab, encryption, node) = (bench.lab, bench.encryption, bench.nodes[1])
                let inside = try neighbours(bench)
                for routed in [true, false] {
                    if !routed { try connectDirectly(lab, node) }
                    let before = try bench.verdicts()
                    for family in [4, 6] {
                        try inside.run("file", family: family, "--bytes", "1000000")
                        try inside.ping(family: family)
                    }
                    let what = routed ? "routed" : "switched"
                    #expect(try bench.drops(since: before) == [:], "\(what)")
                    #expect(try encryption.verdicts(node).since(before[1])["pass_same_node"] > 100, "\(what)")
                    for family in [4, 6] {
                        try forge(bench, "udp", family: family, count: 300, what)
                        try forge(bench, "tcp", family: family, count: 300, what)
                    }
                }
                expectClean(try bench.decoding { try bench.traffic().run("file", family: 6, "--bytes", "300000") })
            }
        }

        @Test("A pod without protection, on the same bridge")
        func unprotectedNeighbour() throws {
            try onBridge(Lab.Plan(nodes: 2, podsPerNode: 3)) { bench in
                let (lab, encryption, node) = (bench.lab, bench.encryption, bench.nodes[1])
                let stranger = node.pods[2]
                encryption.withdraw(stranger)
                try wait(for: "\(stranger.name) to be let go", until: .seconds(20)) {
                    try encryption.object(node)?.endpoints.count == 2
                        && encryption.allPins(node).count { $0.hasSuffix("/local") } == 2
                }
                // What goes from port to port is not concerned.
                let inside = try neighbours(bench)
                try connectDirectly(lab, node)
                let before = try bench.verdicts()
                for family in [4, 6] { try inside.run("file", family: family, "--bytes", "1000000") }
                #expect(try bench.drops(since: before) == [:])
                for family in [4, 6] {
                    for name in ["udp", "tcp", "echo"] {
                        let forger = Forger.pod(stranger, by: "br0")
                        try forge(bench, name, family: family, count: 100, as: forger, "by the bridge's address")
                    }
                }
            }
        }

        /// Runs `body` with all pods protected, those of the second node on a bridge, and without reverse path filters.
        private func onBridge(_ plan: Lab.Plan, _ body: (Bench) throws -> Void) throws {
            try Lab.with(plan) { lab in
                try bridge(lab, lab.nodes[1])
                let encryption = try Encryption(lab)
                try encryption.start()
                let bench = Bench(lab: lab, encryption: encryption)
                try encryption.refreshKeys()
                try setReversePathFilter(0, bench)
                try body(bench)
            }
        }

        /// Puts a node's pods on a bridge, which takes over the addresses of the host's ends.
        private func bridge(_ lab: Lab, _ node: Lab.Node) throws {
            let host = node.namespace
            // The pods stay with their gateway when it says that there is a shorter way.
            for name in ["all", "default"] {
                try lab.require(["sysctl", "-qw", "net.ipv4.conf.\(name).send_redirects=0"], in: host)
            }
            for pod in node.pods {
                for setting in ["ipv4.conf.all", "ipv4.conf.eth0", "ipv6.conf.all", "ipv6.conf.eth0"] {
                    try lab.require(["sysctl", "-qw", "net.\(setting).accept_redirects=0"], in: pod.namespace)
                }
            }
            try lab.require(["ip", "link", "add", "br0", "type", "bridge"], in: host)
            try lab.require(["ip", "link", "set", "br0", "up"], in: host)
            for pod in node.pods {
                let index = 201 + pod.index
                try lab.require(["ip", "addr", "flush", "dev", pod.hostInterface], in: host)
                try lab.require(["ip", "link", "set", pod.hostInterface, "master", "br0"], in: host)
                try lab.require(["ip", "addr", "add", "10.\(index).\(node.number).1/24", "dev", "br0"], in: host)
                try lab.require(
                    ["ip", "addr", "add", "fd00:\(index):\(node.number)::1/64", "dev", "br0", "nodad"], in: host)
            }
        }

        /// Routes between a node's two pods without a gateway: over the bridge.
        private func connectDirectly(_ lab: Lab, _ node: Lab.Node) throws {
            for (pod, other) in [(node.pods[0], node.pods[1]), (node.pods[1], node.pods[0])] {
                for family in [4, 6] {
                    try lab.require(
                        ["ip", "-\(family)", "route", "add", other.address(family: family), "dev", pod.interface],
                        in: pod.namespace)
                }
            }
        }

        @Test("keymgr killed, restarted, and in place of a build without the hook: nothing stops, nothing gets through")
        func survives() throws {
            try Bench.with(Self.plan) { bench in
                let node = bench.nodes[1]
                try bench.encryption.refreshKeys()
                try setReversePathFilter(2, bench)
                let inside = try neighbours(bench)
                let stream = try inside.start("stream", family: 4, "--rate", "500")
                try bench.encryption.stop(node, SIGKILL)
                try forge(bench, "udp", family: 4, count: 300, "without keymgr")
                try bench.encryption.start(node)
                try bench.encryption.waitUntilReady(.seconds(20))
                try forge(bench, "udp", family: 4, count: 300, "after a restart")

                // What an earlier build would have left: no program on the host's ends, no map of them.
                try bench.encryption.stop(node)
                let programs = bench.encryption.pins(node) + "/programs"
                let build = try #require(entries(of: programs).first)
                try #require(rename("\(programs)/\(build)", "\(programs)/00000000000000aa") == 0)
                let pins = bench.encryption.allPins(node).filter {
                    ["local", "xe_local", "host_ends"].contains($0.split(separator: "/").last)
                }
                #expect(pins.count == 2 + 1 + 1)
                for pin in pins { try #require(unlink(pin) == 0) }
                let before = try bench.verdicts()
                try bench.encryption.start(node)
                try wait(for: "the hooks", until: .seconds(20)) {
                    bench.encryption.allPins(node).count { $0.hasSuffix("/local") } == 2
                }
                try bench.encryption.waitUntilReady(.seconds(20))
                #expect(!bench.encryption.allPins(node).contains { $0.contains("00000000000000aa") })
                #expect(try bench.drops(since: before) == [:])
                try forge(bench, "udp", family: 4, count: 300, "after an upgrade")
                expectUnharmed(try inside.finish(stream))

                // Without it they would get through: it is this hook that holds them up.
                try bench.encryption.stop(node)
                for pin in bench.encryption.allPins(node) where pin.hasSuffix("/local") { unlink(pin) }
                try forge(bench, "udp", family: 4, count: 100, verdict: "pass_same_node", "without the hook")
            }
        }
    }
}

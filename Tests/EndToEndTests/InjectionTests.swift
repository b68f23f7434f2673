import FoundationEssentials
import Testing

@testable import Lab

extension EndToEnd {
    /// Packets that must not get through, under good traffic. The oracle (Tests/peers/receiver.py) says which verdict each must
    /// get; the kernel's counters must say the same, one by one.
    @Suite struct InjectionTests {
        /// Where packets are put in.
        enum Place: String {
            /// On the link, at the sending node: as somebody in the network can.
            case link
            /// On the host's end of the pod's veth: behind the receiving node's IP stack, which would drop most broken packets itself.
            case veth
        }

        struct Injected: Decodable {
            var sent: Int
            var expected: [String: Int]
        }

        /// Injects packets from node `from` to the pod of node 2, and compares verdicts.
        private func inject(
            _ kind: String, _ bench: Bench, at place: Place, from: Int = 1, source: Lab.Pod,
            protocol name: String = "udp",
            family: Int = 4, count: Int
        ) throws {
            let (lab, receiver) = (bench.lab, bench.nodes[1])
            let pod = receiver.pods[0]
            let injection = place == .link ? bench.nodes[from - 1].namespace : receiver.namespace
            let interface = place == .link ? bench.nodes[from - 1].uplink : pod.hostInterface
            let target = place == .link ? (receiver.namespace, receiver.uplink) : (pod.namespace, pod.interface)
            let before = try bench.encryption.verdicts(receiver)
            let output = try lab.require(
                [
                    Python.interpreter, try Python.script("inject.py"), kind, "--keys", bench.encryption.keys,
                    "--interface",
                    interface, "--mac", try lab.hardwareAddress(of: target.1, in: target.0), "--from", "\(from)",
                    "--to", "2",
                    "--source", source.address(family: family), "--destination", pod.address(family: family),
                    "--protocol",
                    name, "--strict-cidr", "10.200.0.0/13", "--strict-cidr", "fd00:200::/24", "--count", "\(count)",
                ], in: injection, seconds: 300)
            let injected = try JSONDecoder().decode(Injected.self, from: Data(output.utf8))
            let expectedDrops = Verdicts(packets: injected.expected).drops
            let what = "\(kind) \(name)\(family) on the \(place.rawValue)"
            // The last packets may still be on their way.
            var drops: [String: Int] = [:]
            try? wait(for: "the verdicts", until: .seconds(5)) {
                drops = try bench.encryption.verdicts(receiver).since(before).drops
                return drops == expectedDrops
            }
            #expect(drops == expectedDrops, "\(what): \(injected.sent) sent")
            #expect(injected.sent >= count, "\(what)")
        }

        @Test(
            "Replayed, reordered, aged, clear, unknown, spoofed, truncated, random, and every field flipped or forged")
        func refused() throws {
            let count = size(300, full: 10_000)
            try Bench.with(Lab.Plan(nodes: 3)) { bench in
                try bench.encryption.refreshKeys()
                let traffic = try bench.traffic()
                let stream = try traffic.start("stream", family: 4, "--rate", "2000")
                let stream6 = try traffic.start("stream", family: 6, "--rate", "200")
                let sender = bench.nodes[0].pods[0]
                let others = try [bench.nodes[0], bench.nodes[2]].map { try bench.encryption.verdicts($0) }

                for kind in ["replay", "captured", "aged", "reorder", "cleartext", "unknown-spi", "truncated"] {
                    try inject(kind, bench, at: .link, source: sender, count: count)
                }
                for kind in ["replay", "cleartext", "unknown-spi", "truncated"] {
                    try inject(kind, bench, at: .link, source: sender, protocol: "tcp", family: 6, count: count)
                }
                // Node 3 seals under its own key and lies about the source: an address of node 1.
                for family in [4, 6] {
                    try inject("spoofed", bench, at: .link, from: 3, source: sender, family: family, count: count)
                }
                try inject("random", bench, at: .veth, source: sender, count: count)
                for family in [4, 6] {
                    for name in ["udp", "tcp", "echo"] {
                        for change in ["flip:all", "forge:all"] {
                            try inject(
                                change, bench, at: .veth, source: sender, protocol: name, family: family,
                                count: size(16, full: 10_000))
                        }
                    }
                }

                expectUnharmed(try traffic.finish(stream))
                expectUnharmed(try traffic.finish(stream6))
                for (node, before) in zip([bench.nodes[0], bench.nodes[2]], others) {
                    #expect(try bench.encryption.verdicts(node).since(before).drops == [:])
                }
            }
        }

        @Test("Clear text from an address in a strict CIDR that nobody has published")
        func unknownPeer() throws {
            try Bench.with(Lab.Plan(nodes: 2, podsPerNode: 2)) { bench in
                // The second pod of node 1 is not protected any more; senders and receivers must have heard of it.
                bench.encryption.withdraw(bench.nodes[0].pods[1])
                try wait(for: "the end of protection", until: .seconds(30)) {
                    try bench.encryption.object(bench.nodes[0])?.endpoints.count == 1
                }
                let before = try bench.encryption.verdicts(bench.nodes[1])
                let stranger = bench.nodes[0].pods[1]
                try wait(for: "unknown_peer", until: .seconds(20)) {
                    _ = try bench.lab.run(
                        ["ping", "-c", "3", "-i", "0.01", "-W", "1", bench.nodes[1].pods[0].address],
                        in: stranger.namespace)
                    return try bench.encryption.verdicts(bench.nodes[1]).since(before)["unknown_peer"] >= 3
                }
            }
        }

        @Test("Permissive pods accept clear text, and count it")
        func permissive() throws {
            try Bench.with(mode: "permissive") { bench in
                try bench.encryption.refreshKeys()
                let (pod, receiver) = (bench.nodes[1].pods[0], bench.nodes[1])
                let before = try bench.encryption.verdicts(receiver)
                try bench.lab.require(
                    [
                        Python.interpreter, try Python.script("inject.py"), "cleartext", "--keys",
                        bench.encryption.keys,
                        "--interface", bench.nodes[0].uplink, "--mac",
                        try bench.lab.hardwareAddress(of: receiver.uplink, in: receiver.namespace), "--from", "1",
                        "--to", "2",
                        "--source", bench.nodes[0].pods[0].address, "--destination", pod.address, "--count", "100",
                    ], in: bench.nodes[0].namespace)
                var counted = before
                try wait(for: "counted clear text: \(counted)", until: .seconds(5)) {
                    counted = try bench.encryption.verdicts(receiver).since(before)
                    return counted["pass_cleartext"] == 100
                }
                let traffic = try bench.traffic()
                expectClean(try bench.decoding { try traffic.run("file", family: 4, "--bytes", "1000000") })
            }
        }
    }
}

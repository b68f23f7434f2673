import Testing

@testable import Lab

extension EndToEnd {
    /// A CNI that sends packets past XDP, as Cilium's host routing does with `bpf_redirect_peer`.
    @Suite struct RedirectPeerTests {
        @Test("Packets that bypass XDP are decrypted, and clear text among them is refused")
        func guarded() throws {
            try Bench.with { bench in
                let (lab, node) = (bench.lab, bench.nodes[1])
                let pod = node.pods[0]
                try redirect(lab, node, pod)
                let before = try bench.verdicts()
                let throughHost = try transmitted(lab, node, pod)

                let traffic = try bench.traffic()
                let report = try bench.decoding {
                    for family in [4, 6] {
                        try traffic.run("file", family: family, "--bytes", "4000000")
                        try traffic.run("sizes", family: family, "--first", "0", "--last", "300")
                        try traffic.run("sizes", family: family, "--first", "1350", "--last", "1372")
                        try traffic.run("odd", family: family)
                        try traffic.ping(family: family)
                    }
                }
                expectClean(report)
                #expect(try bench.drops(since: before) == [:])
                #expect(try bench.verdicts()[1].since(before[1])["decrypted"] > 3000)
                // Nothing but neighbour discovery may have taken the usual way, or this has tested nothing.
                #expect(try transmitted(lab, node, pod) - throughHost < 50)

                let count = size(300, full: 10_000)
                let drops = try bench.encryption.verdicts(node)
                try lab.require(
                    [
                        Python.interpreter, try Python.script("inject.py"), "cleartext", "--keys",
                        bench.encryption.keys,
                        "--interface", bench.nodes[0].uplink, "--mac",
                        try lab.hardwareAddress(of: node.uplink, in: node.namespace), "--from", "1", "--to", "2",
                        "--source",
                        bench.nodes[0].pods[0].address, "--destination", pod.address, "--count", "\(count)",
                    ], in: bench.nodes[0].namespace)
                try wait(for: "\(count) refused packets", until: .seconds(5)) {
                    try bench.encryption.verdicts(node).since(drops).drops == ["cleartext": count]
                }
            }
        }

        /// Compiles the program for this pod and attaches it to the node's uplink.
        private func redirect(_ lab: Lab, _ node: Lab.Node, _ pod: Lab.Pod) throws {
            let object = lab.directory + "/redirect_peer.o"
            let link = try lab.require(["ip", "-o", "link", "show", "dev", pod.hostInterface], in: node.namespace)
            let index = try #require(Int(link.prefix { $0 != ":" }))
            let mac = try lab.hardwareAddress(of: pod.interface, in: pod.namespace)
                .split(separator: ":").map { "0x" + $0 }.joined(separator: ",")
            let groups: [UInt16] = [0xfd00, UInt16(0x201), UInt16(pod.node), 0, 0, 0, 0, 2]
            let ipv6 = groups.flatMap { ["\($0 >> 8)", "\($0 & 0xff)"] }.joined(separator: ",")
            try lab.require([
                "clang", "-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-I/usr/include/x86_64-linux-gnu",
                "-I/usr/include/aarch64-linux-gnu", "-DPOD_INDEX=\(index)", "-DPOD_MAC=\(mac)",
                "-DPOD_IPV4=" + pod.address.split(separator: ".").joined(separator: ","), "-DPOD_IPV6=\(ipv6)", "-c",
                try Python.script("bpf/redirect_peer.bpf.c"), "-o", object,
            ])
            try lab.require(["tc", "qdisc", "add", "dev", node.uplink, "clsact"], in: node.namespace)
            try lab.require(
                ["tc", "filter", "add", "dev", node.uplink, "ingress", "bpf", "da", "obj", object, "sec", "tc"],
                in: node.namespace)
        }

        /// How many packets the host's end of the pod's veth has sent into the pod.
        private func transmitted(_ lab: Lab, _ node: Lab.Node, _ pod: Lab.Pod) throws -> Int {
            let output = try lab.require(
                ["ip", "-s", "-o", "link", "show", "dev", pod.hostInterface], in: node.namespace)
            let words = output.split(whereSeparator: \.isWhitespace)
            let at = try #require(words.firstIndex(of: "TX:"))
            return try #require(words[at...].compactMap { Int($0) }.dropFirst().first)
        }
    }
}

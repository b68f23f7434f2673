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

        @Test("Pods of one node: what the other has sent is accepted, what only says so is refused")
        func neighbours() throws {
            try Bench.with(Lab.Plan(nodes: 2, podsPerNode: 2)) { bench in
                let (lab, node) = (bench.lab, bench.nodes[1])
                let (pod, other) = (node.pods[0], node.pods[1])
                try bench.encryption.refreshKeys()
                for name in ["all", node.uplink] {
                    try lab.require(["sysctl", "-qw", "net.ipv4.conf.\(name).rp_filter=0"], in: node.namespace)
                }
                try redirect(lab, node, pod)
                try redirect(lab, node, pod, at: other.hostInterface)
                try redirect(lab, node, other, at: pod.hostInterface)
                let before = try bench.verdicts()
                let throughHost = try [pod, other].map { try transmitted(lab, node, $0) }

                // Somebody watches, too: that must not cost a packet its metadata.
                let watcher = try lab.start(
                    ["tcpdump", "-i", pod.hostInterface, "-w", "/dev/null", "-n", "-Z", "root"], in: node.namespace)
                try wait(for: "tcpdump to listen", until: .seconds(10)) { watcher.errors.contains("listening on") }
                let inside = try Traffic(lab, from: pod, to: other, marker: EndToEnd.marker)
                let across = try bench.traffic()
                for family in [4, 6] {
                    try inside.run("file", family: family, "--bytes", "4000000")
                    try inside.run("odd", family: family)
                    try inside.ping(family: family)
                    try across.run("file", family: family, "--bytes", "100000")
                }
                lab.stop(watcher)
                #expect(try bench.drops(since: before) == [:])
                #expect(try bench.encryption.verdicts(node).since(before[1])["pass_same_node"] > 3000)
                for (pod, earlier) in zip([pod, other], throughHost) {
                    #expect(try transmitted(lab, node, pod) - earlier < 50)
                }

                let stream = try inside.start("stream", family: 6, "--rate", "500")
                let count = size(300, full: 10_000)
                for family in [4, 6] {
                    for name in ["udp", "tcp"] {
                        let drops = try bench.encryption.verdicts(node)
                        try lab.require(
                            [
                                Python.interpreter, try Python.script("inject.py"), "same-node", "--keys",
                                bench.encryption.keys, "--interface", bench.nodes[0].uplink, "--mac",
                                try lab.hardwareAddress(of: node.uplink, in: node.namespace), "--from", "1", "--to",
                                "2", "--source", other.address(family: family), "--destination",
                                pod.address(family: family), "--protocol", name, "--count", "\(count)",
                            ], in: bench.nodes[0].namespace, seconds: 300)
                        try wait(for: "\(count) refused packets of \(name) over IPv\(family)", until: .seconds(5)) {
                            try bench.encryption.verdicts(node).since(drops).drops == ["spoofed": count]
                        }
                    }
                }
                expectUnharmed(try inside.finish(stream))
            }
        }

        /// A pod that forwards a packet hands on the metadata that its own XDP program has put there: "judged". At the next pod that
        /// must not count, or whatever is routed through a pod would pass unseen.
        @Test("What was judged at one pod is judged again at the next")
        func forwarded() throws {
            try Lab.with(Lab.Plan(nodes: 2, podsPerNode: 2)) { lab in
                let encryption = try Encryption(lab)
                // Without strict CIDRs: a pod may send from an address that is not its own to a pod of its node.
                let cluster = encryption.cluster + "/cluster.json"
                try writeFile(
                    cluster,
                    try readFile(cluster).split(separator: "\"10.200.0.0/13\", \"fd00:200::/24\"").joined())
                try encryption.start()
                let bench = Bench(lab: lab, encryption: encryption)
                let node = bench.nodes[1]
                let (pod, router) = (node.pods[0], node.pods[1])
                let stranger = "192.0.2.1"
                try bench.encryption.refreshKeys()
                for (namespace, device) in [(node.namespace, node.uplink), (router.namespace, router.interface)] {
                    for setting in [
                        "all.rp_filter", "\(device).rp_filter", "all.send_redirects", "\(device).send_redirects",
                    ] {
                        try lab.require(["sysctl", "-qw", "net.ipv4.conf.\(setting)=0"], in: namespace)
                    }
                }
                for name in ["all", "pod0", "pod1"] {
                    try lab.require(["sysctl", "-qw", "net.ipv4.conf.\(name).rp_filter=0"], in: node.namespace)
                }
                try lab.require(["sysctl", "-qw", "net.ipv4.ip_forward=1"], in: router.namespace)
                // From the link to the router, and from there by bpf_redirect_peer to the pod.
                for command in [
                    ["rule", "add", "from", stranger, "iif", node.uplink, "lookup", "100"],
                    ["route", "add", "default", "via", router.address, "dev", router.hostInterface, "table", "100"],
                ] {
                    try lab.require(["ip"] + command, in: node.namespace)
                }
                try redirect(lab, node, pod, at: router.hostInterface)
                let before = try bench.verdicts()
                let throughHost = try transmitted(lab, node, pod)
                let count = 300
                try lab.require(
                    [
                        Python.interpreter, try Python.script("inject.py"), "cleartext", "--keys",
                        bench.encryption.keys, "--interface", bench.nodes[0].uplink, "--mac",
                        try lab.hardwareAddress(of: node.uplink, in: node.namespace), "--from", "1", "--to", "2",
                        "--source", stranger, "--destination", pod.address, "--count", "\(count)",
                    ], in: bench.nodes[0].namespace)
                // Into the router, out of it to a pod of its node, and into that. Its answers do not arrive anywhere.
                var counted = Verdicts(packets: [:])
                try? wait(for: "the verdicts", until: .seconds(5)) {
                    counted = try bench.encryption.verdicts(node).since(before[1])
                    return counted["pass_unprotected"] >= 2 * count
                }
                #expect(counted["pass_unprotected"] >= 2 * count, "\(counted)")
                #expect(counted["pass_same_node"] == count, "\(counted)")
                #expect(counted.drops == [:])
                #expect(try transmitted(lab, node, pod) - throughHost < 50)
            }
        }

        /// Compiles the program for this pod and attaches it to the node's uplink or another device.
        private func redirect(_ lab: Lab, _ node: Lab.Node, _ pod: Lab.Pod, at device: String? = nil) throws {
            let device = device ?? node.uplink
            let object = lab.directory + "/redirect_peer-\(device)-\(pod.index).o"
            let link = try lab.require(["ip", "-o", "link", "show", "dev", pod.hostInterface], in: node.namespace)
            let index = try #require(Int(link.prefix { $0 != ":" }))
            let mac = try lab.hardwareAddress(of: pod.interface, in: pod.namespace)
                .split(separator: ":").map { "0x" + $0 }.joined(separator: ",")
            let groups: [UInt16] = [0xfd00, UInt16(0x201 + pod.index), UInt16(pod.node), 0, 0, 0, 0, 2]
            let ipv6 = groups.flatMap { ["\($0 >> 8)", "\($0 & 0xff)"] }.joined(separator: ",")
            try lab.require([
                "clang", "-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-I/usr/include/x86_64-linux-gnu",
                "-I/usr/include/aarch64-linux-gnu", "-DPOD_INDEX=\(index)", "-DPOD_MAC=\(mac)",
                "-DPOD_IPV4=" + pod.address.split(separator: ".").joined(separator: ","), "-DPOD_IPV6=\(ipv6)", "-c",
                try Python.script("bpf/redirect_peer.bpf.c"), "-o", object,
            ])
            try lab.require(["tc", "qdisc", "add", "dev", device, "clsact"], in: node.namespace)
            try lab.require(
                ["tc", "filter", "add", "dev", device, "ingress", "bpf", "da", "obj", object, "sec", "tc"],
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

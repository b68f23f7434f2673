import Testing

@testable import Lab

extension EndToEnd {
    /// Good traffic of every kind: arrives whole, and only ciphertext is on the link.
    @Suite struct TrafficTests {
        @Test("Files, parallel connections, odd connections, every size, ping; IPv4 and IPv6")
        func everything() throws {
            try Bench.with { bench in
                let before = try bench.verdicts()
                let traffic = try bench.traffic()
                let report = try bench.decoding {
                    for family in [4, 6] {
                        try traffic.run("parallel", family: family, "--connections", "200")
                        try traffic.run("odd", family: family)
                        // To the route's MTU: 1500 - 60 or 80, less IP and UDP headers.
                        let largest = family == 4 ? 1440 - 28 : 1420 - 48
                        try traffic.run("sizes", family: family, "--first", "0", "--last", "\(largest)")
                        try traffic.ping(family: family)
                        try traffic.ping(family: family, count: 5, size: 1300)
                    }
                }
                expectClean(report)
                for kind in ["tcp4", "tcp6", "udp4", "udp6", "icmp4", "icmp6"] {
                    #expect(report.byKind[kind, default: 0] > 0, "\(kind)")
                }
                // Refused packets are the odd connections' own doing: none may be lost on the way.
                #expect(try bench.drops(since: before) == [:])
            }
        }

        @Test("Hidden headers: everything arrives, and the link has nothing but the tunnel")
        func hiddenHeaders() throws {
            try Bench.with(headers: "hidden") { bench in
                let before = try bench.verdicts()
                let traffic = try bench.traffic()
                let report = try bench.decoding {
                    for family in [4, 6] {
                        try traffic.run("file", family: family, "--bytes", "1000000")
                        try traffic.run("parallel", family: family, "--connections", "50")
                        try traffic.run("odd", family: family)
                        let largest = family == 4 ? 1440 - 28 : 1420 - 48
                        try traffic.run(
                            "sizes", family: family, "--first", "\(largest - 20)", "--last", "\(largest + 1)")
                        try traffic.ping(family: family)
                    }
                }
                expectClean(report)
                #expect(Set(report.byKind.keys) == ["tunnel4", "tunnel6"], "\(report.byKind)")
                #expect(try bench.drops(since: before) == [:])
            }
        }

        /// A packet socket shares every packet with the stack. What XDP has noted in front of one must still be there for the guard.
        @Test("Sockets that listen to everything, in the pods and beside them, change nothing")
        func listeners() throws {
            try Bench.with { bench in
                let script = """
                    import socket
                    listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
                    print("ready", flush=True)
                    while True: listener.recv(65536)
                    """
                for place in bench.nodes.map(\.namespace) + bench.nodes.map({ $0.pods[0].namespace }) {
                    let listener = try bench.lab.start([Python.interpreter, "-c", script], in: place)
                    try wait(for: "the listener", until: .seconds(10)) { listener.output.contains("ready") }
                }
                let before = try bench.verdicts()
                let traffic = try bench.traffic()
                for family in [4, 6] {
                    try traffic.run("file", family: family, "--bytes", "1000000")
                    try traffic.run("sizes", family: family, "--first", "0", "--last", "100")
                    try traffic.ping(family: family)
                }
                #expect(try bench.drops(since: before) == [:])
            }
        }

        @Test("A large file in each direction and family arrives with its checksum")
        func largeFile() throws {
            let bytes = size(24 << 20, full: 1 << 30)
            try Bench.with { bench in
                let before = try bench.verdicts()
                let there = try bench.traffic()
                try there.run("file", family: 4, "--bytes", "\(bytes)", seconds: 900)
                let back = try Traffic(
                    bench.lab, from: bench.nodes[1].pods[0], to: bench.nodes[0].pods[0], marker: marker)
                try back.run("file", family: 6, "--bytes", "\(bytes)", seconds: 900)
                #expect(try bench.drops(since: before) == [:])
                let sent = try bench.verdicts()[0].since(before[0])
                #expect(sent["encrypted"] > bytes / 1500)
            }
        }

        @Test("Past the MTU: fragments arrive, by tunnel", arguments: [4, 6])
        func pastTheMTU(family: Int) throws {
            try Bench.with { bench in
                let before = try bench.verdicts()
                let traffic = try bench.traffic()
                let most = family == 4 ? 1440 - 28 : 1420 - 48
                let report = try bench.decoding {
                    for first in [most - 1, 4000] {
                        try traffic.run("sizes", family: family, "--first", "\(first)", "--last", "\(first + 4)")
                    }
                    try bench.lab.require(
                        [
                            "ping", "-\(family)", "-q", "-i", "0.2", "-c", "3", "-s", "3000",
                            traffic.server.address(family: family),
                        ],
                        in: traffic.client.namespace)
                }
                expectClean(report)
                #expect(report.byKind["tunnel\(family)"] ?? 0 > 20, "\(report.byKind)")
                #expect(try bench.drops(since: before) == [:])
            }
        }

        @Test("ICMP errors arrive: a port where nobody listens", arguments: [4, 6])
        func refusedDatagrams(family: Int) throws {
            try Bench.with { bench in
                let before = try bench.verdicts()
                let traffic = try bench.traffic()
                let outcome = try bench.lab.run(
                    [
                        Python.interpreter, try Python.script("traffic.py"), "refused",
                        traffic.server.address(family: family),
                    ], in: traffic.client.namespace, seconds: 60)
                #expect(outcome.succeeded, "\(outcome.output)\(outcome.errors)")
                #expect(try bench.drops(since: before) == [:])
            }
        }

        @Test("Jumbo frames", arguments: [9000])
        func jumbo(mtu: Int) throws {
            try Bench.with(Lab.Plan(mtu: mtu)) { bench in
                let before = try bench.verdicts()
                let traffic = try bench.traffic()
                let report = try bench.decoding {
                    for family in [4, 6] {
                        let largest = family == 4 ? mtu - 60 - 28 : mtu - 80 - 48
                        try traffic.run("sizes", family: family, "--first", "\(largest - 20)", "--last", "\(largest)")
                        try traffic.run("file", family: family, "--bytes", "5000000")
                    }
                }
                expectClean(report)
                #expect(try bench.drops(since: before) == [:])
            }
        }

        @Test("Two pods of one node talk in clear, counted; nothing of it is on the link")
        func sameNode() throws {
            try Bench.with(Lab.Plan(podsPerNode: 2)) { bench in
                let before = try bench.verdicts()
                let traffic = try Traffic(
                    bench.lab, from: bench.nodes[0].pods[0], to: bench.nodes[0].pods[1], marker: marker)
                for family in [4, 6] { try traffic.ping(family: family, count: 5) }
                let after = try bench.verdicts()[0].since(before[0])
                #expect(after["pass_same_node"] >= 2 * 2 * 5)
                #expect(after["encrypted"] == 0)
                #expect(after.drops == [:])
            }
        }

        @Test("Without a key no packet leaves: keymgr with a wrong KEK")
        func noKey() throws {
            try Lab.with { lab in
                let encryption = try Encryption(lab)
                try encryption.tool("keys", "init", "--kek-file", lab.directory + "/other-kek")
                let capture = try Capture(lab, in: lab.nodes[0].namespace, interface: lab.nodes[0].uplink)
                for node in lab.nodes { try encryption.start(node, kek: lab.directory + "/other-kek") }
                try wait(for: "a complaint about the KEK", until: .seconds(15)) {
                    let daemon = try encryption.daemon(lab.nodes[0])
                    return (daemon.output + daemon.errors).contains("KEK")
                }
                // Whatever state keymgr reaches, a strict pod must not speak in clear once its programs are attached.
                try wait(for: "attached programs", until: .seconds(15)) {
                    try !lab.require(["bpftool", "-j", "net", "show"], in: lab.nodes[0].namespace).contains(
                        "\"xdp\":[]")
                }
                let outcome = try lab.run(
                    ["ping", "-c", "3", "-i", "0.05", "-W", "1", "-p", "4e4f4b4559", lab.nodes[1].pods[0].address],
                    in: lab.nodes[0].pods[0].namespace)
                #expect(outcome.output.contains(" 0 received"))
                try capture.finish()
                #expect(try lab.decode(capture.path, keys: nil, markers: ["NOKEYNOKEY"]).markerOnWire == 0)
                let verdicts = try encryption.verdicts(lab.nodes[0])
                #expect(verdicts["no_key"] + verdicts["unknown_peer"] + verdicts["not_ready"] >= 3, "\(verdicts)")
            }
        }
    }
}

import FoundationEssentials
import Glibc
import Testing

@testable import Lab

extension EndToEnd {
    /// keymgr dies, stops, comes back; pods vanish. Traffic does not care.
    @Suite struct SurvivalTests {
        @Test("keymgr killed with -9 during iperf3: nothing stops, the next one goes on, no (SPI, IV) twice")
        func killed() throws {
            try Bench.with { bench in
                let before = try bench.verdicts()
                let traffic = try bench.traffic()
                let (client, server) = (bench.nodes[0].pods[0], bench.nodes[1].pods[0])
                let incarnations = try bench.nodes.map { try bench.encryption.object($0)?.incarnation }
                let report = try bench.decoding {
                    let stream = try traffic.start("stream", family: 4, "--rate", "500")
                    let iperfServer = try bench.lab.start(["iperf3", "-s", "-1", "--forceflush"], in: server.namespace)
                    try wait(for: "iperf3 to listen", until: .seconds(10)) { iperfServer.output.contains("listening") }
                    // Slow enough for the capture to be decoded in a reasonable time.
                    let iperf = try bench.lab.start(
                        ["iperf3", "-c", server.address, "-t", "\(size(5, full: 30))", "-b", "20M", "-i", "0.1", "-J"],
                        in: client.namespace)
                    for round in 0..<2 {
                        usleep(500_000)  // traffic before, between and after the kills
                        for node in bench.nodes { try bench.encryption.stop(node, SIGKILL) }
                        usleep(500_000)
                        for node in bench.nodes { try bench.encryption.start(node) }
                        try bench.encryption.waitUntilReady(.seconds(20))
                        #expect(
                            try bench.nodes.map { try bench.encryption.object($0)?.incarnation } == incarnations,
                            "\(round)")
                    }
                    let outcome = try iperf.wait(until: .seconds(60))
                    #expect(outcome.succeeded, "\(outcome.output.suffix(500))")
                    let result = try JSONDecoder().decode(Iperf.self, from: Data(outcome.output.utf8))
                    // A retransmission takes 200 ms at least (RTO_MIN): no tenth of a second pair may have been silent.
                    let silent = zip(result.intervals, result.intervals.dropFirst()).filter {
                        $0.sum.bytes + $1.sum.bytes == 0
                    }
                    #expect(silent.isEmpty)
                    let stats = try traffic.finish(stream)
                    expectUnharmed(stats)
                    #expect(stats.longestGap < 400, "milliseconds without an answer")
                }
                expectClean(report)
                #expect(try bench.drops(since: before) == [:])
            }
        }

        private struct Iperf: Decodable {
            struct Interval: Decodable {
                struct Sum: Decodable { var bytes: Int }
                var sum: Sum
            }
            var intervals: [Interval]
        }

        @Test("SIGTERM leaves the datapath running; detach removes all of it and puts offloads and routes back")
        func detach() throws {
            try Lab.with { lab in
                let pod = lab.nodes[0].pods[0]
                let untouched = try settings(lab, pod)
                let encryption = try Encryption(lab)
                try encryption.start()
                let bench = Bench(lab: lab, encryption: encryption)
                #expect(try settings(lab, pod) != untouched)

                // Published is not yet applied: once packets go both ways, each kernel knows that the other node is ready.
                let traffic = try bench.traffic()
                try traffic.run("file", family: 6, "--bytes", "1000")
                for node in lab.nodes {
                    let outcome = try encryption.stop(node)
                    #expect(outcome.status == 0, "\(outcome.errors.suffix(500))")
                }
                expectClean(try bench.decoding { try traffic.run("file", family: 6, "--bytes", "1000000") })

                for node in lab.nodes {
                    let outcome = try encryption.detach(node)
                    #expect(outcome.succeeded, "\(outcome.errors)")
                    #expect(encryption.allPins(node) == [])
                }
                #expect(try settings(lab, pod) == untouched)
                // And in clear again.
                let capture = try Capture(
                    lab, in: lab.nodes[0].namespace, interface: lab.nodes[0].uplink, name: "clear")
                try traffic.run("file", family: 4, "--bytes", "100000")
                try capture.finish()
                #expect(try lab.decode(capture.path, keys: nil, markers: [marker]).markerOnWire > 0)
            }
        }

        /// What keymgr changes in a pod: offloads and routes; and the programs on both ends.
        private func settings(_ lab: Lab, _ pod: Lab.Pod) throws -> [String] {
            let node = lab.nodes[pod.node - 1]
            let commands: [([String], Namespace)] = [
                (["ethtool", "-k", pod.interface], pod.namespace),
                (["ip", "-4", "route"], pod.namespace), (["ip", "-6", "route"], pod.namespace),
                (["bpftool", "net"], pod.namespace), (["bpftool", "net"], node.namespace),
            ]
            return try commands.flatMap { command, namespace in
                // `expires` counts down; everything else stays as it is.
                try lab.require(command, in: namespace).split(separator: "\n").map(String.init)
            }
        }

        @Test("A pod whose namespace vanishes is let go; the others go on")
        func vanished() throws {
            try Bench.with(Lab.Plan(podsPerNode: 2)) { bench in
                let gone = bench.nodes[0].pods[1]
                let traffic = try bench.traffic()
                let stream = try traffic.start("stream", family: 4, "--rate", "300")
                gone.namespace.remove()
                bench.encryption.withdraw(gone)
                try wait(for: "the pod to be let go", until: .seconds(30)) {
                    try bench.encryption.object(bench.nodes[0])?.endpoints.map(\.name) == [bench.nodes[0].pods[0].name]
                }
                expectUnharmed(try traffic.finish(stream))
                #expect(try bench.encryption.daemon(bench.nodes[0]).isRunning)
                // The same name again, in a new namespace, as after the restart of a pod.
                try bench.lab.addPod(gone)
                try bench.encryption.publish(gone)
                try bench.encryption.waitUntilReady(.seconds(30))
                let again = try Traffic(bench.lab, from: gone, to: bench.nodes[1].pods[1], marker: marker)
                expectClean(try bench.decoding { try again.run("file", family: 4, "--bytes", "300000") })
            }
        }

        @Test("Garbage in the cluster directory: the last good state stays in force")
        func garbage() throws {
            try Bench.with { bench in
                let before = try bench.verdicts()
                let traffic = try bench.traffic()
                let stream = try traffic.start("stream", family: 4, "--rate", "300")
                let cluster = bench.encryption.cluster
                let good = try readFile(cluster + "/endpoints/pod-2-0.json")
                for garbage in ["", "{", "[]", "null", String(good.prefix(20)), "\u{0}\u{1}\u{2}"] {
                    for file in ["/endpoints/pod-2-0.json", "/epochs/1.json", "/cluster.json"] {
                        let path = cluster + file
                        let original = try readFile(path)
                        try writeFile(path, garbage)
                        usleep(100_000)  // inotify has told keymgr by then
                        try writeFile(path, original)
                    }
                }
                usleep(200_000)
                expectUnharmed(try traffic.finish(stream))
                for node in bench.nodes { #expect(try bench.encryption.daemon(node).isRunning) }
                #expect(try bench.drops(since: before) == [:])
                expectClean(try bench.decoding { try traffic.run("file", family: 4, "--bytes", "300000") })
            }
        }
    }
}

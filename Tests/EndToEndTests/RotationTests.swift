import Testing

@testable import Lab

extension EndToEnd {
    /// New epochs under traffic.
    @Suite struct RotationTests {
        @Test("Rotations of the epoch during traffic: nothing lost, no failed authentication, no (SPI, IV) twice")
        func rotations() throws {
            let count = size(4, full: 50)
            try Bench.with { bench in
                let before = try bench.verdicts()
                let traffic = try bench.traffic()
                let report = try bench.decoding {
                    let stream = try traffic.start("stream", family: 4, "--rate", "500")
                    let stream6 = try traffic.start("stream", family: 6, "--rate", "300")
                    for epoch in 2...(count + 1) { try bench.encryption.rotate(to: UInt32(epoch)) }
                    expectUnharmed(try traffic.finish(stream))
                    expectUnharmed(try traffic.finish(stream6))
                }
                expectClean(report)
                // Of an SPI 7 bits are the key's, so that some of many epochs share one.
                #expect(report.lanes.count >= 2 * (count + 1) * 3 / 4, "SPIs seen")
                #expect(try bench.drops(since: before) == [:])
            }
        }

        @Test("A node that starts afresh after rotations: a new incarnation, new keys, and nobody else notices")
        func freshStart() throws {
            try Bench.with(Lab.Plan(nodes: 3)) { bench in
                for epoch: UInt32 in 2...3 { try bench.encryption.rotate(to: epoch) }
                let before = try bench.verdicts()
                let others = try bench.traffic()
                let stream = try others.start("stream", family: 4, "--rate", "300")
                let fresh = bench.nodes[2]
                let incarnation = try bench.encryption.object(fresh)?.incarnation
                try bench.encryption.stop(fresh)
                #expect(try bench.encryption.detach(fresh).succeeded)
                try bench.encryption.start(fresh)
                try wait(for: "a new incarnation", until: .seconds(20)) {
                    try bench.encryption.object(fresh)?.incarnation != incarnation
                }
                try bench.encryption.waitUntilReady(.seconds(20), epoch: 3)
                let traffic = try Traffic(bench.lab, from: bench.nodes[0].pods[0], to: fresh.pods[0], marker: marker)
                expectClean(try bench.decoding { try traffic.run("file", family: 4, "--bytes", "300000") })
                expectUnharmed(try others.finish(stream))
                #expect(try bench.encryption.verdicts(bench.nodes[1]).since(before[1]).drops == [:])
            }
        }

        @Test("A node that joins late is spoken with as soon as it is ready, and never in clear")
        func lateNode() throws {
            try Lab.with { lab in
                let encryption = try Encryption(lab)
                let capture = try Capture(lab, in: lab.nodes[0].namespace, interface: lab.nodes[0].uplink)
                try encryption.start(lab.nodes[0])
                try wait(for: "node 1 to attach its pod", until: .seconds(20)) {
                    try encryption.object(lab.nodes[0])?.endpoints.isEmpty == false
                }
                // Node 2 has published nothing: its pod's address is unknown, in a strict CIDR.
                let early = try lab.run(
                    ["ping", "-c", "3", "-i", "0.05", "-W", "1", "-p", "4541524c59", lab.nodes[1].pods[0].address],
                    in: lab.nodes[0].pods[0].namespace)
                #expect(early.output.contains(" 0 received"))
                try encryption.start(lab.nodes[1])
                try encryption.waitUntilReady(.seconds(20))
                let traffic = try Traffic(lab, from: lab.nodes[0].pods[0], to: lab.nodes[1].pods[0], marker: marker)
                try traffic.run("file", family: 4, "--bytes", "300000")
                try capture.finish()
                try encryption.refreshKeys()
                let report = try lab.decode(capture.path, keys: encryption.keys, markers: [marker, "EARLYEARLY"])
                expectClean(report)
            }
        }
    }
}

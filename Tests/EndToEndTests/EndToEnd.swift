import Glibc
import Testing

@testable import Lab

/// Everything on real packets: pods and nodes in network namespaces, keymgr as people start it, captures on the link, and
/// counterparts in Python that share no code with the product.
///
/// One at a time: they measure, and two cores are few. `XE_E2E_FULL=1` (make test-e2e) runs them at full size.
@Suite(.serialized, .enabled(if: geteuid() == 0, "network namespaces and BPF programs need root"))
enum EndToEnd {
    /// Sizes for people with time.
    static let isFull = getenv("XE_E2E_FULL") != nil

    /// One number for every day, another for the full run.
    static func size(_ everyDay: Int, full: Int) -> Int { isFull ? full : everyDay }

    /// In every payload: never to be seen on a link.
    static let marker = "END-TO-END-PLAIN"
}

/// A lab with encryption running, and the counters as they were at its start.
struct Bench {
    let lab: Lab
    let encryption: Encryption

    var nodes: [Lab.Node] { lab.nodes }

    /// Brings it up, runs the closure, tears it down, also when the closure throws.
    static func with<R>(
        _ plan: Lab.Plan = Lab.Plan(), mode: String = "strict", headers: String = "visible", _ body: (Bench) throws -> R
    ) throws -> R {
        try Lab.with(plan) { lab in
            let encryption = try Encryption(lab, mode: mode, headers: headers)
            try encryption.start()
            return try body(Bench(lab: lab, encryption: encryption))
        }
    }

    /// Traffic from the first pod of node 1 to the first pod of node 2.
    func traffic() throws -> Traffic {
        try Traffic(lab, from: nodes[0].pods[0], to: nodes[1].pods[0], marker: EndToEnd.marker)
    }

    /// Captures the link at node 1 while the closure runs, and decodes what it held.
    func decoding(_ name: String = "capture", _ body: () throws -> Void) throws -> DecoderReport {
        try encryption.refreshKeys()
        let capture = try Capture(lab, in: nodes[0].namespace, interface: nodes[0].uplink, name: name)
        try body()
        try capture.finish()
        try encryption.refreshKeys()
        return try lab.decode(capture.path, keys: encryption.keys, markers: [EndToEnd.marker])
    }

    /// What has been dropped on both ends, and all faults, since `before`; empty when all is well.
    func drops(since before: [Verdicts]) throws -> [String: Int] {
        var sum: [String: Int] = [:]
        for (node, earlier) in zip(nodes, before) {
            sum.merge(try encryption.verdicts(node).since(earlier).drops) { $0 + $1 }
        }
        return sum
    }

    /// The counters of every node.
    func verdicts() throws -> [Verdicts] { try nodes.map { try encryption.verdicts($0) } }
}

/// What must hold of every capture of good traffic.
func expectClean(_ report: DecoderReport, sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(report.packets > 0, sourceLocation: sourceLocation)
    #expect(report.verified == report.packets, "\(report.refused) \(report.samples)", sourceLocation: sourceLocation)
    #expect(report.markerOnWire == 0, sourceLocation: sourceLocation)
    #expect(report.markerAfterOpening > 0, sourceLocation: sourceLocation)
    #expect(report.duplicateNonces == 0, sourceLocation: sourceLocation)
    #expect(report.repeatedFrames == 0, sourceLocation: sourceLocation)
}

/// What must hold of a stream through which nothing was lost.
func expectUnharmed(_ report: Traffic.StreamReport, sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(report.datagrams > 0 && report.records > 0, sourceLocation: sourceLocation)
    #expect(report.lost == 0, sourceLocation: sourceLocation)
    #expect(report.wrong == 0, sourceLocation: sourceLocation)
    #expect(report.tcpProblem == nil, sourceLocation: sourceLocation)
}

import Cluster
import Foundation
import Testing

@testable import Agent

/// `status.json` is written peer by peer, and read as a whole.
@Suite struct StatusFileTests {
    @Test(arguments: [0, 1, 3]) func whatIsWrittenIsRead(_ peers: Int) throws {
        let status = AgentStatus(
            node: "node-\"1\"", nodeID: 7, process: 12, updated: Timestamp(milliseconds: 1_700_000_000_123),
            epochs: [
                .init(
                    number: 3, state: .active, notAfter: Timestamp(milliseconds: 1_700_000_100_000),
                    acknowledgedBy: ["a"], missing: ["b"])
            ],
            peers: (0..<peers).map {
                .init(
                    name: "peer-\($0)", nodeID: 9, slot: $0 == 0 ? nil : 4, acknowledged: 5, epochs: [3],
                    isApplied: $0 == 1)
            }, kms: "local: well", problems: [Problem(.error, "kms", "a/b \u{1} \"peers\":[]")],
            pods: [.init(name: "u", label: "shop/web", addresses: [])])
        let bytes = try RuntimeDirectory.encode(status)
        #expect(try JSONDecoder().decode(AgentStatus.self, from: Data(bytes)) == status)
    }
}

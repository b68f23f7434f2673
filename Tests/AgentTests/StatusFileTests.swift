import Cluster
import Foundation
import Keys
import Testing

@testable import Agent

/// `status.json` and `node.json` are written part by part, and read as a whole.
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

    private func node(acknowledging names: [String]) -> EncryptionNode {
        var node = EncryptionNode(id: 7, incarnation: .random())
        node.revision = 4
        node.endpoints = [
            .init(name: "\"applied\":{}", addresses: [], mode: .strict, state: .ready, since: 3)
        ]
        node.epochs = [3]
        for name in names { node.applied[name] = .init(incarnation: .random(), revision: 9, epochs: [3]) }
        return node
    }

    @Test(arguments: [0, 1, 3]) func theNodeThatIsWrittenIsRead(_ peers: Int) throws {
        let node = node(acknowledging: (0..<peers).map { "peer-\"\($0)\"" })
        let bytes = try RuntimeDirectory.encode(node)
        #expect(try JSONDecoder().decode(EncryptionNode.self, from: Data(bytes)) == node)
    }

    /// The file is written again when something has changed that is read from it.
    @Test func marksOfNodes() throws {
        let node = node(acknowledging: ["a", "b", "c"])
        let mark = RuntimeDirectory.mark(node)
        var same = node
        same.applied = [:]
        for name in ["c", "b", "a"] { same.applied[name] = node.applied[name] }
        #expect(RuntimeDirectory.mark(same) == mark)
        same.applied["a"]?.revision = 10
        #expect(RuntimeDirectory.mark(same) == mark)
        let edits: [(inout EncryptionNode) -> Void] = [
            { $0.revision += 1 }, { $0.endpoints = [] }, { $0.applied["a"] = nil }, { $0.applied["a"]?.epochs = [4] },
            { $0.applied["a"]?.incarnation = .random() }, { $0.applied["d"] = $0.applied["a"] },
            { ($0.applied["a"], $0.applied["b"]) = ($0.applied["b"], $0.applied["a"]) },
        ]
        for edit in edits {
            var other = node
            edit(&other)
            #expect(RuntimeDirectory.mark(other) != mark)
        }
    }
}

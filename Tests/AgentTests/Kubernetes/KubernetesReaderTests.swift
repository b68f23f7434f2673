import Cluster
import Keys
import Netlink
import Testing

@testable import Agent

/// What may be concluded from what was read of the API.
@Suite struct KubernetesReaderTests {
    private func report(_ id: NodeID, applied: Int64 = 0, notApplied: [String] = [], revision: UInt32 = 1) -> NodeReport
    {
        var node = EncryptionNode(id: id, incarnation: incarnations[Int(id)])
        node.revision = revision
        node.epochs = [1]
        return NodeReport(node, appliedThrough: applied, notApplied: notApplied)
    }
    private let incarnations = (0..<10).map { _ in Incarnation.random() }

    private func objects(_ nodes: [NodeEntry], sequence: Int64 = 10) -> KubernetesObjects {
        var objects = KubernetesObjects()
        objects.cluster = Cluster(id: .random())
        objects.view = SliceView(["a": .init(sequence: sequence, nodes: nodes)])
        objects.isSynced = true
        return objects
    }
    private func entry(_ name: String, _ report: NodeReport, at: Int64 = 1, _ history: [(UInt32, Int64)]) -> NodeEntry {
        NodeEntry(
            name: name, report: report, incarnationAt: at, history: history.map { .init(revision: $0.0, at: $0.1) })
    }
    private func read(_ reader: inout KubernetesReader, _ objects: KubernetesObjects, clock: Duration = .zero)
        -> Reading?
    {
        reader.reading(objects, endpoints: [:], published: nil, clock: clock)
    }

    @Test("Nothing is concluded before everything was read once")
    func unsynced() {
        var reader = KubernetesReader(name: "a")
        var objects = objects([])
        objects.isSynced = false
        #expect(read(&reader, objects) == nil)
    }

    @Test("A peer has the revision in force that was the newest when it had applied everything")
    func acknowledgements() throws {
        let own = entry("a", report(1, revision: 5), at: 2, [(3, 2), (4, 6), (5, 9)])
        func acknowledged(_ applied: Int64, _ notApplied: [String] = []) -> EncryptionNode.Acknowledgement? {
            var reader = KubernetesReader(name: "a")
            let peer = entry("b", report(2, applied: applied, notApplied: notApplied), [(1, 1)])
            return read(&reader, objects([own, peer]))?.snapshot.nodes["b"]?.applied["a"]
        }
        #expect(acknowledged(1) == nil)
        #expect(acknowledged(2)?.revision == 3)
        #expect(acknowledged(5)?.revision == 3)
        #expect(acknowledged(6)?.revision == 4)
        #expect(acknowledged(10)?.revision == 5)
        #expect(acknowledged(10)?.incarnation == incarnations[1])
        #expect(acknowledged(10)?.epochs == [1])
        #expect(acknowledged(10, ["a"]) == nil)
    }

    @Test("What was known stays known within incarnations, and not beyond them")
    func memory() {
        var reader = KubernetesReader(name: "a")
        let peer = { (applied: Int64, id: NodeID) in entry("b", report(id, applied: applied), [(1, 1)]) }
        func acknowledged(_ own: NodeEntry, _ peer: NodeEntry) -> UInt32? {
            read(&reader, objects([own, peer]))?.snapshot.nodes["b"]?.applied["a"]?.revision
        }
        #expect(acknowledged(entry("a", report(1), [(3, 2), (4, 6)]), peer(6, 2)) == 4)
        // The history has gone on, the peer has not.
        #expect(acknowledged(entry("a", report(1), [(8, 7), (9, 8)]), peer(6, 2)) == 4)
        #expect(acknowledged(entry("a", report(1), [(8, 7), (9, 8)]), peer(3, 2)) == 4)
        // The peer has begun afresh, and then we.
        #expect(acknowledged(entry("a", report(1), [(8, 7), (9, 8)]), peer(6, 3)) == 0)
        #expect(acknowledged(entry("a", report(4), [(8, 7), (9, 8)]), peer(6, 2)) == 0)
    }

    @Test("Without our own entry nobody has anything of ours")
    func noEntry() {
        var reader = KubernetesReader(name: "a")
        let peer = entry("b", report(2, applied: 10), [(1, 1)])
        #expect(read(&reader, objects([peer]))?.snapshot.nodes["b"]?.applied == [:])
    }

    @Test(
        "An unreadable slice keeps what is acknowledged where it is; one that never was readable stops everything new")
    func unreadable() throws {
        var reader = KubernetesReader(name: "a")
        _ = read(&reader, objects([], sequence: 10))
        var broken = objects([], sequence: 12)
        broken.hasUnreadableSlice = true
        #expect(read(&reader, broken)?.sequence == 10)
        broken.incomplete = [.nodes]
        let reading = try #require(read(&reader, broken))
        #expect(reading.snapshot.cluster == nil)
        #expect(!reading.snapshot.isComplete(.nodes) && !reading.snapshot.isComplete(.endpoints))
        #expect(read(&reader, objects([], sequence: 13))?.sequence == 13)
    }

    @Test("A node that stands in two slices is taken from the newer one")
    func moving() {
        var reader = KubernetesReader(name: "a")
        var objects = objects([entry("b", report(2, revision: 1), [(1, 1)])], sequence: 10)
        objects.view.put(
            "c", .init(sequence: 11, nodes: [entry("b", report(2, revision: 2), [(1, 1), (2, 11)])]))
        let reading = read(&reader, objects)
        #expect(reading?.snapshot.nodes["b"]?.revision == 2)
        #expect(reading?.sequence == 11 && reading?.due == 11)
    }

    @Test("After a restart into a state with something missing, what others have heard is not taken back altogether")
    func missedBeforeTheStart() {
        var change = NodeChange(name: "b", after: 11)
        change.revision = 3
        for (applied, sequence) in [(Int64(12), Int64(10)), (9, 9), (0, 0)] {
            var reader = KubernetesReader(name: "a", applied: applied)
            var objects = objects([entry("b", report(2, revision: 1), [(1, 1)])], sequence: 10)
            objects.view.put("changes-12", .init(sequence: 12, changes: [change]))
            #expect(read(&reader, objects)?.sequence == sequence)
            objects.view.put("d", .init(sequence: 13, nodes: []))
            #expect(read(&reader, objects)?.sequence == sequence)
            objects.view.put("a", .init(sequence: 14, nodes: [entry("b", report(2, revision: 3), [(1, 1), (3, 12)])]))
            #expect(read(&reader, objects)?.sequence == 14)
        }
    }

    @Test("Nodes of a slice that was deleted stay, with what they have acknowledged, and nothing new is acknowledged")
    func lost() {
        var reader = KubernetesReader(name: "a")
        let own = entry("a", report(1, revision: 2), at: 2, [(2, 2)])
        var objects = objects([own, entry("b", report(2, applied: 9), [(1, 1)])], sequence: 10)
        #expect(read(&reader, objects)?.snapshot.nodes["b"]?.applied["a"]?.revision == 2)
        objects.view.remove("a")
        objects.view.put("c", .init(sequence: 11, nodes: [entry("c", report(3), [(1, 11)])]))
        let reading = read(&reader, objects)
        #expect(reading?.snapshot.nodes["b"]?.applied["a"]?.revision == 2)
        #expect(reading?.snapshot.nodes["c"] != nil && reading?.sequence == 10)
        objects.view.put("a", .init(sequence: 12, nodes: [own]))
        #expect(read(&reader, objects)?.snapshot.nodes.keys.sorted() == ["c"])
        #expect(read(&reader, objects)?.sequence == 12)
    }

    @Test("A node whose change was missed stays as it was, and nothing new is acknowledged")
    func missed() {
        var reader = KubernetesReader(name: "a")
        var objects = objects([entry("b", report(2, revision: 1), [(1, 1)])], sequence: 10)
        #expect(read(&reader, objects)?.sequence == 10)
        var change = NodeChange(name: "b", after: 11)
        change.revision = 3
        objects.view.put("changes-12", .init(sequence: 12, changes: [change]))
        let reading = read(&reader, objects)
        #expect(reading?.snapshot.nodes["b"]?.revision == 1)
        #expect(reading?.snapshot.isComplete(.nodes) == true)
        #expect(reading?.sequence == 10)
        objects.view.put(
            "a", .init(sequence: 13, nodes: [entry("b", report(2, revision: 3), [(1, 1), (3, 12)])]))
        #expect(read(&reader, objects)?.snapshot.nodes["b"]?.revision == 3)
        #expect(read(&reader, objects)?.sequence == 13)
    }
}

import FoundationEssentials
import Keys
import Synchronization
import Testing

@testable import Cluster

/// A cluster directory in a temporary folder that goes with the test.
final class TemporaryCluster {
    let path: String

    init() throws {
        path = FileManager.default.temporaryDirectory.appending(path: "agent-cluster-\(UInt64.random(in: 0 ... .max))")
            .path()
        for folder in ["", "/nodes", "/endpoints", "/epochs"] {
            try FileManager.default.createDirectory(atPath: path + folder, withIntermediateDirectories: true)
        }
    }

    deinit {
        try? FileManager.default.removeItem(atPath: path)
    }

    func write(_ text: String, _ relative: String) throws {
        try Data(text.utf8).write(to: URL(filePath: "\(path)/\(relative)"))
    }

    func remove(_ relative: String) throws {
        try FileManager.default.removeItem(atPath: "\(path)/\(relative)")
    }

    static let cluster = #"{"id":"000102030405060708090a0b0c0d0e0f","strictCIDRs":["10.0.0.0/8"]}"#
}

@Suite struct DirectoryReaderTests {
    @Test func readsEveryKind() throws {
        let directory = try TemporaryCluster()
        try directory.write(TemporaryCluster.cluster, "cluster.json")
        try directory.write(ObjectCodingTests.node, "nodes/node-a.json")
        try directory.write(ObjectCodingTests.endpoint, "endpoints/a.json")
        try directory.write(ObjectCodingTests.epoch, "epochs/1.json")
        try directory.write("half a file", "nodes/.node-b.json.tmp")
        try directory.write("# notes", "nodes/README.md")
        var reader = DirectoryReader(path: directory.path)
        let snapshot = reader.scan()
        #expect(snapshot.problems.isEmpty)
        #expect(snapshot.incomplete.isEmpty)
        #expect(snapshot.cluster != nil)
        #expect(snapshot.nodes.keys.sorted() == ["node-a"])
        #expect(snapshot.endpoints.keys.sorted() == ["a"])
        #expect(snapshot.epochs.keys.sorted() == [1])
        #expect(reader.scan() == snapshot)
    }

    @Test func theLastGoodVersionStaysInForce() throws {
        let directory = try TemporaryCluster()
        try directory.write(TemporaryCluster.cluster, "cluster.json")
        try directory.write(ObjectCodingTests.node, "nodes/node-a.json")
        var reader = DirectoryReader(path: directory.path)
        let good = reader.scan()
        for garbage in ["", "{", String(ObjectCodingTests.node.dropLast(20)), #"{"id":1}"#] {
            try directory.write(garbage, "nodes/node-a.json")
            let snapshot = reader.scan()
            #expect(snapshot.nodes == good.nodes)
            #expect(snapshot.incomplete.isEmpty)
            let problem = try #require(snapshot.problems.first)
            #expect(
                problem.object == "nodes/node-a.json"
                    && problem.message.hasSuffix("its last good version stays in force"))
        }
        try directory.write(ObjectCodingTests.node, "nodes/node-a.json")
        #expect(reader.scan() == good)
        try directory.remove("nodes/node-a.json")
        #expect(reader.scan().nodes.isEmpty)
    }

    @Test func garbageWithoutAGoodVersionMakesTheKindIncomplete() throws {
        let directory = try TemporaryCluster()
        try directory.write(TemporaryCluster.cluster, "cluster.json")
        try directory.write("{", "nodes/node-a.json")
        try directory.write(ObjectCodingTests.epoch, "epochs/2.json")
        var reader = DirectoryReader(path: directory.path)
        let snapshot = reader.scan()
        #expect(snapshot.incomplete == [.nodes, .epochs])
        #expect(
            snapshot.problems.contains {
                $0.object == "epochs/2.json" && $0.message.contains("number: 1 is not the file's name")
            })
    }

    @Test func aFolderThatVanishesTakesNothingAway() throws {
        let directory = try TemporaryCluster()
        try directory.write(TemporaryCluster.cluster, "cluster.json")
        try directory.write(ObjectCodingTests.node, "nodes/node-a.json")
        var reader = DirectoryReader(path: directory.path)
        let good = reader.scan()
        try directory.remove("nodes")
        var snapshot = reader.scan()
        #expect(snapshot.nodes == good.nodes)
        #expect(snapshot.incomplete == [.nodes])
        #expect(snapshot.problems.contains { $0.object == "nodes/" })
        try directory.remove("")
        snapshot = reader.scan()
        #expect(snapshot.nodes == good.nodes && snapshot.cluster == good.cluster)
        #expect(snapshot.incomplete == Set(ObjectKind.allCases))
    }

    @Test func badNamesAndSpecialFilesAreProblems() throws {
        let directory = try TemporaryCluster()
        try directory.write(TemporaryCluster.cluster, "cluster.json")
        try directory.write(ObjectCodingTests.endpoint, "endpoints/a b.json")
        try FileManager.default.createDirectory(
            atPath: "\(directory.path)/endpoints/c.json", withIntermediateDirectories: true)
        var reader = DirectoryReader(path: directory.path)
        let snapshot = reader.scan()
        #expect(snapshot.endpoints.isEmpty)
        #expect(snapshot.problems.map(\.object).sorted() == ["endpoints/a b.json", "endpoints/c.json"])
    }

    @Test func writerAndReaderAgree() throws {
        let directory = try TemporaryCluster()
        let writer = DirectoryWriter(path: directory.path)
        let cluster = Cluster(id: .random())
        try writer.create(cluster)
        #expect(throws: FileError.self) { try writer.create(cluster) }
        var node = EncryptionNode(id: 5, incarnation: .random())
        node.sendingSince = .now()
        try writer.write(node, name: "node-e")
        var reader = DirectoryReader(path: directory.path)
        #expect(reader.scan().nodes == ["node-e": node])
        node.revision = 9
        try writer.write(node, name: "node-e")
        let snapshot = reader.scan()
        #expect(snapshot.nodes == ["node-e": node])
        #expect(snapshot.cluster == cluster)
        #expect(try FileManager.default.contentsOfDirectory(atPath: "\(directory.path)/nodes") == ["node-e.json"])
    }
}

@Suite struct DirectorySourceTests {
    @Test func changesArriveSoon() async throws {
        let directory = try TemporaryCluster()
        try directory.write(TemporaryCluster.cluster, "cluster.json")
        let (snapshots, continuation) = AsyncStream.makeStream(of: Snapshot.self)
        let source = try DirectorySource(path: directory.path, rescanMilliseconds: 60_000) { continuation.yield($0) }
        var iterator = snapshots.makeAsyncIterator()
        #expect(await iterator.next()?.cluster != nil)
        let clock = ContinuousClock()
        for revision in UInt32(1)...5 {
            var node = EncryptionNode(id: 5, incarnation: .random())
            node.revision = revision
            let start = clock.now
            try DirectoryWriter(path: directory.path).write(node, name: "node-e")
            let snapshot = await iterator.next()
            #expect(snapshot?.nodes["node-e"]?.revision == revision)
            // Much less than the 60 seconds of scanning; machines under load need some of it.
            #expect(clock.now - start < .seconds(30))
        }
        try directory.remove("nodes/node-e.json")
        #expect(await iterator.next()?.nodes.isEmpty == true)
        source.stop()
    }
}

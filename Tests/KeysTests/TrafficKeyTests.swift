import FoundationEssentials
import Secrets
import Testing

@testable import Keys

/// A line of vectors.json, which make_vectors.py wrote without any code of this project.
struct Vector: Decodable, CustomTestStringConvertible {
    var name: String
    var dek, cluster, senderIncarnation, receiverIncarnation, key, spi, keyID, nonce: String
    var epoch, sender, receiver: UInt32
    var lane: UInt16
    var counter: UInt64

    var testDescription: String { name }

    static let all: [Vector] = {
        do {
            let file = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "vectors.json")
            return try JSONDecoder().decode([Vector].self, from: Data(contentsOf: file))
        } catch {
            Issue.record("vectors.json: \(error)")
            return []
        }
    }()

    var context: TrafficContext {
        get throws {
            TrafficContext(
                cluster: try #require(ClusterID(hex: cluster)), epoch: epoch,
                sender: NodeIdentity(id: sender, incarnation: try #require(Incarnation(hex: senderIncarnation))),
                receiver: NodeIdentity(id: receiver, incarnation: try #require(Incarnation(hex: receiverIncarnation))))
        }
    }
}

func secret(hex: String) throws -> SecretBytes {
    var bytes = try #require([UInt8](hex: hex))
    return SecretBytes(zeroing: &bytes)
}

@Suite struct TrafficKeyTests {
    @Test func thereAreVectors() {
        #expect(Vector.all.count == 9)
    }

    @Test(arguments: Vector.all) func knownAnswer(_ vector: Vector) throws {
        let key = try TrafficKey.derive(dek: secret(hex: vector.dek), context: vector.context)
        #expect(key.key.withUnsafeBytes { Array($0) }.hex == vector.key)
        #expect(key.spi.bigEndianBytes.hex == vector.spi)
        #expect(key.keyID.description == vector.keyID)
        #expect(SPI.sender(of: key.spi) == vector.sender)
        #expect(SPI.parity(of: key.spi) == vector.epoch & 1)
        let iv = try #require(IV(lane: vector.lane, counter: vector.counter))
        #expect(iv.nonce(spi: key.spi).hex == vector.nonce)
    }

    @Test func everyPartOfTheContextChangesKeyAndFingerprint() throws {
        let base = try #require(Vector.all.first)
        var contexts = [try base.context]
        for change: (inout TrafficContext) -> Void in [
            { $0.epoch += 2 }, { $0.sender.id += 8 }, { $0.receiver.id += 8 }, { $0.cluster = .random() },
            { $0.sender.incarnation = .random() }, { $0.receiver.incarnation = .random() },
            { swap(&$0.sender, &$0.receiver) },
        ] {
            var context = try base.context
            change(&context)
            contexts.append(context)
        }
        let dek = try secret(hex: base.dek)
        let keys = try contexts.map { try TrafficKey.derive(dek: dek, context: $0) }
        #expect(Set(keys.map { $0.key.withUnsafeBytes { Array($0) } }).count == contexts.count)
        #expect(Set(keys.map(\.keyID)).count == contexts.count)
    }

    @Test(arguments: [0, 0x100_0000, UInt32.max]) func refusesNodeIDs(_ id: NodeID) throws {
        let base = try #require(Vector.all.first)
        var context = try base.context
        context.receiver.id = id
        let error = #expect(throws: KeyError.self) {
            try TrafficKey.derive(dek: secret(hex: base.dek), context: context)
        }
        #expect(error?.description.contains("node id \(id)") == true)
    }

    @Test(arguments: [1, 31, 33]) func refusesOtherLengthsOfDEK(_ count: Int) throws {
        let base = try #require(Vector.all.first)
        let error = #expect(throws: KeyError.self) {
            try TrafficKey.derive(dek: SecretBytes(random: count), context: base.context)
        }
        #expect(error?.description.contains("\(count) bytes") == true)
    }

    @Test func ivsAreBounded() {
        #expect(IV(lane: 0, counter: 0) == nil)
        #expect(IV(lane: 0, counter: 1 << 48) == nil)
        #expect(IV(lane: .max, counter: IV.lastCounter)?.bytes == [UInt8](repeating: 0xff, count: 8))
    }
}

@Suite struct IdentifierTests {
    @Test func hexadecimal() {
        #expect([UInt8](hex: "00fFa1") == [0, 255, 161])
        #expect([0, 255, 161].hex == "00ffa1")
        for bad in ["0", "0g", "0x00", " 00", "٠٠"] {
            #expect([UInt8](hex: bad) == nil)
        }
    }

    @Test func sixteenBytes() {
        let text = "00112233445566778899aabbccddeeff"
        #expect(Incarnation(hex: text)?.description == text)
        #expect(Incarnation(hex: text.dropLast(2)) == nil)
        #expect(ClusterID(bytes: [1, 2]) == nil)
        #expect(KeyID(bytes: [UInt8](repeating: 0, count: 17)) == nil)
        #expect(Set((0..<100).map { _ in Incarnation.random() }).count == 100)
    }
}

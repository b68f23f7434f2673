import Datapath
import FoundationEssentials
import Keys
import Netlink
import Secrets
import Testing

@testable import Lab

extension EndToEnd {
    /// The kernel programs against the oracle, frame by frame, without a network between them.
    @Suite struct OracleTests {
        struct Corpus: Decodable {
            struct Key: Decodable {
                var sender: UInt32
                var epoch: UInt32
                var spi: String
                var key: String
                var keyID: String

                private enum CodingKeys: String, CodingKey {
                    case sender, epoch, spi, key
                    case keyID = "key_id"
                }
            }
            var receiver: UInt32
            var endpoints: [String: UInt32]
            var strictCIDRs: [String]
            var keys: [Key]
            /// Name, frame in hexadecimal, verdict.
            var frames: [[String]]

            private enum CodingKeys: String, CodingKey {
                case receiver, endpoints, keys, frames
                case strictCIDRs = "strict_cidrs"
            }
        }

        /// The guard behind XDP is the same code for another kind of packet: both must agree with the oracle.
        @Test(
            "Every bit flipped and forged, replays, reordering, lies: each frame gets the oracle's verdict",
            arguments: [KernelProgram.decrypt, .guard])
        func verdicts(_ program: KernelProgram) throws {
            let printed = try #require(try run([Python.interpreter, try Python.script("corpus.py")]))
            let corpus = try JSONDecoder().decode(Corpus.self, from: Data(printed.utf8))
            let kernel = try kernel(corpus, program)
            var wrong: [String] = []
            for frame in corpus.frames {
                let bytes = try #require([UInt8](hex: frame[1]))
                if program == .guard && bytes.count < 14 + 40 { continue }  // test runs take none without an IP header
                let judgement = try kernel.judge(bytes, with: program)
                let verdict = judgement.verdict.flatMap { Verdicts.names[Int($0.rawValue)] } ?? "none"
                if verdict != frame[2] { wrong.append("\(frame[0]): \(verdict) instead of \(frame[2]), \(frame[1])") }
                // XDP's mark for the guard stands before a frame that passes.
                if verdict != "decrypted" && !judgement.frame.suffix(bytes.count).elementsEqual(bytes) {
                    wrong.append("\(frame[0]): written to, and \(verdict)")
                }
            }
            #expect(
                wrong.isEmpty, "\(wrong.count) of \(corpus.frames.count): \(wrong.prefix(10).joined(separator: "\n"))")
            #expect(corpus.frames.count > 10_000)
        }

        private func kernel(_ corpus: Corpus, _ program: KernelProgram) throws -> KernelInstance {
            let kernel = try KernelInstance(
                programs: [program],
                options: Datapath.Options(
                    nodeID: corpus.receiver,
                    capacity: Datapath.Capacity(peers: 63, endpoints: 1024, strictCIDRs: 64, windows: 1024)))
            for (address, node) in corpus.endpoints {
                let place: EndpointEntry.Place =
                    node == corpus.receiver ? .local(since: 1, until: 0) : .remote(slot: node)
                try kernel.setEndpoint(try IPAddress(address), EndpointEntry(place: place, strict: true))
            }
            try kernel.setStrictCIDRs(Set(corpus.strictCIDRs.map { try IPPrefix($0) }))
            for key in corpus.keys {
                try kernel.setPeer(slot: key.sender, PeerEntry(nodeID: key.sender, acknowledged: 1))
                var bytes = try #require([UInt8](hex: key.key))
                let id = try #require([UInt8](hex: key.keyID).flatMap(KeyID.init(bytes:)))
                try kernel.install(
                    AssociationKey(
                        epoch: key.epoch, peerNodeID: key.sender, spi: try #require(UInt32(key.spi, radix: 16)),
                        keyID: id,
                        key: SecretBytes(zeroing: &bytes)),
                    at: AssociationID(slot: key.sender, direction: .receive, epoch: key.epoch))
            }
            return kernel
        }

        private func run(_ command: [String]) throws -> String? {
            let log = "/tmp/xe-oracle"
            let outcome = try ChildProcess(command, log: log).wait(until: .seconds(60))
            for suffix in [".out", ".err"] { removeTree(log + suffix) }
            return outcome.succeeded ? outcome.output : nil
        }
    }
}

import FoundationEssentials
import Glibc
import Keys
import Netlink
import Secrets
import Testing

@testable import Datapath

/// The commands that people type, as they were built beside these tests.
@Suite(.enabled(if: isRoot, needsRoot), .enabled(if: access(Command.path, X_OK) == 0, "xdp-encryptor is not built"))
struct CommandTests {
    @Test func statusShowsWhatTheKernelHolds() throws {
        let node = try TestNode()
        let places = "--pin-path \(node.options.pinPath) --state-directory \(node.options.stateDirectory)"
        try node.inNode {
            let datapath = try Datapath(options: node.options)
            try datapath.setPeer(slot: 1, PeerEntry(nodeID: 2, acknowledged: 4))
            try datapath.setEndpoint(Frames.Family.ipv4.pod(2), EndpointEntry(place: .remote(slot: 1), strict: true))
            try datapath.setStrictCIDRs([IPPrefix("10.0.0.0/8")])
            let key = AssociationKey(
                epoch: Nodes.epoch, peerNodeID: 2, spi: Nodes.spi,
                keyID: try #require(KeyID(bytes: [UInt8](repeating: 7, count: 16))), key: SecretBytes(random: 32))
            try datapath.install(key, at: AssociationID(slot: 1, direction: .send, epoch: key.epoch))
            try datapath.setSending(epoch: key.epoch)
            _ = try datapath.attach(node.pod)

            // While the daemon holds the lock, and without it.
            let text = try #require(shell("\(Command.path) status \(places)"))
            for words in [
                "sending with 2", "10.0.0.0/8", "0 here, 1 on other nodes", "default.web-0", "attached",
                "ecb(aes) of the kernel",
            ] {
                #expect(text.contains(words), "\(words) is not in:\n\(text)")
            }
            #expect(!text.contains("INCOMPLETE"))
            print(text)
        }
        struct Report: Decodable {
            struct Peer: Decodable {
                struct Key: Decodable {
                    var spi: String
                    var epoch: UInt32
                    var direction: String
                }
                var nodeID: UInt32
                var keys: [Key]
                var endpoints: Int
            }
            struct Pod: Decodable {
                var name: String
                var isWhole: Bool
            }
            struct Count: Decodable { var name: String }
            var nodeID: UInt32
            var sendingEpoch: UInt32
            var peers: [Peer]
            var pods: [Pod]
            var verdicts: [Count]
        }
        let json = try #require(shell("\(Command.path) status --output json \(places)"))
        let report = try JSONDecoder().decode(Report.self, from: Data(json.utf8))
        #expect(report.nodeID == 7)
        #expect(report.sendingEpoch == 2)
        #expect(report.peers.map(\.nodeID) == [2])
        #expect(report.peers.first?.endpoints == 1)
        #expect(report.peers.first?.keys.first?.spi == "2a000001")
        #expect(report.pods.map(\.name) == ["default.web-0"])
        #expect(report.pods.first?.isWhole == true)
        #expect(report.verdicts.count == Verdict.allCases.count)
    }

    @Test func statusSaysWhenNothingIsLoaded() throws {
        #expect(shell("\(Command.path) status --pin-path /sys/fs/bpf/base-none 2> /dev/null") == nil)
        let message = shell("\(Command.path) status --pin-path /sys/fs/bpf/base-none 2>&1 || true") ?? ""
        #expect(message.contains("nothing is loaded"))
        #expect(message.contains("--pin-path"))
    }

    @Test func gcmAnswersEachLineInOrder() throws {
        let folder = TemporaryDirectory()
        let zeros = String(repeating: "0", count: 24)
        let lines = [
            #"{"op":"seal","key":"00000000000000000000000000000000","nonce":"\#(zeros)","aad":"","plaintext":""}"#,
            "nonsense",
            #"{"op":"open","key":"00000000000000000000000000000000","nonce":"\#(zeros)","aad":"","ciphertext":"","tag":"58e2fccefa7e3061367f1d57a4e7455b"}"#,
            // Without a newline behind it.
            #"{"op":"open","key":"00000000000000000000000000000000","nonce":"\#(zeros)","aad":"","ciphertext":"","tag":"58e2fccefa7e3061367f1d57a4e7455a"}"#,
        ]
        try Files.write(Array(lines.joined(separator: "\n").utf8), to: "\(folder.path)/lines")
        let answers = try #require(shell("\(Command.path) gcm < \(folder.path)/lines"))
        #expect(
            answers.split(separator: "\n").map(String.init) == [
                #"{"ciphertext":"","tag":"58e2fccefa7e3061367f1d57a4e7455a"}"#,
                #"{"error":"the line is not valid JSON"}"#, #"{"error":"authentication failed"}"#, #"{"plaintext":""}"#,
            ])
        #expect(shell("\(Command.path) gcm < /dev/null") == "")
    }
}

private enum Command {
    static let path = "\(packageRoot)/.build/debug/xdp-encryptor"
}

/// A folder that goes when the value does.
private final class TemporaryDirectory {
    let path = "/tmp/base-command-\(getpid())-\(UInt32.random(in: 0..<1 << 24))"

    init() { mkdir(path, 0o700) }

    deinit { shell("rm -rf \(path)") }
}

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

            let cipher = try #require(CipherDriver.current())
            // While the daemon holds the lock, and without it.
            let text = try #require(shell("\(Command.path) status \(places)"))
            for words in [
                "sending with 2", "10.0.0.0/8", "0 here, 1 on other nodes", "default.web-0", "attached",
                "AES by \(cipher.name) of the kernel",
            ] {
                #expect(text.contains(words), "\(words) is not in:\n\(text)")
            }
            #expect(!text.contains("INCOMPLETE"))
            #expect(text.contains("NOT used") == cipher.leavesInstructionsUnused)
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

    /// A node with a peer, keys for it, and a pod that the daemon has told of.
    private func node(_ body: (TestNode, Datapath, _ places: String) throws -> Void) throws {
        let node = try TestNode()
        try node.inNode {
            let datapath = try Datapath(options: node.options)
            let family = Frames.Family.ipv4
            for slot: UInt32 in [1, 2] {
                try datapath.setPeer(slot: slot, PeerEntry(nodeID: slot + 1, acknowledged: 4))
            }
            try datapath.setEndpoint(family.pod(2), EndpointEntry(place: .remote(slot: 1), strict: true))
            try datapath.setEndpoint(
                family.pod(3), EndpointEntry(place: .remote(slot: 2), strict: true, hidden: true))
            try datapath.setEndpoint(
                IPAddress("10.8.0.2"), EndpointEntry(place: .local(since: 3, until: 0), strict: true))
            try datapath.setStrictCIDRs([IPPrefix("10.0.0.0/8")])
            for direction in Direction.allCases {
                let key = AssociationKey(
                    epoch: Nodes.epoch, peerNodeID: 2, spi: Nodes.spi,
                    keyID: try #require(KeyID(bytes: [UInt8](repeating: UInt8(direction.rawValue), count: 16))),
                    key: SecretBytes(random: 32))
                try datapath.install(key, at: AssociationID(slot: 1, direction: direction, epoch: key.epoch))
            }
            try datapath.setSending(epoch: Nodes.epoch)
            _ = try datapath.attach(node.pod)
            let status = """
                {"node": "node-1", "nodeID": 7, "process": 1, "updated": "2026-05-04T12:00:00.000Z", "epochs": [],
                 "kms": "asleep",
                 "problems": [{"severity": "error", "object": "pod shop/web-0", "message": "is not well"}],
                 "peers": [{"name": "node-2", "nodeID": 2, "acknowledged": 4, "epochs": [], "isApplied": true}],
                 "pods": [{"name": "default.web-0", "label": "shop/web-0", "addresses": ["10.8.0.2"]}]}
                """
            try Files.write(Array(status.utf8), to: "\(node.options.stateDirectory)/status.json")
            let places = "--pin-path \(node.options.pinPath) --state-directory \(node.options.stateDirectory)"
            try body(node, datapath, places)
        }
    }

    /// What a command prints, with its exit status behind it.
    private func answer(_ command: String) -> String {
        shell("\(Command.path) \(command) 2>&1; echo status=$?") ?? ""
    }

    @Test func statusCallsPodsAndNodesByTheirNames() throws {
        try node { _, _, places in
            let text = answer("status \(places)")
            for words in [
                "shop/web-0", "node-2 (2)", "PROBLEMS", "pod shop/web-0: is not well",
                "has not written since 2026-05-04T12:00:00.000Z", "1 here, 2 on other nodes; 1 with hidden headers",
                "status=0",
            ] {
                #expect(text.contains(words), "\(words) is not in:\n\(text)")
            }
            #expect(!text.contains("default.web-0"))
            struct Report: Decodable {
                struct Pod: Decodable {
                    var name: String
                    var label: String?
                }
                struct Peer: Decodable {
                    var nodeID: UInt32
                    var name: String?
                }
                var pods: [Pod]
                var peers: [Peer]
                var hiddenEndpoints: Int
            }
            let json = try #require(shell("\(Command.path) status --output json \(places)"))
            let report = try JSONDecoder().decode(Report.self, from: Data(json.utf8))
            #expect(report.hiddenEndpoints == 1)
            // The UID stays where programs look for it.
            #expect(report.pods.map(\.name) == ["default.web-0"])
            #expect(report.pods.map(\.label) == ["shop/web-0"])
            #expect(report.peers.map(\.name) == ["node-2", nil])
        }
    }

    @Test func whySaysWhatBecomesOfPackets() throws {
        try node { node, datapath, places in
            func why(_ arguments: String, _ status: Int, _ words: String...) {
                let text = answer("why \(arguments) \(places)")
                for words in words + ["status=\(status)"] {
                    #expect(text.contains(words), "why \(arguments): \(words) is not in:\n\(text)")
                }
            }
            let family = Frames.Family.ipv4
            // Both ends by each of their names.
            for pod in ["shop/web-0", "web-0", "default.web-0", "10.8.0.2"] {
                why(
                    "\(pod) \(family.pod(2))", 0, "shop/web-0, protected pod of this node, strict, attached",
                    "protected pod on node-2, strict", "10.8.0.2 -> \(family.pod(2)): ENCRYPTED",
                    "encrypted with epoch 2", "\(family.pod(2)) -> 10.8.0.2: DECRYPTED", "clear text would be dropped",
                    "pod shop/web-0: is not well")
            }
            why("\(family.pod(2)) shop/web-0", 0, "ENCRYPTED", "DECRYPTED")
            why("shop/web-0 192.0.2.1", 2, "IN CLEAR (unprotected)", "192.0.2.1 is not protected", "EncryptionPolicy")
            why("shop/web-0 10.3.3.3", 3, "DROPPED (unknown_peer)", "in a strict CIDR", "(10.0.0.0/8)")
            // Without keys.
            why("shop/web-0 \(family.pod(3))", 3, "DROPPED (no_key)", "no key of epoch 2 for node 3", "the KMS: asleep")
            why("shop/web-0", 3, "pods on node-2: ENCRYPTED", "pods on node 3: DROPPED (no_key)")
            why("192.0.2.1", 2, "no node has published it")
            why("192.0.2.1 192.0.2.2", 4, "no protected pod of this node is an end of this")
            why("\(family.pod(2))", 4, "protected pod on node-2, strict\n")
            why("\(family.pod(3))", 4, "protected pod on node 3, strict, hidden headers\n")
            why("\(family.pod(3)) --output json", 4, "\"isHidden\" : true")
            why("nobody", 4, "no protected pod of this node is called nobody")
            // The peer has not heard of it.
            try datapath.setEndpoint(
                IPAddress("10.8.0.2"), EndpointEntry(place: .local(since: 5, until: 0), strict: true))
            why("shop/web-0 \(family.pod(2))", 3, "DROPPED (not_ready)", "not acknowledged yet by node-2")
            try datapath.setEndpoint(
                IPAddress("10.8.0.9"), EndpointEntry(place: .local(since: 1, until: 0), strict: true))
            why("shop/web-0 10.8.0.9", 0, "IN CLEAR (same_node)", "never leaves the kernel")
            struct Report: Decodable {
                struct Path: Decodable {
                    var outcome: String
                    var verdict: String
                    var cause: String
                    var epochs: [UInt32]
                    var nodes: [String]
                }
                var outcome: String
                var paths: [Path]
            }
            let json = answer("why 10.8.0.9 \(family.pod(2)) --output json \(places)")
            let text = json.replacing("status=0", with: "")
            let report = try JSONDecoder().decode(Report.self, from: Data(text.utf8))
            #expect(report.outcome == "encrypted")
            #expect(report.paths.map(\.verdict) == ["encrypted", "decrypted"])
            #expect(report.paths.map(\.cause) == ["protected", "protected"])
            #expect(report.paths.map(\.epochs) == [[2], [2]])
            #expect(report.paths.map(\.nodes) == [["node-2"], ["node-2"]])
            // Programs that are not there protect nobody.
            try datapath.setEndpoint(
                IPAddress("10.8.0.2"), EndpointEntry(place: .local(since: 3, until: 0), strict: true))
            try datapath.detach(name: node.pod.name)
            why("shop/web-0 \(family.pod(2))", 2, "NOT ATTACHED", "programs are not all attached")
        }
        let nothing = answer("why 10.8.0.2 --pin-path /sys/fs/bpf/base-none")
        #expect(nothing.contains("nothing is loaded") && nothing.hasSuffix("status=1\n"), "\(nothing)")
    }

    @Test func eventsTellOfDrops() throws {
        try node { node, _, places in
            let output = "\(node.options.stateDirectory)/out"
            let lock = "\(node.options.stateDirectory)/events.lock"
            let ping = "ip netns exec \(node.podNamespace) ping -c 1 -W 1 10.77.0.1"
            // What comes next once it listens, and what it has said by the end.
            func events(_ arguments: String, _ next: String) -> String {
                shell(
                    """
                    rm -f \(lock); \(Command.path) events \(arguments) \(places) > \(output) 2>&1 & first=$!
                    for i in $(seq 600); do [ -e \(lock) ] && break; sleep 0.05; done; sleep 0.5
                    \(next)
                    \(ping) > /dev/null
                    wait $first; echo first=$?
                    cat \(output)
                    """) ?? ""
            }
            // A second one is refused while the first listens.
            let text = events("--seconds 10", "\(Command.path) events --seconds 1 \(places) 2>&1; echo status=$?")
            for words in [
                "unknown_peer leaving shop/web-0 10.8.0.2 > 10.77.0.1 icmp 98 bytes", "another one is running",
                "status=75",
                "first=0",
            ] {
                #expect(text.contains(words), "\(words) is not in:\n\(text)")
            }
            let json = events("--count 1 --seconds 30 --output json", "true")
            for words in [
                #""reason":"unknown_peer""#, #""direction":"leaving""#, #""pod":"shop/web-0""#, "first=0",
            ] {
                #expect(json.contains(words), "\(words) is not in:\n\(json)")
            }
            #expect(answer("events --seconds 1 \(places)").hasSuffix("status=0\n"))
            #expect(answer("events --count 0 \(places)").contains("status=64"))
        }
    }

    @Test func topShowsWhatMoves() throws {
        try node { node, _, places in
            func top(_ arguments: String) -> String {
                // As long as it looks, however slow the machine is.
                let ping = "ip netns exec \(node.podNamespace) ping -i 0.2 -W 1 10.77.0.1 > /dev/null"
                return shell(
                    "\(ping) & ping=$!; \(Command.path) top \(arguments) \(places) 2>&1; echo status=$?; kill $ping; wait"
                )
                    ?? ""
            }
            let text = top("--interval 2 --count 1")
            for words in ["dropped", "unknown_peer", "PACKETS/S", "status=0"] {
                #expect(text.contains(words), "\(words) is not in:\n\(text)")
            }
            #expect(!text.contains("encrypted"))
            struct Movement: Decodable {
                struct Count: Decodable {
                    var name: String
                    var outcome: String
                    var packets: Int
                }
                var seconds: Double
                var verdicts: [Count]
            }
            let lines = top("--count 2 --output json").split(separator: "\n").filter { $0.hasPrefix("{") }
            let looks = try lines.map { try JSONDecoder().decode(Movement.self, from: Data($0.utf8)) }
            #expect(looks.count == 2 && looks.allSatisfy { (0.9...5).contains($0.seconds) })
            let drops = looks.flatMap(\.verdicts).filter { $0.name == "unknown_peer" }
            #expect(!drops.isEmpty && drops.allSatisfy { $0.outcome == "dropped" })
            // Five a second, and some on the edges.
            let most = Int(looks.map(\.seconds).reduce(0, +) * 5) + 5
            #expect((1...most).contains(drops.map(\.packets).reduce(0, +)), "\(drops)")
            #expect(answer("top --interval 0 \(places)").contains("status=64"))
        }
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

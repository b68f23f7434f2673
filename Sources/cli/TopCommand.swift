import Agent
import ArgumentParser
import Cluster
import Datapath
import Keys

/// `xdp-encryptor top`.
struct TopCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top",
        abstract: "Shows what this node's kernel does with packets now: by verdict and by other node, every second.",
        discussion: """
            The differences of the kernel's counters, which `xdp-encryptor status` shows as they are. What has not moved is left out. \
            docs/drops.md explains the verdicts. Needs root; ends with Ctrl-C.

            EXAMPLES
              xdp-encryptor top
              xdp-encryptor top --interval 10 --count 6
              xdp-encryptor top --output json | jq -c '.verdicts[] | select(.outcome == "dropped")'

            EXIT STATUS
              0 shown as often as was asked for, 1 nothing is loaded or it cannot be read (the reason is on standard error), 64 wrong \
            arguments
            """)

    @Option(help: "text, or json for programs: an object a line.")
    var output = OutputFormat.text

    @Option(help: "Seconds between two looks.")
    var interval = 1

    @Option(help: "End after so many looks.")
    var count: Int?

    @OptionGroup var node: NodeOptions

    func validate() throws {
        if interval < 1 { throw ValidationError("--interval \(interval) is no time; expected 1 or more seconds") }
        if let count, count < 1 { throw ValidationError("--count \(count) is no number of looks; expected 1 or more") }
    }

    func run() async throws {
        let clock = ContinuousClock()
        var (before, at) = (try look(), clock.now)
        var left = count ?? .max
        while left > 0 {
            left -= 1
            try await clock.sleep(until: at + .seconds(interval))
            let (now, time) = (try look(), clock.now)
            let movement = Movement(from: before, to: now, seconds: (time - at) / .seconds(1), agent: node.agent)
            (before, at) = (now, time)
            switch output {
            case .text: try writeAll(Array(movement.text.utf8))
            case .json: try writeJSONLine(movement)
            }
        }
    }

    /// Opens the pins anew each time: an upgrade may have brought other maps.
    private func look() throws -> Movement.Look {
        do throws(DatapathError) {
            let view = try node.view()
            return Movement.Look(counters: try view.counters(), peers: try view.peers().mapValues(\.nodeID))
        } catch {
            throw Failure.exit("top: \(error.message)")
        }
    }
}

/// What has moved between two looks. Its JSON is for programs: fields are added, never renamed.
struct Movement: Encodable {
    /// What a look finds.
    struct Look {
        var counters: Counters
        /// By slot.
        var peers: [UInt32: NodeID]
    }

    struct Peer: Encodable {
        var nodeID: NodeID
        /// nil: the daemon has not told.
        var name: String?
        var counters: Counters.Peer
    }

    /// Of the second look.
    var time: Timestamp
    /// Between the two.
    var seconds: Double
    var verdicts: [StatusReport.VerdictCount]
    var peers: [Peer]

    init(from before: Look, to now: Look, seconds: Double, agent: AgentStatus?) {
        time = .now()
        self.seconds = seconds
        // Maps that were made anew count from 0, as does a slot that another node was given.
        func moved(_ before: UInt64, _ now: UInt64) -> UInt64 { now >= before ? now - before : now }
        verdicts = Verdict.allCases.compactMap { verdict in
            let (old, new) = (before.counters.verdicts[verdict], now.counters.verdicts[verdict])
            let packets = moved(old?.packets ?? 0, new?.packets ?? 0)
            guard packets > 0 else { return nil }
            return StatusReport.VerdictCount(
                outcome: verdict.outcome.rawValue, name: verdict.name, packets: packets,
                bytes: moved(old?.bytes ?? 0, new?.bytes ?? 0))
        }
        peers = now.peers.sorted { $0.key < $1.key }.compactMap { slot, nodeID in
            let old = before.peers[slot] == nodeID ? before.counters.peers[slot] : nil
            guard let new = now.counters.peers[slot], new != old ?? Counters.Peer() else { return nil }
            var counters = Counters.Peer()
            for field in Self.fields {
                counters[keyPath: field] = moved(old?[keyPath: field] ?? 0, new[keyPath: field])
            }
            return Peer(nodeID: nodeID, name: agent?.node(nodeID), counters: counters)
        }
    }

    private static var fields: [WritableKeyPath<Counters.Peer, UInt64>] {
        [
            \.sentPackets, \.sentBytes, \.receivedPackets, \.receivedBytes, \.droppedAuth, \.droppedReplay,
            \.droppedOther,
        ]
    }

    var text: String {
        func rate(_ count: UInt64) -> String { String(UInt64((Double(count) / seconds).rounded())) }
        var lines = ["\(time)"]
        if verdicts.isEmpty { return lines[0] + "  nothing moves\n" }
        lines += columns(
            [["", "REASON", "PACKETS/S", "BYTES/S"]]
                + verdicts.map {
                    ["  " + ($0.outcome == "fault" ? "FAULT" : $0.outcome), $0.name, rate($0.packets), rate($0.bytes)]
                })
        if !peers.isEmpty {
            lines += columns(
                [["  NODE", "SENT/S", "BYTES/S", "RECEIVED/S", "BYTES/S", "DROPPED/S"]]
                    + peers.map { peer in
                        let counters = peer.counters
                        return [
                            "  " + (peer.name ?? String(peer.nodeID)), rate(counters.sentPackets),
                            rate(counters.sentBytes), rate(counters.receivedPackets), rate(counters.receivedBytes),
                            rate(counters.droppedAuth + counters.droppedReplay + counters.droppedOther),
                        ]
                    })
        }
        return lines.joined(separator: "\n") + "\n"
    }
}

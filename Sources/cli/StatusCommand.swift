import ArgumentParser
import Datapath
import FoundationEssentials
import Keys
import Netlink

/// `xdp-encryptor status`: what the kernel of this node holds and does.
struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Shows what this node's kernel holds: pods, peers, keys, counters.",
        discussion: """
            Reads the pinned maps, so it works while the daemon is down. Needs root. Never shows a key.

            EXAMPLES
              xdp-encryptor status
              xdp-encryptor status --output json | jq .verdicts

            EXIT STATUS
              0 shown, 1 nothing is loaded or it cannot be read (the reason is on standard error), 64 wrong arguments
            """)

    /// How the answer is written.
    enum Output: String, ExpressibleByArgument, CaseIterable {
        case text
        case json
    }

    @Option(help: "text, or json for programs.")
    var output: Output = .text

    @Option(help: "Folder of the pins.")
    var pinPath = "/sys/fs/bpf/xdp-encryptor"

    @Option(help: "Folder of the daemon's records.")
    var stateDirectory = "/run/xdp-encryptor"

    func run() throws {
        let report: StatusReport
        do throws(DatapathError) {
            report = try StatusReport(DatapathView(pinPath: pinPath, stateDirectory: stateDirectory))
        } catch {
            throw Failure.exit("status: \(error.message)")
        }
        switch output {
        case .text: try writeAll(Array(report.text.utf8))
        case .json:
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
            try writeAll([UInt8](encoder.encode(report)) + [UInt8(ascii: "\n")])
        }
    }
}

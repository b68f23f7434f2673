import ArgumentParser
import Datapath

/// `xdp-encryptor status`: what the kernel of this node holds and does.
struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Shows what this node's kernel holds: pods, peers, keys, counters, and what is wrong.",
        discussion: """
            Reads the pinned maps, so it works while the daemon is down. Names of pods and nodes, and problems, are as the daemon has \
            written them last. Needs root. Never shows a key.

            EXAMPLES
              xdp-encryptor status
              xdp-encryptor status --output json | jq .verdicts

            EXIT STATUS
              0 shown, 1 nothing is loaded or it cannot be read (the reason is on standard error), 64 wrong arguments
            """)

    @Option(help: "text, or json for programs.")
    var output = OutputFormat.text

    @OptionGroup var node: NodeOptions

    func run() throws {
        let report: StatusReport
        do throws(DatapathError) {
            report = try StatusReport(node.view(), agent: node.agent)
        } catch {
            throw Failure.exit("status: \(error.message)")
        }
        switch output {
        case .text: try writeAll(Array(report.text.utf8))
        case .json: try writeJSON(report)
        }
    }
}

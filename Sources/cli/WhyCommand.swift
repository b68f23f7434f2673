import ArgumentParser
import Datapath
import Netlink

/// `xdp-encryptor why`.
struct WhyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "why",
        abstract: "Says what this node's kernel does with packets of a pod, or between two, and why.",
        discussion: """
            Works out, from the pinned maps, what the programs would do with an ordinary packet: encrypt it, pass it in clear, or drop \
            it; with the reason and what to do about it. Sends nothing. Each end of a connection has its own answer: run it on both \
            nodes. Needs root.

            Pods of this node can be named; those of other nodes are known here by their addresses.

            EXAMPLES
              xdp-encryptor why shop/web-0                     to pods of all other nodes
              xdp-encryptor why shop/web-0 10.244.2.17
              xdp-encryptor why shop/web-0 10.96.0.10          a service, where socket load balancing is on
              xdp-encryptor why 10.244.1.4 10.244.2.17 --output json | jq -r .outcome

            EXIT STATUS
              0 encrypted, or between pods of this node; 1 nothing is loaded or it cannot be read (the reason is on standard error); \
            2 some of it passes in clear; 3 some of it is dropped; 4 this node cannot say: no end is a protected pod of it, no pod has \
            this name, or there is nobody to talk to; 64 wrong arguments
            """)

    @Argument(help: "An address, or a pod of this node: namespace/name, name or UID.")
    var one: String

    @Argument(help: "The other end.")
    var other: String?

    @Option(help: "text, or json for programs.")
    var output = OutputFormat.text

    @OptionGroup var node: NodeOptions

    func run() throws {
        let inquiry: Inquiry
        do throws(DatapathError) {
            let view = try node.view()
            inquiry = Inquiry(state: try view.state(), agent: node.agent, services: try view.services())
        } catch {
            throw Failure.exit("why: \(error.message)")
        }
        let report: WhyReport
        do throws(Inquiry.Unknown) {
            let first = try inquiry.named(one)
            if let other {
                report = inquiry.report(first, try inquiry.named(other))
            } else {
                report = inquiry.report(first)
            }
        } catch {
            throw Failure.exit("why: \(error.description)", code: 4)
        }
        switch output {
        case .text: try writeAll(Array(report.text.utf8))
        case .json: try writeJSON(report)
        }
        let code: Int32 =
            switch report.outcome {
            case .encrypted, .sameNode: 0
            case .clear: 2
            case .dropped: 3
            case .elsewhere: 4
            }
        if code != 0 { throw ExitCode(code) }
    }
}

import ArgumentParser
import Commands

/// The command that people type. One subcommand a file; each is registered with one line here.
@main
struct XDPEncryptor: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "xdp-encryptor",
        abstract: "Shows and drives the encryption of pod traffic on this node.",
        discussion: """
            Pods with the annotation ebpf.xdp/encrypt: "true" talk AES-256-GCM between nodes; the kernel encrypts at the pod's own \
            interface. The node's daemon, ebpf-xdp-keymgr, keeps keys and programs in place; this command looks at what the \
            kernel holds and works without the daemon.

            EXAMPLES
              xdp-encryptor status                  who is attached, keys, drops
              xdp-encryptor status --output json    the same for programs
              xdp-encryptor why shop/web-0          what happens with a pod's packets, and why
              xdp-encryptor events                  drops as they happen
              xdp-encryptor top                     packets a second, by verdict and by other node
              xdp-encryptor gcm < vectors.jsonl     the kernel's cipher on your vectors
              xdp-encryptor demo                    two nodes, two pods, real packets

            EXIT STATUS
              0 done, 1 failed (the reason is on standard error), 64 wrong arguments
            """,
        version: "0.1.0",
        subcommands: [
            StatusCommand.self,
            WhyCommand.self,
            EventsCommand.self,
            TopCommand.self,
            GCMCommand.self,
            KeysCommand.self,
            EpochCommand.self,
            DemoCommand.self,
            CNICommand.self,
        ])

    /// Container runtimes start plugins without arguments.
    static func main() async {
        if CNICommand.isPlugin(arguments: CommandLine.arguments, environment: Program.environment) {
            await main(["cni"])
        } else {
            await main(nil)
        }
    }
}

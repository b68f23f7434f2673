import Agent
import ArgumentParser
import Commands

/// `ebpf-xdp-keymgr`: the daemon of a node.
@main
struct Keymgr: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ebpf-xdp-keymgr",
        abstract: "Keeps the encryption of this node's pods in place: keys, programs, epochs.",
        discussion: """
            EXAMPLES
              ebpf-xdp-keymgr check --config /etc/xdp-encryptor/keymgr.json    is everything in order?
              ebpf-xdp-keymgr run --config /etc/xdp-encryptor/keymgr.json      work until SIGTERM
              ebpf-xdp-keymgr detach --config /etc/xdp-encryptor/keymgr.json   undo all of it

            The environment variable KMS_PROVIDER chooses the KMS (local, aws, gcp, azure, openbao).

            EXIT STATUS
              0 done, 1 failed (the reason is on standard error), 64 wrong arguments, 75 another one is running,
              78 the configuration cannot work
            """,
        version: "0.1.0",
        subcommands: [RunCommand.self, DetachCommand.self, CheckCommand.self])
}

/// What it says and how it ends.
let program = Program("ebpf-xdp-keymgr")

/// `--config FILE`, of every subcommand.
struct ConfigurationOption: ParsableArguments {
    @Option(name: .customLong("config"), help: "The configuration file, JSON (docs/configuration.md).")
    var path: String

    /// Reads it, or says what is wrong and ends.
    func read() throws -> AgentConfiguration {
        do throws(ConfigurationError) {
            let (configuration, warnings) = try AgentConfiguration.read(path)
            for warning in warnings { program.say("warning: \(warning)") }
            return configuration
        } catch {
            throw program.configuration("\(error)")
        }
    }
}

import ArgumentParser
import Commands
import Operator

/// `ebpf-xdp-operator`: decides who is protected, and opens key epochs.
@main
struct OperatorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ebpf-xdp-operator",
        abstract:
            "Watches policies, mesh resources and pods; tells each node which of its pods to protect; opens key epochs.",
        discussion: """
            EXAMPLES
              ebpf-xdp-operator run --config /etc/xdp-encryptor/operator.json                              in a pod
              ebpf-xdp-operator run --config operator.json --kubeconfig ~/.kube/config                     elsewhere
              ebpf-xdp-operator check --config /etc/xdp-encryptor/operator.json                            is everything in order?

            docs/configuration.md explains every key of the configuration, docs/kubernetes.md how it works.
            """,
        version: "0.1.0",
        subcommands: [RunCommand.self, CheckCommand.self])
}

/// What it says and how it ends.
let program = Program("ebpf-xdp-operator")

/// What the commands have in common.
struct CommonOptions: ParsableArguments {
    @Option(name: .customLong("config"), help: "The configuration file.")
    var path: String

    @Option(help: "A kubeconfig file; without it, the service account of the pod that this runs in is used.")
    var kubeconfig: String?

    /// Reads it; says what is odd; exits when it cannot work.
    func read() throws -> OperatorConfiguration {
        do throws(OperatorConfigurationError) {
            let (configuration, warnings) = try OperatorConfiguration.read(path)
            for warning in warnings { program.say("warning: \(warning)") }
            return configuration
        } catch {
            throw program.configuration("\(error)")
        }
    }
}

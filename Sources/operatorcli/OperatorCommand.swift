import ArgumentParser
import Glibc
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
            for warning in warnings { say("warning: \(warning)") }
            return configuration
        } catch {
            throw Exit.configuration("\(error)")
        }
    }
}

/// Ways to end, after a sentence on standard error.
enum Exit {
    static func failure(_ sentence: String) -> ExitCode { end(1, sentence) }
    /// EX_CONFIG of sysexits.h.
    static func configuration(_ sentence: String) -> ExitCode { end(78, sentence) }

    private static func end(_ code: Int32, _ sentence: String) -> ExitCode {
        say("error: \(sentence)")
        return ExitCode(code)
    }
}

/// Writes a line to standard error.
func say(_ line: String) {
    let bytes = Array("ebpf-xdp-operator: \(line)\n".utf8)
    _ = write(2, bytes, bytes.count)
}

/// The process's environment.
var processEnvironment: [String: String] {
    var values: [String: String] = [:]
    var next = environ
    while let entry = next.pointee {
        let text = String(cString: entry)
        if let equals = text.firstIndex(of: "=") {
            values[String(text[..<equals])] = String(text[text.index(after: equals)...])
        }
        next += 1
    }
    return values
}

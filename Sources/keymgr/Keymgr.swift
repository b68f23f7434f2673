import Agent
import ArgumentParser
import Glibc

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

/// `--config FILE`, of every subcommand.
struct ConfigurationOption: ParsableArguments {
    @Option(name: .customLong("config"), help: "The configuration file, JSON (docs/configuration.md).")
    var path: String

    /// Reads it, or says what is wrong and ends.
    func read() throws -> AgentConfiguration {
        do throws(ConfigurationError) {
            let (configuration, warnings) = try AgentConfiguration.read(path)
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
    /// EX_TEMPFAIL of sysexits.h.
    static func running(_ sentence: String) -> ExitCode { end(75, sentence) }
    /// EX_CONFIG of sysexits.h: systemd does not restart us for it.
    static func configuration(_ sentence: String) -> ExitCode { end(78, sentence) }

    private static func end(_ code: Int32, _ sentence: String) -> ExitCode {
        say("error: \(sentence)")
        return ExitCode(code)
    }
}

/// Writes a line to standard error.
func say(_ line: String) {
    let bytes = Array("ebpf-xdp-keymgr: \(line)\n".utf8)
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

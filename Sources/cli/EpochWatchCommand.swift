import Agent
import ArgumentParser
import Commands
import Glibc
import KMS
import Secrets

extension EpochCommand {
    /// `xdp-encryptor epoch watch`.
    struct Watch: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "watch",
            abstract: "Makes epochs on its own: the first, before the newest gets old, and when the KEK was rotated.",
            discussion: """
                Run one for a cluster, as a service. It asks the KMS for the KEK's version at intervals with jitter, and makes an epoch \
                as `epoch open` does when it is another than the one that wrapped the newest epoch, or when the newest epoch has \
                reached half of its time. Nodes do not depend on it: without it, the newest epoch lasts until its end.

                EXAMPLES
                  xdp-encryptor epoch watch --cluster-directory /srv/xdp-encryptor --config /etc/xdp-encryptor/keymgr.json

                EXIT STATUS
                  64 wrong arguments, 78 the configuration cannot work (the reason is on standard error); ends on a signal only otherwise
                """)

        @OptionGroup var directory: DirectoryOption

        @Option(help: "A keymgr's configuration file: its kms section says who wraps DEKs.")
        var config: String

        @Option(help: "How often to ask for the KEK's version, seconds, give or take a fifth.")
        var pollInterval: Int = 300

        func validate() throws {
            guard (1...86_400).contains(pollInterval) else {
                throw ValidationError("--poll-interval \(pollInterval) is out of range; expected 1 to 86400 seconds")
            }
        }

        func run() async throws {
            for warning in ProcessHardening.apply().warnings { say("warning: \(warning)") }
            do {
                let (configuration, warnings) = try AgentConfiguration.read(config)
                for warning in warnings { say("warning: \(warning)") }
                let writer = EpochWriter(
                    directory: directory.clusterDirectory,
                    kms: try configuration.kms.makeService(environment: Program.environment),
                    pollInterval: .seconds(pollInterval)
                ) { line in say(line) }
                try await writer.run()
            } catch let error as KMSError {
                throw Failure.exit("epoch watch: \(error)", code: error.exitCode ?? 1)
            } catch let error as ConfigurationError {
                throw Failure.exit("epoch watch: \(error)", code: 78)
            }
        }
    }
}

/// A line to standard error, at once.
private func say(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    _ = write(2, bytes, bytes.count)
}

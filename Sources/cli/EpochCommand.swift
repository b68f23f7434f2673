import Agent
import ArgumentParser
import Cluster
import Commands
import Glibc
import KMS
import Keys
import Secrets

/// `xdp-encryptor epoch`.
struct EpochCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "epoch", abstract: "Opens and lists epochs: the periods of the cluster's data keys.",
        subcommands: [Open.self, List.self, Watch.self])

    /// Where the cluster's objects are.
    struct DirectoryOption: ParsableArguments {
        @Option(help: "The cluster directory.")
        var clusterDirectory: String

        func scan() -> Snapshot {
            var reader = DirectoryReader(path: clusterDirectory)
            return reader.scan()
        }
    }

    /// `xdp-encryptor epoch open`.
    struct Open: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "open",
            abstract: "Makes the next epoch: a new DEK, wrapped by the KMS. Nodes switch to it on their own.",
            discussion: """
                EXAMPLES
                  xdp-encryptor epoch open --cluster-directory /srv/xdp-encryptor --kek-file /etc/xdp-encryptor/kek
                  xdp-encryptor epoch open --cluster-directory /srv/xdp-encryptor --config /etc/xdp-encryptor/keymgr.json --wait

                With --wait it waits until two epochs are no longer live, makes the next one, and waits until all nodes send with it.

                EXIT STATUS
                  0 done, 1 failed (the reason is on standard error), 64 wrong arguments, 75 two epochs are live, or nodes
                  did not follow in time
                """)

        @OptionGroup var directory: DirectoryOption

        @Option(help: "The KEK file of provider local.")
        var kekFile: String?

        @Option(help: "A keymgr's configuration file: its kms section says who wraps the DEK.")
        var config: String?

        @Flag(help: "Wait until all nodes send with the new epoch.")
        var wait = false

        @Option(help: "How long to wait at most, seconds.")
        var timeout: Int = 300

        func validate() throws {
            guard (kekFile == nil) != (config == nil) else {
                throw ValidationError("give either --kek-file or --config: one of them says who wraps the DEK")
            }
            guard (1...86_400).contains(timeout) else {
                throw ValidationError("--timeout \(timeout) is out of range; expected 1 to 86400 seconds")
            }
        }

        func run() async throws {
            // Some providers' DEKs are made and wrapped in this process.
            _ = ProcessHardening.apply()
            do {
                let kms = try makeService()
                let deadline = Timestamp.now().adding(seconds: Int64(timeout))
                let epoch = try await open(kms, until: deadline)
                print("opened epoch \(epoch.number), ends \(epoch.notAfter)")
                if wait { try await follow(epoch.number, until: deadline) }
            } catch let error as KMSError {
                throw Failure.exit("epoch open: \(error)")
            } catch let error as EpochOpening.Refusal {
                throw Failure.exit(
                    "epoch open: \(error)\(error.isTemporary ? " (--wait does)" : "")", code: error.isTemporary ? 75 : 1
                )
            } catch let error as FileError {
                let hint = error.errno == EEXIST ? "; somebody else has just opened it" : ""
                throw Failure.exit("epoch open: \(error)\(hint)")
            } catch let error as ConfigurationError {
                throw Failure.exit("epoch open: \(error)")
            }
        }

        private func makeService() throws -> any KeyManagementService {
            if let kekFile { return LocalKMS(kekFile: kekFile) }
            guard let config else { throw ValidationError("give either --kek-file or --config") }
            let (configuration, _) = try AgentConfiguration.read(config)
            return try configuration.kms.makeService(environment: Program.environment)
        }

        private func open(_ kms: any KeyManagementService, until deadline: Timestamp) async throws -> EncryptionEpoch {
            let opening = EpochOpening(directory: directory.clusterDirectory, kms: kms)
            while true {
                do {
                    return try await opening.open(directory.scan())
                } catch let error as EpochOpening.Refusal {
                    guard wait, error.isTemporary else { throw error }
                    guard .now() < deadline else {
                        throw Failure.exit("epoch open: after \(timeout) s still: \(error)", code: 75)
                    }
                    try await Task.sleep(for: .milliseconds(50))
                }
            }
        }

        private func follow(_ number: Epoch, until deadline: Timestamp) async throws {
            var shown = ""
            while true {
                let nodes = directory.scan().nodes
                let holding = nodes.values.count { $0.epochs.contains(number) }
                let sending = nodes.values.count { $0.sending >= number }
                let progress = "\(holding) of \(nodes.count) nodes hold it, \(sending) send with it"
                if progress != shown { print(progress) }
                shown = progress
                if sending == nodes.count { return }
                guard .now() < deadline else {
                    let missing = nodes.filter { $0.value.sending < number }.keys.sorted().joined(separator: ", ")
                    throw Failure.exit(
                        "epoch open: after \(timeout) s these nodes do not send with epoch \(number): \(missing)",
                        code: 75)
                }
                try await Task.sleep(for: .milliseconds(50))
            }
        }
    }

    /// `xdp-encryptor epoch list`.
    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "list",
            abstract: "Lists epochs: where each stands, until when it lasts, and which nodes hold its keys.",
            discussion: """
                EXAMPLES
                  xdp-encryptor epoch list --cluster-directory /srv/xdp-encryptor
                  xdp-encryptor epoch list --cluster-directory /srv/xdp-encryptor --output json

                EXIT STATUS
                  0 done, 1 the directory cannot be read, 64 wrong arguments
                """)

        @OptionGroup var directory: DirectoryOption

        @Option(help: "How to print: text or json.")
        var output = OutputFormat.text

        func run() throws {
            let snapshot = directory.scan()
            for problem in snapshot.problems.sorted() {
                _ = Failure.exit("\(problem.severity.rawValue): \(directory.clusterDirectory)/\(problem)")
            }
            guard let cluster = snapshot.cluster, snapshot.isComplete(.epochs) else { throw ExitCode(1) }
            let decision = EpochDecision.decide(
                cluster: cluster, epochs: snapshot.epochs, nodes: Array(snapshot.nodes.values), now: .now())
            let list = AgentStatus.epochs(snapshot.epochs, states: decision.states, nodes: snapshot.nodes)
            switch output {
            case .json: try writeAll(ObjectCoding.encode(list))
            case .text:
                var lines = [row("EPOCH", "STATE", "ENDS", "HELD BY", "NOT BY")]
                for epoch in list {
                    // Nobody shall hold it any more.
                    let isOver = epoch.state == .ended || epoch.state == .expired
                    lines.append(
                        row(
                            "\(epoch.number)", epoch.state.rawValue, "\(epoch.notAfter)", names(epoch.acknowledgedBy),
                            names(isOver ? [] : epoch.missing)))
                }
                try writeAll(Array((lines.joined(separator: "\n") + "\n").utf8))
            }
        }

        private func names(_ names: [String]) -> String { names.isEmpty ? "-" : names.joined(separator: ",") }

        private func row(_ epoch: String, _ state: String, _ ends: String, _ held: String, _ missing: String) -> String
        {
            func left(_ text: String, _ width: Int) -> String {
                text + String(repeating: " ", count: max(1, width - text.count))
            }
            return left(epoch, 7) + left(state, 10) + left(ends, 26) + left(held, 30) + missing
        }
    }
}

import Agent
import ArgumentParser
import Cluster
import Commands
import Glibc
import KMS
import Keys
import Netlink
import Secrets

/// `xdp-encryptor keys`.
struct KeysCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "keys", abstract: "Makes what a cluster's keys begin with.", subcommands: [Initialise.self])

    /// `xdp-encryptor keys init`.
    struct Initialise: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "init",
            abstract: "Makes a KEK file, and a cluster directory with its first epoch.",
            discussion: """
                For provider local. Nothing that exists is overwritten: what is there already is kept and named, so that the \
                command may be repeated.

                EXAMPLES
                  xdp-encryptor keys init --kek-file /etc/xdp-encryptor/kek
                  xdp-encryptor keys init --kek-file /etc/xdp-encryptor/kek --cluster-directory /srv/xdp-encryptor \\
                      --strict-cidr 10.244.0.0/16 --strict-cidr fd00:244::/48

                Copy the KEK file to every node (mode 0600), and make the cluster directory visible to all of them.

                EXIT STATUS
                  0 done, or everything was there already; 1 failed (the reason is on standard error), 64 wrong arguments
                """)

        @Option(help: "The KEK file to make, mode 0600.")
        var kekFile: String

        @Option(help: "The cluster directory to make or complete.")
        var clusterDirectory: String?

        @Option(
            name: .customLong("strict-cidr"),
            help: "Pod addresses: packets of protected pods to unknown ones of these are dropped. May be repeated.")
        var strictCIDRs: [String] = []

        func validate() throws {
            if clusterDirectory == nil, !strictCIDRs.isEmpty {
                throw ValidationError("--strict-cidr needs --cluster-directory")
            }
            do throws(IPParseError) {
                _ = try prefixes()
            } catch {
                throw ValidationError("--strict-cidr: \(error)")
            }
        }

        private func prefixes() throws(IPParseError) -> [IPPrefix] {
            try strictCIDRs.map { text throws(IPParseError) in try IPPrefix(text) }
        }

        func run() async throws {
            // The KEK and the first DEK are made in this process.
            _ = ProcessHardening.apply()
            do {
                try await makeKEKFile()
                if let clusterDirectory { try await makeCluster(clusterDirectory) }
            } catch let error as KMSError {
                throw Failure.exit("keys init: \(error.message)")
            } catch let error as FileError {
                throw Failure.exit("keys init: \(error)")
            } catch let error as EpochOpening.Refusal {
                throw Failure.exit("keys init: \(error)")
            }
        }

        private func makeKEKFile() async throws {
            var status = stat()
            guard lstat(kekFile, &status) != 0 else {
                // Whatever is there: only a KEK file is of use.
                try await LocalKMS(kekFile: kekFile).checkHealth()
                return print("kept \(kekFile)")
            }
            try LocalKMS.createKEKFile(at: kekFile)
            print("made \(kekFile)")
        }

        private func makeCluster(_ path: String) async throws {
            let prefixes = try prefixes()
            for folder in [path] + ObjectKind.allCases.compactMap(\.folder).map({ "\(path)/\($0)" }) {
                guard mkdir(folder, 0o750) == 0 || errno == EEXIST else {
                    throw FileError("make", folder, errno: errno)
                }
            }
            do throws(FileError) {
                try DirectoryWriter(path: path).create(Cluster(id: .random(), strictCIDRs: prefixes))
                print("made \(path)/cluster.json")
            } catch {
                guard error.errno == EEXIST else { throw error }
                print("kept \(path)/cluster.json")
            }
            var reader = DirectoryReader(path: path)
            let snapshot = reader.scan()
            if let cluster = snapshot.cluster, !prefixes.isEmpty, Set(cluster.strictCIDRs) != Set(prefixes) {
                let present =
                    cluster.strictCIDRs.isEmpty
                    ? "none" : "\(cluster.strictCIDRs.map(\.description).joined(separator: ", "))"
                throw Failure.exit(
                    "keys init: \(path)/cluster.json was there already, and its strictCIDRs (\(present)) are not those that were given; change them there"
                )
            }
            guard snapshot.epochs.isEmpty, snapshot.isComplete(.epochs) else { return print("kept \(path)/epochs") }
            let epoch = try await EpochOpening(directory: path, kms: LocalKMS(kekFile: kekFile)).open(snapshot)
            print("made \(path)/epochs/\(epoch.number).json")
        }
    }
}

/// What it says.
let program = Program("xdp-encryptor")

/// How a command ends that could not do its work.
enum Failure {
    /// Says why on standard error.
    static func exit(_ sentence: String, code: Int32 = 1) -> ExitCode {
        program.say(sentence)
        return ExitCode(code)
    }
}

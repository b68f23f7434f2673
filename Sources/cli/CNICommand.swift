import Agent
import ArgumentParser
import Commands
import Glibc

/// `xdp-encryptor cni`.
struct CNICommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cni",
        abstract: "The CNI plugin: a protected pod starts only when its programs are attached.",
        subcommands: [Run.self, CNIInstallCommand.self, CNIUninstallCommand.self], defaultSubcommand: Run.self)

    /// Whether this process was started as a plugin: by its name, or with the runtime's environment; without arguments in any case.
    static func isPlugin(arguments: [String], environment: [String: String]) -> Bool {
        let name = (arguments.first ?? "").split(separator: "/").last ?? ""
        return arguments.count <= 1 && (name == CNIInstallation.type || environment["CNI_COMMAND"] != nil)
    }

    /// `xdp-encryptor cni run`: what runtimes start.
    struct Run: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "run",
            abstract: "Does what CNI_COMMAND says, as a plugin.",
            discussion: """
                Container runtimes start it under the name xdp-encryptor-cni, or with CNI_COMMAND in its environment, as the last of the \
                plugins in a .conflist:

                  { "type": "xdp-encryptor-cni",
                    "capabilities": { "io.kubernetes.cri.pod-annotations": true },
                    "onDaemonAbsent": "refuse-protected" }

                It asks ebpf-xdp-keymgr at /run/xdp-encryptor/cni.sock. docs/configuration.md has every key.

                EXIT STATUS
                  0 done, 1 refused; the reason is on standard output, as JSON of the CNI specification
                """)

        func run() throws {
            let outcome = CNIPlugin(environment: Program.environment, input: readInput()).run()
            try writeAll(outcome.output)
            guard outcome.status == 0 else { throw ExitCode(outcome.status) }
        }

        /// All of standard input, up to a megabyte; nothing from a terminal.
        private func readInput() -> [UInt8] {
            guard isatty(0) == 0 else { return [] }
            var bytes: [UInt8] = []
            var buffer = [UInt8](repeating: 0, count: 1 << 16)
            while bytes.count < 1 << 20 {
                let count = read(0, &buffer, buffer.count)
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { break }
                bytes += buffer[..<count]
            }
            return bytes
        }
    }
}

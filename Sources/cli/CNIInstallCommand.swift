import Agent
import ArgumentParser
import Cluster

/// Where container runtimes look for plugins.
struct CNIFolders: ParsableArguments {
    @Option(help: "The folder of plugins.")
    var binDir = "/opt/cni/bin"

    @Option(help: "The folder of network configurations.")
    var confDir = "/etc/cni/net.d"

    var installation: CNIInstallation { CNIInstallation(programs: binDir, configurations: confDir) }
}

/// `xdp-encryptor cni install`.
struct CNIInstallCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "install",
        abstract: "Installs this program as a CNI plugin, and adds it to the network configuration in force.",
        discussion: """
            Copies itself as xdp-encryptor-cni, and adds an entry at the end of the first .conflist by name, which is the one that \
            runtimes use. All else in that file stays as it is written. May be repeated: nothing is done twice.

            EXAMPLE
              xdp-encryptor cni install --bin-dir /host/opt/cni/bin --conf-dir /host/etc/cni/net.d

            EXIT STATUS
              0 installed, 1 not (the reason is on standard error), 64 wrong arguments
            """)

    enum OnDaemonAbsent: String, ExpressibleByArgument, CaseIterable {
        case refuseProtected = "refuse-protected"
        case refuseAll = "refuse-all"
        case allow
    }
    enum UnknownPods: String, ExpressibleByArgument, CaseIterable {
        case allow, refuse
    }

    @OptionGroup var folders: CNIFolders

    @Option(help: "The daemon's socket, if it is another than /run/xdp-encryptor/cni.sock.")
    var socket: String?

    @Option(help: "What happens with pods while the daemon does not answer.")
    var onDaemonAbsent: OnDaemonAbsent?

    @Option(help: "What happens then with pods of which nothing is known.")
    var unknownPods: UnknownPods?

    func run() throws {
        var options = CNIInstallation.Options()
        options.socket = socket
        options.onDaemonAbsent = onDaemonAbsent?.rawValue
        options.unknownPods = unknownPods?.rawValue
        do throws(FileError) {
            let done = try folders.installation.install(program: "/proc/self/exe", options)
            print(done.isEmpty ? "everything was there" : done.joined(separator: "\n"))
        } catch {
            throw Failure.exit("cni install: \(error)")
        }
    }
}

/// `xdp-encryptor cni uninstall`.
struct CNIUninstallCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "uninstall",
        abstract: "Takes the plugin out of all network configurations, then removes it.",
        discussion: """
            EXAMPLE
              xdp-encryptor cni uninstall --bin-dir /host/opt/cni/bin --conf-dir /host/etc/cni/net.d

            EXIT STATUS
              0 removed, or nothing was there; 1 failed (the reason is on standard error), 64 wrong arguments
            """)

    @OptionGroup var folders: CNIFolders

    func run() throws {
        do throws(FileError) {
            let done = try folders.installation.uninstall()
            print(done.isEmpty ? "nothing was there" : done.joined(separator: "\n"))
        } catch {
            throw Failure.exit("cni uninstall: \(error)")
        }
    }
}

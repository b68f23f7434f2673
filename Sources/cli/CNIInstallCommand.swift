import Agent
import ArgumentParser
import Cluster
import Glibc

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
            Copies itself as xdp-encryptor-cni, and adds an entry at the end of the first configuration by name, which is the one that \
            runtimes use. All else in that file stays as it is written. May be repeated: nothing is done twice. With --watch it goes \
            on, and puts the entry back whenever the network's own agent has written its file anew, until SIGTERM.

            EXAMPLES
              xdp-encryptor cni install --bin-dir /host/opt/cni/bin --conf-dir /host/etc/cni/net.d
              xdp-encryptor cni install --watch
              xdp-encryptor cni install --check

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

    @Flag(help: "Go on, and put the entry back when it is lost.")
    var watch = false

    @Flag(help: "Change nothing; say whether it is installed.")
    var check = false

    /// This very program.
    private static let program = "/proc/self/exe"

    private var options: CNIInstallation.Options {
        var options = CNIInstallation.Options()
        options.socket = socket
        options.onDaemonAbsent = onDaemonAbsent?.rawValue
        options.unknownPods = unknownPods?.rawValue
        return options
    }

    func validate() throws {
        if watch, check { throw ValidationError("--watch and --check exclude each other") }
    }

    func run() throws {
        if watch { return keep() }
        do throws(FileError) {
            if check {
                guard try folders.installation.isInstalled(program: Self.program, options) else {
                    throw FileError("not installed, or not as these arguments say")
                }
            } else {
                let done = try folders.installation.install(program: Self.program, options)
                print(done.isEmpty ? "everything was there" : done.joined(separator: "\n"))
            }
        } catch {
            throw Failure.exit("cni install: \(error)")
        }
    }

    private func keep() {
        // The first process of a container ends by signals only when it asks for them.
        for ending in [SIGTERM, SIGINT] { signal(ending) { _ in _exit(0) } }
        var last = ""
        while true {
            do throws(FileError) {
                for sentence in try folders.installation.install(program: Self.program, options) { print(sentence) }
                fflush(nil)
                last = ""
            } catch {
                // Once, not at every look.
                if "\(error)" != last { _ = Failure.exit("cni install: \(error); trying again") }
                last = "\(error)"
                sleep(1)
            }
            folders.installation.waitForChange(program: Self.program, options)
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

            CRI-O stops a pod with the plugins that it was started with: there, keep the program until those pods have gone.

            EXIT STATUS
              0 removed, or nothing was there; 1 failed (the reason is on standard error), 64 wrong arguments
            """)

    @OptionGroup var folders: CNIFolders

    @Flag(help: "Leave the program where it is.")
    var keepProgram = false

    func run() throws {
        do throws(FileError) {
            let done = try folders.installation.uninstall(keepsProgram: keepProgram)
            print(done.isEmpty ? "nothing was there" : done.joined(separator: "\n"))
        } catch {
            throw Failure.exit("cni uninstall: \(error)")
        }
    }
}

import Agent
import ArgumentParser
import Cluster
import Glibc

/// The folders of a node's container runtime.
struct CNIFolders: ParsableArguments {
    @Option(help: "Where the container runtime looks for plugins.")
    var binDir = "/opt/cni/bin"

    @Option(help: "Where the container runtime looks for networks.")
    var confDir = "/etc/cni/net.d"

    /// An installer of this very program.
    func installer(onDaemonAbsent: String = "refuse-protected", unknownPods: String = "allow") -> CNIInstaller {
        CNIInstaller(
            program: "/proc/self/exe", programs: binDir, networks: confDir,
            settings: .init(onDaemonAbsent: onDaemonAbsent, unknownPods: unknownPods))
    }
}

/// `xdp-encryptor cni-install`.
struct CNIInstallCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cni-install",
        abstract: "Installs the CNI plugin on this node, behind the plugins of its network.",
        discussion: """
            Copies this program to the plugins' folder as xdp-encryptor-cni, and puts it into the chain of the network that the \
            container runtime uses: the first file of its folder, by name. What is there already is left as it is, so the \
            command may be repeated. With --watch it goes on and puts the plugin back whenever the network's own agent has \
            written the file anew, until SIGTERM.

            EXAMPLES
              xdp-encryptor cni-install
              xdp-encryptor cni-install --watch --bin-dir /host/bin --conf-dir /host/conf
              xdp-encryptor cni-install --check

            EXIT STATUS
              0 done, 1 it cannot be (the reason is on standard error) or --check found it missing, 64 wrong arguments
            """)

    /// While keymgr does not answer.
    enum OnDaemonAbsent: String, ExpressibleByArgument, CaseIterable {
        case refuseProtected = "refuse-protected"
        case refuseAll = "refuse-all"
        case allow
    }
    /// Of pods of which nothing is known.
    enum UnknownPods: String, ExpressibleByArgument, CaseIterable {
        case allow
        case refuse
    }

    @OptionGroup var folders: CNIFolders

    @Option(help: "Which pods do not start while keymgr does not answer: refuse-protected, refuse-all, or allow for none.")
    var onDaemonAbsent = OnDaemonAbsent.refuseProtected

    @Option(help: "Whether pods start of which nothing can be known, because neither runtime nor API server tell: allow or refuse.")
    var unknownPods = UnknownPods.allow

    @Flag(help: "Go on, and put the plugin back when it is lost.")
    var watch = false

    @Flag(help: "Change nothing; say whether it is installed.")
    var check = false

    func run() throws {
        let installer = folders.installer(onDaemonAbsent: onDaemonAbsent.rawValue, unknownPods: unknownPods.rawValue)
        if check {
            do throws(FileError) {
                guard try installer.isInstalled() else {
                    throw FileError("the plugin is not in the chain of \(installer.networks), or \(installer.programs) has another one")
                }
            } catch {
                throw Failure.exit("cni-install: \(error)")
            }
            return
        }
        // The first process of a container ends by signals only when it asks for them.
        if watch { for ending in [SIGTERM, SIGINT] { signal(ending) { _ in _exit(0) } } }
        var last = ""
        repeat {
            do throws(FileError) {
                for sentence in try installer.install() { print(sentence) }
                last = ""
            } catch {
                guard watch else { throw Failure.exit("cni-install: \(error)") }
                // Once, not at every look.
                if "\(error)" != last { _ = Failure.exit("cni-install: \(error); trying again") }
                last = "\(error)"
                sleep(1)
            }
            fflush(nil)
            if watch { installer.waitForChange() }
        } while watch
    }
}

/// `xdp-encryptor cni-uninstall`.
struct CNIUninstallCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cni-uninstall",
        abstract: "Takes the CNI plugin out of the chain of this node's network.",
        discussion: """
            The program stays in the plugins' folder unless --remove-program is given: CRI-O stops a pod with the plugins that it was \
            started with, so remove it when those pods have gone. containerd does not need it.

            EXAMPLE
              xdp-encryptor cni-uninstall --remove-program

            EXIT STATUS
              0 done, or it was not there; 1 failed (the reason is on standard error), 64 wrong arguments
            """)

    @OptionGroup var folders: CNIFolders

    @Flag(help: "Remove the program, too.")
    var removeProgram = false

    func run() throws {
        do throws(FileError) {
            for sentence in try folders.installer().uninstall(removesProgram: removeProgram) { print(sentence) }
        } catch {
            throw Failure.exit("cni-uninstall: \(error)")
        }
    }
}

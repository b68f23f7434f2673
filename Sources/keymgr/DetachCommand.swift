import Agent
import ArgumentParser
import Cluster
import Commands
import Datapath
import UnixSignals

/// `ebpf-xdp-keymgr detach`.
struct DetachCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "detach",
        abstract: "Removes everything from this node: programs, keys, pins; puts offloads and routes back.",
        discussion: """
            Stop the daemon first. Protected pods talk in clear afterwards, and nodes that still expect encryption drop that: \
            remove the node's endpoints from the cluster directory, or the policies from Kubernetes, before, and wait until \
            `xdp-encryptor status` shows none.

            EXAMPLE
              ebpf-xdp-keymgr detach --config /etc/xdp-encryptor/keymgr.json
            """)

    @OptionGroup var file: ConfigurationOption

    @Flag(help: "Wait for SIGTERM afterwards: for a DaemonSet, whose pods must not end.")
    var stay = false

    func run() async throws {
        let configuration = try file.read()
        let lock: RuntimeLock
        do {
            lock = try RuntimeLock(RuntimeDirectory(path: configuration.runtime))
        } catch let error as RuntimeLock.Held {
            throw program.running("\(error)")
        } catch {
            throw program.configuration("\(file.path): runtimeDirectory: \(error)")
        }
        do throws(DatapathError) {
            try Datapath.removeAll(
                pinPath: configuration.pins, stateDirectory: configuration.runtime)
        } catch {
            throw program.failure(error.message)
        }
        _ = consume lock
        guard stay else { return }
        program.say("detached; waiting for SIGTERM")
        for await _ in await UnixSignalsSequence(trapping: .sigterm, .sigint) { return }
    }
}

import Agent
import ArgumentParser
import CSys
import Cluster
import Commands
import Datapath
import KMS
import Keys
import Kubernetes
import Logging
import NIOCore
import Secrets
import ServiceLifecycle
import Telemetry
import UnixSignals

/// `ebpf-xdp-keymgr run`.
struct RunCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Works until SIGTERM or SIGINT; the datapath goes on without it.",
        discussion: """
            Loads the programs, or picks up those that an earlier run has left; follows the cluster directory or Kubernetes; keeps keys, \
            endpoints and attachments as they should be. Killed at any moment, the next run continues.

            EXAMPLE
              ebpf-xdp-keymgr run --config /etc/xdp-encryptor/keymgr.json
            """)

    @OptionGroup var file: ConfigurationOption

    func run() async throws {
        csys_give_memory_back()
        // Connections only wait; what comes by them is worked on elsewhere. With a thread for each CPU, more time went into changing between them.
        NIOSingletons.groupLoopCountSuggestion = 1
        let hardening = ProcessHardening.apply()
        let configuration = try file.read()
        let level = configuration.logLevel.flatMap { Logger.Level(rawValue: $0) } ?? .info
        let logger = Logger(label: "keymgr") { _ in LineLogHandler(level: level) }
        for warning in hardening.warnings {
            logger.warning("weaker than it could be", metadata: ["what": "\(warning)"])
        }

        let kms: any KeyManagementService
        do throws(KMSError) {
            kms = try configuration.kms.makeService(environment: Program.environment)
        } catch {
            throw program.configuration("\(file.path): \(error.message)")
        }
        let directory: RuntimeDirectory
        do throws(FileError) {
            directory = try RuntimeDirectory(path: configuration.runtime)
        } catch {
            throw program.configuration("\(file.path): runtimeDirectory: \(error)")
        }
        let lock: RuntimeLock
        do {
            lock = try RuntimeLock(directory)
        } catch let error as RuntimeLock.Held {
            throw program.running("\(error)")
        } catch {
            throw program.configuration("\(file.path): runtimeDirectory: \(error)")
        }
        let setup: Setup
        do throws(ConfigurationError) {
            setup = try Setup(configuration, file: file.path, logger: logger)
        } catch {
            throw program.configuration("\(error)")
        }
        let nodeID: NodeID
        do {
            nodeID = try await setup.nodeID(directory, logger)
        } catch is CancellationError {
            return
        }
        let datapath: Datapath
        let state: DatapathState
        do throws(DatapathError) {
            datapath = try Datapath(options: configuration.datapath(nodeID: nodeID))
            state = try datapath.state()
        } catch {
            throw program.failure(error.message)
        }
        for warning in datapath.warnings { logger.warning("datapath", metadata: ["what": "\(warning)"]) }
        let cipher = CipherDriver.current()
        if let warning = cipher?.warning { logger.warning("slower than it could be", metadata: ["what": "\(warning)"]) }
        logger.notice(
            datapath.isFresh ? "started afresh" : "picked up the pins of an earlier run",
            metadata: [
                "node": "\(setup.node)", "id": "\(nodeID)", "kms": "\(kms.provider.rawValue)",
                "secrets": "\(hardening.storage.rawValue)", "incarnation": "\(state.incarnation)",
                "cipher": "\(cipher?.name ?? "ecb(aes)")",
            ])
        let agent: Agent
        do {
            agent = try setup.agent(nodeID, datapath, kms, directory, logger)
        } catch {
            throw program.failure("\(error)")
        }
        var services: [any ServiceLifecycle.Service] = [agent]
        if let address = configuration.listen {
            services.append(StatusEndpoint(address: address, agent: agent, datapath: datapath, logger: logger))
        }
        let group = ServiceGroup(
            configuration: .init(services: services, gracefulShutdownSignals: [.sigterm, .sigint], logger: logger))
        do {
            try await group.run()
        } catch let error as KubernetesSource.NumberChanged {
            throw program.failure("\(error)")
        } catch let error as StatusServer.AddressError {
            throw program.failure("\(file.path): listen: \(error)")
        }
        await setup.client?.shutdown()
        logger.notice("stopped; the datapath goes on")
        _ = consume lock
    }
}

import ArgumentParser
import CSys
import Commands
import Glibc
import KMS
import Kubernetes
import Logging
import NIOCore
import Operator
import Secrets
import ServiceLifecycle
import Telemetry
import UnixSignals

/// `ebpf-xdp-operator run`.
struct RunCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Works until SIGTERM or SIGINT, and gives the lease back; nodes go on without it.",
        discussion: """
            Several replicas may run: one of them works, the others know the cluster already and take over when its lease ends. Pods \
            stay as they are protected when none runs; new ones wait, and no new key epoch is opened.

            EXAMPLES
              ebpf-xdp-operator run --config /etc/xdp-encryptor/operator.json
              ebpf-xdp-operator run --config operator.json --kubeconfig ~/.kube/config

            EXIT STATUS
              0 stopped by a signal, 1 failed, 64 wrong arguments, 78 the configuration cannot work
            """)

    @OptionGroup var options: CommonOptions

    func run() async throws {
        csys_give_memory_back()
        // Connections only wait; what comes by them is worked on elsewhere. With a thread for each CPU, more time went into changing between them.
        NIOSingletons.groupLoopCountSuggestion = 1
        // Provider local wraps in this process.
        let hardening = ProcessHardening.apply()
        let configuration = try options.read()
        let level = configuration.logLevel.flatMap { Logger.Level(rawValue: $0) } ?? .info
        let logger = Logger(label: "operator") { _ in LineLogHandler(level: level) }
        for warning in hardening.warnings {
            logger.warning("weaker than it could be", metadata: ["what": "\(warning)"])
        }
        let kms: any KeyManagementService
        do throws(KMSError) {
            kms = try configuration.kms.makeService(environment: Program.environment)
        } catch {
            throw program.configuration("\(options.path): \(error.message)")
        }
        let (client, namespace) = try options.connect(configuration, logger)
        let identity = "\(hostName)_\(UInt32.random(in: .min ... .max))"
        let service = OperatorService(
            configuration: configuration, logger: logger,
            worker: Operator(
                api: client, configuration: configuration, namespace: namespace, identity: identity, kms: kms,
                logger: logger))
        logger.notice(
            "started",
            metadata: ["identity": "\(identity)", "namespace": "\(namespace)", "kms": "\(kms.provider.rawValue)"])
        let group = ServiceGroup(
            configuration: .init(services: [service], gracefulShutdownSignals: [.sigterm, .sigint], logger: logger))
        do {
            try await group.run()
        } catch let error as KubernetesError {
            throw program.configuration("\(options.path): \(error.message)")
        } catch let error as StatusServer.AddressError {
            throw program.failure("\(options.path): listen: \(error)")
        }
        await client.shutdown()
        logger.notice("stopped")
    }

    private var hostName: String {
        if let name = Program.environment["POD_NAME"], !name.isEmpty { return name }
        var bytes = [CChar](repeating: 0, count: 256)
        guard gethostname(&bytes, bytes.count - 1) == 0 else { return "operator" }
        return String(decoding: bytes.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// The operator with its status server, as a service that ends gracefully.
private struct OperatorService: ServiceLifecycle.Service {
    let configuration: OperatorConfiguration
    let logger: Logger
    let worker: Operator

    func run() async throws {
        var server: StatusServer?
        if let listen = configuration.listen {
            server = try await StatusServer(address: listen) { path in
                await worker.answer(path).map { StatusServer.Answer($0.status, $0.body) }
            }
            logger.info("listening", metadata: ["address": "\(listen)"])
        }
        let task = Task<Void, any Error> { [worker] in try await worker.run() }
        try await withTaskCancellationOrGracefulShutdownHandler {
            try await task.value
        } onCancelOrGracefulShutdown: {
            task.cancel()
        }
        await server?.stop()
    }
}

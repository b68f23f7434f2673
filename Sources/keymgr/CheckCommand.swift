import Agent
import ArgumentParser
import Cluster
import Commands
import Datapath
import KMS
import Keys
import Kubernetes
import Logging

/// `ebpf-xdp-keymgr check`.
struct CheckCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract:
            "Reads the configuration and the cluster's objects, asks the KMS, and says what is wrong. Changes nothing.",
        discussion: """
            EXAMPLE
              ebpf-xdp-keymgr check --config /etc/xdp-encryptor/keymgr.json

            EXIT STATUS
              0 in order (warnings do not count), 1 an object or the KMS is not, 78 the configuration cannot work
            """)

    @OptionGroup var file: ConfigurationOption

    func run() async throws {
        let configuration = try file.read()
        let kms: any KeyManagementService
        do throws(KMSError) {
            kms = try configuration.kms.makeService(environment: Program.environment)
        } catch {
            throw program.configuration("\(file.path): \(error.message)")
        }
        let setup: Setup
        do throws(ConfigurationError) {
            setup = try Setup(
                configuration, file: file.path, logger: Logger(label: "check") { _ in SilentLogHandler() })
        } catch {
            throw program.configuration("\(error)")
        }
        var isGood = true
        func report(_ severity: Problem.Severity, _ sentence: String) {
            program.say("\(severity.rawValue): \(sentence)")
            if severity == .error { isGood = false }
        }

        if let sockets = configuration.cluster?.sockets {
            do throws(DatapathError) {
                try SocketLoadBalancer.check(cgroup: sockets.cgroup)
            } catch {
                report(.error, "\(file.path): cluster.socketLoadBalancing: \(error.message)")
            }
        }
        let place: String
        let snapshot: Snapshot
        switch configuration.source {
        case .directory(let path, let nodeID):
            place = "\(path)/"
            var reader = DirectoryReader(path: path)
            snapshot = reader.scan()
            for (name, node) in snapshot.nodes.sorted(by: { $0.key < $1.key })
            where node.id == nodeID && name != setup.node {
                report(.error, "\(file.path): nodeID: \(node.id) is the number of \(name); each node needs its own")
            }
            for (name, endpoint) in snapshot.endpoints.sorted(by: { $0.key < $1.key })
            where endpoint.node != setup.node && snapshot.nodes[endpoint.node] == nil {
                report(
                    .warning,
                    "\(place)endpoints/\(name).json: node: nothing is known of \(endpoint.node); has its daemon never run, or is this name misspelt?"
                )
            }
        case .kubernetes, nil:
            place = ""
            do {
                snapshot = try await setup.snapshot()
            } catch {
                report(.error, "\(error)")
                throw ExitCode(1)
            }
        }
        for problem in snapshot.problems.sorted() { report(problem.severity, "\(place)\(problem)") }
        if let cluster = snapshot.cluster, snapshot.isComplete(.epochs) {
            let decision = EpochDecision.decide(
                cluster: cluster, epochs: snapshot.epochs, nodes: Array(snapshot.nodes.values), now: .now())
            for problem in decision.problems.sorted() { report(problem.severity, "\(place)\(problem)") }
        }
        do throws(KMSError) {
            try await kms.checkHealth()
            if let cluster = snapshot.cluster {
                for epoch in snapshot.epochs.values.sorted(by: { $0.number < $1.number }) where .now() < epoch.notAfter
                {
                    guard let context = KeyContext(clusterID: cluster.id.bytes, epoch: epoch.number) else { continue }
                    do throws(KMSError) {
                        let blob = try WrappedDEK(decoding: epoch.wrappedDEK.bytes, expected: kms.provider)
                        _ = try await kms.unwrap(blob, for: context)
                    } catch {
                        report(.error, "\(place)epochs/\(epoch.number): \(error)")
                    }
                }
            }
        } catch {
            report(.error, "\(error)")
        }
        await setup.client?.shutdown()
        guard isGood else { throw ExitCode(1) }
        print(
            "in order: node \(setup.node), \(snapshot.nodes.count) nodes, \(snapshot.endpoints.count) endpoints, "
                + "\(snapshot.epochs.count) epochs, KMS \(kms.provider.rawValue)")
    }
}

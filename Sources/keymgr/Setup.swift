import Agent
import ArgumentParser
import Cluster
import Commands
import Datapath
import KMS
import Keys
import Kubernetes
import Logging

/// Where the cluster's objects come from, put together from the configuration and the environment.
struct Setup {
    /// Our node's name.
    let node: String
    /// The API server; nil with a cluster directory.
    let client: KubernetesClient?
    private let configuration: AgentConfiguration
    private let source: AgentConfiguration.Source
    /// Of the ConfigMap.
    private let namespace: String

    init(_ configuration: AgentConfiguration, file: String, logger: Logger) throws(ConfigurationError) {
        self.configuration = configuration
        guard let source = configuration.source else {
            throw ConfigurationError(description: "\(file): clusterDirectory or cluster is missing")
        }
        self.source = source
        do throws(ConfigurationError) {
            node = try configuration.nodeName(environment: Program.environment)
        } catch {
            throw ConfigurationError(description: "\(file): \(error)")
        }
        switch source {
        case .directory:
            client = nil
            namespace = ""
        case .kubernetes(let kubernetes):
            do throws(KubernetesError) {
                var access =
                    if let path = kubernetes.kubeconfig { try ClientConfiguration.kubeconfig(path) } else {
                        try ClientConfiguration.inCluster()
                    }
                access.userAgent = "ebpf-xdp-keymgr/\(Keymgr.configuration.version)"
                namespace = kubernetes.configMapNamespace(environment: Program.environment, client: access.namespace)
                client = try KubernetesClient(access, logger: logger)
            } catch {
                throw ConfigurationError(description: "\(file): cluster: \(error)")
            }
        }
    }

    /// Our node's number. With Kubernetes, waits until the operator has given us one.
    func nodeID(_ directory: RuntimeDirectory, _ logger: Logger) async throws -> NodeID {
        switch source {
        case .directory(_, let nodeID): return nodeID
        case .kubernetes:
            guard let client else { throw ConfigurationError(description: "there is no client") }
            return try await KubernetesSource.nodeID(api: client, name: node, directory: directory, logger: logger)
        }
    }

    /// The daemon.
    func agent(
        _ nodeID: NodeID, _ datapath: Datapath, _ kms: any KeyManagementService, _ directory: RuntimeDirectory,
        _ logger: Logger
    ) throws -> Agent {
        switch source {
        case .directory(let path, _):
            return Agent(
                configuration: configuration, directory: path, node: node, nodeID: nodeID, datapath: datapath,
                kms: kms, directory: directory, logger: logger)
        case .kubernetes(let kubernetes):
            guard let client else { throw ConfigurationError(description: "there is no client") }
            let source = try KubernetesSource(
                api: client, name: node, nodeID: nodeID, namespace: namespace, configuration: kubernetes,
                directory: directory, datapath: datapath, version: Keymgr.configuration.version, logger: logger)
            return Agent(
                configuration: configuration, source: source, node: node, nodeID: nodeID,
                datapath: source.confirming(datapath), kms: kms, directory: directory, logger: logger)
        }
    }

    /// What the API server has, once.
    func snapshot() async throws -> Snapshot {
        guard let client, case .kubernetes(let kubernetes) = source else { return Snapshot() }
        return try await KubernetesSource.snapshot(
            api: client, name: node, namespace: namespace, configuration: kubernetes)
    }
}

/// Says nothing.
struct SilentLogHandler: LogHandler {
    var logLevel = Logger.Level.critical
    var metadata: Logger.Metadata = [:]
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }
    func log(event: LogEvent) {}
}

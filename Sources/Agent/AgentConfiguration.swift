public import Cluster
public import Datapath
public import KMS
public import Keys

/// The daemon's configuration file. docs/configuration.md has every key.
public struct AgentConfiguration: Sendable, Hashable, Codable {
    /// Our node's name. The environment variable NODE_NAME when it is not there.
    public var node: String?
    /// Our node's number, 1 to 2^24 - 1, unique in the cluster. Kubernetes: our EncryptionNode has it.
    public var nodeID: NodeID?
    /// Where the cluster's objects are: a directory. Either this or `cluster`.
    public var clusterDirectory: String?
    /// Where the cluster's objects are: Kubernetes.
    public var cluster: KubernetesConfiguration?
    /// Who unwraps DEKs.
    public var kms: KMSConfiguration
    /// Folder of the pins, on a BPF file system. /sys/fs/bpf/xdp-encryptor when it is not there.
    public var pinPath: String?
    /// What must not outlive a reboot: lock, status, the record of what was changed in pods. /run/xdp-encryptor when it is not there.
    public var runtimeDirectory: String?
    /// Packets. 2048 when it is not there; changes with the next fresh start only.
    public var replayWindow: UInt32?
    /// trace, debug, info, notice, warning, error, critical. info when it is not there.
    public var logLevel: String?
    /// Where `/metrics`, `/healthz` and `/readyz` are served, such as 127.0.0.1:9401; nowhere when it is not there.
    public var listen: String?

    /// Makes a configuration with the defaults.
    public init(node: String, nodeID: NodeID, clusterDirectory: String, kms: KMSConfiguration) {
        self.node = node
        self.nodeID = nodeID
        self.clusterDirectory = clusterDirectory
        self.kms = kms
    }

    /// Makes a configuration for Kubernetes with the defaults.
    public init(node: String?, cluster: KubernetesConfiguration, kms: KMSConfiguration) {
        self.node = node
        self.cluster = cluster
        self.kms = kms
    }
}

extension AgentConfiguration: Checked {
    /// Lock, status, the record of what was changed in pods.
    public var runtime: String { runtimeDirectory ?? "/run/xdp-encryptor" }

    /// Where the cluster's objects come from.
    public enum Source: Sendable, Hashable {
        /// A directory, and our node's number.
        case directory(String, nodeID: NodeID)
        /// An API server.
        case kubernetes(KubernetesConfiguration)
    }

    /// Where the cluster's objects come from. Exactly one place is named, once it has been checked.
    public var source: Source? {
        if let cluster { return .kubernetes(cluster) }
        guard let clusterDirectory, let nodeID else { return nil }
        return .directory(clusterDirectory, nodeID: nodeID)
    }

    /// Our node's name: from the file, or from NODE_NAME.
    public func nodeName(environment: [String: String]) throws(ConfigurationError) -> String {
        guard let name = node ?? environment["NODE_NAME"], !name.isEmpty else {
            throw ConfigurationError(
                description: "node: is missing; give this node's name there or in the environment variable NODE_NAME")
        }
        do throws(InvalidValue) {
            try checkOwnName(name)
        } catch {
            throw ConfigurationError(description: "\(error.key): \(error.problem)")
        }
        return name
    }

    /// In a cluster directory it names a file.
    private func checkOwnName(_ name: String) throws(InvalidValue) {
        if clusterDirectory == nil {
            try checkNodeName(name, "node")
        } else {
            try checkName(name, "node")
        }
    }

    /// Folder of the pins.
    public var pins: String { pinPath ?? Datapath.Options(nodeID: 1).pinPath }

    /// What the datapath is set up with.
    public func datapath(nodeID: NodeID) -> Datapath.Options {
        var options = Datapath.Options(nodeID: nodeID)
        options.pinPath = pinPath ?? options.pinPath
        options.stateDirectory = runtime
        options.window = replayWindow ?? options.window
        options.sockets = cluster?.sockets
        return options
    }

    /// Throws for the first value that cannot be.
    public func check() throws(InvalidValue) {
        if let node { try checkOwnName(node) }
        if let nodeID { try checkNodeID(nodeID, "nodeID") }
        switch (clusterDirectory, cluster) {
        case (nil, nil):
            throw InvalidValue(
                "clusterDirectory",
                "is missing; expected the path of a cluster directory, or \"cluster\": {\"source\": \"kubernetes\"}")
        case (.some, .some):
            throw InvalidValue("cluster", "stands beside clusterDirectory; expected one of the two")
        case (.some, nil):
            if nodeID == nil { throw InvalidValue("nodeID", "is missing; expected this node's number") }
        case (nil, .some(let cluster)):
            if nodeID != nil {
                throw InvalidValue("nodeID", "is not for Kubernetes: the operator gives numbers to nodes; leave it out")
            }
            try cluster.check()
        }
        for (key, path) in [
            ("clusterDirectory", clusterDirectory ?? "/"), ("pinPath", pinPath ?? "/"),
            ("runtimeDirectory", runtimeDirectory ?? "/"),
        ] where path.utf8.first != UInt8(ascii: "/") || path.utf8.contains(0) {
            throw InvalidValue(key, "\"\(path)\" is no absolute path; expected one that begins with /")
        }
        if let pinPath, pinPath.utf8.contains(UInt8(ascii: ".")) {
            throw InvalidValue("pinPath", "\"\(pinPath)\" has a dot in it; BPF file systems take none in names")
        }
        if let window = replayWindow, !(64...8192).contains(window) || window.nonzeroBitCount != 1 {
            throw InvalidValue("replayWindow", "\(window) is out of range; expected a power of two from 64 to 8192")
        }
        if let listen { try checkListen(listen, "listen") }
        let levels = ["trace", "debug", "info", "notice", "warning", "error", "critical"]
        if let logLevel, !levels.contains(logLevel) {
            throw InvalidValue(
                "logLevel", "\"\(logLevel)\" is no level; expected one of \(levels.joined(separator: ", "))")
        }
    }

    /// Reads a file. Errors name the file, the key and what was expected; unknown keys come back as warnings.
    public static func read(_ path: String) throws(ConfigurationError) -> (AgentConfiguration, warnings: [String]) {
        do {
            let (configuration, unknown) = try ObjectCoding.decode(Self.self, from: AtomicFile.read(path))
            return (configuration, unknown.map { "\(path): unknown key \($0) is ignored" })
        } catch let error as ObjectCoding.Problem {
            throw ConfigurationError(description: "\(path): \(error.description)")
        } catch {
            throw ConfigurationError(description: "\(error)")
        }
    }
}

/// A configuration that cannot work.
public struct ConfigurationError: Error, Sendable, CustomStringConvertible {
    /// The file, the key, what was expected.
    public let description: String

    /// Makes an error.
    public init(description: String) {
        self.description = description
    }
}

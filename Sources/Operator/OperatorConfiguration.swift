public import Cluster
public import KMS
public import Keys
public import Netlink

/// The operator's configuration file. docs/configuration.md has every key.
public struct OperatorConfiguration: Sendable, Hashable, Codable {
    /// Where the Lease and the cluster's ConfigMap are. `POD_NAMESPACE`, or the service account's, when it is not there.
    public var namespace: String?
    /// Who makes and wraps DEKs.
    public var kms: KMSConfiguration
    /// Pod addresses of the whole cluster. A packet from a protected pod to an address in here that no node has published is dropped.
    public var strictCIDRs: [IPPrefix]?
    /// What names of services end in. cluster.local when it is not there.
    public var clusterDomain: String?
    /// Where packets are encrypted. `pod` when it is not there.
    public var attachMode: AttachMode?
    /// keymgr replaces addresses of ClusterIP services at the sockets of protected pods, on all nodes: its own configuration says so, too.
    /// false when it is not there.
    public var socketLoadBalancing: Bool?
    /// Who of several replicas works.
    public var leaderElection: LeaderElection?
    /// Times of epochs.
    public var epochs: Epochs?
    /// Where `/metrics`, `/healthz` and `/readyz` are served, such as 0.0.0.0:9402; nowhere when it is not there.
    public var listen: String?
    /// trace, debug, info, notice, warning, error, critical. info when it is not there.
    public var logLevel: String?

    /// Where packets are encrypted.
    public enum AttachMode: String, Sendable, Hashable, Choice {
        /// At the pod's own interface.
        case pod
        /// At the node's interface, outside of everything that replaces addresses. Not built yet.
        case uplink
    }

    /// Who of several replicas works.
    public struct LeaderElection: Sendable, Hashable, Codable {
        /// The Lease's name. ebpf-xdp-operator when it is not there.
        public var leaseName: String?
        /// How long others wait for a leader that shows no life, seconds. 15 when it is not there.
        public var leaseDurationSeconds: Int64?
        /// How long a leader goes on without renewing, seconds. 10 when it is not there.
        public var renewDeadlineSeconds: Int64?
        /// Between attempts, seconds. 2 when it is not there.
        public var retryPeriodSeconds: Int64?

        /// The defaults.
        public init() {}
    }

    /// Times of epochs, as in `cluster.json`.
    public struct Epochs: Sendable, Hashable, Codable {
        /// How long a new epoch lasts. 24 h when it is not there.
        public var lifetimeSeconds: Int64?
        /// How long senders wait for a node that does not acknowledge a new epoch. 60 when it is not there.
        public var acknowledgeWithinSeconds: Int64?
        /// How long keys stay when the last sender has left. 2 when it is not there.
        public var drainSeconds: Int64?
        /// How long the end of an endpoint's protection waits for nodes. 60 when it is not there.
        public var withdrawWithinSeconds: Int64?
        /// How often the KEK's version is asked for, give or take a fifth. 300 when it is not there.
        public var pollSeconds: Int64?

        /// The defaults.
        public init() {}
    }

    /// Makes a configuration with the defaults.
    public init(kms: KMSConfiguration) {
        self.kms = kms
    }
}

extension OperatorConfiguration: Checked {
    /// What names of services end in, lower case, no dots around.
    public var domain: String { clusterDomain ?? "cluster.local" }

    /// Throws for the first value that cannot be.
    public func check() throws(InvalidValue) {
        if let namespace { try checkName(namespace, "namespace") }
        guard !domain.isEmpty, !domain.hasPrefix("."), !domain.hasSuffix("."), domain == domain.lowercased() else {
            throw InvalidValue("clusterDomain", "\"\(domain)\" is no domain; expected one like cluster.local")
        }
        if attachMode == .uplink {
            throw InvalidValue("attachMode", "uplink is not built yet; expected pod")
        }
        let election = leaderElection ?? LeaderElection()
        if let name = election.leaseName { try checkName(name, "leaderElection.leaseName") }
        for (key, value, range) in [
            ("leaderElection.leaseDurationSeconds", election.leaseDurationSeconds, Int64(2)...3600),
            ("leaderElection.renewDeadlineSeconds", election.renewDeadlineSeconds, 1...3600),
            ("leaderElection.retryPeriodSeconds", election.retryPeriodSeconds, 1...600),
            ("epochs.pollSeconds", epochs?.pollSeconds, 1...86_400),
        ] {
            if let value, !range.contains(value) {
                throw InvalidValue(key, "\(value) is out of range; expected \(range.lowerBound) to \(range.upperBound)")
            }
        }
        let deadline = election.renewDeadlineSeconds ?? 10
        guard deadline < election.leaseDurationSeconds ?? 15 else {
            throw InvalidValue(
                "leaderElection.renewDeadlineSeconds",
                "\(deadline) is not less than leaseDurationSeconds, \(election.leaseDurationSeconds ?? 15); a leader has to stop before others may start"
            )
        }
        guard (election.retryPeriodSeconds ?? 2) * 2 <= deadline else {
            throw InvalidValue(
                "leaderElection.retryPeriodSeconds",
                "\(election.retryPeriodSeconds ?? 2) is more than half of renewDeadlineSeconds, \(deadline)")
        }
        if let listen { try checkListen(listen, "listen") }
        do throws(InvalidValue) {
            try ClusterPlan.cluster(id: .random(), strictCIDRs: [], epochs: epochs ?? Epochs()).check()
        } catch {
            let key = error.key == "epochLifetimeSeconds" ? "lifetimeSeconds" : error.key
            throw InvalidValue("epochs.\(key)", error.problem)
        }
        let levels = ["trace", "debug", "info", "notice", "warning", "error", "critical"]
        if let logLevel, !levels.contains(logLevel) {
            throw InvalidValue(
                "logLevel", "\"\(logLevel)\" is no level; expected one of \(levels.joined(separator: ", "))")
        }
    }

    /// Reads a file. Errors name the file, the key and what was expected; unknown keys come back as warnings.
    public static func read(
        _ path: String
    ) throws(OperatorConfigurationError) -> (OperatorConfiguration, warnings: [String]) {
        do {
            let (configuration, unknown) = try ObjectCoding.decode(Self.self, from: AtomicFile.read(path))
            return (configuration, unknown.map { "\(path): unknown key \($0) is ignored" })
        } catch let error as ObjectCoding.Problem {
            throw OperatorConfigurationError(description: "\(path): \(error.description)")
        } catch {
            throw OperatorConfigurationError(description: "\(error)")
        }
    }
}

/// A configuration that cannot work.
public struct OperatorConfigurationError: Error, Sendable, CustomStringConvertible {
    /// The file, the key, what was expected.
    public let description: String
}

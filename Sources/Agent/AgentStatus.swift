public import Cluster
internal import Datapath
internal import FoundationEssentials
public import Keys
public import Netlink

/// What the daemon thinks, for people: `status.json` in its runtime directory. What the kernel does is read from the kernel.
public struct AgentStatus: Sendable, Hashable, Codable {
    /// Our node's name.
    public var node: String
    /// Our node's number.
    public var nodeID: NodeID
    /// The daemon's process.
    public var process: Int32
    /// When this was written: at every change, and at least once a minute.
    public var updated: Timestamp
    /// Where each epoch stands, by number.
    public var epochs: [EpochStatus]
    /// Other nodes.
    public var peers: [PeerStatus]
    /// The KMS in one line.
    public var kms: String
    /// What somebody should look at; errors first.
    public var problems: [Problem]
    /// The pods of this node that shall be protected, by name; nil: written by a version that did not tell.
    public var pods: [PodStatus]?

    /// An epoch.
    public struct EpochStatus: Sendable, Hashable, Codable {
        /// From 1.
        public var number: Epoch
        /// Where it stands for all nodes.
        public var state: EpochDecision.State
        /// When its keys are removed at the latest.
        public var notAfter: Timestamp
        /// Nodes that hold its keys.
        public var acknowledgedBy: [String]
        /// Nodes that do not.
        public var missing: [String]
    }

    /// A pod of this node.
    public struct PodStatus: Sendable, Hashable, Codable {
        /// What the kernel's attachments call it: its UID, or the name of its file in a cluster directory.
        public var name: String
        /// What people call it: namespace/name; nil: the same.
        public var label: String?
        /// Ascending.
        public var addresses: [IPAddress]

        /// Makes a value of its parts.
        public init(name: String, label: String?, addresses: [IPAddress]) {
            self.name = name
            self.label = label
            self.addresses = addresses
        }
    }

    /// Another node.
    public struct PeerStatus: Sendable, Hashable, Codable {
        /// Its name.
        public var name: String
        /// Its number.
        public var nodeID: NodeID
        /// Its place in the kernel's tables; nil: none yet.
        public var slot: UInt32?
        /// The revision of our endpoint list that it has in force; 0: none of this incarnation.
        public var acknowledged: UInt32
        /// The epochs that it has keys of with us.
        public var epochs: [Epoch]
        /// Whether all of its list is in force here.
        public var isApplied: Bool
    }
}

extension AgentStatus {
    /// Its name in the runtime directory.
    static let file = "status.json"

    /// What a daemon has written into its runtime directory; nil: nothing that can be read.
    public static func read(runtimeDirectory path: String) -> AgentStatus? {
        guard let bytes = try? AtomicFile.read("\(path)/\(file)") else { return nil }
        return try? JSONDecoder().decode(Self.self, from: Data(bytes))
    }

    /// Who holds which epoch, of all nodes that there are.
    public static func epochs(
        _ epochs: [Epoch: EncryptionEpoch], states: [Epoch: EpochDecision.State], nodes: [String: EncryptionNode]
    ) -> [EpochStatus] {
        epochs.values.sorted { $0.number < $1.number }.map { epoch in
            let holders = nodes.filter { $0.value.epochs.contains(epoch.number) }.keys
            return EpochStatus(
                number: epoch.number, state: states[epoch.number] ?? .waiting, notAfter: epoch.notAfter,
                acknowledgedBy: holders.sorted(), missing: Set(nodes.keys).subtracting(holders).sorted())
        }
    }
}

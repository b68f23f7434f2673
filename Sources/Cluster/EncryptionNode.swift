public import Keys

/// What a node says of itself: `nodes/<name>.json`. Only that node writes it.
///
/// Everything in it is true in the node's kernel at the moment of writing: a node installs first and says so afterwards.
public struct EncryptionNode: Sendable, Hashable, Codable {
    /// 1 to 2^24 - 1, unique in the cluster.
    public var id: NodeID
    /// Drawn whenever the node's counters start afresh.
    public var incarnation: Incarnation
    /// How many sending CPUs the node may have.
    public var lanes: UInt32?
    /// Counts up whenever `endpoints` changes. Never 0 while there are endpoints.
    public var revision: UInt32
    /// The protected endpoints that it has attached.
    public var endpoints: [PublishedEndpoint]
    /// Epochs for which it holds keys with every node that it knows: it can receive under them.
    public var epochs: [Epoch]
    /// The epoch that it sends with; 0: none.
    public var sending: Epoch
    /// When it began to send with that epoch.
    public var sendingSince: Timestamp?
    /// What it has applied of other nodes, by their names.
    public var applied: [String: Acknowledgement]

    /// Makes a node that has published nothing yet.
    public init(id: NodeID, incarnation: Incarnation) {
        self.id = id
        self.incarnation = incarnation
        revision = 0
        endpoints = []
        epochs = []
        sending = 0
        applied = [:]
    }

    /// Where the protection of an endpoint stands.
    public enum State: String, Sendable, Hashable, Choice {
        /// Encrypts and decrypts.
        case ready
        /// Ends: accepts clear text and encrypted packets until all nodes have acknowledged it.
        case withdrawing
    }

    /// What a node has applied of another one's list.
    public struct Acknowledgement: Sendable, Hashable, Codable {
        /// Of the other node, at that time. An acknowledgement of another incarnation counts for nothing.
        public var incarnation: Incarnation
        /// Of the other node's list: all of it is in force.
        public var revision: UInt32
        /// Epochs for which keys with that incarnation of the other node are installed, both ways.
        public var epochs: [Epoch]

        /// Makes an acknowledgement.
        public init(incarnation: Incarnation, revision: UInt32, epochs: [Epoch]) {
            self.incarnation = incarnation
            self.revision = revision
            self.epochs = epochs
        }
    }
}

/// What happens with clear text from and to a protected endpoint where there should be none.
public enum Mode: String, Sendable, Hashable, Choice {
    /// Dropped.
    case strict
    /// Passed and counted: for roll-outs.
    case permissive
}

/// Who on the network between the nodes may read the L4 headers of packets from and to a protected endpoint.
public enum Headers: String, Sendable, Hashable, Choice {
    /// Everybody: ports and flags are authenticated, but in clear.
    case visible
    /// Nobody: whole packets are encrypted, at the cost of more bytes.
    case hidden
}

extension EncryptionNode: Checked {
    /// Throws for the first value that cannot be.
    public func check() throws(InvalidValue) {
        try checkNodeID(id, "id")
        if let lanes, !(1...65_536).contains(lanes) {
            throw InvalidValue("lanes", "\(lanes) is out of range; expected 1 to 65536")
        }
        var names: Set<EndpointName> = []
        names.reserveCapacity(endpoints.count)
        for (index, endpoint) in endpoints.enumerated() {
            // Text is made only where it is needed: this is asked of every endpoint of the cluster, again and again.
            var key: String { "endpoints[\(index)]" }
            if !endpoint.key.isUID { try checkName(endpoint.name, "\(key).name") }
            guard names.insert(endpoint.key).inserted else {
                throw InvalidValue("\(key).name", "\"\(endpoint.name)\" stands in the list twice")
            }
            if endpoint.addressCount != 1 { try checkAddresses(endpoint.addresses, "\(key).addresses") }
            guard endpoint.since >= 1, endpoint.since <= revision else {
                throw InvalidValue(
                    "\(key).since", "\(endpoint.since) is out of range; expected 1 to the revision \(revision)")
            }
            guard endpoint.until <= revision, (endpoint.until > 0) == (endpoint.state == .withdrawing) else {
                throw InvalidValue(
                    "\(key).until",
                    "\(endpoint.until) is out of range; expected 1 to the revision \(revision) when withdrawing, else 0"
                )
            }
        }
        guard !epochs.contains(0) else {
            throw InvalidValue("epochs", "epoch 0 means \"none\"; expected numbers from 1")
        }
    }
}

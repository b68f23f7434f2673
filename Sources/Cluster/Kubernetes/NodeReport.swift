public import Keys

/// What a node says of itself in the API: `EncryptionNode` without `applied`, and in its place two fields that say the same of all
/// nodes at once, so that an acknowledgement costs one write a node and not one a pair of nodes.
public struct NodeReport: Sendable, Hashable {
    /// 1 to 2^24 - 1, unique in the cluster.
    public var id: NodeID
    /// Drawn whenever the node's counters start afresh.
    public var incarnation: Incarnation
    /// How many sending CPUs the node may have.
    public var lanes: UInt32?
    /// Counts up whenever `endpoints` changes.
    public var revision: UInt32
    /// The protected endpoints that it has attached.
    public var endpoints: [EncryptionNode.PublishedEndpoint]
    /// Epochs for which it holds keys with every node that it knows.
    public var epochs: [Epoch]
    /// The epoch that it sends with; 0: none.
    public var sending: Epoch
    /// When it began to send with that epoch.
    public var sendingSince: Timestamp?
    /// All slices as of this sequence are in force in its kernel.
    public var appliedThrough: Int64
    /// Names of nodes in these slices that it could not put in force.
    public var notApplied: [String]

    /// Takes what a node publishes.
    public init(_ node: EncryptionNode, appliedThrough: Int64 = 0, notApplied: [String] = []) {
        id = node.id
        incarnation = node.incarnation
        lanes = node.lanes
        revision = node.revision
        endpoints = node.endpoints
        epochs = node.epochs
        sending = node.sending
        sendingSince = node.sendingSince
        self.appliedThrough = appliedThrough
        self.notApplied = notApplied
    }

    /// The same as the planner knows it. `applied` is empty: it follows from the slices of the one who asks.
    public var node: EncryptionNode {
        var node = EncryptionNode(id: id, incarnation: incarnation)
        node.lanes = lanes
        node.revision = revision
        node.endpoints = endpoints
        node.epochs = epochs
        node.sending = sending
        node.sendingSince = sendingSince
        return node
    }
}

extension NodeReport: Codable {
    private enum CodingKeys: String, CodingKey, CaseIterable {
        case id, incarnation, lanes, revision, endpoints, epochs, sending, sendingSince, appliedThrough, notApplied
    }

    /// Reads the fields from the object that holds them among others. Lists and counters that are not there are empty and 0.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        id = try container.decode(NodeID.self, forKey: .id)
        incarnation = try container.decode(Incarnation.self, forKey: .incarnation)
        lanes = try container.decodeIfPresent(UInt32.self, forKey: .lanes)
        revision = try container.decodeIfPresent(UInt32.self, forKey: .revision) ?? 0
        endpoints =
            try container.decodeIfPresent([EncryptionNode.PublishedEndpoint].self, forKey: .endpoints) ?? []
        epochs = try container.decodeIfPresent([Epoch].self, forKey: .epochs) ?? []
        sending = try container.decodeIfPresent(Epoch.self, forKey: .sending) ?? 0
        sendingSince = try container.decodeIfPresent(Timestamp.self, forKey: .sendingSince)
        appliedThrough = try container.decodeIfPresent(Int64.self, forKey: .appliedThrough) ?? 0
        notApplied = try container.decodeIfPresent([String].self, forKey: .notApplied) ?? []
    }

    /// Writes the fields into the object that holds them among others.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(id, forKey: .id)
        try container.encode(incarnation, forKey: .incarnation)
        try container.encodeIfPresent(lanes, forKey: .lanes)
        try container.encode(revision, forKey: .revision)
        try container.encode(endpoints, forKey: .endpoints)
        try container.encode(epochs, forKey: .epochs)
        try container.encode(sending, forKey: .sending)
        try container.encodeIfPresent(sendingSince, forKey: .sendingSince)
        try container.encode(appliedThrough, forKey: .appliedThrough)
        try container.encode(notApplied, forKey: .notApplied)
    }

    /// Whether an object holds a report: `incarnation` is what no report lacks.
    static func isPresent(in decoder: any Decoder) throws -> Bool {
        try decoder.container(keyedBy: CodingKeys.self).contains(.incarnation)
    }
}

extension NodeReport: Checked {
    /// Throws for the first value that cannot be.
    public func check() throws(InvalidValue) {
        try node.check()
        guard appliedThrough >= 0 else {
            throw InvalidValue("appliedThrough", "\(appliedThrough) is negative; expected a sequence of a slice")
        }
    }
}

public import Kubernetes

/// A part of what all nodes need to know of each other: `encryptedendpointslices`. The operator writes them, so that no node has to
/// watch pods or other nodes' objects.
///
/// An object is either a slice, which has everything of its nodes, or an object of changes, which has what is new of nodes that stand in
/// slices: see `NodeChange`. In a large cluster slices are large and change all the time; changes are small. Now and then a slice is
/// written anew, and an object of changes goes when all of its nodes' slices are newer. `SliceView` puts both together.
///
/// All writes are numbered by one counter, strictly rising in the order in which the API server takes them. A node that has everything
/// as of a sequence in force says so in `appliedThrough`, and need not say it again for writes that brought nothing that anybody waits
/// for: see `acknowledgementDue(_:)`.
public struct EncryptedEndpointSlice: KubernetesObject, Hashable {
    /// `encryptedendpointslices.encryption.ebpf.xdp`
    public static let resource = EncryptionAPI.kind("EncryptedEndpointSlice", "encryptedendpointslices")
    /// Addresses that a slice holds at most, unless one node alone has more.
    public static let capacity = 1000
    /// What the names of objects of changes begin with. Those of slices do not.
    public static let changesPrefix = "changes-"

    /// The name of an object of changes.
    public static func changesName(_ sequence: Int64) -> String { changesPrefix + String(sequence) }

    /// Whether an object of this name is one of changes.
    public static func isOfChanges(_ name: String) -> Bool { name.hasPrefix(changesPrefix) }

    /// Name.
    public var metadata: ObjectMeta
    /// The nodes; nil when it cannot be read.
    public var spec: Spec?
    /// Why the spec cannot be read.
    public var unreadable: String?

    /// Makes a slice.
    public init(name: String, spec: Spec) {
        metadata = ObjectMeta(name: name)
        self.spec = spec
    }

    /// What a slice holds.
    public struct Spec: Sendable, Hashable, Codable {
        /// The number of the write.
        public var sequence: Int64
        /// Ascending by name. A node stands in exactly one slice.
        public var nodes: [NodeEntry]
        /// Nil: a slice. Otherwise an object of changes, without nodes; ascending by name.
        public var changes: [NodeChange]?

        /// Makes a slice's spec.
        public init(sequence: Int64, nodes: [NodeEntry]) {
            self.sequence = sequence
            self.nodes = nodes
        }

        /// Makes a spec of changes.
        public init(sequence: Int64, changes: [NodeChange]) {
            self.sequence = sequence
            nodes = []
            self.changes = changes
        }

        private enum CodingKeys: String, CodingKey {
            case sequence, nodeCount, addressCount, nodes, changes
        }

        /// Reads a spec.
        public init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: CodingKeys.self)
            sequence = try container.decode(Int64.self, forKey: .sequence)
            changes = try container.decodeIfPresent([NodeChange].self, forKey: .changes)
            // Who does not know of changes finds no nodes in them, and keeps what it has: it must not take them for an empty slice.
            nodes = changes == nil ? try container.decode([NodeEntry].self, forKey: .nodes) : []
        }

        /// How many nodes it is about.
        public var nodeCount: Int { changes?.count ?? nodes.count }

        /// How many addresses it names.
        public var addressCount: Int {
            func count(_ list: [EncryptionNode.PublishedEndpoint]) -> Int {
                list.reduce(0) { $0 + $1.addressCount }
            }
            return changes?.reduce(0) { $0 + count($1.endpoints) }
                ?? nodes.reduce(0) { $0 + count($1.report.endpoints) }
        }

        /// Writes a spec, with counts for the columns that people see: those cannot count.
        public func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(sequence, forKey: .sequence)
            try container.encode(nodeCount, forKey: .nodeCount)
            try container.encode(addressCount, forKey: .addressCount)
            if let changes {
                try container.encode(changes, forKey: .changes)
            } else {
                try container.encode(nodes, forKey: .nodes)
            }
        }
    }

    /// The sequence that a node should have acknowledged when it has all of these nodes in force: the newest write that brought a
    /// new incarnation or a new list. Writes that only carry on acknowledgements are above it; to acknowledge them too would
    /// never come to an end.
    public static func acknowledgementDue(_ nodes: some Sequence<NodeEntry>) -> Int64 {
        nodes.reduce(0) { max($0, $1.publishedAt) }
    }
}

/// A node in a slice: what it said last, and since when the others can know it.
public struct NodeEntry: Sendable, Hashable {
    /// The node's name.
    public var name: String
    /// What the node said.
    public var report: NodeReport
    /// The sequence of the write that first carried this incarnation.
    public var incarnationAt: Int64
    /// When each revision of this incarnation was first published, ascending: the last 16.
    public var history: [Publication]

    /// How long `history` gets.
    public static let historyLength = 16

    /// A revision and the sequence of the write that first carried it.
    public struct Publication: Sendable, Hashable, Codable {
        /// Of the node's list.
        public var revision: UInt32
        /// Of the slice's write.
        public var at: Int64

        /// Makes a pair.
        public init(revision: UInt32, at: Int64) {
            self.revision = revision
            self.at = at
        }
    }

    /// Makes an entry.
    public init(name: String, report: NodeReport, incarnationAt: Int64, history: [Publication]) {
        self.name = name
        self.report = report
        self.incarnationAt = incarnationAt
        self.history = history
    }

    /// The sequence that another node must have applied to have this revision, or a later one, in force; nil when it has not been
    /// published yet. Revisions that were passed over came with the next one; those that the history has forgotten count as its
    /// oldest.
    public func sequence(ofRevision revision: UInt32) -> Int64? {
        history.first { $0.revision >= revision }.map { max($0.at, incarnationAt) }
    }

    /// The newest write that brought a new incarnation or a new list.
    public var publishedAt: Int64 { max(incarnationAt, history.last?.at ?? 0) }

    /// Whether another node has this revision of ours in force, by its own entry.
    public func isInForce(revision: UInt32, at other: NodeEntry) -> Bool {
        guard let sequence = sequence(ofRevision: revision) else { return false }
        return other.report.appliedThrough >= sequence && !other.report.notApplied.contains(name)
    }
}

extension NodeEntry: Codable {
    private enum CodingKeys: String, CodingKey {
        case name, incarnationAt, history
    }

    /// Reads an entry.
    public init(from decoder: any Decoder) throws {
        report = try NodeReport(from: decoder)
        let container = try decoder.container(keyedBy: CodingKeys.self)
        name = try container.decode(String.self, forKey: .name)
        incarnationAt = try container.decode(Int64.self, forKey: .incarnationAt)
        history = try container.decodeIfPresent([Publication].self, forKey: .history) ?? []
    }

    /// Writes an entry.
    public func encode(to encoder: any Encoder) throws {
        try report.encode(to: encoder)
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(name, forKey: .name)
        try container.encode(incarnationAt, forKey: .incarnationAt)
        try container.encode(history, forKey: .history)
    }
}

extension EncryptedEndpointSlice.Spec: Checked {
    /// Throws for the first value that cannot be.
    public func check() throws(InvalidValue) {
        guard sequence >= 1 else { throw InvalidValue("sequence", "\(sequence) is out of range; expected 1 or more") }
        var names: Set<String> = []
        for (index, node) in nodes.enumerated() {
            let key = "nodes[\(index)]"
            try checkNodeName(node.name, "\(key).name")
            guard names.insert(node.name).inserted else {
                throw InvalidValue("\(key).name", "\"\(node.name)\" stands in the slice twice")
            }
            do throws(InvalidValue) {
                try node.report.check()
            } catch {
                throw InvalidValue("\(key).\(error.key)", error.problem)
            }
        }
        try checkChanges()
    }

    private func checkChanges() throws(InvalidValue) {
        var names: Set<String> = []
        for (index, change) in (changes ?? []).enumerated() {
            let key = "changes[\(index)]"
            do throws(InvalidValue) {
                try change.check()
            } catch {
                throw InvalidValue("\(key).\(error.key)", error.problem)
            }
            guard change.after < sequence else {
                throw InvalidValue("\(key).after", "\(change.after) is not before the write itself, \(sequence)")
            }
            guard names.insert(change.name).inserted else {
                throw InvalidValue("\(key).name", "\"\(change.name)\" stands there twice")
            }
        }
    }
}

extension EncryptedEndpointSlice {
    private enum CodingKeys: String, CodingKey {
        case metadata, spec
    }

    /// Reads an object. A spec that makes no sense is reported in `unreadable`, and does not fail the object.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        metadata = try container.decode(ObjectMeta.self, forKey: .metadata)
        (spec, unreadable) = readable(Spec.self, in: container, .spec)
        if spec == nil, unreadable == nil { unreadable = "spec: is missing" }
    }

    /// Writes an object.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(metadata, forKey: .metadata)
        try container.encodeIfPresent(spec, forKey: .spec)
    }
}

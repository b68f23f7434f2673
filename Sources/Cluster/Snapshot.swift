public import Keys

/// Everything that the cluster's objects say at one moment. An immutable value.
public struct Snapshot: Sendable, Hashable {
    /// Nil as long as no valid one was read.
    public var cluster: Cluster?
    /// By name; ours among them once it was published.
    public var nodes: [String: EncryptionNode]
    /// By name.
    public var endpoints: [String: EncryptedEndpoint]
    /// By number.
    public var epochs: [Epoch: EncryptionEpoch]
    /// What could not be read or is odd; the last good version of such an object stays in force.
    public var problems: Set<Problem>
    /// Kinds of which some object cannot be read and has no good version, so that not being there means nothing: what was made
    /// for such objects earlier must stay.
    public var incomplete: Set<ObjectKind>

    /// Makes a snapshot.
    public init(
        cluster: Cluster? = nil, nodes: [String: EncryptionNode] = [:], endpoints: [String: EncryptedEndpoint] = [:],
        epochs: [Epoch: EncryptionEpoch] = [:], problems: Set<Problem> = [], incomplete: Set<ObjectKind> = []
    ) {
        self.cluster = cluster
        self.nodes = nodes
        self.endpoints = endpoints
        self.epochs = epochs
        self.problems = problems
        self.incomplete = incomplete
    }
}

extension Snapshot {
    /// Whether an object of a kind that is not there has surely ended: every one of them could be read.
    public func isComplete(_ kind: ObjectKind) -> Bool { incomplete.isDisjoint(with: [kind, .cluster]) }
}

/// The kinds of objects.
public enum ObjectKind: String, Sendable, Hashable, CaseIterable {
    /// `cluster.json`
    case cluster
    /// `nodes/<name>.json`
    case nodes
    /// `endpoints/<name>.json`
    case endpoints
    /// `epochs/<number>.json`
    case epochs

    /// Where objects of the kind are: a folder in the cluster directory, or nil for the one object in the directory itself.
    public var folder: String? { self == .cluster ? nil : rawValue }
}

/// Something that a person should look at. Two of the same object and text are one.
public struct Problem: Sendable, Hashable, Codable {
    /// How much it matters.
    public enum Severity: String, Sendable, Hashable, Codable {
        /// Nothing is lost, but somebody should know.
        case warning
        /// Something does not work.
        case error
    }
    /// How much it matters.
    public var severity: Severity
    /// What it is about: a path relative to the cluster directory, or an endpoint, node or epoch.
    public var object: String
    /// What happened, why, what to do.
    public var message: String

    /// Makes a problem.
    public init(_ severity: Severity, _ object: String, _ message: String) {
        self.severity = severity
        self.object = object
        self.message = message
    }
}

extension Problem: Comparable, CustomStringConvertible {
    /// Errors first, then by object.
    public static func < (left: Problem, right: Problem) -> Bool {
        (left.severity.rawValue, left.object, left.message) < (right.severity.rawValue, right.object, right.message)
    }

    /// "object: message"
    public var description: String { "\(object): \(message)" }
}

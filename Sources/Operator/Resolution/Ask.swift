public import Cluster
public import Kubernetes

/// Somebody asks for the protection of a pod.
public struct Ask: Sendable, Hashable {
    /// Who: `EncryptionPolicy/payments`, `VirtualService/shop/reviews`, `annotation`.
    public var source: String
    /// What shall happen with clear text.
    public var mode: Mode
    /// Who may read L4 headers.
    public var headers: Headers
    /// Whether it holds whatever the pod's annotation says.
    public var isEnforced: Bool

    /// Makes an ask.
    public init(source: String, mode: Mode, headers: Headers = .visible, isEnforced: Bool = false) {
        self.source = source
        self.mode = mode
        self.headers = headers
        self.isEnforced = isEnforced
    }
}

extension Ask: Comparable {
    /// By who asks.
    public static func < (a: Ask, b: Ask) -> Bool {
        (a.source, a.mode.rawValue, a.headers.rawValue) < (b.source, b.mode.rawValue, b.headers.rawValue)
    }
}

/// A service, by namespace and name.
public typealias ServiceName = ObjectKey

/// A mesh resource.
public struct MeshReference: Sendable, Hashable, Comparable, CustomStringConvertible {
    /// `ServiceEntry` or `VirtualService`.
    public var kind: String
    /// Namespace and name.
    public var key: ObjectKey

    /// Makes a reference.
    public init(_ kind: String, _ key: ObjectKey) {
        self.kind = kind
        self.key = key
    }

    /// `VirtualService/shop/reviews`
    public var description: String { "\(kind)/\(key)" }

    /// By kind, then by key.
    public static func < (a: MeshReference, b: MeshReference) -> Bool { (a.kind, a.key) < (b.kind, b.key) }
}

/// What a mesh resource came to.
public struct MeshOutcome: Sendable, Hashable {
    /// Services whose pods are protected for its sake, sorted.
    public var services: [ServiceName] = []
    /// It asks for pods by labels or addresses too.
    public var selectsWorkloads = false
    /// What a person should know.
    public var notes: [Note] = []

    /// Something that a person should know.
    public struct Note: Sendable, Hashable {
        /// Whether somebody should look.
        public var isWarning: Bool
        /// One word in CamelCase.
        public var reason: String
        /// A sentence.
        public var message: String
    }

    mutating func warn(_ reason: String, _ message: String) {
        notes.append(Note(isWarning: true, reason: reason, message: message))
    }

    mutating func tell(_ reason: String, _ message: String) {
        notes.append(Note(isWarning: false, reason: reason, message: message))
    }
}

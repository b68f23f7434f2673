/// What an event is about.
public struct ObjectReference: Codable, Sendable, Hashable {
    /// Group and version.
    public var apiVersion: String?
    /// Kind.
    public var kind: String?
    /// Nil for cluster-scoped objects.
    public var namespace: String?
    /// Name.
    public var name: String?
    /// Which of the objects that had this name.
    public var uid: String?
    /// Which version of it.
    public var resourceVersion: String?

    /// Makes a reference of its parts.
    public init(
        apiVersion: String, kind: String, namespace: String? = nil, name: String, uid: String? = nil,
        resourceVersion: String? = nil
    ) {
        self.apiVersion = apiVersion
        self.kind = kind
        self.namespace = namespace
        self.name = name
        self.uid = uid
        self.resourceVersion = resourceVersion
    }

    /// Refers to an object.
    public init<O: KubernetesObject>(_ object: O) {
        self.init(
            apiVersion: O.resource.apiVersion, kind: O.resource.kind, namespace: object.metadata.namespace,
            name: object.metadata.name, uid: object.metadata.uid)
    }
}

/// events.k8s.io/v1: what happened to an object, for `kubectl describe` and `kubectl events`.
public struct Event: KubernetesObject, Hashable {
    /// Events are namespaced; those about cluster-scoped objects are in `default`.
    public static let resource = ResourceKind(
        group: "events.k8s.io", version: "v1", kind: "Event", plural: "events", isNamespaced: true)

    /// How serious it is.
    public enum Severity: String, Codable, Sendable, Hashable {
        /// For information.
        case normal = "Normal"
        /// Somebody should look.
        case warning = "Warning"
    }

    /// Repetitions.
    public struct Series: Codable, Sendable, Hashable {
        /// How often, the first time included.
        public var count: Int
        /// RFC 3339 with microseconds.
        public var lastObservedTime: String

        /// Makes a series.
        public init(count: Int, lastObservedTime: String) {
            self.count = count
            self.lastObservedTime = lastObservedTime
        }
    }

    /// Name and namespace.
    public var metadata: ObjectMeta
    /// RFC 3339 with microseconds: the first time.
    public var eventTime: String?
    /// Repetitions; nil after the first time.
    public var series: Series?
    /// Who reports: "encryption.ebpf.xdp/operator".
    public var reportingController: String?
    /// Which of its replicas.
    public var reportingInstance: String?
    /// What was done: "Protect". UpperCamelCase, at most 128 bytes.
    public var action: String?
    /// Why: "VirtualServiceSelected". UpperCamelCase, at most 128 bytes.
    public var reason: String?
    /// What it is about.
    public var regarding: ObjectReference?
    /// What else has to do with it.
    public var related: ObjectReference?
    /// A sentence for people, at most 1024 bytes.
    public var note: String?
    /// "Normal" or "Warning".
    public var type: String?

    /// Makes an event without content.
    public init(metadata: ObjectMeta) {
        self.metadata = metadata
    }
}

/// coordination.k8s.io/v1.
public struct Lease: KubernetesObject, Hashable {
    /// Leases are namespaced.
    public static let resource = ResourceKind(
        group: "coordination.k8s.io", version: "v1", kind: "Lease", plural: "leases", isNamespaced: true)

    /// Who holds it, and until when.
    public struct Spec: Codable, Sendable, Hashable {
        /// Empty or nil when nobody does.
        public var holderIdentity: String?
        /// How long others wait without seeing a change before they take over.
        public var leaseDurationSeconds: Int?
        /// RFC 3339 with microseconds; for people.
        public var acquireTime: String?
        /// RFC 3339 with microseconds; for people.
        public var renewTime: String?
        /// How often the holder has changed.
        public var leaseTransitions: Int?

        /// Makes an empty specification.
        public init() {}
    }

    /// Name and version.
    public var metadata: ObjectMeta
    /// Nil in a lease that somebody created empty.
    public var spec: Spec?

    /// Makes a lease that nobody holds.
    public init(metadata: ObjectMeta, spec: Spec? = nil) {
        self.metadata = metadata
        self.spec = spec
    }
}

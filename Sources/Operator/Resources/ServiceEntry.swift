public import Kubernetes

/// networking.istio.io ServiceEntry, trimmed. Served alike as v1, v1beta1 and v1alpha3.
public struct ServiceEntry: KubernetesObject {
    /// `serviceentries`
    public static let resource = ResourceKind(
        group: "networking.istio.io", version: "v1", kind: "ServiceEntry", plural: "serviceentries", isNamespaced: true
    )

    /// Namespace, name.
    public var metadata: ObjectMeta
    /// What it adds to the mesh.
    public var spec: Spec?

    /// Makes an entry.
    public init(metadata: ObjectMeta, spec: Spec? = nil) {
        self.metadata = metadata
        self.spec = spec
    }

    /// What it adds to the mesh.
    public struct Spec: Codable, Sendable {
        /// Names of the service.
        public var hosts: [String]?
        /// Addresses and prefixes of the service: virtual ones, or with resolution NONE where traffic goes.
        public var addresses: [String]?
        /// MESH_EXTERNAL or MESH_INTERNAL.
        public var location: String?
        /// NONE, STATIC, DNS, DNS_ROUND_ROBIN.
        public var resolution: String?
        /// Namespaces that see it: names, "." for its own, "*" for all, "~" for none.
        public var exportTo: [String]?
        /// Who is behind it, by address or name.
        public var endpoints: [Workload]?
        /// Who is behind it, by labels in its own namespace.
        public var workloadSelector: WorkloadSelector?

        /// Makes a spec.
        public init(hosts: [String]) {
            self.hosts = hosts
        }
    }

    /// A workload, by address.
    public struct Workload: Codable, Sendable {
        /// An IP address, a name, or the path of a unix socket.
        public var address: String?

        /// Makes a workload.
        public init(address: String) {
            self.address = address
        }
    }

    /// Selects workloads of a namespace.
    public struct WorkloadSelector: Codable, Sendable {
        /// All of these.
        public var labels: [String: String]?

        /// Makes a selector.
        public init(labels: [String: String]) {
            self.labels = labels
        }
    }

    /// Drops what nobody reads.
    public mutating func trim() {
        metadata.annotations = nil
        metadata.labels = nil
    }
}

/// networking.istio.io WorkloadEntry, trimmed: a workload that is no pod of its own name, with labels as if it were one. Served alike as
/// v1, v1beta1 and v1alpha3.
public struct WorkloadEntry: KubernetesObject {
    /// `workloadentries`
    public static let resource = ResourceKind(
        group: "networking.istio.io", version: "v1", kind: "WorkloadEntry", plural: "workloadentries",
        isNamespaced: true)

    /// Namespace, name.
    public var metadata: ObjectMeta
    /// Where it is, and which one.
    public var spec: Spec?

    /// Makes an entry.
    public init(metadata: ObjectMeta, spec: Spec? = nil) {
        self.metadata = metadata
        self.spec = spec
    }

    /// Where it is, and which one.
    public struct Spec: Codable, Sendable {
        /// An IP address, a name, or the path of a unix socket.
        public var address: String?
        /// What selectors go by.
        public var labels: [String: String]?

        /// Makes a spec.
        public init(address: String, labels: [String: String]) {
            self.address = address
            self.labels = labels
        }
    }

    /// Drops what nobody reads.
    public mutating func trim() {
        metadata.annotations = nil
        metadata.labels = nil
    }
}

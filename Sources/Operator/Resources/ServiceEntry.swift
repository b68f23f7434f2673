internal import Kubernetes

/// networking.istio.io ServiceEntry, trimmed. Served alike as v1, v1beta1 and v1alpha3.
struct ServiceEntry: KubernetesObject {
    /// `serviceentries`
    static let resource = ResourceKind(
        group: "networking.istio.io", version: "v1", kind: "ServiceEntry", plural: "serviceentries", isNamespaced: true
    )

    /// Namespace, name.
    var metadata: ObjectMeta
    /// What it adds to the mesh.
    var spec: Spec?

    /// What it adds to the mesh.
    struct Spec: Codable, Sendable {
        /// Names of the service.
        var hosts: [String]?
        /// Addresses and prefixes of the service: virtual ones, or with resolution NONE where traffic goes.
        var addresses: [String]?
        /// MESH_EXTERNAL or MESH_INTERNAL.
        var location: String?
        /// NONE, STATIC, DNS, DNS_ROUND_ROBIN.
        var resolution: String?
        /// Namespaces that see it: names, "." for its own, "*" for all, "~" for none.
        var exportTo: [String]?
        /// Who is behind it, by address or name.
        var endpoints: [Workload]?
        /// Who is behind it, by labels in its own namespace.
        var workloadSelector: WorkloadSelector?
    }

    /// A workload, by address.
    struct Workload: Codable, Sendable {
        /// An IP address, a name, or the path of a unix socket.
        var address: String?
    }

    /// Selects workloads of a namespace.
    struct WorkloadSelector: Codable, Sendable {
        /// All of these.
        var labels: [String: String]?
    }

    /// Drops what nobody reads.
    mutating func trim() {
        metadata.annotations = nil
        metadata.labels = nil
    }
}

/// networking.istio.io WorkloadEntry, trimmed: a workload that is no pod of its own name, with labels as if it were one. Served alike as
/// v1, v1beta1 and v1alpha3.
struct WorkloadEntry: KubernetesObject {
    /// `workloadentries`
    static let resource = ResourceKind(
        group: "networking.istio.io", version: "v1", kind: "WorkloadEntry", plural: "workloadentries",
        isNamespaced: true)

    /// Namespace, name.
    var metadata: ObjectMeta
    /// Where it is, and which one.
    var spec: Spec?

    /// Where it is, and which one.
    struct Spec: Codable, Sendable {
        /// An IP address, a name, or the path of a unix socket.
        var address: String?
        /// What selectors go by.
        var labels: [String: String]?
    }

    /// Drops what nobody reads.
    mutating func trim() {
        metadata.annotations = nil
        metadata.labels = nil
    }
}

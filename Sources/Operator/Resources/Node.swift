internal import Kubernetes

/// v1 Node, trimmed.
struct Node: KubernetesObject {
    /// `nodes`
    static let resource = ResourceKind(
        group: "", version: "v1", kind: "Node", plural: "nodes", isNamespaced: false)

    /// Name, labels.
    var metadata: ObjectMeta
    /// How it is.
    var status: Status?

    /// How it is.
    struct Status: Codable, Sendable {
        /// Its own addresses: never those of a protected pod.
        var addresses: [Address]?
    }

    /// A name or an address.
    struct Address: Codable, Sendable {
        /// InternalIP, ExternalIP, Hostname, ...
        var type: String?
        /// As text.
        var address: String?
    }

    /// Drops what nobody reads.
    mutating func trim() {
        metadata.annotations = nil
        metadata.labels = metadata.labels?.filter { $0.key == "kubernetes.io/os" || $0.key == "type" }
    }
}

/// v1 Namespace, trimmed.
struct Namespace: KubernetesObject {
    /// `namespaces`
    static let resource = ResourceKind(
        group: "", version: "v1", kind: "Namespace", plural: "namespaces", isNamespaced: false)

    /// Name, labels.
    var metadata: ObjectMeta

    /// Drops what nobody reads.
    mutating func trim() {
        metadata.annotations = nil
    }
}

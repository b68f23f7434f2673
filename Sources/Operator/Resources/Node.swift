public import Kubernetes

/// v1 Node, trimmed.
public struct Node: KubernetesObject {
    /// `nodes`
    public static let resource = ResourceKind(
        group: "", version: "v1", kind: "Node", plural: "nodes", isNamespaced: false)

    /// Name, labels.
    public var metadata: ObjectMeta
    /// How it is.
    public var status: Status?

    /// Makes a node.
    public init(metadata: ObjectMeta, status: Status? = nil) {
        self.metadata = metadata
        self.status = status
    }

    /// How it is.
    public struct Status: Codable, Sendable {
        /// Its own addresses: never those of a protected pod.
        public var addresses: [Address]?

        /// Makes a status.
        public init(addresses: [Address]?) {
            self.addresses = addresses
        }
    }

    /// A name or an address.
    public struct Address: Codable, Sendable {
        /// InternalIP, ExternalIP, Hostname, ...
        public var type: String?
        /// As text.
        public var address: String?

        /// Makes an address.
        public init(type: String, address: String) {
            self.type = type
            self.address = address
        }
    }

    /// Drops what nobody reads.
    public mutating func trim() {
        metadata.annotations = nil
        metadata.labels = metadata.labels?.filter { $0.key == "kubernetes.io/os" || $0.key == "type" }
    }
}

/// v1 Namespace, trimmed.
public struct Namespace: KubernetesObject {
    /// `namespaces`
    public static let resource = ResourceKind(
        group: "", version: "v1", kind: "Namespace", plural: "namespaces", isNamespaced: false)

    /// Name, labels.
    public var metadata: ObjectMeta

    /// Makes a namespace.
    public init(metadata: ObjectMeta) {
        self.metadata = metadata
    }

    /// Drops what nobody reads.
    public mutating func trim() {
        metadata.annotations = nil
    }
}

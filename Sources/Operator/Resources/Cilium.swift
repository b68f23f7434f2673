internal import Kubernetes

/// cilium.io/v2 CiliumEndpoint, trimmed to its addresses. Named as its pod.
struct CiliumEndpoint: KubernetesObject {
    /// `ciliumendpoints`
    static let resource = ResourceKind(
        group: "cilium.io", version: "v2", kind: "CiliumEndpoint", plural: "ciliumendpoints", isNamespaced: true)

    /// Namespace and name of the pod; the pod as owner.
    var metadata: ObjectMeta
    /// How it is.
    var status: Status?

    /// How it is.
    struct Status: Codable, Sendable {
        /// Its addresses.
        var networking: Networking?
    }

    /// Its addresses.
    struct Networking: Codable, Sendable {
        /// Pairs of both families.
        var addressing: [AddressPair]?
    }

    /// A pair of both families.
    struct AddressPair: Codable, Sendable {
        /// IPv4.
        var ipv4: String?
        /// IPv6.
        var ipv6: String?
    }

    /// Drops what nobody reads.
    mutating func trim() {
        metadata.annotations = nil
        metadata.labels = nil
    }
}

/// cilium.io/v2 CiliumNode, trimmed to its addresses.
struct CiliumNode: KubernetesObject {
    /// `ciliumnodes`
    static let resource = ResourceKind(
        group: "cilium.io", version: "v2", kind: "CiliumNode", plural: "ciliumnodes", isNamespaced: false)

    /// Name.
    var metadata: ObjectMeta
    /// Its addresses.
    var spec: Spec?

    /// Its addresses.
    struct Spec: Codable, Sendable {
        /// The node's own, the router's among them: never those of a protected pod.
        var addresses: [Address]?
    }

    /// An address.
    struct Address: Codable, Sendable {
        /// InternalIP, CiliumInternalIP, ...
        var type: String?
        /// As text.
        var ip: String?
    }

    /// Drops what nobody reads.
    mutating func trim() {
        metadata.annotations = nil
        metadata.labels = nil
    }
}

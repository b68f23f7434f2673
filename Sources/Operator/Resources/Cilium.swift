public import Kubernetes

/// cilium.io/v2 CiliumEndpoint, trimmed to its addresses. Named as its pod.
public struct CiliumEndpoint: KubernetesObject {
    /// `ciliumendpoints`
    public static let resource = ResourceKind(
        group: "cilium.io", version: "v2", kind: "CiliumEndpoint", plural: "ciliumendpoints", isNamespaced: true)

    /// Namespace and name of the pod; the pod as owner.
    public var metadata: ObjectMeta
    /// How it is.
    public var status: Status?

    /// Makes an endpoint.
    public init(metadata: ObjectMeta, status: Status? = nil) {
        self.metadata = metadata
        self.status = status
    }

    /// How it is.
    public struct Status: Codable, Sendable {
        /// Its addresses.
        public var networking: Networking?

        /// Makes a status.
        public init(networking: Networking?) {
            self.networking = networking
        }
    }

    /// Its addresses.
    public struct Networking: Codable, Sendable {
        /// Pairs of both families.
        public var addressing: [AddressPair]?

        /// Makes a list.
        public init(addressing: [AddressPair]) {
            self.addressing = addressing
        }
    }

    /// A pair of both families.
    public struct AddressPair: Codable, Sendable {
        /// IPv4.
        public var ipv4: String?
        /// IPv6.
        public var ipv6: String?

        /// Makes a pair.
        public init(ipv4: String? = nil, ipv6: String? = nil) {
            self.ipv4 = ipv4
            self.ipv6 = ipv6
        }
    }

    /// Drops what nobody reads.
    public mutating func trim() {
        metadata.annotations = nil
        metadata.labels = nil
    }
}

/// cilium.io/v2 CiliumNode, trimmed to its addresses.
public struct CiliumNode: KubernetesObject {
    /// `ciliumnodes`
    public static let resource = ResourceKind(
        group: "cilium.io", version: "v2", kind: "CiliumNode", plural: "ciliumnodes", isNamespaced: false)

    /// Name.
    public var metadata: ObjectMeta
    /// Its addresses.
    public var spec: Spec?

    /// Makes a node.
    public init(metadata: ObjectMeta, spec: Spec? = nil) {
        self.metadata = metadata
        self.spec = spec
    }

    /// Its addresses.
    public struct Spec: Codable, Sendable {
        /// The node's own, the router's among them: never those of a protected pod.
        public var addresses: [Address]?

        /// Makes a spec.
        public init(addresses: [Address]) {
            self.addresses = addresses
        }
    }

    /// An address.
    public struct Address: Codable, Sendable {
        /// InternalIP, CiliumInternalIP, ...
        public var type: String?
        /// As text.
        public var ip: String?

        /// Makes an address.
        public init(type: String, ip: String) {
            self.type = type
            self.ip = ip
        }
    }

    /// Drops what nobody reads.
    public mutating func trim() {
        metadata.annotations = nil
        metadata.labels = nil
    }
}

internal import Kubernetes

/// v1 Service, trimmed to what decides who is behind its addresses.
struct ServiceObject: KubernetesObject {
    /// `services`
    static let resource = ResourceKind(
        group: "", version: "v1", kind: "Service", plural: "services", isNamespaced: true)
    /// The label that says that another proxy than the cluster's serves it.
    static let proxyLabel = "service.kubernetes.io/service-proxy-name"

    /// Namespace, name, labels.
    var metadata: ObjectMeta
    /// Addresses and ports.
    var spec: Spec?

    /// Addresses and ports.
    struct Spec: Codable, Sendable {
        /// ClusterIP, NodePort, LoadBalancer, ExternalName.
        var type: String?
        /// "None" for a headless one; empty before there is one.
        var clusterIP: String?
        /// One, or one of each family.
        var clusterIPs: [String]?
        /// Where it is reached.
        var ports: [Port]?
        /// None or ClientIP.
        var sessionAffinity: String?
        /// Cluster or Local.
        var internalTrafficPolicy: String?
    }

    /// A port of the service.
    struct Port: Codable, Sendable {
        /// What ports of slices are found by; may be missing where there is one port only.
        var name: String?
        /// The service's.
        var port: UInt16
        /// TCP when it is not said.
        var `protocol`: String?
    }

    /// Drops what nobody reads.
    mutating func trim() {
        metadata.annotations = nil
        metadata.labels = metadata.labels?.filter { $0.key == Self.proxyLabel }
    }
}

/// discovery.k8s.io/v1 EndpointSlice, trimmed.
struct EndpointSliceObject: KubernetesObject {
    /// `endpointslices`
    static let resource = ResourceKind(
        group: "discovery.k8s.io", version: "v1", kind: "EndpointSlice", plural: "endpointslices", isNamespaced: true)
    /// The label that names the service.
    static let serviceLabel = "kubernetes.io/service-name"

    /// Namespace, name, the label with the service's name.
    var metadata: ObjectMeta
    /// IPv4, IPv6 or FQDN.
    var addressType: String?
    /// Who is behind the service.
    var endpoints: [Endpoint]?
    /// Where they are reached.
    var ports: [Port]?

    /// One behind the service.
    struct Endpoint: Codable, Sendable {
        /// The first one counts; the others are the same.
        var addresses: [String]?
        /// Whether it can be used.
        var conditions: Conditions?
        /// Where it runs.
        var nodeName: String?
    }

    /// Whether an endpoint can be used.
    struct Conditions: Codable, Sendable {
        /// True when it is not said.
        var ready: Bool?
        /// The same as `ready`, but also while it terminates. `ready` when it is not said.
        var serving: Bool?
        /// It is going.
        var terminating: Bool?
    }

    /// A port of all endpoints.
    struct Port: Codable, Sendable {
        /// That of the service's port.
        var name: String?
        /// The pods'; nil: all ports, which services do not have.
        var port: UInt16?
        /// TCP when it is not said.
        var `protocol`: String?
    }

    /// Drops what nobody reads.
    mutating func trim() {
        metadata.annotations = nil
        metadata.labels = metadata.labels?.filter { $0.key == Self.serviceLabel }
    }
}

internal import Kubernetes

/// v1 Service, trimmed.
struct Service: KubernetesObject {
    /// `services`
    static let resource = ResourceKind(
        group: "", version: "v1", kind: "Service", plural: "services", isNamespaced: true)

    /// Namespace, name, the annotation that says to whom it is exported.
    var metadata: ObjectMeta
    /// Who is behind it.
    var spec: Spec?

    /// Who is behind it.
    struct Spec: Codable, Sendable {
        /// Labels of its pods.
        var selector: [String: String]?
        /// ClusterIP, NodePort, LoadBalancer, ExternalName.
        var type: String?
        /// "None" for a headless one.
        var clusterIP: String?
        /// Another name for this one.
        var externalName: String?
    }
}

/// discovery.k8s.io/v1 EndpointSlice, trimmed.
struct EndpointSlice: KubernetesObject {
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

    /// One behind the service.
    struct Endpoint: Codable, Sendable {
        /// The first one counts; all of them are taken.
        var addresses: [String]?
        /// The pod, if it is one.
        var targetRef: TargetReference?
    }

    /// Names an object.
    struct TargetReference: Codable, Sendable {
        /// "Pod"
        var kind: String?
        /// The slice's when it is not there.
        var namespace: String?
        /// The object's name.
        var name: String?
    }
}

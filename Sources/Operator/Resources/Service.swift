public import Kubernetes

/// v1 Service, trimmed.
public struct Service: KubernetesObject {
    /// `services`
    public static let resource = ResourceKind(
        group: "", version: "v1", kind: "Service", plural: "services", isNamespaced: true)

    /// Namespace, name, the annotation that says to whom it is exported.
    public var metadata: ObjectMeta
    /// Who is behind it.
    public var spec: Spec?

    /// Makes a service.
    public init(metadata: ObjectMeta, spec: Spec? = nil) {
        self.metadata = metadata
        self.spec = spec
    }

    /// Who is behind it.
    public struct Spec: Codable, Sendable {
        /// Labels of its pods.
        public var selector: [String: String]?
        /// ClusterIP, NodePort, LoadBalancer, ExternalName.
        public var type: String?
        /// "None" for a headless one.
        public var clusterIP: String?
        /// Another name for this one.
        public var externalName: String?

        /// Makes a spec.
        public init(
            selector: [String: String]? = nil, type: String? = nil, clusterIP: String? = nil,
            externalName: String? = nil
        ) {
            self.selector = selector
            self.type = type
            self.clusterIP = clusterIP
            self.externalName = externalName
        }
    }
}

/// discovery.k8s.io/v1 EndpointSlice, trimmed.
public struct EndpointSlice: KubernetesObject {
    /// `endpointslices`
    public static let resource = ResourceKind(
        group: "discovery.k8s.io", version: "v1", kind: "EndpointSlice", plural: "endpointslices", isNamespaced: true)
    /// The label that names the service.
    public static let serviceLabel = "kubernetes.io/service-name"

    /// Namespace, name, the label with the service's name.
    public var metadata: ObjectMeta
    /// IPv4, IPv6 or FQDN.
    public var addressType: String?
    /// Who is behind the service.
    public var endpoints: [Endpoint]?

    /// Makes a slice.
    public init(metadata: ObjectMeta, addressType: String? = nil, endpoints: [Endpoint]? = nil) {
        self.metadata = metadata
        self.addressType = addressType
        self.endpoints = endpoints
    }

    /// One behind the service.
    public struct Endpoint: Codable, Sendable {
        /// The first one counts; all of them are taken.
        public var addresses: [String]?
        /// The pod, if it is one.
        public var targetRef: TargetReference?

        /// Makes an endpoint.
        public init(addresses: [String]? = nil, targetRef: TargetReference? = nil) {
            self.addresses = addresses
            self.targetRef = targetRef
        }
    }

    /// Names an object.
    public struct TargetReference: Codable, Sendable {
        /// "Pod"
        public var kind: String?
        /// The slice's when it is not there.
        public var namespace: String?
        /// The object's name.
        public var name: String?

        /// Makes a reference.
        public init(kind: String?, namespace: String?, name: String?) {
            self.kind = kind
            self.namespace = namespace
            self.name = name
        }
    }
}

public import Kubernetes

/// networking.istio.io VirtualService, trimmed to where traffic goes. Served alike as v1, v1beta1 and v1alpha3.
public struct VirtualService: KubernetesObject {
    /// `virtualservices`
    public static let resource = ResourceKind(
        group: "networking.istio.io", version: "v1", kind: "VirtualService", plural: "virtualservices",
        isNamespaced: true)

    /// Namespace, name.
    public var metadata: ObjectMeta
    /// Where traffic goes.
    public var spec: Spec?

    /// Makes a virtual service.
    public init(metadata: ObjectMeta, spec: Spec? = nil) {
        self.metadata = metadata
        self.spec = spec
    }

    /// Where traffic goes.
    public struct Spec: Codable, Sendable {
        /// What clients ask for.
        public var hosts: [String]?
        /// Gateways that it applies to; "mesh" for the sidecars, which is also meant when there are none.
        public var gateways: [String]?
        /// Namespaces that see it: names, "." for its own, "*" for all, "~" for none.
        public var exportTo: [String]?
        /// Routes of HTTP, HTTP/2 and gRPC.
        public var http: [HTTPRoute]?
        /// Routes of TLS that is passed through.
        public var tls: [Route]?
        /// Routes of everything else.
        public var tcp: [Route]?

        /// Makes a spec.
        public init(hosts: [String]) {
            self.hosts = hosts
        }
    }

    /// Routes of HTTP.
    public struct HTTPRoute: Codable, Sendable {
        /// Where requests go.
        public var route: [WeightedDestination]?
        /// Where a copy goes.
        public var mirror: Destination?
        /// Where copies go.
        public var mirrors: [WeightedDestination]?

        /// Makes a route.
        public init(route: [WeightedDestination]? = nil, mirror: Destination? = nil) {
            self.route = route
            self.mirror = mirror
        }
    }

    /// Routes of connections.
    public struct Route: Codable, Sendable {
        /// Where they go.
        public var route: [WeightedDestination]?

        /// Makes a route.
        public init(route: [WeightedDestination]) {
            self.route = route
        }
    }

    /// A destination with its share.
    public struct WeightedDestination: Codable, Sendable {
        /// Where.
        public var destination: Destination?

        /// Makes a destination.
        public init(_ destination: Destination) {
            self.destination = destination
        }
    }

    /// A service, or a part of its pods.
    public struct Destination: Codable, Sendable, Hashable {
        /// Name of the service.
        public var host: String?
        /// Name of a subset that a DestinationRule has.
        public var subset: String?

        /// Makes a destination.
        public init(host: String, subset: String? = nil) {
            self.host = host
            self.subset = subset
        }
    }

    /// Drops what nobody reads.
    public mutating func trim() {
        metadata.annotations = nil
        metadata.labels = nil
    }
}

/// networking.istio.io DestinationRule, trimmed to its subsets. Served alike as v1, v1beta1 and v1alpha3.
public struct DestinationRule: KubernetesObject {
    /// `destinationrules`
    public static let resource = ResourceKind(
        group: "networking.istio.io", version: "v1", kind: "DestinationRule", plural: "destinationrules",
        isNamespaced: true)

    /// Namespace, name.
    public var metadata: ObjectMeta
    /// The subsets.
    public var spec: Spec?

    /// Makes a rule.
    public init(metadata: ObjectMeta, spec: Spec? = nil) {
        self.metadata = metadata
        self.spec = spec
    }

    /// The subsets.
    public struct Spec: Codable, Sendable {
        /// Name of the service.
        public var host: String?
        /// Named parts of its pods.
        public var subsets: [Subset]?
        /// Namespaces that see it: names, "." for its own, "*" for all, "~" for none.
        public var exportTo: [String]?

        /// Makes a spec.
        public init(host: String, subsets: [Subset]) {
            self.host = host
            self.subsets = subsets
        }
    }

    /// A named part of the pods of a service.
    public struct Subset: Codable, Sendable {
        /// Its name.
        public var name: String?
        /// Labels that its pods have beside those of the service.
        public var labels: [String: String]?

        /// Makes a subset.
        public init(name: String, labels: [String: String]) {
            self.name = name
            self.labels = labels
        }
    }

    /// Drops what nobody reads.
    public mutating func trim() {
        metadata.annotations = nil
        metadata.labels = nil
    }
}

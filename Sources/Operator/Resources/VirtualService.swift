internal import Kubernetes

/// networking.istio.io VirtualService, trimmed to where traffic goes. Served alike as v1, v1beta1 and v1alpha3.
struct VirtualService: KubernetesObject {
    /// `virtualservices`
    static let resource = ResourceKind(
        group: "networking.istio.io", version: "v1", kind: "VirtualService", plural: "virtualservices",
        isNamespaced: true)

    /// Namespace, name.
    var metadata: ObjectMeta
    /// Where traffic goes.
    var spec: Spec?

    /// Where traffic goes.
    struct Spec: Codable, Sendable {
        /// What clients ask for.
        var hosts: [String]?
        /// Gateways that it applies to; "mesh" for the sidecars, which is also meant when there are none.
        var gateways: [String]?
        /// Namespaces that see it: names, "." for its own, "*" for all, "~" for none.
        var exportTo: [String]?
        /// Routes of HTTP, HTTP/2 and gRPC.
        var http: [HTTPRoute]?
        /// Routes of TLS that is passed through.
        var tls: [Route]?
        /// Routes of everything else.
        var tcp: [Route]?
    }

    /// Routes of HTTP.
    struct HTTPRoute: Codable, Sendable {
        /// Where requests go.
        var route: [WeightedDestination]?
        /// Where a copy goes.
        var mirror: Destination?
        /// Where copies go.
        var mirrors: [WeightedDestination]?
    }

    /// Routes of connections.
    struct Route: Codable, Sendable {
        /// Where they go.
        var route: [WeightedDestination]?
    }

    /// A destination with its share.
    struct WeightedDestination: Codable, Sendable {
        /// Where.
        var destination: Destination?

        /// Makes a destination.
        init(_ destination: Destination) {
            self.destination = destination
        }
    }

    /// A service, or a part of its pods.
    struct Destination: Codable, Sendable, Hashable {
        /// Name of the service.
        var host: String?
        /// Name of a subset that a DestinationRule has.
        var subset: String?
    }

    /// Drops what nobody reads.
    mutating func trim() {
        metadata.annotations = nil
        metadata.labels = nil
    }
}

/// networking.istio.io DestinationRule, trimmed to its subsets. Served alike as v1, v1beta1 and v1alpha3.
struct DestinationRule: KubernetesObject {
    /// `destinationrules`
    static let resource = ResourceKind(
        group: "networking.istio.io", version: "v1", kind: "DestinationRule", plural: "destinationrules",
        isNamespaced: true)

    /// Namespace, name.
    var metadata: ObjectMeta
    /// The subsets.
    var spec: Spec?

    /// The subsets.
    struct Spec: Codable, Sendable {
        /// Name of the service.
        var host: String?
        /// Named parts of its pods.
        var subsets: [Subset]?
        /// Namespaces that see it: names, "." for its own, "*" for all, "~" for none.
        var exportTo: [String]?
    }

    /// A named part of the pods of a service.
    struct Subset: Codable, Sendable {
        /// Its name.
        var name: String?
        /// Labels that its pods have beside those of the service.
        var labels: [String: String]?
    }

    /// Drops what nobody reads.
    mutating func trim() {
        metadata.annotations = nil
        metadata.labels = nil
    }
}

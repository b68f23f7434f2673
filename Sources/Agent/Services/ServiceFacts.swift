internal import Datapath
internal import Kubernetes
internal import Netlink

/// What is kept of a service.
struct ServiceFacts: Sendable, Hashable {
    /// A port, of a service or of the pods behind it.
    struct Port: Sendable, Hashable {
        /// Empty when it has none.
        var name: String
        var number: UInt16
        var transport: ServiceAddress.Transport

        init?(name: String?, number: UInt16?, protocol: String?) {
            switch `protocol` ?? "TCP" {
            case "TCP": transport = .tcp
            case "UDP": transport = .udp
            default: return nil
            }
            guard let number, number != 0 else { return nil }
            self.name = name ?? ""
            self.number = number
        }
    }

    var addresses: [IPAddress]
    /// TCP and UDP.
    var ports: [Port]
    /// A client's connections go to one backend.
    var isSticky: Bool
    /// Only pods on the client's own node count.
    var isLocal: Bool

    /// nil when it has no address to be replaced: it is headless, a name for another one, or somebody else's.
    init?(_ service: ServiceObject) {
        guard let spec = service.spec, spec.type != "ExternalName",
            service.metadata.labels?[ServiceObject.proxyLabel] == nil
        else { return nil }
        let texts = spec.clusterIPs ?? spec.clusterIP.map { [$0] } ?? []
        addresses = texts.compactMap { try? IPAddress($0) }
        ports = (spec.ports ?? []).compactMap { Port(name: $0.name, number: $0.port, protocol: $0.protocol) }
        isSticky = spec.sessionAffinity == "ClientIP"
        isLocal = spec.internalTrafficPolicy == "Local"
        if addresses.isEmpty { return nil }
    }
}

/// What is kept of a slice of the pods behind a service.
struct SliceFacts: Sendable, Hashable {
    /// A pod, mostly.
    struct Endpoint: Sendable, Hashable {
        var address: IPAddress
        /// It can be used.
        var isReady: Bool
        /// It terminates, and still answers.
        var isLast: Bool
        /// It runs on our node.
        var isHere: Bool
    }

    /// Whom it is behind.
    var service: ObjectKey
    var ports: [ServiceFacts.Port]
    /// Also those that cannot be used at present.
    var endpoints: [Endpoint]

    /// nil when it belongs to no service, or holds names instead of addresses.
    init?(_ slice: EndpointSliceObject, node: String) {
        guard let service = slice.metadata.labels?[EndpointSliceObject.serviceLabel],
            slice.addressType == "IPv4" || slice.addressType == "IPv6"
        else { return nil }
        self.service = ObjectKey(namespace: slice.metadata.namespace, name: service)
        ports = (slice.ports ?? []).compactMap {
            ServiceFacts.Port(name: $0.name, number: $0.port, protocol: $0.protocol)
        }
        endpoints = (slice.endpoints ?? []).compactMap { endpoint in
            guard let address = endpoint.addresses?.first.flatMap({ try? IPAddress($0) }) else { return nil }
            let isReady = endpoint.conditions?.ready ?? true
            let isServing = endpoint.conditions?.serving ?? isReady
            let isLast = isServing && endpoint.conditions?.terminating ?? false
            return Endpoint(
                address: address, isReady: isReady, isLast: isLast, isHere: endpoint.nodeName == node)
        }
    }
}

extension ServiceFacts {
    /// Who is behind each of the service's addresses: ready pods, or where there are none, those that are just going.
    func backends(_ slices: some Sequence<SliceFacts>) -> [ServiceAddress: ServiceBackends] {
        var backends: [ServiceAddress: ServiceBackends] = [:]
        for port in ports {
            var usable: [(endpoint: SliceFacts.Endpoint, port: UInt16)] = []
            for slice in slices {
                for target in slice.ports where target.name == port.name && target.transport == port.transport {
                    for endpoint in slice.endpoints
                    where (endpoint.isReady || endpoint.isLast) && (endpoint.isHere || !isLocal) {
                        usable.append((endpoint, target.number))
                    }
                }
            }
            for address in addresses {
                let family = usable.filter { $0.endpoint.address.isIPv4 == address.isIPv4 }
                let ready = family.filter { $0.endpoint.isReady }
                let chosen = (ready.isEmpty ? family : ready).map {
                    ServiceBackend(address: $0.endpoint.address, port: $0.port)
                }
                let place = ServiceAddress(address: address, port: port.number, transport: port.transport)
                backends[place] = ServiceBackends(chosen, isSticky: isSticky)
            }
        }
        return backends
    }
}

internal import Cluster
internal import Kubernetes
internal import Netlink

/// What rules are made of, trimmed to what matters: two of these that are equal make equal rules.
struct MeshInput: Sendable {
    var clusterDomain = "cluster.local"
    var services: [ServiceName: ServiceFacts] = [:]
    var serviceEntries: [ObjectKey: ServiceEntryFacts] = [:]
    var workloadEntries: [ObjectKey: WorkloadEntryFacts] = [:]
    var virtualServices: [ObjectKey: VirtualServiceFacts] = [:]
    var destinationRules: [ObjectKey: DestinationRuleFacts] = [:]
    var namespaceLabels: [String: [String: String]] = [:]
    var policies: [PolicyRule] = []
}

struct ServiceFacts: Sendable, Hashable {
    var selector: [String: String]
    var exportTo: [String]
    /// The name that it is another name for.
    var externalName: String?

    init(_ service: Service) {
        selector = service.spec?.selector ?? [:]
        // "networking.istio.io/exportTo: .,other": commas, maybe with spaces.
        exportTo = (service.metadata.annotations?["networking.istio.io/exportTo"] ?? "")
            .split(whereSeparator: { $0 == "," || $0 == " " }).map { String($0) }
        externalName = service.spec?.type == "ExternalName" ? service.spec?.externalName : nil
    }
}

struct ServiceEntryFacts: Sendable, Hashable {
    var uid: String?
    var hosts: [String]
    var exportTo: [String]
    var endpoints: [String]
    /// Prefixes that traffic goes to itself, as it was addressed.
    var destinations: [IPPrefix]
    var workloadLabels: [String: String]?
    var isExternal: Bool

    init(_ entry: ServiceEntry) {
        uid = entry.metadata.uid
        hosts = entry.spec?.hosts ?? []
        exportTo = entry.spec?.exportTo ?? []
        endpoints = (entry.spec?.endpoints ?? []).compactMap(\.address)
        workloadLabels = entry.spec?.workloadSelector.map { $0.labels ?? [:] }
        // MESH_EXTERNAL is what it is when it is not there.
        isExternal = entry.spec?.location != "MESH_INTERNAL"
        // With any other resolution they are virtual, and what is behind them stands among the endpoints. Of an external service they are
        // networks elsewhere, however much they may overlap with those of pods.
        let isDirect = entry.spec?.resolution ?? "NONE" == "NONE" && !isExternal
        destinations = isDirect ? (entry.spec?.addresses ?? []).compactMap(Self.prefix) : []
    }
}

extension ServiceEntryFacts {
    /// An address, or a prefix, whose bits right of its length do not matter there: 192.192.192.192/24 is 192.192.192.0/24.
    private static func prefix(_ text: String) -> IPPrefix? {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count <= 2, let address = try? IPAddress(parts[0]) else { return nil }
        guard parts.count == 2 else { return IPPrefix(address: address, length: 128) }
        guard let length = UInt8(parts[1]), length <= (address.isIPv4 ? 32 : 128) else { return nil }
        return IPPrefix(containing: address, length: address.isIPv4 ? length + 96 : length)
    }
}

struct WorkloadEntryFacts: Sendable, Hashable {
    var address: String
    var labels: [String: String]

    init(_ entry: WorkloadEntry) {
        address = entry.spec?.address ?? ""
        labels = entry.spec?.labels ?? [:]
    }
}

struct VirtualServiceFacts: Sendable, Hashable {
    var uid: String?
    var hosts: [String]
    var exportTo: [String]
    /// It applies to sidecars, not to gateways only.
    var isForSidecars: Bool
    /// Without repetitions, sorted.
    var destinations: [Destination]

    struct Destination: Sendable, Hashable {
        var host: String
        var subset: String?
    }

    init(_ virtual: VirtualService) {
        let spec = virtual.spec
        uid = virtual.metadata.uid
        hosts = spec?.hosts ?? []
        exportTo = spec?.exportTo ?? []
        let gateways = spec?.gateways ?? []
        isForSidecars = gateways.isEmpty || gateways.contains("mesh")
        var all: [VirtualService.Destination] = []
        for route in spec?.http ?? [] {
            all += (route.route ?? []).compactMap(\.destination)
            all += (route.mirrors ?? []).compactMap(\.destination)
            if let mirror = route.mirror { all.append(mirror) }
        }
        for route in (spec?.tls ?? []) + (spec?.tcp ?? []) { all += (route.route ?? []).compactMap(\.destination) }
        let named = all.compactMap { destination in
            destination.host.map { Destination(host: $0, subset: destination.subset) }
        }
        destinations = Set(named.filter { !$0.host.isEmpty })
            .sorted { ($0.host, $0.subset ?? "") < ($1.host, $1.subset ?? "") }
    }
}

struct DestinationRuleFacts: Sendable, Hashable {
    struct Subset: Sendable, Hashable {
        var name: String
        var labels: [String: String]
    }
    var host: String
    var exportTo: [String]
    var subsets: [Subset]

    init(_ rule: DestinationRule) {
        host = rule.spec?.host ?? ""
        exportTo = rule.spec?.exportTo ?? []
        subsets = (rule.spec?.subsets ?? []).map { Subset(name: $0.name ?? "", labels: $0.labels ?? [:]) }
    }
}

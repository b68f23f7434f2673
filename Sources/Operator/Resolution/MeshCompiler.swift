internal import Cluster
internal import Kubernetes
internal import Netlink

/// Follows hosts of mesh resources to services, by the rules of Istio's documentation, and collects what is asked of whom.
///
/// Where a resource can be read in two ways, more pods are protected rather than fewer, and a note says so.
struct MeshCompiler {
    let input: MeshInput
    private(set) var rules = Rules()

    init(_ input: MeshInput) {
        self.input = input
    }

    /// Everything at once.
    static func compile(_ input: MeshInput) -> Rules {
        var compiler = MeshCompiler(input)
        let index = EntryIndex(input)
        for (key, entry) in input.serviceEntries { compiler.add(entry, key) }
        for (key, virtual) in input.virtualServices { compiler.add(virtual, key, index) }
        compiler.finish()
        return compiler.rules
    }

    // MARK: ServiceEntry

    private mutating func add(_ entry: ServiceEntryFacts, _ key: ObjectKey) {
        let reference = MeshReference("ServiceEntry", key)
        let namespace = key.namespace ?? ""
        var outcome = MeshOutcome()
        defer { rules.mesh[reference] = outcome }
        if entry.exportTo == ["~"] {
            outcome.tell("NotExported", "exportTo is \"~\": nobody sees it, so it asks for nothing")
            return
        }
        let ask = Ask(source: "\(reference)", mode: .strict)
        var services: Set<ServiceName> = []
        for host in entry.hosts {
            services.formUnion(
                resolve(HostName(host, namespace: namespace, clusterDomain: input.clusterDomain), from: namespace))
        }
        if let labels = entry.workloadLabels {
            rules.workloads[namespace, default: []].append(.init(labels: labels, ask: ask))
            outcome.selectsWorkloads = true
        }
        let workloads = entry.workloadLabels.map { entries(in: namespace, with: $0).map(\.address) } ?? []
        for text in entry.endpoints + workloads where !text.hasPrefix("unix:") {
            if let address = try? IPAddress(text) {
                rules.addresses[address, default: []].append(ask)
                outcome.selectsWorkloads = true
            } else {
                services.formUnion(
                    resolve(HostName(text, namespace: namespace, clusterDomain: input.clusterDomain), from: namespace))
            }
        }
        for prefix in entry.destinations {
            rules.prefixes[prefix, default: []].append(ask)
            outcome.selectsWorkloads = true
        }
        for service in services { add(.init(ask: ask, subset: nil), to: service) }
        outcome.services = services.sorted()
        if services.isEmpty && !outcome.selectsWorkloads {
            let hosts = entry.hosts.joined(separator: ", ")
            if entry.isExternal {
                outcome.tell("OutsideOfCluster", "\(hosts): outside of the cluster; there is no pod to protect")
            } else {
                outcome.warn(
                    "HostMatchesNothing",
                    "\(hosts): no service of the cluster has this name as seen from namespace \(namespace), and there are neither endpoints nor a workloadSelector; nothing is protected for its sake"
                )
            }
        }
    }

    // MARK: VirtualService

    private mutating func add(_ virtual: VirtualServiceFacts, _ key: ObjectKey, _ index: EntryIndex) {
        let reference = MeshReference("VirtualService", key)
        let namespace = key.namespace ?? ""
        var outcome = MeshOutcome()
        defer { rules.mesh[reference] = outcome }
        if virtual.exportTo == ["~"] {
            outcome.tell("NotExported", "exportTo is \"~\": nobody sees it, so it asks for nothing")
            return
        }
        let ask = Ask(source: "\(reference)", mode: .strict)
        var services: Set<ServiceName> = []
        for destination in virtual.destinations {
            let host = HostName(destination.host, namespace: namespace, clusterDomain: input.clusterDomain)
            let found = resolve(host, from: namespace)
            if found.isEmpty, !index.has(host, from: namespace, input.clusterDomain) {
                outcome.warn(
                    "HostMatchesNothing",
                    "destination \(destination.host): \(explain(host, from: namespace)); no pod is protected for its sake"
                )
            }
            services.formUnion(found)
            for service in found {
                for subset in subsets(destination, of: service, host, from: namespace, &outcome) {
                    add(.init(ask: ask, subset: subset), to: service)
                }
            }
        }
        if virtual.isForSidecars {
            for text in virtual.hosts {
                let host = HostName(text, namespace: namespace, clusterDomain: input.clusterDomain)
                if host == .any {
                    outcome.tell("AnyHost", "host \"*\" names no service; its destinations are protected")
                    continue
                }
                // Where the routes say which part of a service gets the traffic, its name alone does not ask for the rest.
                let found = resolve(host, from: namespace).subtracting(services)
                for service in found { add(.init(ask: ask, subset: nil), to: service) }
                services.formUnion(found)
                if found.isEmpty, services.isEmpty, !index.has(host, from: namespace, input.clusterDomain) {
                    outcome.warn(
                        "HostMatchesNothing",
                        "host \(text): \(explain(host, from: namespace)); no pod is protected for its sake")
                }
            }
        }
        outcome.services = services.sorted()
    }

    /// Labels that narrow a service to a destination's pods; one nil: all pods.
    private func subsets(
        _ destination: VirtualServiceFacts.Destination, of service: ServiceName, _ host: HostName,
        from namespace: String,
        _ outcome: inout MeshOutcome
    ) -> [[String: String]?] {
        guard let name = destination.subset, !name.isEmpty else { return [nil] }
        let full = HostName.full(service, input.clusterDomain)
        var found: [[String: String]?] = []
        for (key, rule) in input.destinationRules {
            let owner = key.namespace ?? ""
            guard isExported(rule.exportTo, from: owner, to: namespace),
                HostName(rule.host, namespace: owner, clusterDomain: input.clusterDomain).covers(
                    service, full: full, input.clusterDomain)
            else { continue }
            for subset in rule.subsets where subset.name == name {
                found.append(subset.labels.isEmpty ? nil : subset.labels)
            }
        }
        if found.isEmpty {
            outcome.warn(
                "SubsetNotFound",
                "destination \(destination.host): no DestinationRule that namespace \(namespace) sees has the subset \"\(name)\"; all pods of the service are protected"
            )
            return [nil]
        }
        return found
    }

    // MARK: Services

    /// Services that a host means and that a namespace sees.
    private func resolve(_ host: HostName, from namespace: String) -> Set<ServiceName> {
        switch host {
        case .any, .other: return []
        case .service(let name):
            var found: Set<ServiceName> = []
            follow(name, from: namespace, into: &found)
            return found
        case .suffix(let suffix):
            return input.services.reduce(into: []) { found, service in
                if HostName.full(service.key, input.clusterDomain).hasSuffix(suffix),
                    isExported(service.value.exportTo, from: service.key.namespace ?? "", to: namespace)
                {
                    follow(service.key, from: namespace, into: &found)
                }
            }
        }
    }

    /// A service, and the ones that it is another name for.
    private func follow(_ name: ServiceName, from namespace: String, into found: inout Set<ServiceName>) {
        guard let service = input.services[name], !found.contains(name),
            found.count < 1000 || service.externalName == nil,
            isExported(service.exportTo, from: name.namespace ?? "", to: namespace)
        else { return }
        found.insert(name)
        if let alias = service.externalName,
            case .service(let target) = HostName(
                alias, namespace: name.namespace ?? "", clusterDomain: input.clusterDomain)
        {
            follow(target, from: namespace, into: &found)
        }
    }

    private func explain(_ host: HostName, from namespace: String) -> String {
        switch host {
        case .any: "names no service"
        case .suffix(let suffix): "no service's name ends in \(suffix)"
        case .service(let name):
            input.services[name] == nil
                ? "there is no service \(name.name) in namespace \(name.namespace ?? "")"
                : "the service \(name) is not exported to namespace \(namespace)"
        case .other:
            "is no name of a service in the cluster (expected name.namespace.svc.\(input.clusterDomain), or a name without dots), and no ServiceEntry that namespace \(namespace) sees has it"
        }
    }

    private mutating func add(_ ask: Rules.ServiceAsk, to service: ServiceName) {
        let selector = input.services[service]?.selector ?? [:]
        rules.services[service, default: .init(name: service, selector: selector, asks: [])].asks.append(ask)
    }

    /// WorkloadEntries of a namespace that a selector of labels takes for workloads.
    private func entries(in namespace: String, with labels: [String: String]) -> [WorkloadEntryFacts] {
        input.workloadEntries.filter { $0.key.namespace == namespace && labels.isContained(in: $0.value.labels) }
            .map(\.value)
    }

    /// Services of Kubernetes select WorkloadEntries, too, as a mesh understands them.
    private mutating func addWorkloads(of service: Rules.ServiceRule) {
        guard !service.selector.isEmpty, !input.workloadEntries.isEmpty else { return }
        for workload in entries(in: service.name.namespace ?? "", with: service.selector) {
            if let address = try? IPAddress(workload.address) {
                rules.addresses[address, default: []] += service.asks(of: workload.labels)
            }
        }
    }

    private mutating func finish() {
        for (name, service) in rules.services {
            addWorkloads(of: service)
            guard let first = service.selector.min(by: { $0.key < $1.key }) else { continue }
            let place = Rules.Place(namespace: name.namespace ?? "", key: first.key, value: first.value)
            rules.servicesByLabel[place, default: []].append(name)
        }
        rules.policies = input.policies
        rules.namespaceLabels = input.namespaceLabels
    }
}

extension HostName {
    /// Whether a service is meant by this host.
    fileprivate func covers(_ service: ServiceName, full: String, _ clusterDomain: String) -> Bool {
        switch self {
        case .any: true
        case .suffix(let suffix): full.hasSuffix(suffix)
        case .service(let name): name == service
        case .other: false
        }
    }
}

/// Hosts that ServiceEntries add to the mesh: who names one of them means workloads that the entry itself asks for.
private struct EntryIndex {
    private struct Entry {
        var namespace: String
        var exportTo: [String]
    }
    private var hosts: [String: [Entry]] = [:]
    private var suffixes: [(suffix: String, entry: Entry)] = []

    init(_ input: MeshInput) {
        for (key, entry) in input.serviceEntries {
            let value = Entry(namespace: key.namespace ?? "", exportTo: entry.exportTo)
            for host in entry.hosts {
                let name = HostName(host, namespace: value.namespace, clusterDomain: input.clusterDomain)
                if case .suffix(let suffix) = name { suffixes.append((suffix, value)) }
                hosts[name.full(input.clusterDomain), default: []].append(value)
            }
        }
    }

    func has(_ host: HostName, from namespace: String, _ clusterDomain: String) -> Bool {
        let name = host.full(clusterDomain)
        func sees(_ entry: Entry) -> Bool { isExported(entry.exportTo, from: entry.namespace, to: namespace) }
        return hosts[name]?.contains(where: sees) == true
            || suffixes.contains { name.hasSuffix($0.suffix) && sees($0.entry) }
    }
}

public import Cluster
public import Keys
public import Kubernetes
public import Netlink

/// Everything that is known of the cluster, kept small, with what follows from it for pods. A value without any I/O: events go in, and
/// `settle()` says whose desired state may have changed.
///
/// Work is done for what has changed: a pod that comes costs one decision, a policy that changes costs one for every pod.
public struct Inventory: Sendable {
    /// Pods and what was decided for them.
    public private(set) var pods: [ObjectKey: PodEntry] = [:]
    /// Kubernetes' nodes.
    public private(set) var nodes: [String: NodeFacts] = [:]
    /// Our nodes.
    public private(set) var encryptionNodes: [String: EncryptionNodeFacts] = [:]
    /// Policies as people wrote them.
    public private(set) var policies: [String: EncryptionPolicy] = [:]
    /// Epochs that can be read.
    public private(set) var epochs: [Epoch: EncryptionEpochObject] = [:]
    /// What policies and mesh resources come to.
    public private(set) var rules = Rules()
    /// How well each kind is known.
    public internal(set) var kinds: [WatchedKind: KindState]

    var mesh = MeshInput()
    private var policyRules: [String: PolicyRule] = [:]
    private var ciliumNodes: [String: [IPAddress]] = [:]
    private var ciliumEndpoints: [ObjectKey: CiliumEndpointFacts] = [:]
    private var ciliumByAddress: [IPAddress: Set<ObjectKey>] = [:]
    private var endpointSlices: [ObjectKey: EndpointSliceFacts] = [:]
    private(set) var epochProblems: [String: String] = [:]

    private var shapes = ShapeTable()
    private(set) var podsByNode: [String: Set<ObjectKey>] = [:]
    private var podsByAddress: [IPAddress: Set<ObjectKey>] = [:]
    private var servicesByPod: [ObjectKey: [ServiceName]] = [:]
    private var servicesByAddress: [IPAddress: [ServiceName]] = [:]
    private var reserved: [IPAddress: Int] = [:]

    /// How many objects of each kind have gone.
    private var removals: [WatchedKind: Int] = [:]

    private var rulesChanged = true
    private var changedPods: Set<ObjectKey> = []
    private var changes = Changes()

    /// What may have to be written.
    public struct Changes: Sendable {
        /// Pods whose annotations may not be as they should.
        public var pods: Set<ObjectKey> = []
        /// Nodes whose wanted endpoints may not be as they should.
        public var nodes: Set<String> = []
        /// Nodes that have come, changed what they say, or gone.
        public var reports: Set<String> = []
        /// Policies or mesh resources have changed.
        public var rules = false
        /// Epochs have changed.
        public var epochs = false
        /// A node has got ready, or has a problem, or another one.
        public var conditions = false
    }

    /// Nothing is known.
    public init(clusterDomain: String = "cluster.local") {
        mesh.clusterDomain = clusterDomain
        kinds = Dictionary(uniqueKeysWithValues: WatchedKind.allCases.map { ($0, KindState()) })
    }

    // MARK: What follows

    /// Why nothing may be lifted now; empty: everything that could ask for protection is surely known.
    public var holds: [String] {
        WatchedKind.allCases.filter(\.canAsk).compactMap { kind in
            guard let state = kinds[kind], !state.isCurrent else { return nil }
            if let why = state.undiscovered { return "\(kind.rawValue): \(why)" }
            if let failure = state.failure { return "\(kind.rawValue) cannot be followed: \(failure)" }
            if let (key, problem) = state.unreadable.min(by: { $0.key < $1.key }) {
                return "\(kind.rawValue) \(key) cannot be read: \(problem)"
            }
            return "\(kind.rawValue) have not been read yet"
        }
    }

    /// Whether enough is known to begin: one list of everything that must be there, and of what a mesh or a CNI adds, unless that
    /// cannot be read.
    public var isSynced: Bool { kinds.allSatisfy { $0.value.isSettled($0.key) } }

    /// Brings decisions up to date and says whose desired state may have changed since the last time.
    public mutating func settle() -> Changes {
        if rulesChanged {
            rulesChanged = false
            mesh.policies = policyRules.values.sorted { $0.name < $1.name }
            rules = MeshCompiler.compile(mesh)
            shapes.forgetSelections()
            changedPods.formUnion(pods.keys)
            changes.rules = true
        }
        for key in changedPods { decide(key) }
        changedPods = []
        defer { changes = Changes() }
        return changes
    }

    private mutating func decide(_ key: ObjectKey) {
        guard let entry = pods[key] else { return }
        let decision = PodDecision.decide(entry.facts, asks(key, entry.facts))
        guard decision != entry.decision else { return }
        pods[key]?.decision = decision
        changes.pods.insert(key)
        if !entry.facts.node.isEmpty, mayBeEndpoint(key, entry.facts) { changes.nodes.insert(entry.facts.node) }
    }

    /// Whether a pod has, or can have, addresses to be protected.
    private func mayBeEndpoint(_ key: ObjectKey, _ pod: PodFacts) -> Bool {
        pod.isLive && (!pod.addresses.isEmpty || ciliumEndpoints[key] != nil)
    }

    /// Who asks for a pod's protection, its own annotation apart.
    private mutating func asks(_ key: ObjectKey, _ pod: PodFacts) -> [Ask] {
        let rules = rules
        let selection = shapes.selection(pod.shape) { rules.evaluate($0) }
        let hasAddresses = !rules.addresses.isEmpty || !rules.prefixes.isEmpty
        guard !rules.services.isEmpty || hasAddresses else { return selection.asks }
        var more: [Ask] = []
        func add(_ services: [ServiceName]) {
            for service in services where !selection.services.contains(service) {
                if let rule = rules.services[service] { more += rule.asks(of: shapes[pod.shape].labels) }
            }
        }
        add(servicesByPod[key] ?? [])
        if pod.isLive, !servicesByAddress.isEmpty || hasAddresses {
            for address in pod.addresses {
                add(servicesByAddress[address] ?? [])
                more += rules.addresses[address] ?? []
                for (prefix, asks) in rules.prefixes where prefix.contains(address) { more += asks }
            }
        }
        return more.isEmpty ? selection.asks : Set(selection.asks + more).sorted()
    }

    /// Indices of the policies that select a pod.
    func policies(selecting pod: PodFacts) -> [Int] { shapes.knownSelection(pod.shape)?.policies ?? [] }

    func namespace(of pod: PodFacts) -> String { shapes[pod.shape].namespace }
    func labels(of pod: PodFacts) -> [String: String] { shapes[pod.shape].labels }

    /// A policy as it is understood.
    public func rule(_ policy: String) -> PolicyRule? { policyRules[policy] }

    /// The addresses that a pod is protected under: its own and those of its CiliumEndpoint, without those that belong to a node, and
    /// without those that a newer pod has while this one is being deleted.
    public func addresses(_ key: ObjectKey, _ pod: PodFacts) -> [IPAddress] {
        claimed(key, pod).filter { address in
            reserved[address] == nil && !isTakenOver(address, key, pod)
        }
    }

    /// Addresses of a pod that cannot be protected as its own, and why. For people.
    public func addressProblems(_ key: ObjectKey, _ pod: PodFacts) -> [String] {
        claimed(key, pod).compactMap { address in
            if reserved[address] != nil { return "\(address) is an address of a node; it is left out" }
            // Nearly every address has one holder.
            guard let holders = podsByAddress[address], holders.count > 1 || !holders.contains(key) else { return nil }
            let others = (podsByAddress[address] ?? []).subtracting([key]).filter {
                pods[$0]?.facts.isLive == true && pods[$0]?.facts.isDeleting == false
            }
            guard !others.isEmpty, !pod.isDeleting else { return nil }
            let names = (others.union([key])).sorted().map(\.description).joined(separator: " and ")
            return "\(address) belongs to \(names); it is held strictly until one of them gives it up"
        }
    }

    private func claimed(_ key: ObjectKey, _ pod: PodFacts) -> [IPAddress] {
        guard let more = ciliumEndpoints[key], more.podUID == nil || more.podUID == pod.uid else {
            return pod.addresses
        }
        // What another pod says of itself counts more than an endpoint that may be old.
        let new = more.addresses.filter {
            !pod.addresses.contains($0) && (podsByAddress[$0] ?? []).subtracting([key]).isEmpty
        }
        return new.isEmpty ? pod.addresses : (pod.addresses + new).sorted()
    }

    private func isTakenOver(_ address: IPAddress, _ key: ObjectKey, _ pod: PodFacts) -> Bool {
        guard pod.isDeleting, let holders = podsByAddress[address], holders.count > 1 else { return false }
        return holders.contains { other in
            guard other != key, let entry = pods[other]?.facts else { return false }
            return entry.isLive && !entry.isDeleting && entry.created >= pod.created
        }
    }

    // MARK: Pods

    mutating func put(pod: Pod) {
        let key = pod.key
        let shape = shapes.acquire(
            PodShape(namespace: pod.metadata.namespace ?? "", labels: pod.metadata.labels ?? [:]))
        let facts = PodFacts(pod, shape: shape, node: canonical(node: pod.spec?.nodeName ?? ""))
        let before = pods[key]
        if let before {
            guard before.facts != facts else {
                pods[key]?.resourceVersion = pod.metadata.resourceVersion
                return shapes.release(shape)
            }
            if before.facts.isWhere(facts) {
                // Labels or annotations: whether that matters to its node is seen when it is decided about.
                shapes.release(before.facts.shape)
                pods[key] = PodEntry(
                    facts: facts, decision: before.decision, resourceVersion: pod.metadata.resourceVersion)
                changedPods.insert(key)
                changes.pods.insert(key)
                return
            }
            unindex(before.facts, key)
        }
        let isSame = before?.facts.uid == facts.uid
        pods[key] = PodEntry(
            facts: facts, decision: isSame ? before?.decision ?? .none : .none,
            resourceVersion: pod.metadata.resourceVersion)
        if !facts.node.isEmpty {
            podsByNode[facts.node, default: []].insert(key)
            if mayBeEndpoint(key, facts) { changes.nodes.insert(facts.node) }
        }
        if facts.isLive { for address in facts.addresses { hold(address, key) } }
        changedPods.insert(key)
        changes.pods.insert(key)
    }

    mutating func removePod(_ key: ObjectKey) {
        guard let entry = pods.removeValue(forKey: key) else { return }
        unindex(entry.facts, key)
        changes.pods.insert(key)
    }

    private mutating func unindex(_ facts: PodFacts, _ key: ObjectKey) {
        shapes.release(facts.shape)
        if !facts.node.isEmpty {
            podsByNode[facts.node]?.remove(key)
            if podsByNode[facts.node]?.isEmpty == true { podsByNode[facts.node] = nil }
            if mayBeEndpoint(key, facts) || nodes[facts.node] == nil { changes.nodes.insert(facts.node) }
        }
        for address in facts.addresses {
            podsByAddress[address]?.remove(key)
            if podsByAddress[address]?.isEmpty == true { podsByAddress[address] = nil }
            touchHolders(address)
        }
    }

    private mutating func hold(_ address: IPAddress, _ key: ObjectKey) {
        podsByAddress[address, default: []].insert(key)
        touchHolders(address)
    }

    /// Whoever has this address may have to give it up, or may have it alone again.
    private mutating func touchHolders(_ address: IPAddress) {
        for holder in podsByAddress[address] ?? [] { touch(holder) }
        if !ciliumByAddress.isEmpty { for holder in ciliumByAddress[address] ?? [] { touch(holder) } }
    }

    /// One copy of each node's name.
    private func canonical(node: String) -> String {
        podsByNode.index(forKey: node).map { podsByNode.keys[$0] } ?? node
    }

    // MARK: What leads to pods

    mutating func put(service: Service) {
        let facts = ServiceFacts(service)
        guard mesh.services.updateValue(facts, forKey: service.key) != facts else { return }
        servicesChanged()
    }

    mutating func removeService(_ key: ObjectKey) {
        mesh.services[key] = nil
        servicesChanged()
    }

    /// Without mesh resources, services lead nowhere.
    private mutating func servicesChanged() {
        if !mesh.serviceEntries.isEmpty || !mesh.virtualServices.isEmpty { rulesChanged = true }
    }

    mutating func put(endpointSlice slice: EndpointSlice) {
        var facts = EndpointSliceFacts(slice)
        let namespace = slice.metadata.namespace
        // The pods' own copies of their names.
        for index in facts.pods.indices {
            let key = ObjectKey(namespace: namespace, name: facts.pods[index])
            if let known = pods.index(forKey: key) { facts.pods[index] = pods.keys[known].name }
        }
        let before = endpointSlices.updateValue(facts, forKey: slice.key)
        guard before != facts else { return }
        replaceMembers(of: namespace, before, with: facts)
    }

    mutating func removeEndpointSlice(_ key: ObjectKey) {
        replaceMembers(of: key.namespace, endpointSlices.removeValue(forKey: key), with: nil)
    }

    private mutating func replaceMembers(
        of namespace: String?, _ before: EndpointSliceFacts?, with after: EndpointSliceFacts?
    ) {
        let isSameService = before?.service == after?.service
        let oldPods = Set(before?.pods ?? [])
        let newPods = Set(after?.pods ?? [])
        if let service = before?.service {
            for name in isSameService ? oldPods.subtracting(newPods) : oldPods {
                let key = ObjectKey(namespace: namespace, name: name)
                Self.remove(service, from: &servicesByPod, key)
                changedPods.insert(key)
            }
            for address in before?.addresses ?? [] {
                Self.remove(service, from: &servicesByAddress, address)
                changedPods.formUnion(podsByAddress[address] ?? [])
            }
        }
        if let service = after?.service {
            for name in isSameService ? newPods.subtracting(oldPods) : newPods {
                let key = ObjectKey(namespace: namespace, name: name)
                servicesByPod[key, default: []].append(service)
                changedPods.insert(key)
            }
            for address in after?.addresses ?? [] {
                servicesByAddress[address, default: []].append(service)
                changedPods.formUnion(podsByAddress[address] ?? [])
            }
        }
    }

    /// Takes one mention away: other slices of the service may have the same pod.
    private static func remove<Key: Hashable>(
        _ service: ServiceName, from list: inout [Key: [ServiceName]], _ key: Key
    ) {
        guard let index = list[key]?.firstIndex(of: service) else { return }
        list[key]?.remove(at: index)
        if list[key]?.isEmpty == true { list[key] = nil }
    }

    mutating func put(namespace: Namespace) {
        let labels = namespace.metadata.labels ?? [:]
        guard mesh.namespaceLabels.updateValue(labels, forKey: namespace.metadata.name) != labels else { return }
        rulesChanged = true
    }

    mutating func removeNamespace(_ name: String) {
        mesh.namespaceLabels[name] = nil
        rulesChanged = true
    }

    mutating func put(serviceEntry entry: ServiceEntry) {
        let facts = ServiceEntryFacts(entry)
        if mesh.serviceEntries.updateValue(facts, forKey: entry.key) != facts { rulesChanged = true }
    }

    mutating func put(workloadEntry entry: WorkloadEntry) {
        let facts = WorkloadEntryFacts(entry)
        if mesh.workloadEntries.updateValue(facts, forKey: entry.key) != facts { rulesChanged = true }
    }

    mutating func put(virtualService virtual: VirtualService) {
        let facts = VirtualServiceFacts(virtual)
        if mesh.virtualServices.updateValue(facts, forKey: virtual.key) != facts { rulesChanged = true }
    }

    mutating func put(destinationRule rule: DestinationRule) {
        let facts = DestinationRuleFacts(rule)
        if mesh.destinationRules.updateValue(facts, forKey: rule.key) != facts { rulesChanged = true }
    }

    mutating func removeServiceEntry(_ key: ObjectKey) {
        if mesh.serviceEntries.removeValue(forKey: key) != nil { rulesChanged = true }
    }

    mutating func removeWorkloadEntry(_ key: ObjectKey) {
        if mesh.workloadEntries.removeValue(forKey: key) != nil { rulesChanged = true }
    }

    mutating func removeVirtualService(_ key: ObjectKey) {
        if mesh.virtualServices.removeValue(forKey: key) != nil { rulesChanged = true }
    }

    mutating func removeDestinationRule(_ key: ObjectKey) {
        if mesh.destinationRules.removeValue(forKey: key) != nil { rulesChanged = true }
    }

    /// A policy whose new spec has problems keeps its earlier one: a typing error must not lift protection.
    mutating func put(policy: EncryptionPolicy) {
        let name = policy.metadata.name
        policies[name] = policy
        var rule = PolicyRule(name, policy.spec)
        if !rule.problems.isEmpty, var earlier = policyRules[name], earlier.problems.isEmpty || earlier.isEarlier {
            earlier.problems = rule.problems
            earlier.isEarlier = true
            rule = earlier
        }
        // Without an earlier one, what cannot be judged selects nothing; so nobody knows what it may have asked for.
        let isBlind = !rule.isEarlier && rule.problems.contains { $0.contains("Selector") }
        kinds[.policies]?.unreadable[policy.key] = isBlind ? rule.problems.joined(separator: "; ") : nil
        if policyRules.updateValue(rule, forKey: name) != rule { rulesChanged = true }
    }

    mutating func removePolicy(_ name: String) {
        policies[name] = nil
        kinds[.policies]?.unreadable[ObjectKey(name: name)] = nil
        if policyRules.removeValue(forKey: name) != nil { rulesChanged = true }
    }

    // MARK: Addresses of nodes and of Cilium

    mutating func put(node: Node) {
        let facts = NodeFacts(node)
        let before = nodes.updateValue(facts, forKey: node.metadata.name)
        guard before != facts else { return }
        changes.nodes.insert(node.metadata.name)
        reserve(facts.addresses, insteadOf: before?.addresses ?? [])
    }

    mutating func removeNode(_ name: String) {
        reserve([], insteadOf: nodes.removeValue(forKey: name)?.addresses ?? [])
        changes.nodes.insert(name)
    }

    mutating func put(ciliumNode node: CiliumNode) {
        let addresses = (node.spec?.addresses ?? []).compactMap { $0.ip.flatMap { try? IPAddress($0) } }.sorted()
        let before = ciliumNodes.updateValue(addresses, forKey: node.metadata.name) ?? []
        if before != addresses { reserve(addresses, insteadOf: before) }
    }

    mutating func removeCiliumNode(_ name: String) {
        reserve([], insteadOf: ciliumNodes.removeValue(forKey: name) ?? [])
    }

    private mutating func reserve(_ after: [IPAddress], insteadOf before: [IPAddress]) {
        for address in after { reserved[address, default: 0] += 1 }
        for address in before {
            reserved[address, default: 1] -= 1
            if reserved[address] == 0 { reserved[address] = nil }
        }
        for address in before + after { touchHolders(address) }
    }

    mutating func put(ciliumEndpoint endpoint: CiliumEndpoint) {
        let facts = CiliumEndpointFacts(endpoint)
        let before = ciliumEndpoints.updateValue(facts, forKey: endpoint.key)
        guard before != facts else { return }
        for address in before?.addresses ?? [] { forget(endpoint.key, address) }
        for address in facts.addresses { ciliumByAddress[address, default: []].insert(endpoint.key) }
        touch(endpoint.key)
    }

    mutating func removeCiliumEndpoint(_ key: ObjectKey) {
        guard let before = ciliumEndpoints.removeValue(forKey: key) else { return }
        for address in before.addresses { forget(key, address) }
        touch(key)
    }

    private mutating func forget(_ key: ObjectKey, _ address: IPAddress) {
        ciliumByAddress[address]?.remove(key)
        if ciliumByAddress[address]?.isEmpty == true { ciliumByAddress[address] = nil }
    }

    private mutating func touch(_ key: ObjectKey) {
        changedPods.insert(key)
        if let node = pods[key]?.facts.node, !node.isEmpty { changes.nodes.insert(node) }
    }

    // MARK: Our own objects

    mutating func put(encryptionNode node: EncryptionNodeObject) {
        let name = node.metadata.name
        let before = encryptionNodes[name]
        let facts = EncryptionNodeFacts(node, before: before)
        encryptionNodes[name] = facts
        if facts.endpointsHash != before?.endpointsHash || facts.uid != before?.uid { changes.nodes.insert(name) }
        if facts.report != before?.report || before == nil { changes.reports.insert(name) }
        if before.map({ NodeCondition($0) }) != NodeCondition(facts) { changes.conditions = true }
    }

    /// Endpoints were written. Where the watch has brought them before, it has this version or a later one.
    mutating func wrote(_ endpoints: [EncryptionNodeObject.Endpoint], of name: String, resourceVersion: String?) {
        let hash = endpoints.hashValue
        guard let known = encryptionNodes[name]?.endpointsHash, known != hash else { return }
        encryptionNodes[name]?.endpointsHash = hash
        encryptionNodes[name]?.endpointCount = endpoints.count
        encryptionNodes[name]?.resourceVersion = resourceVersion
    }

    mutating func removeEncryptionNode(_ name: String) {
        guard encryptionNodes.removeValue(forKey: name) != nil else { return }
        changes.nodes.insert(name)
        changes.reports.insert(name)
    }

    mutating func put(epoch: EncryptionEpochObject) {
        epochProblems[epoch.metadata.name] = epoch.unreadable
        changes.epochs = true
        if let spec = epoch.spec { epochs[spec.number] = epoch }
    }

    mutating func removeEpoch(_ name: String) {
        epochProblems[name] = nil
        changes.epochs = true
        if let number = EncryptionEpochObject.number(name) { epochs[number] = nil }
    }

    // MARK: Keys, for lists

    func keys(_ kind: WatchedKind) -> [ObjectKey] {
        func named(_ names: some Sequence<String>) -> [ObjectKey] { names.map { ObjectKey(name: $0) } }
        return switch kind {
        case .pods: Array(pods.keys)
        case .services: Array(mesh.services.keys)
        case .nodes: named(nodes.keys)
        case .namespaces: named(mesh.namespaceLabels.keys)
        case .endpointSlices: Array(endpointSlices.keys)
        case .serviceEntries: Array(mesh.serviceEntries.keys)
        case .workloadEntries: Array(mesh.workloadEntries.keys)
        case .virtualServices: Array(mesh.virtualServices.keys)
        case .destinationRules: Array(mesh.destinationRules.keys)
        case .ciliumEndpoints: Array(ciliumEndpoints.keys)
        case .ciliumNodes: named(ciliumNodes.keys)
        case .policies: named(policies.keys)
        case .encryptionNodes: named(encryptionNodes.keys)
        case .epochs: named(epochs.keys.map { EncryptionEpochObject.name($0) } + epochProblems.keys)
        case .slices: []
        }
    }

    /// Which version of an object is known, of the kinds that have versions kept.
    func version(_ kind: WatchedKind, _ key: ObjectKey) -> Version? {
        switch kind {
        case .pods: pods[key].map { Version(uid: $0.facts.uid, resourceVersion: $0.resourceVersion) }
        case .encryptionNodes:
            encryptionNodes[key.name].map { Version(uid: $0.uid, resourceVersion: $0.resourceVersion) }
        case .policies:
            policies[key.name].map { Version(uid: $0.metadata.uid, resourceVersion: $0.metadata.resourceVersion) }
        case .epochs:
            // The last one that could be read: which of the name it was says nothing.
            EncryptionEpochObject.number(key.name).flatMap { epochs[$0] }.map {
                Version(resourceVersion: $0.metadata.resourceVersion)
            }
        default: nil
        }
    }

    func witness(_ kind: WatchedKind, _ keys: [ObjectKey]) -> Witness? {
        switch kind {
        case .pods, .encryptionNodes, .policies, .epochs:
            let versions = keys.reduce(into: [:]) { $0[$1] = version(kind, $1) }
            return Witness(kind: kind, versions: versions, removals: removals[kind, default: 0])
        default: return nil
        }
    }

    /// Whether nothing has become known of an object since a moment.
    func isUnchanged(_ key: ObjectKey, since witness: Witness) -> Bool {
        let now = version(witness.kind, key)
        // One that is not known may have come and gone.
        return now == witness.versions[key] && (now != nil || removals[witness.kind, default: 0] == witness.removals)
    }

    mutating func remove(_ kind: WatchedKind, _ key: ObjectKey) {
        removals[kind, default: 0] += 1
        switch kind {
        case .pods: removePod(key)
        case .services: removeService(key)
        case .nodes: removeNode(key.name)
        case .namespaces: removeNamespace(key.name)
        case .endpointSlices: removeEndpointSlice(key)
        case .serviceEntries: removeServiceEntry(key)
        case .workloadEntries: removeWorkloadEntry(key)
        case .virtualServices: removeVirtualService(key)
        case .destinationRules: removeDestinationRule(key)
        case .ciliumEndpoints: removeCiliumEndpoint(key)
        case .ciliumNodes: removeCiliumNode(key.name)
        case .policies: removePolicy(key.name)
        case .encryptionNodes: removeEncryptionNode(key.name)
        case .epochs: removeEpoch(key.name)
        case .slices: break
        }
    }
}

/// A version of an object. One of the same name that was made again has another uid.
struct Version: Sendable, Hashable {
    var uid: String?
    var resourceVersion: String?
}

/// What was known of some objects at a moment.
struct Witness: Sendable {
    var kind: WatchedKind
    var versions: [ObjectKey: Version]
    /// How many of the kind had gone.
    var removals: Int
}

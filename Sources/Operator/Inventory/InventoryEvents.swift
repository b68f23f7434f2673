internal import Cluster
internal import Kubernetes

/// A kind of objects that the inventory keeps.
protocol Inventoried: KubernetesObject {
    /// Where it keeps them.
    static var place: InventoryPlace<Self> { get }
}

/// Where the inventory keeps a kind of objects.
struct InventoryPlace<O: KubernetesObject>: Sendable {
    let kind: WatchedKind
    /// Adds or replaces an object.
    let put: @Sendable (inout Inventory, O) -> Void

    init(_ kind: WatchedKind, _ put: @escaping @Sendable (inout Inventory, O) -> Void) {
        self.kind = kind
        self.put = put
    }
}

extension Inventory {
    /// Takes an event of a reflector.
    mutating func handle<O: Inventoried>(_ event: Reflector<O>.Event) {
        let kind = O.place.kind
        switch event {
        case .reset:
            kinds[kind]?.listed = []
        case .listed(let object):
            kinds[kind]?.listed?.insert(object.key)
            put(object)
        case .applied(let object):
            put(object)
        case .deleted(let key, let uid):
            kinds[kind]?.unreadable[key] = nil
            // The deletion of an object that another of its name has replaced is old news.
            if let uid, let current = version(kind, key)?.uid, uid != current { return }
            remove(kind, key)
        case .undecodable(let object):
            kinds[kind]?.listed?.insert(object.key)
            kinds[kind]?.unreadable[object.key] = object.problem
        case .synced:
            if let listed = kinds[kind]?.listed {
                for key in keys(kind) where !listed.contains(key) { remove(kind, key) }
                for key in kinds[kind]?.unreadable.keys.filter({ !listed.contains($0) }) ?? [] {
                    kinds[kind]?.unreadable[key] = nil
                }
            }
            kinds[kind]?.listed = nil
            kinds[kind]?.isSynced = true
            kinds[kind]?.isAbsent = false
            kinds[kind]?.failure = nil
        case .failing(let error):
            kinds[kind]?.failure = error.message
        case .recovered:
            kinds[kind]?.failure = nil
        }
    }

    /// Adds or replaces an object.
    mutating func put<O: Inventoried>(_ object: O) {
        if O.place.kind != .policies, kinds[O.place.kind]?.unreadable.isEmpty == false {
            kinds[O.place.kind]?.unreadable[object.key] = nil
        }
        O.place.put(&self, object)
    }

    /// The server has no such kind, and has said so for long enough: what there was of it has ended with it.
    mutating func setAbsent(_ kind: WatchedKind) {
        guard kinds[kind]?.isAbsent == false else { return }
        for key in keys(kind) { remove(kind, key) }
        kinds[kind] = KindState(isAbsent: true)
    }

    /// It is not known whether the server has the kind, or it has it not just now.
    mutating func setUndiscovered(_ kind: WatchedKind, _ why: String) {
        kinds[kind]?.undiscovered = why
    }

    /// The server has the kind.
    mutating func setServed(_ kind: WatchedKind) {
        kinds[kind]?.undiscovered = nil
        if kinds[kind]?.isAbsent == true { kinds[kind] = KindState() }
    }
}

extension Pod: Inventoried {
    static let place = InventoryPlace<Pod>(.pods) { $0.put(pod: $1) }
}

extension Service: Inventoried {
    static let place = InventoryPlace<Service>(.services) { $0.put(service: $1) }
}

extension EndpointSlice: Inventoried {
    static let place = InventoryPlace<EndpointSlice>(.endpointSlices) { $0.put(endpointSlice: $1) }
}

extension Namespace: Inventoried {
    static let place = InventoryPlace<Namespace>(.namespaces) { $0.put(namespace: $1) }
}

extension ServiceEntry: Inventoried {
    static let place = InventoryPlace<ServiceEntry>(.serviceEntries) { $0.put(serviceEntry: $1) }
}

extension WorkloadEntry: Inventoried {
    static let place = InventoryPlace<WorkloadEntry>(.workloadEntries) { $0.put(workloadEntry: $1) }
}

extension VirtualService: Inventoried {
    static let place = InventoryPlace<VirtualService>(.virtualServices) { $0.put(virtualService: $1) }
}

extension DestinationRule: Inventoried {
    static let place = InventoryPlace<DestinationRule>(.destinationRules) { $0.put(destinationRule: $1) }
}

extension EncryptionPolicy: Inventoried {
    static let place = InventoryPlace<EncryptionPolicy>(.policies) { $0.put(policy: $1) }
}

extension Node: Inventoried {
    static let place = InventoryPlace<Node>(.nodes) { $0.put(node: $1) }
}

extension CiliumNode: Inventoried {
    static let place = InventoryPlace<CiliumNode>(.ciliumNodes) { $0.put(ciliumNode: $1) }
}

extension CiliumEndpoint: Inventoried {
    static let place = InventoryPlace<CiliumEndpoint>(.ciliumEndpoints) { $0.put(ciliumEndpoint: $1) }
}

extension EncryptionNodeObject: Inventoried {
    static let place = InventoryPlace<EncryptionNodeObject>(.encryptionNodes) { $0.put(encryptionNode: $1) }
}

extension EncryptionEpochObject: Inventoried {
    static let place = InventoryPlace<EncryptionEpochObject>(.epochs) { $0.put(epoch: $1) }
}

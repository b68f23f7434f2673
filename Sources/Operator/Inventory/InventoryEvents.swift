public import Cluster
public import Kubernetes

/// A kind of objects that the inventory keeps.
public protocol Inventoried: KubernetesObject {
    /// Which one.
    static var kind: WatchedKind { get }
    /// Adds or replaces an object.
    static func put(_ object: Self, into inventory: inout Inventory)
}

extension Inventory {
    /// Takes an event of a reflector.
    public mutating func handle<O: Inventoried>(_ event: Reflector<O>.Event) {
        let kind = O.kind
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
    public mutating func put<O: Inventoried>(_ object: O) {
        if O.kind != .policies, kinds[O.kind]?.unreadable.isEmpty == false {
            kinds[O.kind]?.unreadable[object.key] = nil
        }
        O.put(object, into: &self)
    }

    /// The server has no such kind, and has said so for long enough: what there was of it has ended with it.
    public mutating func setAbsent(_ kind: WatchedKind) {
        guard kinds[kind]?.isAbsent == false else { return }
        for key in keys(kind) { remove(kind, key) }
        kinds[kind] = KindState(isAbsent: true)
    }

    /// It is not known whether the server has the kind, or it has it not just now.
    public mutating func setUndiscovered(_ kind: WatchedKind, _ why: String) {
        kinds[kind]?.undiscovered = why
    }

    /// The server has the kind.
    public mutating func setServed(_ kind: WatchedKind) {
        kinds[kind]?.undiscovered = nil
        if kinds[kind]?.isAbsent == true { kinds[kind] = KindState() }
    }
}

extension Pod: Inventoried {
    /// Pods.
    public static var kind: WatchedKind { .pods }
    /// Adds or replaces a pod.
    public static func put(_ object: Pod, into inventory: inout Inventory) { inventory.put(pod: object) }
}

extension Service: Inventoried {
    /// As it says.
    public static var kind: WatchedKind { .services }
    /// Adds or replaces one.
    public static func put(_ object: Service, into inventory: inout Inventory) { inventory.put(service: object) }
}

extension EndpointSlice: Inventoried {
    /// As it says.
    public static var kind: WatchedKind { .endpointSlices }
    /// Adds or replaces one.
    public static func put(_ object: EndpointSlice, into inventory: inout Inventory) {
        inventory.put(endpointSlice: object)
    }
}

extension Namespace: Inventoried {
    /// As it says.
    public static var kind: WatchedKind { .namespaces }
    /// Adds or replaces one.
    public static func put(_ object: Namespace, into inventory: inout Inventory) { inventory.put(namespace: object) }
}

extension ServiceEntry: Inventoried {
    /// As it says.
    public static var kind: WatchedKind { .serviceEntries }
    /// Adds or replaces one.
    public static func put(_ object: ServiceEntry, into inventory: inout Inventory) {
        inventory.put(serviceEntry: object)
    }
}

extension VirtualService: Inventoried {
    /// As it says.
    public static var kind: WatchedKind { .virtualServices }
    /// Adds or replaces one.
    public static func put(_ object: VirtualService, into inventory: inout Inventory) {
        inventory.put(virtualService: object)
    }
}

extension DestinationRule: Inventoried {
    /// As it says.
    public static var kind: WatchedKind { .destinationRules }
    /// Adds or replaces one.
    public static func put(_ object: DestinationRule, into inventory: inout Inventory) {
        inventory.put(destinationRule: object)
    }
}

extension EncryptionPolicy: Inventoried {
    /// As it says.
    public static var kind: WatchedKind { .policies }
    /// Adds or replaces one.
    public static func put(_ object: EncryptionPolicy, into inventory: inout Inventory) {
        inventory.put(policy: object)
    }
}

extension Node: Inventoried {
    /// As it says.
    public static var kind: WatchedKind { .nodes }
    /// Adds or replaces one.
    public static func put(_ object: Node, into inventory: inout Inventory) { inventory.put(node: object) }
}

extension CiliumNode: Inventoried {
    /// As it says.
    public static var kind: WatchedKind { .ciliumNodes }
    /// Adds or replaces one.
    public static func put(_ object: CiliumNode, into inventory: inout Inventory) { inventory.put(ciliumNode: object) }
}

extension CiliumEndpoint: Inventoried {
    /// As it says.
    public static var kind: WatchedKind { .ciliumEndpoints }
    /// Adds or replaces one.
    public static func put(_ object: CiliumEndpoint, into inventory: inout Inventory) {
        inventory.put(ciliumEndpoint: object)
    }
}

extension EncryptionNodeObject: Inventoried {
    /// As it says.
    public static var kind: WatchedKind { .encryptionNodes }
    /// Adds or replaces one.
    public static func put(_ object: EncryptionNodeObject, into inventory: inout Inventory) {
        inventory.put(encryptionNode: object)
    }
}

extension EncryptionEpochObject: Inventoried {
    /// As it says.
    public static var kind: WatchedKind { .epochs }
    /// Adds or replaces one.
    public static func put(_ object: EncryptionEpochObject, into inventory: inout Inventory) {
        inventory.put(epoch: object)
    }
}

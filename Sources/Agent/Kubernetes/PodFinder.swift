internal import Cluster
internal import Datapath
internal import Netlink
internal import Synchronization

/// Keeps track of where pods' interfaces are. Looks into namespaces only when a pod is not where it was, or when the last look was
/// some time ago.
final class PodFinder: Sendable {
    /// What a look came to.
    struct Findings: Sendable, Equatable {
        var locations: [String: PodLocation] = [:]
        var problems: Set<Problem> = []
        /// Names of pods that are nowhere.
        var missing: Set<String> = []
    }

    private struct Found {
        var pod: WantedPod
        var location: PodLocation
    }
    private struct State {
        var found: [String: Found] = [:]
        var problems: Set<Problem> = []
        var views: [NamespaceIdentity: NamespaceView] = [:]
    }

    private let list: NamespaceList
    private let state = Mutex(State())

    init(roots: [String]) {
        list = NamespaceList(roots: roots)
    }

    /// Finds the pods. `isFresh`: looks into every namespace again, also when all pods are where they were.
    func find(_ pods: [WantedPod], isFresh: Bool = false) -> Findings {
        state.withLock { state in
            let wanted = pods.reduce(into: [:]) { $0[$1.name] = $1 }
            state.found = state.found.filter { name, found in
                guard let pod = wanted[name] else { return false }
                return pod.addresses == found.pod.addresses
                    && (pod.sandbox == nil || pod.sandbox?.identity == found.location.identity)
                    && NamespaceIdentity(path: found.location.path) == found.location.identity
            }
            if isFresh || wanted.keys.contains(where: { state.found[$0] == nil }) {
                look(&state, wanted.values.map { pod in
                    var pod = pod
                    if let found = state.found[pod.name] {
                        pod.previous = PodInterface(
                            name: pod.name, networkNamespace: found.location.path, interface: found.location.interface)
                    }
                    return pod
                })
            }
            return Findings(
                locations: state.found.mapValues(\.location), problems: state.problems,
                missing: Set(wanted.keys.filter { state.found[$0] == nil }))
        }
    }

    private func look(_ state: inout State, _ pods: [WantedPod]) {
        var inUse: [NamespaceIdentity: String] = [:]
        for pod in pods {
            if let path = pod.previous?.networkNamespace, let identity = NamespaceIdentity(path: path) {
                inUse[identity] = path
            }
            if let sandbox = pod.sandbox, NamespaceIdentity(path: sandbox.path) == sandbox.identity {
                inUse[sandbox.identity] = inUse[sandbox.identity] ?? sandbox.path
            }
        }
        if let own = NamespaceIdentity.own() { inUse[own] = nil }
        let views = list.paths(inUse: inUse).values.compactMap { path in try? NamespaceView(path: path) }
        var search = PodSearch(views)
        search.find(pods)
        state.problems = search.problems
        state.found = pods.reduce(into: [:]) { found, pod in
            if let location = search.locations[pod.name] { found[pod.name] = Found(pod: pod, location: location) }
        }
    }

    /// Whether an interface is the one of a pod that was found: looked at anew, inside of the namespace.
    func confirms(_ interface: PodInterface) -> Bool {
        guard let found = state.withLock({ $0.found[interface.name] }),
            found.location.path == interface.networkNamespace, found.location.interface == interface.interface,
            let view = try? NamespaceView(path: interface.networkNamespace), view.identity == found.location.identity,
            let there = view.interfaces.first(where: { $0.name == interface.interface })
        else { return false }
        return !there.addresses.isDisjoint(with: found.pod.addresses)
    }
}

/// A datapath that makes sure, after it has attached programs to an interface, that this was the pod's: between finding and attaching
/// a process number may have become another process's. What turns out to be somebody else's is let go again.
struct ConfirmedDatapath: DatapathControl {
    let base: any DatapathControl
    let finder: PodFinder

    func attach(_ pod: PodInterface) throws(DatapathError) -> Attachment {
        let attachment = try base.attach(pod)
        guard finder.confirms(pod) else {
            try base.detach(name: pod.name)
            throw DatapathError(
                .interfaceGone,
                "\(pod.interface) in \(pod.networkNamespace) does not have the addresses of pod \(pod.name)")
        }
        return attachment
    }

    func state() throws(DatapathError) -> DatapathState { try base.state() }
    func setEndpoint(_ address: IPAddress, _ endpoint: EndpointEntry) throws(DatapathError) {
        try base.setEndpoint(address, endpoint)
    }
    func removeEndpoint(_ address: IPAddress) throws(DatapathError) { try base.removeEndpoint(address) }
    func setPeer(slot: UInt32, _ peer: PeerEntry) throws(DatapathError) { try base.setPeer(slot: slot, peer) }
    func removePeer(slot: UInt32) throws(DatapathError) { try base.removePeer(slot: slot) }
    func setStrictCIDRs(_ prefixes: Set<IPPrefix>) throws(DatapathError) { try base.setStrictCIDRs(prefixes) }
    func setStrictEtherType(_ strict: Bool) throws(DatapathError) { try base.setStrictEtherType(strict) }
    func install(_ key: AssociationKey, at id: AssociationID) throws(DatapathError) { try base.install(key, at: id) }
    func removeAssociation(_ id: AssociationID) throws(DatapathError) { try base.removeAssociation(id) }
    func setSending(epoch: Epoch) throws(DatapathError) { try base.setSending(epoch: epoch) }
    func setEpochFloor(_ epoch: Epoch) throws(DatapathError) { try base.setEpochFloor(epoch) }
    func renewIncarnation() throws(DatapathError) -> Incarnation { try base.renewIncarnation() }
    func detach(name: String) throws(DatapathError) { try base.detach(name: name) }
}

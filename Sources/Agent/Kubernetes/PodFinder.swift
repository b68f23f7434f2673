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
                look(
                    &state,
                    wanted.values.map { pod in
                        var pod = pod
                        if let found = state.found[pod.name] {
                            pod.previous = PodInterface(
                                name: pod.name, networkNamespace: found.location.path,
                                interface: found.location.interface)
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

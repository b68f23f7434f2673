internal import Cluster
internal import Datapath
internal import Netlink

/// Where a pod's interface is.
struct PodLocation: Sendable, Hashable {
    var path: String
    var interface: String
    var identity: NamespaceIdentity
}

/// A pod whose interface is wanted.
struct WantedPod: Sendable, Hashable {
    /// The endpoint's name: the pod's UID.
    var name: String
    /// For people: namespace/name.
    var label: String
    var addresses: Set<IPAddress>
    /// What the CNI plugin said of it: the authority, as long as that namespace is there.
    var sandbox: PodLocation?
    /// Where it was found before, or where an earlier run has attached it.
    var previous: PodInterface?
}

/// Finds pods' interfaces in what the node's namespaces hold. Pure.
///
/// A pod is where its addresses are. The same address may be in two namespaces for a moment, when a new pod was given the address of one
/// that is just going. Then: what the CNI plugin said counts; else a pod stays where it is; else namespaces that belong to other
/// pods are out, and of the rest the newest counts, and it is reported.
struct PodSearch {
    private struct Candidate: Hashable {
        var location: PodLocation
        var hostIndex: Int32
        var isUp: Bool
        var held: Int
    }

    private let views: [NamespaceIdentity: NamespaceView]
    private var holders: [IPAddress: [(view: NamespaceView, interface: NamespaceView.Interface)]] = [:]
    private(set) var locations: [String: PodLocation] = [:]
    private(set) var problems: Set<Problem> = []

    init(_ views: [NamespaceView]) {
        self.views = views.reduce(into: [:]) { $0[$1.identity] = $1 }
        for view in views {
            for interface in view.interfaces {
                for address in interface.addresses { holders[address, default: []].append((view, interface)) }
            }
        }
    }

    /// Finds all of them; those that are nowhere are not in `locations`.
    mutating func find(_ pods: [WantedPod]) {
        var taken: [NamespaceIdentity: String] = [:]
        for pod in pods {
            if let sandbox = pod.sandbox, views[sandbox.identity] != nil { taken[sandbox.identity] = pod.name }
        }
        // Those that are known first, so that nobody else is given their place.
        var open: [(pod: WantedPod, candidates: [Candidate])] = []
        for pod in pods.sorted(by: { $0.name < $1.name }) {
            if let sandbox = pod.sandbox, let view = views[sandbox.identity] {
                // The path may be another one than the plugin's: mounts differ between it and us.
                locations[pod.name] = PodLocation(
                    path: view.path, interface: sandbox.interface, identity: sandbox.identity)
                continue
            }
            let candidates = candidates(for: pod)
            let kept = candidates.first {
                $0.location.path == pod.previous?.networkNamespace
                    && $0.location.interface == pod.previous?.interface && taken[$0.location.identity] == nil
            }
            if let kept {
                locations[pod.name] = kept.location
                taken[kept.location.identity] = pod.name
            } else {
                open.append((pod, candidates))
            }
        }
        for (pod, candidates) in open {
            let free = candidates.filter { taken[$0.location.identity] == nil }
                .sorted { ($0.held, $0.isUp ? 1 : 0, $0.hostIndex) > ($1.held, $1.isUp ? 1 : 0, $1.hostIndex) }
            guard let best = free.first else { continue }
            locations[pod.name] = best.location
            taken[best.location.identity] = pod.name
            if free.count > 1, free[1].held == best.held {
                let others = free.dropFirst().map(\.location.path).joined(separator: " and ")
                problems.insert(
                    Problem(
                        .warning, "endpoints/\(pod.name).json",
                        "\(pod.label): its addresses are in \(best.location.path), and in \(others) as well; the newest one, \(best.location.path), is taken for the pod's"
                    ))
            }
        }
    }

    private func candidates(for pod: WantedPod) -> [Candidate] {
        var found: [PodLocation: Candidate] = [:]
        for address in pod.addresses {
            for (view, interface) in holders[address] ?? [] {
                let location = PodLocation(path: view.path, interface: interface.name, identity: view.identity)
                let held = interface.addresses.intersection(pod.addresses).count
                found[location] = Candidate(
                    location: location, hostIndex: interface.hostIndex ?? 0,
                    isUp: interface.isUp && interface.hostIndex != nil, held: held)
            }
        }
        return found.values.sorted { ($0.held, $0.hostIndex) > ($1.held, $1.hostIndex) }
    }
}

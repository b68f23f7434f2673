public import Cluster
internal import Kubernetes
internal import Netlink

/// What has to be done about an `EncryptionNode`.
public enum NodePlan: Sendable, Hashable {
    /// Nothing.
    case none
    /// There is a node without one: it needs a number and an object.
    case create
    /// Other endpoints are wanted of it than its spec has.
    case write
    /// Its node is gone, and no pod is left on it.
    case remove
}

extension Inventory {
    /// What has to be done about a node.
    public func nodePlan(_ name: String) -> NodePlan { nodePlan(name, wanted: wantedEndpoints(name)) }

    func nodePlan(_ name: String, wanted: [EncryptionNodeObject.Endpoint]) -> NodePlan {
        guard let object = encryptionNodes[name] else {
            // A name that slices cannot hold would make the slice unreadable for everybody.
            return nodes[name]?.isCandidate == true && isNodeName(name) ? .create : .none
        }
        if nodes[name] == nil, areNodesCurrent,
            podsByNode[name, default: []].allSatisfy({ pods[$0]?.facts.isLive != true })
        {
            return .remove
        }
        return object.endpointsHash == wanted.hashValue ? .none : .write
    }

    /// Whether nodes that are not known are gone, with their pods.
    private var areNodesCurrent: Bool { kinds[.nodes]?.isCurrent == true && kinds[.pods]?.isCurrent == true }

    /// Whether a node seems to be gone while that cannot be told surely: nobody may say anything of it again.
    func mayBeGone(_ name: String) -> Bool {
        encryptionNodes[name] != nil && nodes[name] == nil && !areNodesCurrent
    }

    /// How many of those who ask an endpoint names.
    static let sourcesShown = 64

    /// The endpoints that are wanted of a node, by name.
    public func wantedEndpoints(_ node: String) -> [EncryptionNodeObject.Endpoint] {
        var endpoints: [EncryptionNodeObject.Endpoint] = []
        for key in podsByNode[node] ?? [] {
            guard let entry = pods[key], let mode = entry.decision.mode, entry.facts.isLive, isName(entry.facts.uid)
            else { continue }
            let addresses = addresses(key, entry.facts)
            guard !addresses.isEmpty else { continue }
            endpoints.append(
                EncryptionNodeObject.Endpoint(
                    name: entry.facts.uid,
                    pod: .init(namespace: key.namespace ?? "", name: key.name, uid: entry.facts.uid),
                    addresses: addresses, mode: mode, headers: entry.decision.headers,
                    policies: entry.decision.asks.prefix(Self.sourcesShown).map(\.source)))
        }
        return endpoints.sorted { $0.name < $1.name }
    }

    /// The endpoints to write while something that could ask for protection is not surely known: nothing of what is there is lifted or
    /// lowered, but for pods that are surely gone.
    public func heldEndpoints(
        _ node: String, existing: [EncryptionNodeObject.Endpoint]
    ) -> [EncryptionNodeObject.Endpoint] {
        var result = wantedEndpoints(node)
        let owners = result.reduce(into: [IPAddress: String]()) { owners, endpoint in
            for address in endpoint.addresses { owners[address] = endpoint.name }
        }
        for before in existing {
            let addresses = before.addresses.filter { owners[$0] == nil || owners[$0] == before.name }
            if let index = result.firstIndex(where: { $0.name == before.name }) {
                if before.mode == .strict { result[index].mode = .strict }
                if before.headers == .hidden { result[index].headers = .hidden }
                result[index].addresses = Set(result[index].addresses + addresses).sorted()
            } else if !isGone(before.pod), !addresses.isEmpty {
                var kept = before
                kept.addresses = addresses
                result.append(kept)
            }
        }
        return result.sorted { $0.name < $1.name }
    }

    /// Whether a pod has surely ended.
    private func isGone(_ pod: EncryptionNodeObject.Pod) -> Bool {
        guard kinds[.pods]?.isCurrent == true else { return false }
        let entry = pods[ObjectKey(namespace: pod.namespace, name: pod.name)]
        return entry?.facts.uid != pod.uid || entry?.facts.isLive == false
    }
}

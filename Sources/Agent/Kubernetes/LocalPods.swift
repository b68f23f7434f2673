internal import Cluster
internal import Datapath
internal import Netlink

/// The pods of this node that shall be protected: what the operator wants (our EncryptionNode's spec), and pods that the CNI plugin has
/// told of and that do not stand there yet. Pure.
struct LocalPods: Sendable, Equatable {
    struct Pod: Sendable, Hashable {
        /// The pod's UID.
        var name: String
        /// namespace/name
        var label: String
        var addresses: [IPAddress]
        var mode: Mode
        var headers: Headers
        /// Where the CNI plugin says that it is.
        var sandbox: PodLocation?
    }
    /// By name.
    private(set) var pods: [String: Pod] = [:]
    /// Sandboxes whose pod stands in the spec now, with all that the plugin knew.
    private(set) var takenOver: [Sandbox] = []

    /// - Parameter sandboxes: of several of a pod the newest last.
    init(spec: [EncryptionNodeObject.Endpoint], sandboxes: [Sandbox]) {
        for endpoint in spec {
            pods[endpoint.name] = Pod(
                name: endpoint.name, label: "\(endpoint.pod.namespace)/\(endpoint.pod.name)",
                addresses: endpoint.addresses.sorted(), mode: endpoint.mode, headers: endpoint.headers)
        }
        for sandbox in sandboxes {
            let location = PodLocation(
                path: sandbox.networkNamespace, interface: sandbox.interface, identity: sandbox.identity)
            if var pod = pods[sandbox.uid] {
                pod.sandbox = location
                if Set(sandbox.addresses).isSubset(of: pod.addresses) {
                    if sandbox.protection != nil { takenOver.append(sandbox) }
                } else {
                    // The sandbox was made anew, and the operator does not know yet.
                    pod.addresses = sandbox.addresses.sorted()
                }
                if sandbox.protection == .strict { pod.mode = .strict }
                pods[sandbox.uid] = pod
            } else if let mode = sandbox.protection {
                // Whether headers are hidden only the spec says.
                pods[sandbox.uid] = Pod(
                    name: sandbox.uid, label: sandbox.label, addresses: sandbox.addresses.sorted(), mode: mode,
                    headers: .visible, sandbox: location)
            }
        }
    }

    /// What the finder is asked.
    func wanted(attached: [String: PodInterface]) -> [WantedPod] {
        pods.values.map { pod in
            WantedPod(
                name: pod.name, label: pod.label, addresses: Set(pod.addresses), sandbox: pod.sandbox,
                previous: attached[pod.name])
        }
    }

    /// What the planner is given. A pod that was not found keeps its place, if it had one; else it has one that is nowhere, so that it
    /// is not taken for a pod that has ended.
    func endpoints(
        node: String, _ findings: PodFinder.Findings, attached: [String: PodInterface]
    ) -> [String: EncryptedEndpoint] {
        pods.mapValues { pod in
            let found = findings.locations[pod.name].map { ($0.path, $0.interface) }
            let previous = attached[pod.name].flatMap {
                $0.networkNamespace.isEmpty ? nil : ($0.networkNamespace, $0.interface)
            }
            let nowhere = ("/no-namespace-has-\(pod.addresses.first.map(\.description) ?? "its-address")", "eth0")
            let (path, interface) = found ?? previous ?? nowhere
            return EncryptedEndpoint(
                addresses: pod.addresses, node: node, mode: pod.mode, headers: pod.headers, networkNamespace: path,
                interface: interface)
        }
    }
}

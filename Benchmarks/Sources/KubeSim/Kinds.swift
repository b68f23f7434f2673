/// The kinds of objects that there are, and what the simulated cluster is made of.
enum Kinds {
    private static func kind(
        _ group: String, _ version: String, _ kind: String, _ plural: String, _ isNamespaced: Bool
    ) -> Store.Kind {
        Store.Kind(group: group, version: version, kind: kind, plural: plural, isNamespaced: isNamespaced)
    }

    private static let ours = "encryption.ebpf.xdp"
    static let namespace = kind("", "v1", "Namespace", "namespaces", false)
    static let node = kind("", "v1", "Node", "nodes", false)
    static let pod = kind("", "v1", "Pod", "pods", true)
    static let service = kind("", "v1", "Service", "services", true)
    static let endpointSlice = kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true)
    static let virtualService = kind("networking.istio.io", "v1", "VirtualService", "virtualservices", true)
    static let policy = kind(ours, "v1alpha1", "EncryptionPolicy", "encryptionpolicies", false)
    static let encryptionNode = kind(ours, "v1alpha1", "EncryptionNode", "encryptionnodes", false)
    static let epoch = kind(ours, "v1alpha1", "EncryptionEpoch", "encryptionepochs", false)
    static let slice = kind(ours, "v1alpha1", "EncryptedEndpointSlice", "encryptedendpointslices", false)

    static let all = [
        namespace, node, pod, service, endpointSlice, virtualService, policy, encryptionNode, epoch, slice,
        kind("", "v1", "ConfigMap", "configmaps", true), kind("", "v1", "Event", "events", true),
        kind("apps", "v1", "DaemonSet", "daemonsets", true),
        kind("coordination.k8s.io", "v1", "Lease", "leases", true),
        kind("events.k8s.io", "v1", "Event", "events", true),
        kind("networking.istio.io", "v1", "ServiceEntry", "serviceentries", true),
        kind("networking.istio.io", "v1", "DestinationRule", "destinationrules", true),
    ]

    static let namespaces = 100
    /// Workloads in each namespace: 0 to 6 are selected by a policy, 7 and 8 are behind a VirtualService, 9 is left alone.
    static let apps = 10
    static let selectedApps = 7
    static let protectedApps = 9
    /// Each selects a tenth of the namespaces.
    static let policies = 10

    static func namespace(_ number: Int) -> String { "ns-\(padded(number, 3))" }
    static func node(_ number: Int) -> String { "node-\(padded(number, 5))" }
}

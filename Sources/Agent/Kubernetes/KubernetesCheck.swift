public import Cluster
internal import Datapath
internal import Keys
public import Kubernetes
internal import Netlink

extension KubernetesSource {
    /// What the API server has for a node, read once: for a look by a person. Changes nothing.
    public static func snapshot(
        api: any KubernetesAPI, name: String, namespace: String, configuration: KubernetesConfiguration
    ) async throws(KubernetesError) -> Snapshot {
        var snapshot = Snapshot()
        func problem(_ severity: Problem.Severity, _ object: String, _ message: String) {
            snapshot.problems.insert(Problem(severity, object, message))
        }
        do throws(KubernetesError) {
            let object = try await api.get(
                ClusterConfigMap.self, ObjectKey(namespace: namespace, name: ClusterConfigMap.name))
            do throws(ObjectCoding.Problem) {
                snapshot.cluster = try object.cluster()
            } catch {
                problem(.error, "configmap \(namespace)/\(ClusterConfigMap.name)", error.description)
            }
        } catch {
            guard error.code == .notFound else { throw error }
            problem(
                .error, "configmap \(namespace)/\(ClusterConfigMap.name)",
                "is not there: does ebpf-xdp-operator run, and is \(namespace) its namespace?")
        }
        for epoch in try await api.listAll(EncryptionEpochObject.self).items {
            if let spec = epoch.spec { snapshot.epochs[spec.number] = spec }
            if let text = epoch.unreadable { problem(.error, "encryptionepoch \(epoch.metadata.name)", text) }
        }
        for slice in try await api.listAll(EncryptedEndpointSlice.self).items {
            for entry in slice.spec?.nodes ?? [] { snapshot.nodes[entry.name] = entry.report.node }
            if let text = slice.unreadable { problem(.error, "encryptedendpointslice \(slice.metadata.name)", text) }
        }
        do throws(KubernetesError) {
            let node = try await api.get(EncryptionNodeObject.self, ObjectKey(name: name))
            if let text = node.unreadable { problem(.error, "encryptionnode \(name)", text) }
            let pods = LocalPods(spec: node.spec?.endpoints ?? [], sandboxes: [])
            let findings = PodFinder(roots: configuration.roots).find(pods.wanted(attached: [:]))
            snapshot.endpoints = pods.endpoints(node: name, findings, attached: [:])
            for missing in findings.missing.sorted() {
                problem(
                    .warning, "pod \(pods.pods[missing]?.label ?? missing)",
                    "no network namespace in \(configuration.roots.joined(separator: ", ")) has its addresses")
            }
        } catch {
            guard error.code == .notFound else { throw error }
            problem(
                .error, "encryptionnode \(name)",
                "is not there: does ebpf-xdp-operator run, and is \(name) the node's name?")
        }
        return snapshot
    }
}

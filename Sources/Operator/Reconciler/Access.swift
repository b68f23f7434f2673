internal import Cluster
public import Kubernetes

extension Operator {
    /// Tries to read everything that the operator must be able to read, and says what cannot be, a sentence each.
    public static func problems(reading api: any KubernetesAPI) async -> [String] {
        var problems: [String] = []
        await probe(Pod.self, api, &problems)
        await probe(Service.self, api, &problems)
        await probe(EndpointSlice.self, api, &problems)
        await probe(Node.self, api, &problems)
        await probe(Namespace.self, api, &problems)
        await probe(EncryptionPolicy.self, api, &problems)
        await probe(EncryptionNodeObject.self, api, &problems)
        await probe(EncryptionEpochObject.self, api, &problems)
        await probe(EncryptedEndpointSlice.self, api, &problems)
        return problems
    }

    private static func probe<O: KubernetesObject>(
        _ type: O.Type, _ api: any KubernetesAPI, _ problems: inout [String]
    ) async {
        do throws(KubernetesError) {
            _ = try await api.list(type, namespace: nil, options: ListOptions(limit: 1))
        } catch {
            let hint =
                switch error.code {
                case .notFound where O.resource.group == EncryptionAPI.group: " (apply deploy/crds)"
                case .notFound: " (the server is older than Kubernetes 1.30)"
                case .forbidden: " (apply the ClusterRole of deploy/)"
                default: ""
                }
            problems.append("\(O.resource.plural): \(error.message)\(hint)")
        }
    }
}

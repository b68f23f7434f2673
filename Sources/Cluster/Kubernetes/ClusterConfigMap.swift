public import Kubernetes

/// The ConfigMap in the release's namespace that holds what all nodes agree on.
public struct ClusterConfigMap: KubernetesObject, Hashable {
    /// `configmaps`
    public static let resource = ResourceKind(
        group: "", version: "v1", kind: "ConfigMap", plural: "configmaps", isNamespaced: true)
    /// Its name.
    public static let name = "xdp-encryptor-cluster"
    /// Key of the cluster's object, JSON as in `cluster.json`.
    public static let clusterKey = "cluster.json"
    /// Key of the number that the next node gets.
    public static let nextNodeIDKey = "nextNodeID"

    /// Name, namespace, resourceVersion.
    public var metadata: ObjectMeta
    /// Its keys.
    public var data: [String: String]?

    /// Makes a ConfigMap.
    public init(namespace: String, data: [String: String]) {
        metadata = ObjectMeta(name: Self.name, namespace: namespace)
        self.data = data
    }

    /// What all nodes agree on; throws for what cannot be, with the key and what was expected.
    public func cluster() throws(ObjectCoding.Problem) -> Cluster {
        try ObjectCoding.decode(Cluster.self, from: Array((data?[Self.clusterKey] ?? "").utf8)).object
    }
}

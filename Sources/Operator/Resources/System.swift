internal import Cluster
public import Kubernetes

/// v1 ConfigMap.
public struct ConfigMap: KubernetesObject {
    /// `configmaps`
    public static let resource = ResourceKind(
        group: "", version: "v1", kind: "ConfigMap", plural: "configmaps", isNamespaced: true)

    /// Namespace, name.
    public var metadata: ObjectMeta
    /// Its keys.
    public var data: [String: String]?

    /// Makes a ConfigMap.
    public init(metadata: ObjectMeta, data: [String: String]? = nil) {
        self.metadata = metadata
        self.data = data
    }
}

/// apps/v1 DaemonSet, trimmed to whether there is one.
public struct DaemonSet: KubernetesObject {
    /// `daemonsets`
    public static let resource = ResourceKind(
        group: "apps", version: "v1", kind: "DaemonSet", plural: "daemonsets", isNamespaced: true)

    /// Namespace, name.
    public var metadata: ObjectMeta
    /// How many pods it has.
    public var status: Status?

    /// Makes a DaemonSet.
    public init(metadata: ObjectMeta, status: Status? = nil) {
        self.metadata = metadata
        self.status = status
    }

    /// How many pods it has.
    public struct Status: Codable, Sendable {
        /// 0 when its node selector fits no node, which is how some people turn it off.
        public var desiredNumberScheduled: Int?

        /// Makes a status.
        public init(desiredNumberScheduled: Int?) {
            self.desiredNumberScheduled = desiredNumberScheduled
        }
    }
}

/// `encryptedendpointslices` as the operator watches them: it knows what it wrote, and looks for writes of others only.
struct SliceHeader: KubernetesObject {
    static let resource = EncryptedEndpointSlice.resource

    var metadata: ObjectMeta
    var spec: Spec?

    struct Spec: Codable, Sendable {
        var sequence: Int64?
    }

    /// Without a look at its thousand addresses.
    static func read(_ json: inout JSONReader) throws(JSONReader.Unexpected) -> SliceHeader? {
        var metadata: ObjectMeta?
        var spec: Spec?
        try json.object { (json, key) throws(JSONReader.Unexpected) in
            switch key {
            case "metadata": metadata = try ObjectMeta(json: &json, annotations: "ebpf.xdp/")
            case "spec":
                var read = Spec()
                try json.object { (json, key) throws(JSONReader.Unexpected) in
                    guard key == "sequence" else { return try json.skip() }
                    read.sequence = try json.integer()
                }
                spec = read
            default: try json.skip()
            }
        }
        guard let metadata else { throw JSONReader.Unexpected() }
        return SliceHeader(metadata: metadata, spec: spec)
    }
}

/// A node's metadata, without what it says and what is wanted of it.
struct EncryptionNodeHeader: KubernetesObject {
    static let resource = EncryptionNodeObject.resource

    var metadata: ObjectMeta

    static func read(_ json: inout JSONReader) throws(JSONReader.Unexpected) -> EncryptionNodeHeader? {
        var metadata: ObjectMeta?
        try json.object { (json, key) throws(JSONReader.Unexpected) in
            guard key == "metadata" else { return try json.skip() }
            metadata = try ObjectMeta(json: &json, annotations: "ebpf.xdp/")
        }
        guard let metadata else { throw JSONReader.Unexpected() }
        return EncryptionNodeHeader(metadata: metadata)
    }
}

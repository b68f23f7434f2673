public import Kubernetes

/// v1 Pod, trimmed.
public struct Pod: KubernetesObject {
    /// `pods`
    public static let resource = ResourceKind(
        group: "", version: "v1", kind: "Pod", plural: "pods", isNamespaced: true)

    /// Namespace, name, uid, labels, annotations.
    public var metadata: ObjectMeta
    /// Where it runs.
    public var spec: Spec?
    /// How it is.
    public var status: Status?

    /// Makes a pod.
    public init(metadata: ObjectMeta, spec: Spec? = nil, status: Status? = nil) {
        self.metadata = metadata
        self.spec = spec
        self.status = status
    }

    /// Where it runs.
    public struct Spec: Codable, Sendable {
        /// Set when it is scheduled.
        public var nodeName: String?
        /// It shares its node's network namespace, and its addresses.
        public var hostNetwork: Bool?

        /// Makes a spec.
        public init(nodeName: String? = nil, hostNetwork: Bool? = nil) {
            self.nodeName = nodeName
            self.hostNetwork = hostNetwork
        }
    }

    /// How it is.
    public struct Status: Codable, Sendable {
        /// Pending, Running, Succeeded, Failed, Unknown.
        public var phase: String?
        /// The first of `podIPs`.
        public var podIP: String?
        /// One of each family.
        public var podIPs: [PodIP]?

        /// Makes a status.
        public init(phase: String? = nil, podIPs: [PodIP]? = nil) {
            self.phase = phase
            self.podIPs = podIPs
            podIP = podIPs?.first?.ip
        }
    }

    /// An address.
    public struct PodIP: Codable, Sendable {
        /// As text.
        public var ip: String?

        /// Makes an address.
        public init(ip: String) {
            self.ip = ip
        }
    }

    /// Reads a pod without Codable: most events are pods', and most of a pod nobody here reads.
    public static func read(_ json: inout JSONReader) throws(JSONReader.Unexpected) -> Pod? {
        var metadata: ObjectMeta?
        var spec: Spec?
        var status: Status?
        try json.object { (json, key) throws(JSONReader.Unexpected) in
            switch key {
            case "metadata": metadata = try ObjectMeta(json: &json, annotations: "ebpf.xdp/")
            case "spec":
                var read = Spec()
                try json.object { (json, key) throws(JSONReader.Unexpected) in
                    switch key {
                    case "nodeName": read.nodeName = try json.string()
                    case "hostNetwork": read.hostNetwork = try json.null() ? nil : try json.bool()
                    default: try json.skip()
                    }
                }
                spec = read
            case "status":
                var read = Status()
                try json.object { (json, key) throws(JSONReader.Unexpected) in
                    switch key {
                    case "phase": read.phase = try json.string()
                    case "podIP": read.podIP = try json.string()
                    case "podIPs":
                        var addresses: [PodIP] = []
                        try json.array { (json) throws(JSONReader.Unexpected) in
                            try json.object { (json, key) throws(JSONReader.Unexpected) in
                                guard key == "ip" else { return try json.skip() }
                                if let ip = try json.string() { addresses.append(PodIP(ip: ip)) }
                            }
                        }
                        read.podIPs = addresses
                    default: try json.skip()
                    }
                }
                status = read
            default: try json.skip()
            }
        }
        guard let metadata else { throw JSONReader.Unexpected() }
        return Pod(metadata: metadata, spec: spec, status: status)
    }

    /// Drops annotations that are not ours.
    public mutating func trim() {
        metadata.annotations = metadata.annotations?.filter { $0.key.hasPrefix("ebpf.xdp/") }
        metadata.ownerReferences = nil
        metadata.finalizers = nil
    }
}

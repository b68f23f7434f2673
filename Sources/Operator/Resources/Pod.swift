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

    /// Drops annotations that are not ours.
    public mutating func trim() {
        metadata.annotations = metadata.annotations?.filter { $0.key.hasPrefix("ebpf.xdp/") }
        metadata.ownerReferences = nil
        metadata.finalizers = nil
    }
}

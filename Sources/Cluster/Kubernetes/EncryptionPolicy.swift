public import Kubernetes

/// Which pods shall be protected, and how: `encryptionpolicies`. People write the spec, the operator the status.
///
/// Cluster-scoped on purpose: who owns a namespace must not be able to lower its protection.
public struct EncryptionPolicy: KubernetesObject, Hashable {
    /// `encryptionpolicies.encryption.ebpf.xdp`
    public static let resource = EncryptionAPI.kind("EncryptionPolicy", "encryptionpolicies")

    /// Name, generation.
    public var metadata: ObjectMeta
    /// What people want.
    public var spec: Spec
    /// What the operator says to it.
    public var status: Status?

    /// Makes a policy.
    public init(name: String, spec: Spec) {
        metadata = ObjectMeta(name: name)
        self.spec = spec
    }

    /// What people want. Words are text here, so that one that is not known does not hide the whole object: whoever reads them
    /// takes the stricter meaning and says so.
    public struct Spec: Sendable, Hashable, Codable {
        /// Namespaces whose pods are selected; all when it is not there.
        public var namespaceSelector: LabelSelector?
        /// Pods of these namespaces that are selected; all when it is not there.
        public var podSelector: LabelSelector?
        /// `strict` (when it is not there) or `permissive`.
        public var mode: String?
        /// `visible` (when it is not there) or `hidden`.
        public var headers: String?
        /// Prefixes of pod addresses: a packet of a strict pod to an address in them that no node has published is dropped.
        public var strictCIDRs: [String]?
        /// The pods are protected even where their annotation says "false".
        public var enforced: Bool?

        /// Makes a spec.
        public init(
            namespaceSelector: LabelSelector? = nil, podSelector: LabelSelector? = nil, mode: String? = nil,
            headers: String? = nil, strictCIDRs: [String]? = nil, enforced: Bool? = nil
        ) {
            self.namespaceSelector = namespaceSelector
            self.podSelector = podSelector
            self.mode = mode
            self.headers = headers
            self.strictCIDRs = strictCIDRs
            self.enforced = enforced
        }
    }

    /// What the operator says to it.
    public struct Status: Sendable, Hashable, Codable {
        /// The generation of the spec that all of this speaks of.
        public var observedGeneration: Int64?
        /// Pods that the selectors select.
        public var selectedPods: Int?
        /// Those of them that their node has published as protected.
        public var protectedPods: Int?
        /// `Accepted`, `Enforcing`, `ServiceTranslation`, `Conflict`.
        public var conditions: [Condition]?

        /// Makes a status.
        public init(
            observedGeneration: Int64? = nil, selectedPods: Int? = nil, protectedPods: Int? = nil,
            conditions: [Condition]? = nil
        ) {
            self.observedGeneration = observedGeneration
            self.selectedPods = selectedPods
            self.protectedPods = protectedPods
            self.conditions = conditions
        }
    }
}

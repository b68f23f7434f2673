public import Cluster
internal import Kubernetes
public import Netlink

/// What matters of a pod, kept small: a hundred thousand of them must fit into little memory.
public struct PodFacts: Sendable, Hashable {
    /// The pod's uid.
    public var uid: String
    /// Empty until it is scheduled.
    public var node: String
    /// Namespace and labels, in the table of shapes.
    var shape: Int32
    /// Its own, link-local ones left out, ascending.
    public var addresses: [IPAddress]
    /// When it was made; milliseconds since 1970.
    public var created: Int64
    /// What the annotation `ebpf.xdp/encrypt` says.
    public var encrypt: Request
    /// The mode in the annotation `ebpf.xdp/policy`.
    public var policyMode: Mode?
    /// Tells values of the annotation `ebpf.xdp/policy` apart; 0: there is none.
    var policyHash: Int
    /// The operator set the annotations.
    public var isManaged: Bool
    /// It shares its node's network namespace.
    public var isHostNetwork: Bool
    /// It has ended: Succeeded or Failed.
    public var isFinished: Bool
    /// It is being deleted.
    public var isDeleting: Bool

    /// What the annotation `ebpf.xdp/encrypt` says.
    public enum Request: UInt8, Sendable, Hashable {
        /// Nothing.
        case absent
        /// "true"
        case yes
        /// "false"
        case no
        /// Neither: means nothing, and is reported.
        case unclear
    }

    /// A person asks for protection.
    public var isManualRequest: Bool { encrypt == .yes && !isManaged }

    /// Can have an endpoint: runs in a network of its own.
    public var isLive: Bool { !isHostNetwork && !isFinished }

    /// Whether it is the same pod with the same place and addresses: only what is asked of it differs, if anything.
    func isWhere(_ other: PodFacts) -> Bool {
        uid == other.uid && node == other.node && addresses == other.addresses && created == other.created
            && isHostNetwork == other.isHostNetwork && isFinished == other.isFinished && isDeleting == other.isDeleting
    }

    static func hash(ofPolicy text: String) -> Int {
        let hash = text.hashValue
        return hash == 0 ? 1 : hash
    }
}

extension PodFacts {
    init(_ pod: Pod, shape: Int32, node: String) {
        uid = pod.metadata.uid ?? ""
        self.node = node
        self.shape = shape
        let texts = (pod.status?.podIPs ?? []).compactMap(\.ip) + [pod.status?.podIP].compactMap(\.self)
        addresses = Set(texts.compactMap { try? IPAddress($0) }).filter { !$0.isLinkLocal }.sorted()
        created = pod.metadata.creationTimestamp.flatMap { Timestamp($0) }?.milliseconds ?? 0
        let annotations = pod.metadata.annotations ?? [:]
        encrypt =
            switch annotations[PodAnnotation.encrypt] {
            case nil: .absent
            case "true": .yes
            case "false": .no
            default: .unclear
            }
        policyMode = annotations[PodAnnotation.policy].flatMap { PodAnnotation.mode(ofPolicy: $0) }
        policyHash = annotations[PodAnnotation.policy].map { Self.hash(ofPolicy: $0) } ?? 0
        isManaged = annotations[PodAnnotation.managedBy] == PodAnnotation.operatorName
        isHostNetwork = pod.spec?.hostNetwork ?? false
        isFinished = pod.status?.phase == "Succeeded" || pod.status?.phase == "Failed"
        isDeleting = pod.metadata.deletionTimestamp != nil
    }
}

/// A pod and what was decided for it.
public struct PodEntry: Sendable {
    /// What matters of it.
    public var facts: PodFacts
    /// What was decided.
    public var decision: PodDecision
    /// Of its metadata.
    public var resourceVersion: String?
}

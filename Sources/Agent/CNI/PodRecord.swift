internal import Cluster
internal import Kubernetes

/// A pod, trimmed to what the CNI plugin's side reads.
struct PodRecord: KubernetesObject {
    static let resource = ResourceKind(group: "", version: "v1", kind: "Pod", plural: "pods", isNamespaced: true)

    var metadata: ObjectMeta

    /// Static pods have two UIDs: the API server's, and the one that kubelet and runtime know.
    private static let staticUID = "kubernetes.io/config.hash"

    /// Whether the runtime's UID names this pod.
    func isCalled(_ uid: String?) -> Bool {
        guard let uid else { return true }
        return metadata.uid == uid || metadata.annotations?[Self.staticUID] == uid
    }
}

/// What annotations ask for.
enum PodRequest: Sendable, Hashable {
    /// Protection.
    case protect(Mode)
    /// Nothing, so far.
    case none

    init(_ annotations: [String: String]) {
        let policy = annotations[PodAnnotation.policy]
        // An enforced policy leaves a person's "false" as it is and says what holds beside it.
        let isOverruled = policy != nil && annotations[PodAnnotation.managedBy] == PodAnnotation.operatorName
        guard annotations[PodAnnotation.encrypt] == "true" || isOverruled else {
            self = .none
            return
        }
        // Whatever is not understood is strict.
        self = .protect(policy.flatMap { PodAnnotation.mode(ofPolicy: $0) } ?? .strict)
    }
}

/// Whether a pod that is about to start shall be protected. Pure.
enum Admission: Sendable, Hashable {
    /// It shall.
    case protect(Mode)
    /// It need not.
    case leave
    /// It is too young for the operator to have decided: look again after this.
    case ask(after: Duration)
    /// Nobody can tell now.
    case unknown(String)

    /// What is known of a pod.
    struct Facts: Sendable {
        /// It stands in our EncryptionNode's spec.
        var wanted: Mode?
        /// The runtime's copy of its annotations; nil: it passes none.
        var annotations: [String: String]?
        /// The API server's answer; nil: none.
        var pod: PodRecord?
        /// Why there is no pod; nil: it was not asked.
        var failure: KubernetesError?
        /// The pod's age when it was first asked, from its creation; nil: unknown.
        var age: Duration?
        /// How long the operator may take.
        var decision: Duration
    }

    static func decide(_ facts: Facts) -> Admission {
        var modes: [Mode] = facts.wanted.map { [$0] } ?? []
        for annotations in [facts.annotations, facts.pod.map { $0.metadata.annotations ?? [:] }] {
            if let annotations, case .protect(let mode) = PodRequest(annotations) { modes.append(mode) }
        }
        if !modes.isEmpty { return .protect(modes.contains(.strict) ? .strict : .permissive) }
        if facts.pod != nil {
            // The API server's own clock made the time of creation, ours reads it: more than the time itself is never waited.
            let left = facts.decision - max(.zero, facts.age ?? .zero)
            return left > .zero && facts.age != nil ? .ask(after: left) : .leave
        }
        guard let failure = facts.failure else { return .unknown("the API server was not asked") }
        // It was deleted meanwhile: it will not run for long, and nothing asks for its protection any more.
        if failure.code == .notFound { return .leave }
        return .unknown("\(failure)")
    }
}

internal import Cluster
public import Kubernetes

/// What has to be changed in the annotations of a pod. The operator sets them where policies and mesh resources ask, and removes only
/// what it has set.
public struct AnnotationPlan: Sendable, Hashable {
    /// New values; nil: remove.
    public var changes: [String: String?]
    /// What happened, for an Event on the pod.
    public var event: Note

    /// What happened.
    public struct Note: Sendable, Hashable {
        /// One word in CamelCase.
        public var reason: String
        /// A sentence.
        public var message: String
    }

    /// Plans for a pod; nil: all is as it should be.
    public static func plan(_ entry: PodEntry, mayLift: Bool) -> AnnotationPlan? {
        let (pod, decision) = (entry.facts, entry.decision)
        guard !pod.isFinished else { return nil }
        guard let policy = decision.annotation else {
            return mayLift && pod.isManaged ? lift(pod, decision) : nil
        }
        // A person's own request stays the person's.
        guard !pod.isManualRequest else { return nil }
        // Lowering the mode is lifting, too.
        if !mayLift, pod.isManaged, pod.policyMode == .strict, decision.mode == .permissive { return nil }
        var changes: [String: String?] = [:]
        // A person's "false" stays readable even where an enforced policy overrules it.
        if pod.encrypt != .yes, pod.encrypt != .no { changes[PodAnnotation.encrypt] = "true" }
        if pod.policyHash != PodFacts.hash(ofPolicy: policy) { changes[PodAnnotation.policy] = policy }
        if !pod.isManaged { changes[PodAnnotation.managedBy] = PodAnnotation.operatorName }
        guard !changes.isEmpty else { return nil }
        let sources = decision.asks.map(\.source).joined(separator: ", ")
        let note =
            decision.why == .enforced
            ? Note(
                reason: "OptOutOverruled",
                message:
                    "protected (\(decision.mode?.rawValue ?? "")) although \(PodAnnotation.encrypt) is \"false\": enforced by \(sources)"
            )
            : Note(
                reason: "EncryptionRequested",
                message: "protected (\(decision.mode?.rawValue ?? "")): asked for by \(sources)")
        return AnnotationPlan(changes: changes, event: note)
    }

    private static func lift(_ pod: PodFacts, _ decision: PodDecision) -> AnnotationPlan {
        var changes: [String: String?] = [:]
        changes.updateValue(nil, forKey: PodAnnotation.managedBy)
        if pod.encrypt == .yes { changes.updateValue(nil, forKey: PodAnnotation.encrypt) }
        if pod.policyHash != 0 { changes.updateValue(nil, forKey: PodAnnotation.policy) }
        let why =
            switch decision.why {
            case .optedOut: "the pod's annotation says \"false\", and nobody who asks is enforced"
            case .hostNetwork: "the pod shares its node's network; there is no interface of its own to protect"
            default: "no policy and no mesh resource asks for it any more"
            }
        return AnnotationPlan(
            changes: changes, event: Note(reason: "EncryptionWithdrawn", message: "no longer protected: \(why)"))
    }

    /// The merge patch, for this version of this pod only.
    func body(_ entry: PodEntry) -> [UInt8] {
        struct Patch: Encodable {
            struct Metadata: Encodable {
                var uid: String
                var resourceVersion: String?
                var annotations: [String: String?]
            }
            var metadata: Metadata
        }
        return json(
            Patch(
                metadata: .init(
                    uid: entry.facts.uid, resourceVersion: entry.resourceVersion, annotations: changes)))
    }
}

extension Inventory {
    /// What has to be changed in the annotations of a pod; nil: nothing.
    public func annotationPlan(_ key: ObjectKey, mayLift: Bool) -> AnnotationPlan? {
        pods[key].flatMap { AnnotationPlan.plan($0, mayLift: mayLift) }
    }
}

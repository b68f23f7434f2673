public import Cluster

/// What was decided for a pod, and why.
public struct PodDecision: Sendable, Hashable {
    /// What happens with its clear text; nil: it is not protected.
    public var mode: Mode?
    /// Who may read its packets' L4 headers.
    public var headers: Headers = .visible
    /// Who asks for its protection, sorted; also when something stands against it.
    public var asks: [Ask]
    /// Why it is as it is.
    public var why: Why

    /// Why it is as it is.
    public enum Why: String, Sendable, Hashable {
        /// Nobody asks.
        case notAsked
        /// Somebody asks.
        case asked
        /// The pod's annotation says "false", and who asks is not enforced.
        case optedOut
        /// The pod's annotation says "false", and an enforced policy asks all the same.
        case enforced
        /// It shares its node's network namespace: there is no interface of its own.
        case hostNetwork
        /// It has ended.
        case finished
    }

    /// Nobody asks.
    static let none = PodDecision(mode: nil, asks: [], why: .notAsked)

    /// Decides. `asks` are those of policies and mesh resources, sorted.
    ///
    /// Of several asks the strictest counts, and one for hidden headers beats those for visible ones. An enforced one beats the pod's own
    /// "false".
    static func decide(_ pod: PodFacts, _ asks: [Ask]) -> PodDecision {
        var asks = asks
        if pod.isManualRequest {
            asks.append(Ask(source: annotationSource, mode: pod.policyMode ?? .strict))
            asks.sort()
        }
        guard !asks.isEmpty else { return .none }
        if pod.isHostNetwork { return PodDecision(mode: nil, asks: asks, why: .hostNetwork) }
        if pod.isFinished { return PodDecision(mode: nil, asks: asks, why: .finished) }
        if pod.encrypt == .no {
            let enforced = asks.filter(\.isEnforced)
            guard !enforced.isEmpty else { return PodDecision(mode: nil, asks: asks, why: .optedOut) }
            return protecting(enforced, .enforced)
        }
        return protecting(asks, .asked)
    }

    /// How a pod's own request is named among those who ask.
    static let annotationSource = "annotation"

    private static func protecting(_ asks: [Ask], _ why: Why) -> PodDecision {
        PodDecision(
            mode: asks.contains { $0.mode == .strict } ? .strict : .permissive,
            headers: asks.contains { $0.headers == .hidden } ? .hidden : .visible, asks: asks, why: why)
    }

    /// The value of the annotation `ebpf.xdp/policy`: the mode, and who asks, the first eight of them.
    var annotation: String? {
        guard let mode else { return nil }
        let sources = asks.map(\.source)
        let shown = sources.prefix(8).joined(separator: ",")
        let more = sources.count > 8 ? ",+\(sources.count - 8)" : ""
        return "\(mode.rawValue);\(shown)\(more)"
    }
}

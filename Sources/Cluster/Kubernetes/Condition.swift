/// A condition of an object's status, as the Kubernetes API conventions have it (`metav1.Condition`).
public struct Condition: Sendable, Hashable, Codable {
    /// Such as `Accepted`.
    public var type: String
    /// Whether it holds.
    public var status: Status
    /// One word in CamelCase, for programs.
    public var reason: String
    /// For people.
    public var message: String
    /// When `status` last changed.
    public var lastTransitionTime: Timestamp
    /// The generation of the object's spec that it speaks of.
    public var observedGeneration: Int64?

    /// Whether a condition holds.
    public enum Status: String, Sendable, Hashable, Codable {
        /// It does.
        case isTrue = "True"
        /// It does not.
        case isFalse = "False"
        /// Nobody can tell.
        case unknown = "Unknown"
    }

    /// Makes a condition.
    public init(
        _ type: String, _ status: Status, reason: String, message: String, at lastTransitionTime: Timestamp,
        observedGeneration: Int64? = nil
    ) {
        self.type = type
        self.status = status
        self.reason = reason
        self.message = message
        self.lastTransitionTime = lastTransitionTime
        self.observedGeneration = observedGeneration
    }
}

extension [Condition] {
    /// The same conditions; where an older one had the same status, its time of transition stays.
    public func keepingTransitions(of older: [Condition]) -> [Condition] {
        map { condition in
            guard let before = older.first(where: { $0.type == condition.type }), before.status == condition.status
            else { return condition }
            var kept = condition
            kept.lastTransitionTime = before.lastTransitionTime
            return kept
        }
    }
}

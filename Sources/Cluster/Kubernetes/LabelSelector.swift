/// Which labels an object must have, as in the Kubernetes API (`metav1.LabelSelector`). One without any requirement selects all.
public struct LabelSelector: Sendable, Hashable, Codable {
    /// Labels that must be there with exactly these values.
    public var matchLabels: [String: String]?
    /// Further requirements: all of them must be met.
    public var matchExpressions: [Requirement]?

    /// A requirement on one label.
    public struct Requirement: Sendable, Hashable, Codable {
        /// The label's key.
        public var key: String
        /// `In`, `NotIn`, `Exists` or `DoesNotExist`. Text, so that one word that is not known does not hide the whole object.
        public var `operator`: String
        /// For `In` and `NotIn`: one or more.
        public var values: [String]?

        /// Makes a requirement.
        public init(key: String, operator: String, values: [String]? = nil) {
            self.key = key
            self.operator = `operator`
            self.values = values
        }
    }

    /// Makes a selector.
    public init(matchLabels: [String: String]? = nil, matchExpressions: [Requirement]? = nil) {
        self.matchLabels = matchLabels
        self.matchExpressions = matchExpressions
    }

    /// What is wrong with it; nil when it can be judged.
    public var problem: String? {
        for (index, requirement) in (matchExpressions ?? []).enumerated() {
            let key = "matchExpressions[\(index)]"
            let count = requirement.values?.count ?? 0
            switch requirement.operator {
            case "In", "NotIn":
                if count == 0 { return "\(key).values is empty; \(requirement.operator) needs one value or more" }
            case "Exists", "DoesNotExist":
                if count > 0 { return "\(key).values is not empty; \(requirement.operator) takes none" }
            default:
                return
                    "\(key).operator is \"\(requirement.operator)\"; expected In, NotIn, Exists or DoesNotExist"
            }
        }
        return nil
    }

    /// Whether an object with these labels is selected. One with a problem selects nothing.
    public func matches(_ labels: [String: String]) -> Bool {
        for (key, value) in matchLabels ?? [:] where labels[key] != value { return false }
        for requirement in matchExpressions ?? [] {
            let value = labels[requirement.key]
            let isMet =
                switch requirement.operator {
                case "In": value.map { requirement.values?.contains($0) == true } ?? false
                case "NotIn": value.map { requirement.values?.contains($0) == false } ?? true
                case "Exists": value != nil
                case "DoesNotExist": value == nil
                default: false
                }
            if !isMet { return false }
        }
        return true
    }
}

public import Cluster
public import Netlink

/// An `EncryptionPolicy` as it is understood.
public struct PolicyRule: Sendable, Hashable {
    /// Its name.
    public var name: String
    /// Nil: all.
    var namespaceSelector: LabelSelector?
    /// Nil: all.
    var podSelector: LabelSelector?
    /// What happens with clear text.
    public var mode: Mode
    /// Who may read L4 headers.
    public var headers: Headers
    /// It holds whatever pods say.
    public var isEnforced: Bool
    /// Its prefixes.
    public var strictCIDRs: [IPPrefix]
    /// What is wrong with the spec; empty: nothing.
    public var problems: [String]
    /// An earlier spec is in force, because the present one has problems.
    public var isEarlier = false

    /// Reads a policy. Words that are not known take the stricter meaning; a selector that cannot be judged selects nothing.
    init(_ name: String, _ spec: EncryptionPolicy.Spec) {
        self.name = name
        namespaceSelector = spec.namespaceSelector
        podSelector = spec.podSelector
        isEnforced = spec.enforced ?? false
        problems = []
        mode = .strict
        if let word = spec.mode {
            if let known = Mode(rawValue: word) {
                mode = known
            } else {
                problems.append("spec.mode is \"\(word)\"; expected strict or permissive")
            }
        }
        headers = .visible
        if let word = spec.headers {
            headers = Headers(rawValue: word) ?? .hidden
            if Headers(rawValue: word) == nil {
                problems.append("spec.headers is \"\(word)\"; expected visible or hidden")
            }
        }
        strictCIDRs = []
        for text in spec.strictCIDRs ?? [] {
            do throws(IPParseError) {
                strictCIDRs.append(try IPPrefix(text))
            } catch {
                problems.append("spec.strictCIDRs: \(error)")
            }
        }
        if let problem = namespaceSelector?.problem { problems.append("spec.namespaceSelector.\(problem)") }
        if let problem = podSelector?.problem { problems.append("spec.podSelector.\(problem)") }
    }

    /// Whether it selects pods of such a namespace and with such labels.
    func selects(namespaceLabels: [String: String], podLabels: [String: String]) -> Bool {
        (namespaceSelector?.matches(namespaceLabels) ?? true) && (podSelector?.matches(podLabels) ?? true)
    }

    /// What it asks for.
    var ask: Ask {
        Ask(source: "EncryptionPolicy/\(name)", mode: mode, headers: headers, isEnforced: isEnforced)
    }
}

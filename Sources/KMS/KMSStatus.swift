/// What is known of the KMS, and what that means for traffic.
public struct KMSStatus: Sendable, Hashable {
    /// One word each, told apart in status, logs and metrics.
    public enum State: String, Sendable, Hashable, CaseIterable {
        /// Nothing was asked for yet, or the first answer is on its way.
        case starting
        /// The last answer was as hoped.
        case healthy
        /// No answer, or one that says that the provider has a problem.
        case outage
        /// The provider asks for patience.
        case throttled
        /// Answers that make no sense.
        case garbage
        /// This node's identity may not use the KEK.
        case denied
        /// The KEK or its version is disabled.
        case disabled
        /// The KEK is scheduled for deletion or destroyed.
        case pendingDeletion = "pending-deletion"
        /// There is no such KEK.
        case keyNotFound = "key-not-found"
        /// The wrapped DEK is for another cluster or epoch, was changed, or belongs to another KEK.
        case badBlob = "bad-blob"
        /// Tokens or credentials have expired, or there are none.
        case noIdentity = "no-identity"
        /// The clocks differ.
        case clockSkew = "clock-skew"
        /// A certificate is not trusted.
        case untrusted
        /// The configuration cannot work.
        case misconfigured

        init(error: KMSError?, hasKeys: Bool, isWaiting: Bool) {
            guard let error else {
                self = isWaiting ? .starting : .healthy
                return
            }
            self =
                switch error.kind {
                case .unreachable, .serverFault: .outage
                case .throttled: .throttled
                case .garbage, .tooLarge: .garbage
                case .denied: .denied
                case .disabled: .disabled
                case .pendingDeletion: .pendingDeletion
                case .keyNotFound: .keyNotFound
                case .notAuthentic, .malformedBlob, .wrongKEK: .badBlob
                case .expiredToken, .identityUnavailable: .noIdentity
                case .clockSkew: .clockSkew
                case .untrusted: .untrusted
                case .misconfigured: .misconfigured
                }
        }
    }

    /// How loud to be.
    public enum Severity: Int, Sendable, Hashable, Comparable {
        /// Nothing to do.
        case fine
        /// Look at it today.
        case warning
        /// Look at it now: traffic stops soon, or the key's owner has said no.
        case critical
        /// Traffic has stopped.
        case failedClosed

        /// Less loud is less.
        public static func < (a: Severity, b: Severity) -> Bool { a.rawValue < b.rawValue }
    }

    /// One word.
    public let state: State
    /// The newest error that still stands.
    public let error: KMSError?
    /// Whether calls pass at all.
    public let circuit: KMSGate.Circuit
    /// When the KMS last let us unwrap.
    public let lastSuccess: Duration?
    /// How long traffic goes on without a further answer; nil: no epoch is usable.
    public let remaining: Duration?
    /// The lease's full length.
    public let ttl: Duration

    /// Whether traffic goes on.
    public var isServing: Bool { (remaining ?? .zero) > .zero }

    /// How loud to be: critical from a quarter of the TTL on, and at once where the owner of the key refuses.
    public var severity: Severity {
        guard state != .starting else { return .fine }
        guard isServing else { return .failedClosed }
        guard let error else { return .fine }
        if error.category == .refusal { return .critical }
        return (remaining ?? .zero) * 4 < ttl ? .critical : .warning
    }

    /// One line for `status`.
    public var sentence: String {
        guard let error else { return state == .starting ? "waiting for the first DEK" : "healthy" }
        let rest =
            if let remaining, remaining > .zero {
                "traffic goes on for \(Self.text(remaining)) with the current keys"
            } else {
                "the TTL has passed: protected traffic is stopped until the KMS answers"
            }
        return "\(state.rawValue): \(error.message); \(rest)"
    }

    /// "23h 59m", "4m 30s", "12s".
    static func text(_ duration: Duration) -> String {
        let seconds = duration.components.seconds
        if seconds >= 3600 { return "\(seconds / 3600)h \(seconds / 60 % 60)m" }
        return seconds >= 60 ? "\(seconds / 60)m \(seconds % 60)s" : "\(seconds)s"
    }
}

extension KMSError {
    /// What a daemon without any usable key does: nil means that it stays, is not ready, and asks again. A restart would not help
    /// against an outage or a refusal, and would turn one failing node into a thousand requests.
    public var exitCode: Int32? {
        // EX_CONFIG of sysexits.h: systemd's RestartPreventExitStatus can name it.
        kind == .misconfigured ? 78 : nil
    }
}

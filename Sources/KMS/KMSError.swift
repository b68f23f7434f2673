/// What went wrong between us and a KMS. The kind decides what happens next; the message is for people and holds no secret.
public struct KMSError: Error, Sendable, Hashable {
    /// Everything that is answered, or said, differently.
    public enum Kind: Sendable, Hashable {
        /// No answer: name resolution, connection, TLS handshake broken off, or out of time.
        case unreachable
        /// An answer that says the provider itself has a problem (5xx).
        case serverFault
        /// Asked too often. With the time that the provider wants to be left alone for, if it said one.
        case throttled(retryAfter: Duration?)
        /// This identity may not use this key.
        case denied
        /// The KEK, or the version of it that is needed, is disabled.
        case disabled
        /// The KEK is scheduled for deletion, or destroyed.
        case pendingDeletion
        /// There is no such KEK.
        case keyNotFound
        /// The blob was made for another context, or changed on its way.
        case notAuthentic
        /// The bytes are no blob of ours.
        case malformedBlob
        /// The blob names another provider or KEK than the configured one.
        case wrongKEK
        /// Our token or credentials have expired and new ones were refused or not there.
        case expiredToken
        /// No credentials could be had from where the configuration says they are.
        case identityUnavailable
        /// The provider refuses our requests because the clocks differ.
        case clockSkew
        /// An answer that makes no sense: not JSON, fields missing, a wrong checksum, another key than asked.
        case garbage
        /// An answer larger than any right one.
        case tooLarge
        /// The other side's certificate does not convince us.
        case untrusted
        /// The configuration cannot work; the message names the key and what was expected.
        case misconfigured
    }

    /// What follows from a kind.
    public enum Category: String, Sendable, Hashable {
        /// Passes by itself: asked again with back-off; the current epoch goes on until its TTL.
        case outage
        /// The key's owner says no: reported as such, asked again rarely, and nothing is extended for it.
        case refusal
        /// This blob is bad whatever we do; another epoch's may be good.
        case badBlob
        /// Somebody has to change something here first.
        case local
    }

    /// The kind.
    public let kind: Kind
    /// Who was asked.
    public let provider: KMSProvider
    /// What happened, why, and what to do. Printable: control characters of the other side's text are gone.
    public let message: String

    /// Makes an error. Text that came from outside must have gone through `printable`.
    public init(_ kind: Kind, _ provider: KMSProvider, _ message: String) {
        self.kind = kind
        self.provider = provider
        self.message = message
    }

    /// What follows from it.
    public var category: Category {
        switch kind {
        case .unreachable, .serverFault, .throttled, .garbage, .tooLarge: .outage
        case .denied, .disabled, .pendingDeletion, .keyNotFound: .refusal
        case .notAuthentic, .malformedBlob, .wrongKEK: .badBlob
        case .expiredToken, .identityUnavailable, .clockSkew, .untrusted, .misconfigured: .local
        }
    }
}

extension KMSError.Kind {
    /// One word for logs and metrics.
    public var label: String {
        switch self {
        case .unreachable: "unreachable"
        case .serverFault: "server-fault"
        case .throttled: "throttled"
        case .denied: "denied"
        case .disabled: "disabled"
        case .pendingDeletion: "pending-deletion"
        case .keyNotFound: "key-not-found"
        case .notAuthentic: "not-authentic"
        case .malformedBlob: "malformed-blob"
        case .wrongKEK: "wrong-kek"
        case .expiredToken: "expired-token"
        case .identityUnavailable: "no-identity"
        case .clockSkew: "clock-skew"
        case .garbage: "garbage"
        case .tooLarge: "too-large"
        case .untrusted: "untrusted"
        case .misconfigured: "misconfigured"
        }
    }
}

extension KMSError: CustomStringConvertible {
    /// "aws: denied: ..."
    public var description: String { "\(provider.rawValue): \(kind.label): \(message)" }
}

/// Text of the other side as it may be shown: one line, no control characters, single spaces, not longer than `limit`.
func printable(_ text: some StringProtocol, limit: Int = 300) -> String {
    var shown = ""
    var count = 0
    for scalar in text.unicodeScalars {
        let isControl =
            scalar.value < 0x20 || (0x7f...0x9f).contains(scalar.value) || (0x2028...0x202e).contains(scalar.value)
            || (0x2066...0x2069).contains(scalar.value)
        let next: Unicode.Scalar = isControl ? " " : scalar
        if next == " " && (shown.isEmpty || shown.hasSuffix(" ")) { continue }
        if count == limit { return shown + "…" }
        shown.unicodeScalars.append(next)
        count += 1
    }
    while shown.hasSuffix(" ") { shown.removeLast() }
    return shown
}

/// Why there are no credentials.
public struct IdentityError: Error, Sendable, Hashable {
    /// The kinds that callers answer differently.
    public enum Kind: Sendable, Hashable {
        /// The source does not answer, or has a problem of its own.
        case unreachable
        /// Asked too often.
        case throttled(retryAfter: Duration?)
        /// The source knows us and says no.
        case denied
        /// What we showed to the source (a projected token) has expired, or is about to.
        case expired
        /// There is nothing where the configuration says that there is something.
        case unavailable
        /// The source says that the clocks differ.
        case clockSkew
        /// An answer that makes no sense.
        case garbage
        /// An answer larger than any right one.
        case tooLarge
        /// The source's certificate is not trusted.
        case untrusted
        /// The configuration cannot work.
        case misconfigured
    }
    /// The kind.
    public let kind: Kind
    /// What happened, why, and what to do; no secrets.
    public let message: String

    /// Makes an error.
    public init(_ kind: Kind, _ message: String) {
        self.kind = kind
        self.message = message
    }

    init(_ fault: HTTPFault) {
        switch fault.kind {
        case .unreachable, .timeout: kind = .unreachable
        case .untrusted: kind = .untrusted
        case .tooLarge: kind = .tooLarge
        case .garbage: kind = .garbage
        }
        message = fault.message
    }

    /// What a status that is no success says, for sources without codes of their own.
    init(status: Int, _ answer: HTTPAnswer, who: String) {
        let said = showable(answer.text)
        switch status {
        case 429: self.init(.throttled(retryAfter: answer.retryAfter), "\(who) throttles us")
        case 500...599: self.init(.unreachable, "\(who) has a problem of its own (status \(status))")
        case 401, 403: self.init(.denied, "\(who) refuses (status \(status)): \(said)")
        case 404: self.init(.unavailable, "\(who) has no identity for us (status 404): \(said)")
        case 300...399: self.init(.garbage, "\(who) redirects, and credentials are never sent elsewhere")
        // Whatever it is, it is no refusal: a token may stand in it.
        case ..<300: self.init(.garbage, "\(who) answered with status \(status), which is none that it has")
        default: self.init(.garbage, "\(who) answered with status \(status): \(said)")
        }
    }
}

/// Text of others, on one line, without control characters, and short.
func showable(_ text: some StringProtocol) -> String {
    var shown = ""
    for scalar in text.unicodeScalars.prefix(200) {
        let isControl = scalar.properties.generalCategory == .control || scalar.properties.generalCategory == .format
        shown.unicodeScalars.append(isControl ? " " : scalar)
    }
    return shown
}

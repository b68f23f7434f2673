public import Secrets

/// A request of ours: to a KMS, to a token service, or to an instance's metadata server.
public struct HTTPCall: Sendable {
    /// "GET", "POST" or "PUT".
    public var method: String
    /// Where to: an endpoint that the configuration, or this program, names.
    public var endpoint: HTTPEndpoint
    /// Absolute path and query, percent-encoded.
    public var target: String
    /// In the order in which they are sent. `Host` and `Content-Length` are added by the transport.
    public var headers: [(name: String, value: String)]
    /// Zeroed by the last holder; requests may carry a DEK.
    public var body: SecretBytes?
    /// From the first packet to the last byte of the answer.
    public var timeout: Duration

    /// Makes a request without a body.
    public init(_ method: String, _ endpoint: HTTPEndpoint, _ target: String, timeout: Duration = .seconds(5)) {
        self.method = method
        self.endpoint = endpoint
        self.target = endpoint.basePath + target
        self.timeout = timeout
        headers = []
    }
}

/// An answer, of whatever status. Its body is in secret memory, because answers carry DEKs and tokens.
public struct HTTPAnswer: Sendable {
    /// The three digits.
    public let status: Int
    /// Names in lower case; the first of several.
    public let headers: [String: String]
    /// At most `HTTPLimits.body` bytes.
    public let body: SecretBytes

    /// Makes an answer.
    public init(status: Int, headers: [String: String], body: SecretBytes) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    /// `Retry-After` in seconds, of 0 to 3600; the form with a date is not used by any provider.
    public var retryAfter: Duration? {
        guard let text = headers["retry-after"], let seconds = Int(text), seconds >= 0 else { return nil }
        return .seconds(min(seconds, 3600))
    }

    /// The body as text, for what is no secret: error pages.
    public var text: String { body.withUnsafeBytes { String(decoding: $0.prefix(2048), as: UTF8.self) } }
}

/// Bounds of every answer.
public enum HTTPLimits {
    /// The largest right answer has about 10 kB: a wrapped DEK with everything around it.
    public static let body = 64 * 1024
    /// Beyond this many header fields an answer is refused.
    public static let headers = 100
}

/// Why there is no answer.
public struct HTTPFault: Error, Sendable, Hashable {
    /// The kinds that are told apart.
    public enum Kind: Sendable, Hashable {
        /// No connection, or broken off.
        case unreachable
        /// No complete answer within the time.
        case timeout
        /// The other side's certificate is not trusted.
        case untrusted
        /// More than `HTTPLimits` allow.
        case tooLarge
        /// Not HTTP.
        case garbage
    }
    /// The kind.
    public let kind: Kind
    /// For people; holds neither headers nor bodies.
    public let message: String

    /// Makes a fault.
    public init(_ kind: Kind, _ message: String) {
        self.kind = kind
        self.message = message
    }
}

/// Sends requests. Follows no redirect, uses no proxy, retries nothing, keeps no cookie.
public protocol HTTPService: Sendable {
    /// Returns whatever the other side answers; throws when there is no answer.
    func send(_ call: HTTPCall) async throws(HTTPFault) -> HTTPAnswer
}

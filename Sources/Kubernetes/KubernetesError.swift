/// Why a request to the API server did not do what it should.
public struct KubernetesError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kinds that are told apart.
    public enum Code: Sendable, Hashable {
        /// 400: a request that the server does not understand.
        case badRequest
        /// 401, also after the token has been read again.
        case unauthorized
        /// 403: a right is missing, or an admission policy refused.
        case forbidden
        /// 404: the object, its namespace or its kind (a CRD) is not there.
        case notFound
        /// 409 of a creation.
        case alreadyExists
        /// 409 of a change: somebody else was faster, owns the field, or it is another object (uid).
        case conflict
        /// 410, or a watch from a version that is too old or from the future: list again.
        case expired
        /// 422: the object breaks its schema or a rule.
        case invalid
        /// 429.
        case tooManyRequests
        /// 500, and other 5xx that are none of the following.
        case server
        /// 502 and 503.
        case unavailable
        /// No complete answer within the time, or 504.
        case timeout
        /// No connection, or one that broke.
        case network
        /// The server's certificate is not trusted.
        case untrusted
        /// An answer that is not what the API says.
        case decoding
        /// More bytes than we are willing to hold.
        case tooLarge
        /// Wrong or unusable client configuration: kubeconfig, files of the service account.
        case configuration
        /// The task was cancelled.
        case cancelled
        /// A handler of the caller threw.
        case handler
        /// Any other status.
        case other
    }

    /// The kind.
    public var code: Code
    /// The HTTP status; nil when there was no answer.
    public var status: Int?
    /// The API's `reason`, such as "AlreadyExists"; may be empty.
    public var reason: String
    /// What happened, for people; holds no tokens and no bodies.
    public var message: String
    /// What the server asks for.
    public var retryAfter: Duration?

    /// Makes an error.
    public init(
        _ code: Code, _ message: String, status: Int? = nil, reason: String = "", retryAfter: Duration? = nil
    ) {
        self.code = code
        self.message = message
        self.status = status
        self.reason = reason
        self.retryAfter = retryAfter
    }

    /// The same request may do better later, without anybody changing anything.
    public var isTransient: Bool {
        switch code {
        case .tooManyRequests, .server, .unavailable, .timeout, .network, .decoding: true
        default: false
        }
    }

    /// The message.
    public var description: String { message }
}

/// Where the API server is, how to trust it, and who we are.
public struct ClientConfiguration: Sendable {
    /// How we show who we are.
    public enum Credentials: Sendable {
        /// Not at all, or by client certificate only.
        case none
        /// A bearer token that does not change.
        case token(String)
        /// A file that somebody rotates: read again every minute, and when the server answers 401.
        case tokenFile(path: String)
    }

    /// Waits, at most.
    public struct Timeouts: Sendable, Hashable {
        /// TCP and TLS.
        public var connect: Duration = .seconds(5)
        /// From sending a request to the last byte of its answer. Watches end by their own option.
        public var request: Duration = .seconds(30)
        /// Without a byte of a watch. Servers send a bookmark about once a minute.
        public var watchIdle: Duration = .seconds(150)

        /// The usual ones.
        public init() {}
    }

    /// "https://host:port", perhaps with a path; plain http for loopback only.
    public var server: String
    /// PEM certificates of the authorities that may vouch for the server; nil for the system's.
    public var certificateAuthority: [UInt8]?
    /// The name in the server's certificate, where it is another than in `server`.
    public var tlsServerName: String?
    /// Trusts any server. For test clusters; the client warns.
    public var insecureSkipTLSVerify = false
    /// PEM certificate chain and key of ours.
    public var clientCertificate: (chain: [UInt8], key: [UInt8])?
    /// How we show who we are.
    public var credentials = Credentials.none
    /// The namespace of the service account or of the context; "default" otherwise.
    public var namespace = "default"
    /// Waits, at most.
    public var timeouts = Timeouts()

    /// Names a server; nothing else.
    public init(server: String) {
        self.server = server
    }

    /// What Kubernetes gives a pod: KUBERNETES_SERVICE_HOST and _PORT, and the files of its service account.
    ///
    /// - Parameter folder: where the service account's files are.
    public static func inCluster(
        folder: String = "/var/run/secrets/kubernetes.io/serviceaccount"
    ) throws(KubernetesError) -> ClientConfiguration {
        throw KubernetesError(.configuration, "not yet")
    }

    /// A kubeconfig file, YAML or JSON.
    ///
    /// - Parameters:
    ///   - path: the file.
    ///   - context: nil for the file's current context.
    public static func kubeconfig(
        _ path: String, context: String? = nil
    ) throws(KubernetesError) -> ClientConfiguration {
        throw KubernetesError(.configuration, "not yet")
    }
}

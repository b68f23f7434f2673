internal import Glibc
public import Secrets

/// Where the API server is, how to trust it, and who we are.
public struct ClientConfiguration: Sendable {
    /// How we show who we are.
    public enum Credentials: Sendable {
        /// Not at all, or by client certificate only.
        case none
        /// A bearer token that does not change.
        case token(SecretBytes)
        /// A file that somebody rotates: read again every minute, and when the server answers 401.
        case tokenFile(path: String)
    }

    /// A certificate of ours.
    public struct ClientCertificate: Sendable {
        /// PEM: our certificate, then those that lead to an authority.
        public var chain: [UInt8]
        /// PEM.
        public var key: SecretBytes

        /// Makes a pair.
        public init(chain: [UInt8], key: SecretBytes) {
            self.chain = chain
            self.key = key
        }
    }

    /// Waits, at most.
    public struct Timeouts: Sendable, Hashable {
        /// TCP and TLS.
        public var connect: Duration = .seconds(5)
        /// From sending a request to its complete answer, and for the head of a watch's answer.
        public var request: Duration = .seconds(30)
        /// Without a byte of a watch: then it is begun anew where it was. Servers may say nothing for ten minutes about a kind to which
        /// nothing happens; one that has vanished is noticed much earlier by the kernel.
        public var watchIdle: Duration = .seconds(300)

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
    /// Nil for none.
    public var clientCertificate: ClientCertificate?
    /// How we show who we are.
    public var credentials = Credentials.none
    /// The namespace of the service account or of the context; "default" otherwise.
    public var namespace = "default"
    /// Waits, at most.
    public var timeouts = Timeouts()
    /// Program and version. What stands before the slash names the writer in `managedFields` (server-side apply has its own name).
    public var userAgent = "xdp-encryptor"

    /// Names a server; nothing else.
    public init(server: String) {
        self.server = server
    }

    /// What Kubernetes gives a pod: KUBERNETES_SERVICE_HOST and _PORT, and the files of its service account.
    ///
    /// - Parameters:
    ///   - folder: where the service account's files are.
    ///   - environment: nil for the process's own.
    public static func inCluster(
        folder: String = "/var/run/secrets/kubernetes.io/serviceaccount", environment: [String: String]? = nil
    ) throws(KubernetesError) -> ClientConfiguration {
        func variable(_ name: String) -> String {
            if let environment { return environment[name] ?? "" }
            return getenv(name).map { String(cString: $0) } ?? ""
        }
        let host = variable("KUBERNETES_SERVICE_HOST")
        let port = variable("KUBERNETES_SERVICE_PORT")
        guard !host.isEmpty, !port.isEmpty else {
            throw KubernetesError(
                .configuration,
                "KUBERNETES_SERVICE_HOST or KUBERNETES_SERVICE_PORT is not set: this is no pod; give a kubeconfig instead"
            )
        }
        var configuration = ClientConfiguration(
            server: "https://\(host.contains(":") ? "[\(host)]" : host):\(port)")
        configuration.certificateAuthority = try FileReading.read(folder + "/ca.crt", what: "CA file")
        configuration.credentials = .tokenFile(path: folder + "/token")
        // Early, so that a pod without a token says so when it starts.
        _ = try TokenSource(path: folder + "/token", clock: .system).token()
        if let bytes = try? FileReading.read(folder + "/namespace", what: "namespace file", limit: 1024) {
            let text = String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isWhitespace).first ?? ""
            if !text.isEmpty { configuration.namespace = String(text) }
        }
        return configuration
    }

    /// A kubeconfig file, YAML or JSON: servers, CAs, tokens, client certificates. Plugins that run programs are refused.
    ///
    /// - Parameters:
    ///   - path: the file; relative paths in it start at its folder.
    ///   - context: nil for the file's current context.
    public static func kubeconfig(
        _ path: String, context: String? = nil
    ) throws(KubernetesError) -> ClientConfiguration {
        let bytes = try FileReading.read(path, what: "kubeconfig", limit: 4 << 20)
        return try Kubeconfig(bytes, path: path).configuration(context: context)
    }
}

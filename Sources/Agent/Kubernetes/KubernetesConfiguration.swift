public import Cluster
public import Datapath

/// How the daemon works with Kubernetes: `cluster` of its configuration file.
public struct KubernetesConfiguration: Sendable, Hashable, Codable {
    /// The only source of this kind: kubernetes.
    public var source: String
    /// A kubeconfig file; the pod's service account when it is not there.
    public var kubeconfig: String?
    /// Where the ConfigMap xdp-encryptor-cluster is. The environment variable POD_NAMESPACE when it is not there.
    public var namespace: String?
    /// Where pods' network namespaces are looked for: folders of named ones, or a procfs. /var/run/netns when it is not there.
    public var podNamespaces: [String]?
    /// What concerns the CNI plugin; all defaults when it is not there.
    public var cni: CNISettings?
    /// Whether and how addresses of services are replaced at the sockets of protected pods; not when it is not there.
    public var socketLoadBalancing: SocketSettings?

    /// How addresses of services are replaced.
    public struct SocketSettings: Sendable, Hashable, Codable {
        /// Whether they are. False when it is not said.
        public var enabled: Bool?
        /// The root of the node's cgroup v2 hierarchy. Where it is mounted when it is not there.
        public var cgroup: String?
        /// Namespaces whose services are left to others. None when it is not there.
        public var exceptNamespaces: [String]?

        /// Makes settings with the defaults.
        public init(enabled: Bool? = nil, cgroup: String? = nil, exceptNamespaces: [String]? = nil) {
            self.enabled = enabled
            self.cgroup = cgroup
            self.exceptNamespaces = exceptNamespaces
        }
    }

    /// What the CNI plugin is told.
    public struct CNISettings: Sendable, Hashable, Codable {
        /// Whether the socket is there. True when it is not said.
        public var enabled: Bool?
        /// The socket. cni.sock in the runtime directory when it is not there.
        public var socket: String?
        /// How long after a pod was made the operator may take to decide about it, milliseconds: a pod that is younger and has no
        /// annotation is kept waiting. 2000 when it is not there; 0 never waits.
        public var decisionMilliseconds: Int?

        /// Makes settings with the defaults.
        public init(enabled: Bool? = nil, socket: String? = nil, decisionMilliseconds: Int? = nil) {
            self.enabled = enabled
            self.socket = socket
            self.decisionMilliseconds = decisionMilliseconds
        }
    }

    /// Makes a configuration with the defaults.
    public init(kubeconfig: String? = nil, namespace: String? = nil) {
        source = "kubernetes"
        self.kubeconfig = kubeconfig
        self.namespace = namespace
    }
}

extension KubernetesConfiguration: Checked {
    /// Where pods' network namespaces are looked for.
    public var roots: [String] { podNamespaces ?? ["/var/run/netns"] }

    /// The CNI plugin's socket; nil when there is to be none.
    public func socket(runtime: String) -> String? {
        cni?.enabled == false ? nil : cni?.socket ?? "\(runtime)/cni.sock"
    }

    /// What the datapath is told of sockets; nil: it leaves them alone.
    public var sockets: Datapath.SocketOptions? {
        socketLoadBalancing?.enabled == true ? .init(cgroup: socketLoadBalancing?.cgroup) : nil
    }

    /// Namespaces whose services are left to others.
    public var exceptNamespaces: Set<String> { Set(socketLoadBalancing?.exceptNamespaces ?? []) }

    /// How long after a pod was made the operator may take to decide about it.
    public var decision: Duration { .milliseconds(cni?.decisionMilliseconds ?? 2000) }

    /// Where the ConfigMap is: from the file, from POD_NAMESPACE, or the client's own namespace.
    public func configMapNamespace(environment: [String: String], client: String) -> String {
        if let namespace { return namespace }
        if let named = environment["POD_NAMESPACE"], !named.isEmpty { return named }
        return client
    }

    /// Throws for the first value that cannot be.
    public func check() throws(InvalidValue) {
        guard source == "kubernetes" else {
            throw InvalidValue("cluster.source", "\"\(source)\" is no source; expected kubernetes, or clusterDirectory")
        }
        if let namespace { try checkName(namespace, "cluster.namespace") }
        for (key, path) in [
            ("cluster.kubeconfig", kubeconfig), ("cluster.cni.socket", cni?.socket),
            ("cluster.socketLoadBalancing.cgroup", socketLoadBalancing?.cgroup),
        ] {
            if let path { try Self.checkPath(path, key) }
        }
        for (index, namespace) in (socketLoadBalancing?.exceptNamespaces ?? []).enumerated() {
            try checkName(namespace, "cluster.socketLoadBalancing.exceptNamespaces[\(index)]")
        }
        if let podNamespaces {
            guard !podNamespaces.isEmpty else {
                throw InvalidValue("cluster.podNamespaces", "is empty; expected folders such as /var/run/netns")
            }
            for (index, path) in podNamespaces.enumerated() {
                try Self.checkPath(path, "cluster.podNamespaces[\(index)]")
            }
        }
        if let wait = cni?.decisionMilliseconds, !(0...30_000).contains(wait) {
            throw InvalidValue("cluster.cni.decisionMilliseconds", "\(wait) is out of range; expected 0 to 30000")
        }
    }

    private static func checkPath(_ path: String, _ key: String) throws(InvalidValue) {
        guard path.utf8.first == UInt8(ascii: "/"), !path.utf8.contains(0) else {
            throw InvalidValue(key, "\"\(path)\" is no absolute path; expected one that begins with /")
        }
    }
}

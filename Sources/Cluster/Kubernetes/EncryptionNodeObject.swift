public import Keys
public import Kubernetes
public import Netlink

/// A node of the cluster: `encryptionnodes`, named as the Kubernetes node. The operator writes the spec, the node's keymgr the status.
public struct EncryptionNodeObject: KubernetesObject, Hashable {
    /// `encryptionnodes.encryption.ebpf.xdp`
    public static let resource = EncryptionAPI.kind("EncryptionNode", "encryptionnodes")

    /// Name of the node.
    public var metadata: ObjectMeta
    /// What is wanted of the node; nil when it cannot be read.
    public var spec: Spec?
    /// What the node says; nil when it has said nothing, or when it cannot be read.
    public var status: Status?
    /// Why the spec or the status cannot be read.
    public var unreadable: String?

    /// Makes a node without a status.
    public init(name: String, spec: Spec) {
        metadata = ObjectMeta(name: name)
        self.spec = spec
    }

    /// What is wanted of the node.
    public struct Spec: Sendable, Hashable, Codable {
        /// Given once, never to another node.
        public var nodeID: NodeID
        /// Pods that shall be protected, by name.
        public var endpoints: [Endpoint]

        /// Makes a spec.
        public init(nodeID: NodeID, endpoints: [Endpoint] = []) {
            self.nodeID = nodeID
            self.endpoints = endpoints
        }

        /// Reads a spec; endpoints that are not there are none.
        public init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: CodingKeys.self)
            nodeID = try container.decode(NodeID.self, forKey: .nodeID)
            endpoints = try container.decodeIfPresent([Endpoint].self, forKey: .endpoints) ?? []
        }
    }

    /// A pod that shall be protected.
    public struct Endpoint: Sendable, Hashable {
        /// The pod's UID: an address or a name that is used again is another endpoint.
        public var name: String
        /// Which pod.
        public var pod: Pod
        /// All addresses that it sends from, in ascending order.
        public var addresses: [IPAddress]
        /// What happens with clear text.
        public var mode: Mode
        /// Who may read its packets' L4 headers.
        public var headers: Headers
        /// Who asks for it: policies, mesh resources, the pod's own annotation. For people.
        public var policies: [String]

        /// Makes an endpoint.
        public init(
            name: String, pod: Pod, addresses: [IPAddress], mode: Mode, headers: Headers = .visible, policies: [String]
        ) {
            self.name = name
            self.pod = pod
            self.addresses = addresses
            self.mode = mode
            self.headers = headers
            self.policies = policies
        }
    }

    /// Names a pod.
    public struct Pod: Sendable, Hashable, Codable {
        /// Its namespace.
        public var namespace: String
        /// Its name.
        public var name: String
        /// What tells it from another one of the same name.
        public var uid: String

        /// Makes a reference.
        public init(namespace: String, name: String, uid: String) {
            self.namespace = namespace
            self.name = name
            self.uid = uid
        }
    }

    /// What the node says of itself. Everything in the report is true in its kernel at the moment of writing.
    public struct Status: Sendable, Hashable {
        /// Nil as long as the kernel half does not work there.
        public var report: NodeReport?
        /// The kernel's driver that computes AES, such as `ecb(aes-aesni)`; nil: no keys yet. For people.
        public var engine: String?
        /// What a person should know: at most 20, errors first.
        public var problems: [Problem]
        /// `Ready`
        public var conditions: [Condition]
        /// Written at most every 60 s; nothing depends on it.
        public var heartbeat: Timestamp?
        /// Of the program. For people.
        public var version: String?

        /// Makes a status.
        public init(
            report: NodeReport?, engine: String? = nil, problems: [Problem] = [], conditions: [Condition] = [],
            heartbeat: Timestamp? = nil, version: String? = nil
        ) {
            self.report = report
            self.engine = engine
            self.problems = problems
            self.conditions = conditions
            self.heartbeat = heartbeat
            self.version = version
        }
    }
}

extension EncryptionNodeObject {
    private enum CodingKeys: String, CodingKey {
        case metadata, spec, status
    }

    /// Reads an object. A spec or a status that makes no sense is reported in `unreadable`, and does not fail the object.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        metadata = try container.decode(ObjectMeta.self, forKey: .metadata)
        let spec = readable(Spec.self, in: container, .spec)
        let status = readable(Status.self, in: container, .status)
        self.spec = spec.value
        self.status = status.value
        unreadable = spec.problem ?? status.problem
    }

    /// Writes an object.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(metadata, forKey: .metadata)
        try container.encodeIfPresent(spec, forKey: .spec)
        try container.encodeIfPresent(status, forKey: .status)
    }
}

extension EncryptionNodeObject.Spec: Checked {
    /// Throws for the first value that cannot be.
    public func check() throws(InvalidValue) {
        try checkNodeID(nodeID, "nodeID")
        var names: Set<String> = []
        for (index, endpoint) in endpoints.enumerated() {
            let key = "endpoints[\(index)]"
            try checkName(endpoint.name, "\(key).name")
            guard names.insert(endpoint.name).inserted else {
                throw InvalidValue("\(key).name", "\"\(endpoint.name)\" stands in the list twice")
            }
            try checkAddresses(endpoint.addresses, "\(key).addresses")
        }
    }
}

extension EncryptionNodeObject.Status: Codable {
    private enum CodingKeys: String, CodingKey {
        case endpointCount, engine, problems, conditions, heartbeat, version
    }

    /// Reads a status.
    public init(from decoder: any Decoder) throws {
        report = try NodeReport.isPresent(in: decoder) ? NodeReport(from: decoder) : nil
        let container = try decoder.container(keyedBy: CodingKeys.self)
        engine = try container.decodeIfPresent(String.self, forKey: .engine)
        // For people only: never a reason to refuse the rest.
        problems = (try? container.decodeIfPresent([Problem].self, forKey: .problems)) ?? []
        conditions = (try? container.decodeIfPresent([Condition].self, forKey: .conditions)) ?? []
        heartbeat = (try? container.decodeIfPresent(Timestamp.self, forKey: .heartbeat)) ?? nil
        version = try container.decodeIfPresent(String.self, forKey: .version)
    }

    /// Writes a status.
    public func encode(to encoder: any Encoder) throws {
        try report?.encode(to: encoder)
        var container = encoder.container(keyedBy: CodingKeys.self)
        // For the column that people see: those cannot count.
        try container.encodeIfPresent(report?.endpoints.count, forKey: .endpointCount)
        try container.encodeIfPresent(engine, forKey: .engine)
        try container.encode(problems, forKey: .problems)
        try container.encode(conditions, forKey: .conditions)
        try container.encodeIfPresent(heartbeat, forKey: .heartbeat)
        try container.encodeIfPresent(version, forKey: .version)
    }
}

extension EncryptionNodeObject.Status: Checked {
    /// Throws for the first value that cannot be.
    public func check() throws(InvalidValue) {
        try report?.check()
    }
}

extension EncryptionNodeObject.Endpoint: Codable {
    private enum CodingKeys: String, CodingKey {
        case name, pod, addresses, mode, headers, policies
    }

    /// Reads an endpoint.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        self.init(
            name: try container.decode(String.self, forKey: .name),
            pod: try container.decode(EncryptionNodeObject.Pod.self, forKey: .pod),
            addresses: try container.decode([IPAddress].self, forKey: .addresses),
            mode: try container.decode(Mode.self, forKey: .mode),
            headers: try container.decodeIfPresent(Headers.self, forKey: .headers) ?? .visible,
            policies: try container.decode([String].self, forKey: .policies))
    }

    /// Writes an endpoint.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(name, forKey: .name)
        try container.encode(pod, forKey: .pod)
        try container.encode(addresses, forKey: .addresses)
        try container.encode(mode, forKey: .mode)
        if headers != .visible { try container.encode(headers, forKey: .headers) }
        try container.encode(policies, forKey: .policies)
    }
}

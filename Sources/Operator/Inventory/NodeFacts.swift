public import Cluster
public import Keys
internal import Kubernetes
public import Netlink

/// What matters of a Kubernetes node.
public struct NodeFacts: Sendable, Hashable {
    /// Its own addresses: never those of a protected pod.
    public var addresses: [IPAddress]
    /// It can have a keymgr: runs Linux, and is a machine.
    public var isCandidate: Bool

    init(_ node: Node) {
        addresses = (node.status?.addresses ?? []).compactMap { $0.address.flatMap { try? IPAddress($0) } }.sorted()
        let labels = node.metadata.labels ?? [:]
        isCandidate = labels["kubernetes.io/os"] ?? "linux" == "linux" && labels["type"] != "virtual-kubelet"
    }
}

/// What matters of an `EncryptionNode` as the API server has it.
public struct EncryptionNodeFacts: Sendable {
    /// Which of the objects that had this name.
    public var uid: String?
    /// Of its metadata.
    public var resourceVersion: String?
    /// Its number; nil when the spec cannot be read.
    public var nodeID: NodeID?
    /// Tells lists of endpoints apart; nil when the spec cannot be read.
    var endpointsHash: Int?
    /// How many endpoints are wanted of it.
    public var endpointCount: Int
    /// What the node said last that could be read.
    public var report: NodeReport?
    /// What the node says that people should know.
    public var problems: [Problem]
    /// Why a part cannot be read.
    public var unreadable: String?

    /// Keeps what was read of an earlier version where the present one cannot be read, or says nothing: a node that is known does
    /// not become unknown by saying nothing.
    init(_ object: EncryptionNodeObject, before: EncryptionNodeFacts?) {
        uid = object.metadata.uid
        resourceVersion = object.metadata.resourceVersion
        nodeID = object.spec?.nodeID
        endpointsHash = object.spec.map { $0.endpoints.hashValue }
        endpointCount = object.spec?.endpoints.count ?? 0
        let earlier = before?.uid == object.metadata.uid ? before?.report : nil
        report = object.status?.report ?? earlier
        problems = object.status?.problems ?? []
        unreadable = object.unreadable
    }

    /// Names of endpoints that the node has published as protected.
    var ready: Set<String> {
        (report?.endpoints ?? []).reduce(into: []) { if $1.state == .ready { $0.insert($1.name) } }
    }

    /// Names of those whose headers it has published as hidden.
    var hidden: Set<String> {
        (report?.endpoints ?? []).reduce(into: []) {
            if $1.state == .ready, $1.headers == .hidden { $0.insert($1.name) }
        }
    }
}

/// How a node is, as far as people should hear of it.
enum NodeCondition: Sendable, Hashable {
    /// Its keymgr has said nothing yet.
    case silent
    /// It has no keys yet.
    case waiting
    /// It protects what it is asked to.
    case ready
    /// The worst of what it says.
    case problem(String)

    init(_ facts: EncryptionNodeFacts) {
        if let unreadable = facts.unreadable {
            self = .problem("its EncryptionNode cannot be read: \(unreadable)")
        } else if let problem = facts.problems.first(where: { $0.severity == .error }) {
            self = .problem(problem.description)
        } else {
            self = facts.report.map { $0.sending == 0 ? .waiting : .ready } ?? .silent
        }
    }
}

/// What matters of a `CiliumEndpoint`.
struct CiliumEndpointFacts: Sendable, Hashable {
    /// Of the pod that owns it, if it says so.
    var podUID: String?
    var addresses: [IPAddress]

    init(_ endpoint: CiliumEndpoint) {
        podUID = endpoint.metadata.ownerReferences?.first { $0.kind == "Pod" }?.uid
        let texts = (endpoint.status?.networking?.addressing ?? []).flatMap { [$0.ipv4, $0.ipv6].compactMap(\.self) }
        addresses = Set(texts.compactMap { try? IPAddress($0) }).filter { !$0.isLinkLocal }.sorted()
    }
}

/// What matters of an `EndpointSlice`.
struct EndpointSliceFacts: Sendable, Hashable {
    var service: ServiceName?
    /// Pods of its own namespace, sorted.
    var pods: [String]
    /// Addresses of endpoints that name no pod, sorted.
    var addresses: [IPAddress]

    init(_ slice: EndpointSlice) {
        service = slice.metadata.labels?[EndpointSlice.serviceLabel].map {
            ServiceName(namespace: slice.metadata.namespace, name: $0)
        }
        var pods: Set<String> = []
        var addresses: Set<IPAddress> = []
        for endpoint in slice.endpoints ?? [] {
            if let reference = endpoint.targetRef, reference.kind == "Pod", let name = reference.name,
                reference.namespace ?? slice.metadata.namespace == slice.metadata.namespace
            {
                pods.insert(name)
            } else {
                for text in endpoint.addresses ?? [] {
                    if let address = try? IPAddress(text) { addresses.insert(address) }
                }
            }
        }
        self.pods = pods.sorted()
        self.addresses = addresses.sorted()
    }
}

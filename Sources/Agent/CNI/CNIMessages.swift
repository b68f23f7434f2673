public import Datapath
internal import FoundationEssentials
public import Keys
public import Netlink

/// What the CNI plugin asks keymgr: one line of JSON over the unix socket, answered by one line.
public struct CNIRequest: Sendable, Hashable, Codable {
    /// What is to be done.
    public enum Command: String, Sendable, Hashable, Codable {
        /// A pod is about to start.
        case add
        /// Is it still as it was made?
        case check
        /// A pod's network is about to go.
        case delete
        /// Could an `add` be served?
        case status
        /// Forget all sandboxes but `valid`.
        case collect
    }
    /// Of this format.
    public var version = 1
    /// What is to be done.
    public var command: Command
    /// The runtime's id of the sandbox.
    public var containerID: String
    /// The pod's interface.
    public var interface: String
    /// Path of the pod's network namespace; add only.
    public var networkNamespace: String?
    /// Which one it is, as the plugin sees it; add only.
    public var identity: NamespaceIdentity?
    /// The pod's namespace, name and UID, as far as the runtime tells.
    public var podNamespace: String?
    /// The pod's name.
    public var podName: String?
    /// The pod's UID.
    public var uid: String?
    /// The pod's annotations, if the runtime passes them.
    public var annotations: [String: String]?
    /// Addresses that the plugins before have given it.
    public var addresses: [IPAddress]
    /// What happens with a pod of which nothing can be known.
    public var unknownPods: UnknownPods
    /// How long the plugin waits for the answer, milliseconds.
    public var patience: Int
    /// `collect`: "containerID.interface" of what is still there.
    public var valid: [String]?

    /// Pods of which nothing can be known: the runtime passes no annotations, and the API server does not answer.
    public enum UnknownPods: String, Sendable, Hashable, Choice {
        /// They start.
        case allow
        /// They do not.
        case refuse
    }

    /// Makes a request.
    public init(
        _ command: Command, containerID: String, interface: String, addresses: [IPAddress] = [],
        unknownPods: UnknownPods = .allow, patience: Int = 10_000
    ) {
        self.command = command
        self.containerID = containerID
        self.interface = interface
        self.addresses = addresses
        self.unknownPods = unknownPods
        self.patience = patience
    }
}

/// What keymgr answers.
public struct CNIReply: Sendable, Hashable, Codable {
    /// How it went.
    public enum Outcome: String, Sendable, Hashable, Codable {
        /// Done; the pod may start.
        case done
        /// Not now: the runtime should try again.
        case later
        /// No.
        case refused
    }
    /// How it went.
    public var outcome: Outcome
    /// Whether the pod is protected.
    public var isProtected: Bool
    /// For people; what to do when it did not work.
    public var message: String

    /// Makes a reply.
    public init(_ outcome: Outcome, isProtected: Bool = false, _ message: String = "") {
        self.outcome = outcome
        self.isProtected = isProtected
        self.message = message
    }
}

/// Messages on the socket.
enum CNIMessage {
    /// The most that either side reads, bytes.
    static let limit = 1 << 20

    static func encode(_ message: some Encodable) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.withoutEscapingSlashes]
        return ((try? encoder.encode(message)).map { Array($0) } ?? []) + [UInt8(ascii: "\n")]
    }

    static func decode<M: Decodable>(_ type: M.Type, from bytes: [UInt8]) -> M? {
        try? JSONDecoder().decode(type, from: Data(bytes))
    }
}

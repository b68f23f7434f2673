internal import BPF
public import Netlink

/// What tells network namespaces apart: a new one at the same path has another identity.
public struct NamespaceIdentity: Sendable, Hashable, Codable {
    /// Device of nsfs.
    public let device: UInt64
    /// The namespace's number there.
    public let inode: UInt64

    /// Makes an identity of its parts.
    public init(device: UInt64, inode: UInt64) {
        self.device = device
        self.inode = inode
    }

    private init(_ identity: NetworkNamespace.Identity) {
        self.init(device: identity.device, inode: identity.inode)
    }

    /// Of the namespace at a path, such as /run/netns/pod-a; nil when there is none.
    public init?(path: String) {
        guard let namespace = try? NetworkNamespace(path: path) else { return nil }
        self.init(namespace.identity)
    }

    /// Of the namespace that this thread is in: the host's, for a daemon on the host's network.
    public static func own() -> NamespaceIdentity? { NamespaceIdentity(path: "/proc/thread-self/ns/net") }
}

/// Interfaces and addresses of a network namespace, as far as finding a pod needs them.
public struct NamespaceView: Sendable, Hashable {
    /// An interface that may be a pod's.
    public struct Interface: Sendable, Hashable {
        /// Such as eth0.
        public var name: String
        /// The driver's kind, such as "veth"; nil for hardware.
        public var kind: String?
        /// Index of the host's end, when there is one. Indices on the host count up, so of two pods the later one has the higher one.
        public var hostIndex: Int32?
        /// Administratively up.
        public var isUp: Bool
        /// Its addresses, link-local ones aside.
        public var addresses: Set<IPAddress>

        /// Makes a value of its parts.
        public init(
            name: String, kind: String? = "veth", hostIndex: Int32?, isUp: Bool = true, addresses: Set<IPAddress>
        ) {
            self.name = name
            self.kind = kind
            self.hostIndex = hostIndex
            self.isUp = isUp
            self.addresses = addresses
        }
    }
    /// Where it was found.
    public var path: String
    /// Which one it is.
    public var identity: NamespaceIdentity
    /// Its interfaces that have addresses, loopback aside.
    public var interfaces: [Interface]

    /// Makes a value of its parts.
    public init(path: String, identity: NamespaceIdentity, interfaces: [Interface]) {
        self.path = path
        self.identity = identity
        self.interfaces = interfaces
    }

    /// Looks into the namespace at a path. Throws `.interfaceGone` when there is none.
    public init(path: String) throws(DatapathError) {
        let namespace: NetworkNamespace
        do {
            namespace = try NetworkNamespace(path: path)
        } catch {
            throw DatapathError(.interfaceGone, "\(error)")
        }
        let (links, addresses) = try PodDevice.inside(namespace, path) { () throws(NetlinkError) in
            var socket = try RouteSocket()
            return (try socket.links(), try socket.addresses())
        }
        self.path = path
        identity = NamespaceIdentity(device: namespace.identity.device, inode: namespace.identity.inode)
        interfaces = links.compactMap { link in
            let own = addresses.filter { $0.interfaceIndex == link.index && !$0.address.isLinkLocal }.map(\.address)
            guard !own.isEmpty, link.name != "lo" else { return nil }
            return Interface(
                name: link.name, kind: link.kind, hostIndex: link.peerIndex, isUp: link.isUp, addresses: Set(own))
        }
    }
}

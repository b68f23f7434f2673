public import Keys
public import Netlink
public import Secrets

/// What the agent needs of the kernel. `Datapath` is the real one; tests of the agent bring their own.
///
/// Reading gives one value of everything that the kernel holds, so that planning is a pure function of two values: what is
/// desired and what is there. All calls are synchronous, idempotent, and safe to repeat after a crash between any two.
public protocol DatapathControl: Sendable {
    /// Everything the kernel holds now, read from the pinned maps and links.
    func state() throws(DatapathError) -> DatapathState

    /// Adds or replaces a protected address.
    func setEndpoint(_ address: IPAddress, _ endpoint: EndpointEntry) throws(DatapathError)
    /// Removes a protected address; nothing happens when it is not there.
    func removeEndpoint(_ address: IPAddress) throws(DatapathError)
    /// Fills the slot of a peer, or replaces its values. Slots count from 1.
    func setPeer(slot: UInt32, _ peer: PeerEntry) throws(DatapathError)
    /// Frees a slot. Its associations must have been removed before.
    func removePeer(slot: UInt32) throws(DatapathError)
    /// Makes the set of strict CIDRs exactly this.
    func setStrictCIDRs(_ prefixes: Set<IPPrefix>) throws(DatapathError)
    /// Which frames that are neither IP nor ARP do: dropped (true) or passed and counted.
    func setStrictEtherType(_ strict: Bool) throws(DatapathError)

    /// Installs a key. Throws `.keyUsedBefore` when this very key was in use earlier in this incarnation: its counters and
    /// windows are gone, so it must never come back; the answer is `renewIncarnation`.
    func install(_ key: AssociationKey, at id: AssociationID) throws(DatapathError)
    /// Removes a key, its windows and counters; nothing happens when there is none.
    func removeAssociation(_ id: AssociationID) throws(DatapathError)
    /// The epoch that senders use from now on; 0 stops sending.
    func setSending(epoch: Epoch) throws(DatapathError)
    /// Refuses keys of lower epochs from now on; never goes down.
    func setEpochFloor(_ epoch: Epoch) throws(DatapathError)
    /// Removes every association and draws a new incarnation.
    func renewIncarnation() throws(DatapathError) -> Incarnation

    /// Attaches the programs to both ends of a pod's veth, pins the links, turns off the offloads that would break wire packets
    /// and lowers the routes' MTU. Attaching what is attached repairs what is missing.
    func attach(_ pod: PodInterface) throws(DatapathError) -> Attachment
    /// Undoes `attach`, offloads and route MTUs included. A namespace that has gone is let go without an error.
    func detach(name: String) throws(DatapathError)
}

/// A value of everything that the kernel holds.
public struct DatapathState: Sendable, Equatable {
    /// Ours: drawn when the maps were made.
    public var incarnation: Incarnation
    /// Our node's number; 0 before the first `configure`.
    public var nodeID: NodeID
    /// The epoch that senders use; 0: none.
    public var sending: Epoch
    /// Keys of lower epochs are refused.
    public var epochFloor: Epoch
    /// Frames that are neither IP nor ARP are dropped.
    public var strictEtherType: Bool
    /// Protected addresses.
    public var endpoints: [IPAddress: EndpointEntry]
    /// By slot, from 1.
    public var peers: [UInt32: PeerEntry]
    /// Installed keys.
    public var associations: [AssociationID: AssociationInfo]
    /// Unknown addresses in these are dropped.
    public var strictCIDRs: Set<IPPrefix>
    /// Addresses of services that lead to protected pods: strict pods' packets to them are dropped. Read for people only; the agent's state
    /// leaves them out.
    public var serviceAddresses: Set<IPAddress> = []
    /// By name. Each says whether it is whole.
    public var attachments: [String: Attachment]
    /// Bridges that protected pods are ports of and that are not for them alone.
    public var openBridges: [OpenBridge] = []

    /// Makes a value of its parts.
    public init(
        incarnation: Incarnation, nodeID: NodeID, sending: Epoch = 0, epochFloor: Epoch = 0,
        strictEtherType: Bool = false,
        endpoints: [IPAddress: EndpointEntry] = [:], peers: [UInt32: PeerEntry] = [:],
        associations: [AssociationID: AssociationInfo] = [:], strictCIDRs: Set<IPPrefix> = [],
        attachments: [String: Attachment] = [:]
    ) {
        self.incarnation = incarnation
        self.nodeID = nodeID
        self.sending = sending
        self.epochFloor = epochFloor
        self.strictEtherType = strictEtherType
        self.endpoints = endpoints
        self.peers = peers
        self.associations = associations
        self.strictCIDRs = strictCIDRs
        self.attachments = attachments
    }
}

/// A protected address: `struct xe_endpoint` of bpf/wire.h.
public struct EndpointEntry: Sendable, Hashable {
    /// On this node or on another.
    public enum Place: Sendable, Hashable {
        /// On this node. Encrypts to a peer from when that has acknowledged revision `since` of our endpoint list, until it has
        /// acknowledged `until` (0: no end).
        case local(since: UInt32, until: UInt32)
        /// On the node in this slot.
        case remote(slot: UInt32)
    }
    /// On this node or on another.
    public var place: Place
    /// Clear text from or to it is dropped.
    public var strict: Bool
    /// Protection is ending: both clear and encrypted are accepted.
    public var withdrawing: Bool
    /// Whole packets from and to it are hidden, L4 headers too.
    public var hidden: Bool

    /// Makes a value of its parts.
    public init(place: Place, strict: Bool, withdrawing: Bool = false, hidden: Bool = false) {
        self.place = place
        self.strict = strict
        self.withdrawing = withdrawing
        self.hidden = hidden
    }
}

/// A node that we speak with: `struct xe_peer`.
public struct PeerEntry: Sendable, Hashable {
    /// Its node id.
    public var nodeID: NodeID
    /// The revision of our endpoint list that it has applied.
    public var acknowledged: UInt32

    /// Makes a value of its parts.
    public init(nodeID: NodeID, acknowledged: UInt32) {
        self.nodeID = nodeID
        self.acknowledged = acknowledged
    }
}

/// What a key is for.
public enum Direction: UInt32, Sendable, Hashable, CaseIterable {
    /// Encrypts what we send.
    case send = 0
    /// Decrypts what we receive.
    case receive = 1
}

/// Names the place of a key: one per peer, direction and parity of the epoch.
public struct AssociationID: Sendable, Hashable {
    /// Of the peer, from 1.
    public var slot: UInt32
    /// Sending or receiving.
    public var direction: Direction
    /// epoch & 1
    public var parity: UInt32

    /// Makes a value of its parts.
    public init(slot: UInt32, direction: Direction, epoch: Epoch) {
        self.slot = slot
        self.direction = direction
        parity = epoch & 1
    }
}

/// What can be known of an installed key.
public struct AssociationInfo: Sendable, Hashable {
    /// What computes the cipher.
    public enum Engine: UInt32, Sendable, Hashable {
        /// AES by the kernel's `ecb(aes)`, GHASH in BPF.
        case ecb = 1
    }
    /// Whose DEK the key was derived from.
    public var epoch: Epoch
    /// The other end's node id.
    public var peerNodeID: NodeID
    /// Host byte order.
    public var spi: UInt32
    /// Fingerprint: tells whether this is the key that is wanted.
    public var keyID: KeyID
    /// What computes the cipher.
    public var engine: Engine

    /// Makes a value of its parts.
    public init(epoch: Epoch, peerNodeID: NodeID, spi: UInt32, keyID: KeyID, engine: Engine) {
        self.epoch = epoch
        self.peerNodeID = peerNodeID
        self.spi = spi
        self.keyID = keyID
        self.engine = engine
    }
}

/// A key to install.
public struct AssociationKey: Sendable {
    /// Whose DEK the key was derived from.
    public var epoch: Epoch
    /// The other end's node id.
    public var peerNodeID: NodeID
    /// Host byte order.
    public var spi: UInt32
    /// Fingerprint.
    public var keyID: KeyID
    /// 32 bytes; 16 for known answers.
    public var key: SecretBytes

    /// Makes a value of its parts.
    public init(epoch: Epoch, peerNodeID: NodeID, spi: UInt32, keyID: KeyID, key: SecretBytes) {
        self.epoch = epoch
        self.peerNodeID = peerNodeID
        self.spi = spi
        self.keyID = keyID
        self.key = key
    }
}

/// Where a pod's interface is.
public struct PodInterface: Sendable, Hashable, Codable {
    /// Unique on the node; names the folder of pinned links. Letters, digits, '-', '.' and '_'.
    public var name: String
    /// Path of the network namespace, such as /run/netns/pod-a.
    public var networkNamespace: String
    /// Name inside of the namespace, such as eth0.
    public var interface: String

    /// Makes a value of its parts.
    public init(name: String, networkNamespace: String, interface: String) {
        self.name = name
        self.networkNamespace = networkNamespace
        self.interface = interface
    }
}

/// An attached pod interface.
public struct Attachment: Sendable, Hashable, Codable {
    /// Which interface.
    public var pod: PodInterface
    /// Interface indices: of the pod's end in its namespace, and of the host's end in ours.
    public var podIndex: Int32
    /// Interface index of the host's end.
    public var hostIndex: Int32
    /// All links are there and hold our programs, and the namespace exists.
    public var isWhole: Bool

    /// Makes a value of its parts.
    public init(pod: PodInterface, podIndex: Int32, hostIndex: Int32, isWhole: Bool) {
        self.pod = pod
        self.podIndex = podIndex
        self.hostIndex = hostIndex
        self.isWhole = isWhole
    }
}

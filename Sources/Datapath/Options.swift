internal import BPFObjects
public import Keys

extension Datapath {
    /// How the datapath is set up.
    public struct Options: Sendable, Hashable {
        /// Folder of the pins, on a BPF file system.
        public var pinPath: String
        /// Folder for the record of what was changed in pods, to be put back; it must be gone after a reboot, as the pins are.
        public var stateDirectory: String
        /// Ours, 1 to 2^24 - 1.
        public var nodeID: NodeID
        /// Replay window in packets: a power of two, 64 to 8192.
        public var window: UInt32
        /// How much fits into the maps.
        public var capacity: Capacity
        /// Replace addresses of services at the sockets of protected pods; nil: do not.
        public var sockets: SocketOptions?

        /// Packets.
        public static let standardWindow = UInt32(XE_WINDOW_DEFAULT)

        /// The standard places and sizes.
        public init(
            nodeID: NodeID, pinPath: String = "/sys/fs/bpf/xdp-encryptor",
            stateDirectory: String = "/run/xdp-encryptor",
            window: UInt32 = standardWindow, capacity: Capacity = .standard
        ) {
            self.nodeID = nodeID
            self.pinPath = pinPath
            self.stateDirectory = stateDirectory
            self.window = window
            self.capacity = capacity
        }
    }

    /// How sockets are balanced.
    public struct SocketOptions: Sendable, Hashable {
        /// The root of the node's cgroup v2 hierarchy; nil: where it is mounted.
        public var cgroup: String?

        /// Makes a value of its parts.
        public init(cgroup: String? = nil) { self.cgroup = cgroup }
    }

    /// How much fits into the maps. Most of it takes memory only when used; a peer slot takes 256 bytes, and 128 for each CPU.
    public struct Capacity: Sendable, Hashable {
        /// Highest slot; slots count from 1.
        public var peers: UInt32
        /// Protected addresses.
        public var endpoints: UInt32
        /// Strict CIDRs.
        public var strictCIDRs: UInt32
        /// Pairs of a receive key and a sending CPU that may be seen; 1 KiB each.
        public var windows: UInt32

        /// Enough for 8191 other nodes.
        public static let standard = Capacity(
            peers: UInt32(XE_SLOTS_DEFAULT) - 1, endpoints: UInt32(XE_ENDPOINTS_DEFAULT),
            strictCIDRs: UInt32(XE_CIDRS_DEFAULT), windows: UInt32(XE_WINDOWS_DEFAULT))

        /// Makes a value of its parts.
        public init(peers: UInt32, endpoints: UInt32, strictCIDRs: UInt32, windows: UInt32) {
            self.peers = peers
            self.endpoints = endpoints
            self.strictCIDRs = strictCIDRs
            self.windows = windows
        }
    }
}

extension Datapath.Options {
    /// Throws what is wrong with the values and what was expected.
    func validate() throws(DatapathError) {
        guard nodeIDs.contains(nodeID) else {
            throw DatapathError(.failed, "node id \(nodeID) is not in 1 to \(nodeIDs.upperBound)")
        }
        guard (64...UInt32(XE_WINDOW_MAX)).contains(window), window.nonzeroBitCount == 1 else {
            throw DatapathError(
                .failed, "the replay window of \(window) packets is not a power of two from 64 to \(XE_WINDOW_MAX)")
        }
        guard (1...1 << 20).contains(capacity.peers) else {
            throw DatapathError(.failed, "room for \(capacity.peers) peers is not in 1 to \(1 << 20)")
        }
        for (what, count) in [
            ("endpoints", capacity.endpoints), ("strict CIDRs", capacity.strictCIDRs), ("windows", capacity.windows),
        ] where !(1...1 << 26).contains(count) {
            throw DatapathError(.failed, "room for \(count) \(what) is not in 1 to \(1 << 26)")
        }
    }
}

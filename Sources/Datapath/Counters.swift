internal import BPF
internal import BPFObjects
internal import Keys

/// What was counted since the maps were made.
public struct Counters: Sendable, Equatable {
    /// Packets and frame bytes.
    public struct Count: Sendable, Hashable, Codable {
        /// Packets.
        public var packets: UInt64 = 0
        /// Frame bytes as they arrived.
        public var bytes: UInt64 = 0

        /// Nothing yet.
        public init() {}
    }

    /// Of one peer, summed over CPUs. Bytes are L4 payload in clear.
    public struct Peer: Sendable, Hashable, Codable {
        /// Encrypted.
        public var sentPackets: UInt64 = 0
        /// Before encryption.
        public var sentBytes: UInt64 = 0
        /// Decrypted.
        public var receivedPackets: UInt64 = 0
        /// After decryption.
        public var receivedBytes: UInt64 = 0
        /// Tag did not verify.
        public var droppedAuth: UInt64 = 0
        /// Seen before, or left of the window.
        public var droppedReplay: UInt64 = 0
        /// For any other reason.
        public var droppedOther: UInt64 = 0

        /// Nothing yet.
        public init() {}
    }

    /// By verdict; every verdict is there.
    public var verdicts: [Verdict: Count]
    /// By slot.
    public var peers: [UInt32: Peer]
}

extension Tables {
    func verdicts() throws(DatapathError) -> [Verdict: Counters.Count] {
        var verdicts: [Verdict: Counters.Count] = [:]
        do {
            for verdict in Verdict.allCases {
                let counts = try maps.verdicts.lookupPerCPU(verdict.rawValue, as: xe_count.self) ?? []
                verdicts[verdict] = counts.reduce(into: Counters.Count()) {
                    $0.packets &+= $1.packets
                    $0.bytes &+= $1.bytes
                }
            }
        } catch {
            throw DatapathError(.failed, error.description)
        }
        return verdicts
    }

    func counters() throws(DatapathError) -> Counters {
        var peers: [UInt32: Counters.Peer] = [:]
        for slot in try self.peers().keys { peers[slot] = try peer(slot: slot) }
        return Counters(verdicts: try verdicts(), peers: peers)
    }

    private func peer(slot: UInt32) throws(DatapathError) -> Counters.Peer {
        do {
            let lanes = try maps.lanes.lookupPerCPU(slot, as: xe_lane.self) ?? []
            return lanes.reduce(into: Counters.Peer()) {
                $0.sentPackets &+= $1.sent_packets
                $0.sentBytes &+= $1.sent_bytes
                $0.receivedPackets &+= $1.received_packets
                $0.receivedBytes &+= $1.received_bytes
                $0.droppedAuth &+= $1.dropped_auth
                $0.droppedReplay &+= $1.dropped_replay
                $0.droppedOther &+= $1.dropped_other
            }
        } catch {
            throw DatapathError(.failed, error.description)
        }
    }

    /// How many replay windows there are. Walks them, a system call each.
    func windowCount() throws(DatapathError) -> Int {
        do {
            return try maps.windows.keys(as: xe_window_key.self).count
        } catch {
            throw DatapathError(.failed, error.description)
        }
    }

    func state() throws(DatapathError) -> DatapathState {
        let config = try config()
        guard let incarnation = Incarnation(bytes: bytes(of: config.incarnation)) else {
            throw DatapathError(.failed, "the map config holds no incarnation")
        }
        return DatapathState(
            incarnation: incarnation, nodeID: config.node_id, sending: config.sending, epochFloor: config.epoch_floor,
            strictEtherType: config.flags & UInt32(XE_CONFIG_STRICT_ETHERTYPE.rawValue) != 0,
            endpoints: try endpoints(),
            peers: try peers(), associations: try associations(), strictCIDRs: try strictCIDRs())
    }
}

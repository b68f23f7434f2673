import Datapath
import Keys
import Netlink
import Synchronization

/// A kernel that remembers: the same rules as the real one, without packets. It outlives the daemons that work on it, as pins do.
final class FakeDatapath: DatapathControl {
    struct Inner {
        var state: DatapathState
        var usedKeys: Set<KeyID> = []
        /// Interfaces that are there, by namespace path.
        var namespaces: Set<String> = []
        /// Calls that change something until the daemon "dies": everything fails then, until `revive`.
        var callsUntilCrash: Int?
        var changes = 0
        var installed: [KeyID] = []
        var failing: Set<String> = []
    }
    private let inner: Mutex<Inner>

    init(nodeID: NodeID) {
        inner = Mutex(Inner(state: DatapathState(incarnation: .random(), nodeID: nodeID)))
    }

    func with<R: Sendable>(_ body: (inout Inner) -> R) -> R { inner.withLock { body(&$0) } }

    var now: DatapathState { with { $0.state } }
    func revive() { with { $0.callsUntilCrash = nil } }

    private func change<R: Sendable>(
        _ call: String, _ body: (inout Inner) throws(DatapathError) -> R
    ) throws(DatapathError) -> R {
        try inner.withLock { (inner) throws(DatapathError) -> R in
            if let left = inner.callsUntilCrash {
                guard left > 0 else { throw DatapathError(.failed, "killed") }
                inner.callsUntilCrash = left - 1
            }
            if inner.failing.contains(call) { throw DatapathError(.failed, "\(call) fails") }
            inner.changes += 1
            return try body(&inner)
        }
    }

    func state() throws(DatapathError) -> DatapathState {
        let (state, isDead) = with { ($0.state, $0.callsUntilCrash == 0) }
        if isDead { throw DatapathError(.failed, "killed") }
        return state
    }

    func setEndpoint(_ address: IPAddress, _ endpoint: EndpointEntry) throws(DatapathError) {
        try change("setEndpoint") { $0.state.endpoints[address] = endpoint }
    }
    func removeEndpoint(_ address: IPAddress) throws(DatapathError) {
        try change("removeEndpoint") { $0.state.endpoints[address] = nil }
    }
    func setPeer(slot: UInt32, _ peer: PeerEntry) throws(DatapathError) {
        try change("setPeer") { (inner) throws(DatapathError) in
            guard slot >= 1, slot <= 8191 else { throw DatapathError(.failed, "there is no slot \(slot)") }
            if let other = inner.state.peers[slot], other.nodeID != peer.nodeID,
                inner.state.associations.keys.contains(where: { $0.slot == slot })
            {
                throw DatapathError(.failed, "slot \(slot) still has keys")
            }
            inner.state.peers[slot] = peer
        }
    }
    func removePeer(slot: UInt32) throws(DatapathError) {
        try change("removePeer") { (inner) throws(DatapathError) in
            guard !inner.state.associations.keys.contains(where: { $0.slot == slot }) else {
                throw DatapathError(.failed, "slot \(slot) still has keys")
            }
            inner.state.peers[slot] = nil
        }
    }
    func setStrictCIDRs(_ prefixes: Set<IPPrefix>) throws(DatapathError) {
        try change("setStrictCIDRs") { $0.state.strictCIDRs = prefixes }
    }
    func setStrictEtherType(_ strict: Bool) throws(DatapathError) {
        try change("setStrictEtherType") { $0.state.strictEtherType = strict }
    }
    func install(_ key: AssociationKey, at id: AssociationID) throws(DatapathError) {
        try change("install") { (inner) throws(DatapathError) in
            guard key.epoch >= inner.state.epochFloor else {
                throw DatapathError(.failed, "epoch \(key.epoch) is over")
            }
            guard inner.state.associations[id] == nil else { throw DatapathError(.failed, "\(id) is taken") }
            guard inner.state.peers[id.slot]?.nodeID == key.peerNodeID else {
                throw DatapathError(.failed, "slot \(id.slot) is not node \(key.peerNodeID)")
            }
            guard inner.usedKeys.insert(key.keyID).inserted else { throw DatapathError(.keyUsedBefore, "used before") }
            inner.installed.append(key.keyID)
            inner.state.associations[id] = AssociationInfo(
                epoch: key.epoch, peerNodeID: key.peerNodeID, spi: key.spi, keyID: key.keyID, engine: .ecb)
        }
    }
    func removeAssociation(_ id: AssociationID) throws(DatapathError) {
        try change("removeAssociation") { $0.state.associations[id] = nil }
    }
    func setSending(epoch: Epoch) throws(DatapathError) {
        try change("setSending") { $0.state.sending = epoch }
    }
    func setEpochFloor(_ epoch: Epoch) throws(DatapathError) {
        try change("setEpochFloor") { $0.state.epochFloor = max($0.state.epochFloor, epoch) }
    }
    func renewIncarnation() throws(DatapathError) -> Incarnation {
        try change("renewIncarnation") { inner in
            inner.state.associations = [:]
            inner.usedKeys = []
            inner.state.incarnation = .random()
            return inner.state.incarnation
        }
    }
    func attach(_ pod: PodInterface) throws(DatapathError) -> Attachment {
        try change("attach") { (inner) throws(DatapathError) in
            guard inner.namespaces.contains(pod.networkNamespace) else {
                throw DatapathError(.interfaceGone, "\(pod.networkNamespace) is not there")
            }
            let attachment = Attachment(pod: pod, podIndex: 2, hostIndex: 7, isWhole: true)
            inner.state.attachments[pod.name] = attachment
            return attachment
        }
    }
    func detach(name: String) throws(DatapathError) {
        try change("detach") { $0.state.attachments[name] = nil }
    }
}

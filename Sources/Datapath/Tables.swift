internal import BPF
internal import BPFObjects
internal import CSys
internal import Glibc
internal import Keys
internal import Netlink
internal import Secrets
internal import Synchronization

/// The maps as typed values, and keys in and out: what a datapath does that has nothing to do with devices. The maps may be pinned
/// (`Datapath`) or belong to this process alone (`KernelInstance`).
final class Tables: Sendable {
    let maps: KernelMaps
    private let installer: BPFProgram
    private let remover: BPFProgram
    /// Orders changes of `config` and of associations within this process. Across processes the datapath's lock does.
    private let changing = Mutex<Sweep>(Sweep())

    /// What is left to do of removing keys.
    private struct Sweep {
        /// Windows of removed keys may be there.
        var isDue = false
        /// Of the monotonic clock, in seconds: when windows were looked through last.
        var last = 0
    }

    init(maps: consuming KernelMaps, install: consuming BPFProgram, remove: consuming BPFProgram) {
        self.maps = maps
        installer = install
        remover = remove
    }

    /// Runs calls of BPF and turns its errors into ours.
    private func kernel<R>(_ body: () throws(BPFError) -> R) throws(DatapathError) -> R {
        do {
            return try body()
        } catch {
            throw DatapathError(.failed, error.description)
        }
    }
}

// MARK: - Configuration

extension Tables {
    func config() throws(DatapathError) -> xe_config {
        guard let config = try kernel({ () throws(BPFError) in try maps.config.lookup(UInt32(0), as: xe_config.self) })
        else {
            throw DatapathError(.failed, "the map config has no value")
        }
        return config
    }

    /// Changes fields of `config`. The kernel's own field (`last_association`) only moves in `install`, which is under this lock too.
    private func change(_ edit: (inout xe_config) -> Void) throws(DatapathError) {
        var config = try config()
        edit(&config)
        try kernel { () throws(BPFError) in try maps.config.update(UInt32(0), config) }
    }

    func setStrictEtherType(_ strict: Bool) throws(DatapathError) {
        try locked { (_) throws(DatapathError) in
            try change { config in
                let flag = UInt32(XE_CONFIG_STRICT_ETHERTYPE.rawValue)
                config.flags = strict ? config.flags | flag : config.flags & ~flag
            }
        }
    }

    func setSending(epoch: Epoch) throws(DatapathError) {
        try locked { (_) throws(DatapathError) in try change { $0.sending = epoch } }
    }

    func setNodeID(_ nodeID: NodeID) throws(DatapathError) {
        try locked { (_) throws(DatapathError) in try change { $0.node_id = nodeID } }
    }

    func setEpochFloor(_ epoch: Epoch) throws(DatapathError) {
        try locked { (_) throws(DatapathError) in
            if try config().epoch_floor >= epoch { return }
            try change { $0.epoch_floor = epoch }
            // Keys of lower epochs are refused from now on, so nobody needs to remember that they were in use.
            try kernel { () throws(BPFError) in
                for (key, used) in try maps.keyUses.entries(keys: KeyBytes.self, values: UInt32.self) where used < epoch
                {
                    try maps.keyUses.delete(key)
                }
            }
        }
    }

    /// A key of `key_uses`: 16 bytes.
    private typealias KeyBytes = (UInt64, UInt64)

    private func locked<R>(_ body: (inout Sweep) throws(DatapathError) -> R) throws(DatapathError) -> R {
        let outcome = changing.withLock { (sweep) -> Result<R, DatapathError> in
            do throws(DatapathError) {
                return .success(try body(&sweep))
            } catch {
                return .failure(error)
            }
        }
        return try outcome.get()
    }
}

// MARK: - Endpoints, peers, CIDRs

extension Tables {
    func setEndpoint(_ address: IPAddress, _ endpoint: EndpointEntry) throws(DatapathError) {
        if case .remote(let slot) = endpoint.place { try check(slot: slot) }
        try kernel { () throws(BPFError) in
            try maps.endpoints.update(xe_address(address), xe_endpoint(endpoint))
        }
    }

    func removeEndpoint(_ address: IPAddress) throws(DatapathError) {
        try kernel { () throws(BPFError) in _ = try maps.endpoints.delete(xe_address(address)) }
    }

    func hasEndpoint(_ address: IPAddress) throws(DatapathError) -> Bool {
        try kernel { () throws(BPFError) in
            try maps.endpoints.lookup(xe_address(address), as: xe_endpoint.self) != nil
        }
    }

    func endpoints() throws(DatapathError) -> [IPAddress: EndpointEntry] {
        var endpoints: [IPAddress: EndpointEntry] = [:]
        try kernel { () throws(BPFError) in
            try maps.endpoints.forEach(keys: xe_address.self, values: xe_endpoint.self) { key, value in
                if let address = key.address { endpoints[address] = value.entry }
            }
        }
        return endpoints
    }

    func setPeer(slot: UInt32, _ peer: PeerEntry) throws(DatapathError) {
        try check(slot: slot)
        guard nodeIDs.contains(peer.nodeID) else {
            throw DatapathError(.failed, "peer node id \(peer.nodeID) is not in 1 to \(nodeIDs.upperBound)")
        }
        try kernel { () throws(BPFError) in
            try maps.peers.update(slot, xe_peer(node_id: peer.nodeID, acknowledged: peer.acknowledged))
        }
    }

    func removePeer(slot: UInt32) throws(DatapathError) {
        try check(slot: slot)
        for direction in Direction.allCases {
            for parity in [0, 1] as [UInt32] {
                guard try association(AssociationID(slot: slot, direction: direction, epoch: parity)) == nil else {
                    throw DatapathError(.failed, "the peer in slot \(slot) still has keys: remove them first")
                }
            }
        }
        try kernel { () throws(BPFError) in
            try maps.peers.update(slot, xe_peer())
            // A later peer in this slot counts from 0. IV counters are in here too: hence the look at the keys above.
            try maps.lanes.clearPerCPU(slot)
        }
    }

    func peers() throws(DatapathError) -> [UInt32: PeerEntry] {
        var peers: [UInt32: PeerEntry] = [:]
        let entries = try kernel { () throws(BPFError) in
            try maps.peers.entries(keys: UInt32.self, values: xe_peer.self)
        }
        for (slot, peer) in entries where peer.node_id != 0 {
            peers[slot] = PeerEntry(nodeID: peer.node_id, acknowledged: peer.acknowledged)
        }
        return peers
    }

    private func check(slot: UInt32) throws(DatapathError) {
        guard slot >= 1, slot < maps.peers.shape.maxEntries else {
            throw DatapathError(
                .failed, "slot \(slot) is not in 1 to \(maps.peers.shape.maxEntries - 1): the map of peers is full")
        }
    }

    func strictCIDRs() throws(DatapathError) -> Set<IPPrefix> {
        let keys = try kernel { () throws(BPFError) in try maps.strictCIDRs.keys(as: xe_cidr.self) }
        return Set(keys.compactMap(\.prefix))
    }

    func setStrictCIDRs(_ prefixes: Set<IPPrefix>) throws(DatapathError) {
        let present = try strictCIDRs()
        var room = Int(maps.strictCIDRs.shape.maxEntries) - present.count
        var gone = Array(present.subtracting(prefixes))
        try kernel { () throws(BPFError) in
            // New ones first: in between more is strict, never less, as long as there is room.
            for prefix in prefixes.subtracting(present) {
                if room <= 0, let old = gone.popLast() {
                    try maps.strictCIDRs.delete(xe_cidr(old))
                    room += 1
                }
                try maps.strictCIDRs.update(xe_cidr(prefix), UInt32(1))
                room -= 1
            }
            for prefix in gone { try maps.strictCIDRs.delete(xe_cidr(prefix)) }
        }
    }

    func serviceAddresses() throws(DatapathError) -> Set<IPAddress> {
        switch maps.serviceAddresses {
        case .none: return []
        case .some(let map):
            let entries = try kernel { () throws(BPFError) in
                try map.entries(keys: xe_address.self, values: UInt32.self)
            }
            return Set(entries.compactMap(\.key.address))
        }
    }

    func setServiceAddress(_ address: IPAddress, refused: Bool) throws(DatapathError) {
        switch maps.serviceAddresses {
        case .none:
            throw DatapathError(
                .failed, "the programs in use are of an earlier build and know no addresses of services")
        case .some(let map):
            try kernel { () throws(BPFError) in
                if refused {
                    try map.update(xe_address(address), UInt32(1))
                } else {
                    try map.delete(xe_address(address))
                }
            }
        }
    }
}

// MARK: - Keys

extension Tables {
    func associations() throws(DatapathError) -> [AssociationID: AssociationInfo] {
        var associations: [AssociationID: AssociationInfo] = [:]
        try kernel { () throws(BPFError) in
            try maps.associations.forEach(keys: UInt32.self, values: xe_association.self) { index, value in
                if let info = value.info { associations[AssociationID(index: index)] = info }
            }
        }
        return associations
    }

    func install(_ key: AssociationKey, at id: AssociationID) throws(DatapathError) {
        guard key.key.count == 16 || key.key.count == 32 else {
            throw DatapathError(.failed, "a key has 16 or 32 bytes, not \(key.key.count)")
        }
        guard id.index < maps.associations.shape.maxEntries else {
            throw DatapathError(.failed, "slot \(id.slot) is more than the maps have room for")
        }
        try locked { (sweep) throws(DatapathError) in
            if let present = try association(id) {
                if present.keyID == key.keyID, present.epoch == key.epoch { return }
                try remove(id, &sweep)
            }
            let error = try run(key, at: id)
            switch -error {
            case 0: return
            case EEXIST:
                throw DatapathError(
                    .keyUsedBefore,
                    "the key \(key.keyID) of epoch \(key.epoch) was in use before and its counters are gone: a new incarnation is needed"
                )
            case ESTALE:
                throw DatapathError(.failed, "epoch \(key.epoch) is over: the kernel refuses its keys")
            case ENOENT:
                throw DatapathError(
                    .unsupportedKernel, "the kernel has no cipher ecb(aes): load the module aes_generic or aesni_intel")
            default:
                throw DatapathError(
                    .failed, "install a key of epoch \(key.epoch): \(BPFError.text(of: -error)) (errno \(-error))")
            }
        }
    }

    /// Hands a key to the kernel; nothing of it stays in this process's ordinary memory. Returns 0 or a negative errno.
    private func run(_ key: AssociationKey, at id: AssociationID) throws(DatapathError) -> Int32 {
        // On the heap and by pointer, so that no copy is left on the stack.
        let request = UnsafeMutablePointer<xe_install>.allocate(capacity: 1)
        request.initialize(to: xe_install())
        defer {
            csys_explicit_bzero(request, MemoryLayout<xe_install>.size)
            request.deallocate()
        }
        request.pointee.index = id.index
        request.pointee.spi = key.spi.bigEndian
        request.pointee.epoch = key.epoch
        request.pointee.peer_node = key.peerNodeID
        request.pointee.key_len = UInt32(key.key.count)
        fill(&request.pointee.key_id, from: key.keyID.bytes)
        key.key.withUnsafeBytes { secret in
            withUnsafeMutableBytes(of: &request.pointee.key) { $0.copyMemory(from: secret) }
            withUnsafeMutableBytes(of: &request.pointee.hash_key) { HashKey.compute(key: secret, into: $0) }
        }
        try kernel { () throws(BPFError) in _ = try installer.run(context: &request.pointee) }
        return request.pointee.error
    }

    func removeAssociation(_ id: AssociationID) throws(DatapathError) {
        try locked { (sweep) throws(DatapathError) in
            // Without a look first: an installation that was cut off may have left a cipher without an epoch.
            try remove(id, &sweep)
        }
    }

    private func remove(_ id: AssociationID, _ sweep: inout Sweep) throws(DatapathError) {
        guard id.index < maps.associations.shape.maxEntries else { return }
        var request = xe_remove()
        request.index = id.index
        try kernel { () throws(BPFError) in _ = try remover.run(context: &request) }
        guard request.error == 0 else {
            throw DatapathError(
                .failed, "remove a key: \(BPFError.text(of: -request.error)) (errno \(-request.error))")
        }
        if id.direction == .receive { sweep.isDue = true }
    }

    /// Lets keys come back that were in use. Only where nonces are the caller's own: known answers.
    func forgetKeyUses() throws(DatapathError) {
        try kernel { () throws(BPFError) in try maps.keyUses.removeAll(keys: KeyBytes.self) }
    }

    private func association(_ id: AssociationID) throws(DatapathError) -> AssociationInfo? {
        try kernel { () throws(BPFError) in
            try maps.associations.lookup(id.index, as: xe_association.self)
        }?.info
    }

    /// Forgets the replay windows of keys that were removed, at most every five seconds: it means looking at all of them. Ids are
    /// never given out twice, so windows that stay a while take room and nothing else.
    func sweepWindows() throws(DatapathError) {
        try locked { (sweep) throws(DatapathError) in
            let now = monotonicSeconds()
            guard sweep.isDue, now - sweep.last >= 5 else { return }
            try sweepNow()
            sweep = Sweep(isDue: false, last: now)
        }
    }

    /// Forgets the replay windows of all keys that are not installed.
    func sweepNow() throws(DatapathError) {
        try kernel { () throws(BPFError) in
            let installed = Set(
                try maps.associations.entries(keys: UInt32.self, values: xe_association.self).map(\.value.id))
            for key in try maps.windows.keys(as: xe_window_key.self) where !installed.contains(key.association) {
                try maps.windows.delete(key)
            }
        }
    }

    func renewIncarnation() throws(DatapathError) -> Incarnation {
        for id in try associations().keys { try removeAssociation(id) }
        return try locked { (sweep) throws(DatapathError) in
            try kernel { () throws(BPFError) in try maps.windows.removeAll(keys: xe_window_key.self) }
            sweep.isDue = false
            let incarnation = Incarnation.random()
            try change { config in fill(&config.incarnation, from: incarnation.bytes) }
            // Only after the new incarnation is in force: keys of the old one cannot come back from here on.
            try kernel { () throws(BPFError) in try maps.keyUses.removeAll(keys: KeyBytes.self) }
            return incarnation
        }
    }
}

private func monotonicSeconds() -> Int {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec
}

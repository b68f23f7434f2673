public import Cluster
public import Datapath
internal import Keys
internal import Netlink

/// What is to be done now. Doing it and planning again, until nothing is left, brings the kernel where it should be.
public struct Plan: Sendable, Hashable {
    /// In order.
    public var changes: [Change] = []
    /// What a person should know.
    public var problems: Set<Problem> = []
    /// When time alone asks for another plan, if ever.
    public var nextChange: Timestamp?
}

/// Plans the difference between what is desired and what the kernel holds. Pure.
///
/// The order of the changes is the order of DESIGN's rules: what protects comes before what uses it, and what uses something goes
/// before the thing itself. Nothing that needs another node's acknowledgement, or keys in the kernel, is planned before they
/// are seen; so a pass that is broken off anywhere is continued by the next one.
public func plan(_ situation: Situation) -> Plan {
    var planner = Planner(situation)
    planner.run()
    return planner.plan
}

private struct Planner {
    let situation: Situation
    let observed: DatapathState
    let remote: RemoteEndpoints
    /// The revision that our list will have if it changes.
    let nextRevision: UInt32
    var plan = Plan()
    /// Slots that are taken, or that this plan takes.
    var slots: [NodeID: UInt32]
    private var takenSlots: Set<UInt32>?
    private var lowestSlot: UInt32 = 1
    /// Addresses that are ours, now or by this plan.
    var local: Set<IPAddress> = []
    var anyStrict = false

    init(_ situation: Situation) {
        self.situation = situation
        observed = situation.observed
        remote = situation.remote
        nextRevision = max(situation.seenRevision, situation.kernelRevision) + 1
        slots = situation.slots
    }

    mutating func run() {
        plan.problems = situation.nodeProblems.union(situation.decision.problems).union(remote.problems)
        plan.nextChange = situation.decision.nextChange
        stopSendingWithDeadEpochs()
        if situation.snapshot.cluster != nil {
            strictCIDRs()
            removePeers()
            addPeersAndKeys()
            localEndpoints()
            remoteEndpoints()
            acknowledgements()
            startSending()
        }
        removeDeadEpochs()
    }

    private mutating func problem(_ severity: Problem.Severity, _ object: String, _ message: String) {
        plan.problems.insert(Problem(severity, object, message))
    }

    // MARK: Epochs

    /// Whether the keys of an epoch must go: its time is over, all nodes have left it, or its object was removed.
    private func isDead(_ epoch: Epoch) -> Bool {
        if epoch == 0 || situation.live.contains(epoch) { return false }
        if situation.lapsed.contains(epoch) { return true }
        switch situation.decision.states[epoch] {
        case .expired: return true
        case .ended: return situation.snapshot.cluster != nil
        // Its time has not come again (clocks that go backwards), or it waits: what is there stays until it is decided.
        case .waiting, .prepared, .active, .retiring: return false
        case nil: return situation.snapshot.isComplete(.epochs)
        }
    }

    private mutating func stopSendingWithDeadEpochs() {
        guard isDead(observed.sending) else { return }
        let next = situation.decision.sending > observed.sending ? situation.decision.sending : 0
        plan.changes.append(.setSending(situation.live.contains(next) ? next : 0))
    }

    private mutating func startSending() {
        let next = situation.decision.sending
        guard next > observed.sending, situation.live.contains(next), !isDead(observed.sending) else { return }
        let isLate = situation.snapshot.epochs[next].map { $0.acknowledgeBy <= situation.now } ?? false
        if situation.held.contains(next) || (isLate && situation.usable.contains(next)) {
            plan.changes.append(.setSending(next))
        }
    }

    private mutating func removeDeadEpochs() {
        for (id, association) in observed.associations.sorted(by: { $0.key < $1.key }) where isDead(association.epoch) {
            plan.changes.append(.removeAssociation(id))
        }
        // Keys of an epoch that is over must not come back, not even when a clock goes backwards.
        var floor = situation.snapshot.cluster == nil ? 0 : situation.decision.live.first ?? 0
        if floor == 0, situation.snapshot.isComplete(.epochs) {
            floor = (situation.decision.states.filter { $0.value == .expired }.map(\.key).max() ?? 0) &+ 1
            if floor == 1 { floor = 0 }
        }
        let blockers = observed.associations.values.filter { $0.epoch < floor && !isDead($0.epoch) }
        if floor > observed.epochFloor, blockers.isEmpty, situation.snapshot.isComplete(.epochs) {
            plan.changes.append(.setEpochFloor(floor))
        }
    }

    // MARK: Policy

    private mutating func strictCIDRs() {
        guard let cluster = situation.snapshot.cluster else { return }
        let wanted = Set(cluster.strictCIDRs)
        if wanted != observed.strictCIDRs { plan.changes.append(.setStrictCIDRs(wanted)) }
    }

    // MARK: Peers and keys

    private mutating func removePeers() {
        guard situation.snapshot.isComplete(.nodes) else { return }
        let wanted = Set(situation.peers.map(\.value.id))
        for (slot, peer) in observed.peers.sorted(by: { $0.key < $1.key }) {
            if situation.frozen.contains(peer.nodeID) { continue }
            if wanted.contains(peer.nodeID), slots[peer.nodeID] == slot { continue }
            for (address, entry) in observed.endpoints.sorted(by: { $0.key < $1.key })
            where entry.place == .remote(slot: slot) {
                plan.changes.append(.removeEndpoint(address))
            }
            for id in observed.associations.keys.sorted() where id.slot == slot {
                plan.changes.append(.removeAssociation(id))
            }
            plan.changes.append(.removePeer(slot: slot))
        }
    }

    private mutating func addPeersAndKeys() {
        var installs: [(direction: Direction, change: Change)] = []
        for (name, peer) in situation.peers.sorted(by: { $0.value.id < $1.value.id }) {
            let slot = slots[peer.id] ?? takeSlot(peer.id)
            let acknowledged = situation.sendable(to: peer)
            if let entry = observed.peers[slot], entry.nodeID == peer.id {
                if entry.acknowledged > acknowledged { setPeer(slot, peer.id, acknowledged) }
            } else {
                setPeer(slot, peer.id, 0)
            }
            if situation.isFrozen { continue }
            for epoch in situation.usable {
                for direction in [Direction.send, .receive] {
                    guard let context = situation.context(direction, peer: peer, epoch: epoch),
                        let wanted = situation.keyring.fingerprint(context)
                    else { continue }
                    let id = AssociationID(slot: slot, direction: direction, epoch: epoch)
                    if let installed = observed.associations[id] {
                        if installed.epoch == epoch, installed.keyID == wanted { continue }
                        if installed.epoch != epoch, !isDead(installed.epoch) {
                            problem(
                                .error, "nodes/\(name).json",
                                "keys of epoch \(epoch) wait: epoch \(installed.epoch) is still in their place")
                            continue
                        }
                        plan.changes.append(.removeAssociation(id))
                    }
                    installs.append((direction, .install(id, peer: peer.id, context)))
                }
            }
        }
        // We must be able to receive before anybody may think so, and before we tell.
        plan.changes += installs.filter { $0.direction == .receive }.map(\.change)
        plan.changes += installs.filter { $0.direction == .send }.map(\.change)
    }

    /// The lowest slot without a peer, keys or endpoints. The kernel refuses slots that it does not have.
    private mutating func takeSlot(_ id: NodeID) -> UInt32 {
        // Looked for once a plan: thousands of nodes may come at a time.
        var taken = takenSlots ?? slotsInUse
        while !taken.insert(lowestSlot).inserted { lowestSlot += 1 }
        takenSlots = taken
        slots[id] = lowestSlot
        return lowestSlot
    }

    private var slotsInUse: Set<UInt32> {
        Set(observed.peers.keys).union(slots.values).union(observed.associations.keys.map(\.slot))
            .union(situation.remoteCounts.keys)
    }

    private mutating func setPeer(_ slot: UInt32, _ id: NodeID, _ acknowledged: UInt32) {
        plan.changes.append(.setPeer(slot: slot, PeerEntry(nodeID: id, acknowledged: acknowledged)))
    }

    private mutating func acknowledgements() {
        for (_, peer) in situation.peers.sorted(by: { $0.value.id < $1.value.id }) {
            guard let slot = slots[peer.id] else { continue }
            let acknowledged = situation.sendable(to: peer)
            let current = observed.peers[slot].map { $0.nodeID == peer.id ? $0.acknowledged : 0 } ?? 0
            if acknowledged > current { setPeer(slot, peer.id, acknowledged) }
        }
    }

    // MARK: Endpoints of ours

    private mutating func localEndpoints() {
        let desired = situation.desiredHere
        let published = situation.publishedHere
        reportOverlaps(desired)

        var wanted: [IPAddress: EndpointEntry] = [:]
        var attaches: [Change] = []
        var detaches: [String] = []
        for (name, endpoint) in desired.sorted(by: { $0.key < $1.key }) {
            if situation.unreachable.contains(name) {
                problem(
                    .error, "endpoints/\(name).json",
                    "its interface \(endpoint.interface) in \(endpoint.networkNamespace) is not there; it is not protected until it comes (back)"
                )
                if observed.attachments[name] != nil { detaches.append(name) }
                continue
            }
            let pod = PodInterface(
                name: name, networkNamespace: endpoint.networkNamespace, interface: endpoint.interface)
            let attachment = observed.attachments[name]
            // One that is attached elsewhere is let go by `attach`, unless it is the same interface by another path.
            if attachment?.isWhole != true || attachment?.pod != pod { attaches.append(.attach(pod)) }
            let isReady = attachment?.isWhole == true && attachment?.pod == pod && holdsKeys
            for address in endpoint.addresses {
                let entry = localEntry(
                    address, endpoint, isReady: isReady,
                    published: published[name].map { $0.state == .ready && $0.addresses.contains(address) } ?? false)
                merge(entry, at: address, into: &wanted)
            }
        }

        for (name, endpoint) in published.sorted(by: { $0.key < $1.key }) where desired[name] == nil {
            let entries = endpoint.addresses.compactMap { address in
                observed.endpoints[address].flatMap { $0.isLocal ? (address, $0) : nil }
            }
            guard situation.snapshot.isComplete(.endpoints) else {
                for (address, entry) in entries { merge(entry, at: address, into: &wanted) }
                continue
            }
            if observed.attachments[name]?.isWhole == true, !isAcknowledged(endpoint) {
                for (address, entry) in entries where remote.claims[address]?.isReady != true {
                    merge(withdrawn(entry), at: address, into: &wanted)
                }
            } else if observed.attachments[name] != nil {
                detaches.append(name)
            }
        }

        // What protects comes before the programs that ask for it.
        for (address, entry) in wanted.sorted(by: { $0.key < $1.key }) {
            local.insert(address)
            if entry.strict { anyStrict = true }
            if observed.endpoints[address] != entry { plan.changes.append(.setEndpoint(address, entry)) }
        }
        if !situation.snapshot.isComplete(.endpoints) {
            for (address, entry) in observed.endpoints where entry.isLocal { local.insert(address) }
            anyStrict = anyStrict || observed.strictEtherType
        }
        if anyStrict, !observed.strictEtherType { plan.changes.append(.setStrictEtherType(true)) }
        plan.changes += attaches
        var gone: [Change] = []
        if situation.snapshot.isComplete(.endpoints) {
            for name in observed.attachments.keys.sorted() where desired[name] == nil && published[name] == nil {
                detaches.append(name)
            }
            let ended = observed.endpoints.filter { address, entry in
                entry.isLocal && !local.contains(address) && remote.claims[address] == nil
            }
            gone = ended.keys.sorted().map { .removeEndpoint($0) }
        }
        plan.changes += detaches.map { .detach($0) } + gone
        if !anyStrict, observed.strictEtherType { plan.changes.append(.setStrictEtherType(false)) }
    }

    /// Whether we could speak under the epoch that all send with.
    private var holdsKeys: Bool {
        let sending = max(situation.decision.sending, observed.sending)
        return situation.usable.contains(sending)
            || (sending != 0 && observed.associations.values.contains { $0.epoch == sending })
    }

    /// What a local address should be. Peers are not spoken with encrypted before they have acknowledged a list that it stands in:
    /// `since` is .max as long as it stands in none.
    private func localEntry(
        _ address: IPAddress, _ endpoint: EncryptedEndpoint, isReady: Bool, published: Bool
    ) -> EndpointEntry {
        var since = UInt32.max
        if let current = observed.endpoints[address], case .local(let known, let until) = current.place, until == 0,
            known <= situation.seenRevision ? published : known != .max && isReady
        {
            since = known
        } else if isReady {
            since = nextRevision
        }
        return EndpointEntry(
            place: .local(since: since, until: 0), strict: endpoint.mode == .strict,
            hidden: endpoint.headers == .hidden)
    }

    private func withdrawn(_ entry: EndpointEntry) -> EndpointEntry {
        guard case .local(let since, let until) = entry.place, until == 0 else { return entry }
        var entry = entry
        entry.withdrawing = true
        entry.place = .local(since: since, until: nextRevision)
        return entry
    }

    /// Two endpoints of ours may name one address for a moment, or by mistake: the stricter entry holds, and hidden beats
    /// visible.
    private func merge(_ entry: EndpointEntry, at address: IPAddress, into wanted: inout [IPAddress: EndpointEntry]) {
        var merged = entry
        if case .local(let since, let until) = entry.place, let other = wanted[address],
            case .local(let otherSince, let otherUntil) = other.place
        {
            merged.strict = entry.strict || other.strict
            merged.hidden = entry.hidden || other.hidden
            merged.withdrawing = entry.withdrawing && other.withdrawing
            merged.place = .local(
                since: max(since, otherSince), until: until == 0 || otherUntil == 0 ? 0 : max(until, otherUntil))
        }
        if let claim = remote.claims[address], claim.isReady, !merged.withdrawing {
            merged.strict = true
            merged.hidden = merged.hidden || claim.hidden
        }
        wanted[address] = merged
    }

    /// The end of an endpoint's protection: every other node has seen it, or was given the time to.
    private mutating func isAcknowledged(_ endpoint: EncryptionNode.PublishedEndpoint) -> Bool {
        guard endpoint.state == .withdrawing, let cluster = situation.snapshot.cluster else { return false }
        let deadline = (endpoint.withdrawnAt ?? situation.now).adding(seconds: cluster.withdrawWithin)
        if deadline <= situation.now { return true }
        plan.nextChange = min(plan.nextChange ?? deadline, deadline)
        return situation.snapshot.isComplete(.nodes)
            && situation.peers.allSatisfy { situation.acknowledged(by: $0.value) >= endpoint.until }
    }

    private mutating func reportOverlaps(_ desired: [String: EncryptedEndpoint]) {
        var holders: [IPAddress: [String]] = [:]
        for (name, endpoint) in desired {
            for address in endpoint.addresses { holders[address, default: []].append("\(name) on \(situation.name)") }
        }
        for (address, names) in holders {
            let claim = remote.claims[address].flatMap {
                $0.isReady ? RemoteEndpoints.holder(of: address, $0, situation.peers) : nil
            }
            if names.count > 1 || claim != nil {
                plan.problems.insert(RemoteEndpoints.overlap(address, names + (claim.map { [$0] } ?? [])))
            }
        }
    }

    // MARK: Endpoints of other nodes

    private mutating func remoteEndpoints() {
        // All are looked at, few differ: only those are put in order. At the start, all of them differ.
        var differing: [Change] = []
        for (address, claim) in remote.claims where !local.contains(address) {
            guard let slot = slots[claim.nodeID] else { continue }
            let entry = claim.entry(slot: slot)
            if observed.endpoints[address] != entry { differing.append(.setEndpoint(address, entry)) }
        }
        differing.sort { left, right in
            guard case .setEndpoint(let one, _) = left, case .setEndpoint(let other, _) = right else { return false }
            return one < other
        }
        if plan.changes.isEmpty { plan.changes = differing } else { plan.changes += differing }
        differing = []
        var gone: [(address: IPAddress, slot: UInt32)] = []
        for (address, entry) in observed.endpoints {
            if case .remote(let slot) = entry.place, remote.claims[address] == nil, !local.contains(address) {
                gone.append((address, slot))
            }
        }
        for (address, slot) in gone.sorted(by: { $0.address < $1.address }) {
            let node = observed.peers[slot]?.nodeID
            if node.map({ situation.frozen.contains($0) }) ?? false { continue }
            let isKnown = situation.peers.contains { $0.value.id == node }
            // Where the peer itself has gone, its endpoints were removed with it.
            if isKnown || (node == nil && situation.snapshot.isComplete(.nodes)) {
                plan.changes.append(.removeEndpoint(address))
            }
        }
    }
}

extension EndpointEntry {
    /// Its pod runs on this node.
    var isLocal: Bool {
        if case .local = place { return true }
        return false
    }
}

extension AssociationID: Comparable {
    /// By slot, direction, parity.
    public static func < (left: AssociationID, right: AssociationID) -> Bool {
        (left.slot, left.direction.rawValue, left.parity) < (right.slot, right.direction.rawValue, right.parity)
    }
}

public import Cluster
internal import Datapath
internal import Keys
internal import Netlink

/// What our node may say of itself: exactly what the kernel holds, never what is planned. Pure.
public func publication(_ situation: Situation) -> EncryptionNode {
    let published = situation.published
    var node = EncryptionNode(id: situation.nodeID, incarnation: situation.observed.incarnation)
    node.lanes = published?.lanes
    node.endpoints = publishedEndpoints(situation)
    node.revision = published?.revision ?? 0
    if node.endpoints != published?.endpoints ?? [] || node.revision < situation.seenRevision {
        node.revision = max(situation.seenRevision + 1, situation.kernelRevision)
    }
    node.epochs = situation.held
    node.sending = situation.observed.sending
    if node.sending != 0 {
        let isSame = published?.sending == node.sending && published?.incarnation == node.incarnation
        node.sendingSince = isSame ? published?.sendingSince : situation.now
    }
    for (name, peer) in situation.peers where isApplied(peer, situation) {
        node.applied[name] = .init(
            incarnation: peer.incarnation, revision: peer.revision,
            epochs: situation.live.filter { situation.hasKeys(name, peer, epoch: $0) })
    }
    return node
}

private func publishedEndpoints(_ situation: Situation) -> [EncryptionNode.PublishedEndpoint] {
    let published = situation.publishedHere
    let desired = situation.desiredHere
    var list: [EncryptionNode.PublishedEndpoint] = []
    var taken: Set<IPAddress> = []
    for (name, endpoint) in desired {
        let addresses = endpoint.addresses.sorted()
        guard let (entries, since, _) = localEntries(addresses, situation) else { continue }
        let before = published[name]
        // A new entry needs programs that are whole; one that is published stays so while they are repaired.
        let isNew = since > situation.seenRevision
        let isListed = before?.state == .ready && before?.since == since
        guard entries.count == addresses.count, !entries.contains(where: \.withdrawing),
            isListed || (isNew && situation.observed.attachments[name]?.isWhole == true)
        else { continue }
        list.append(
            .init(
                name: name, addresses: addresses, mode: endpoint.mode, headers: endpoint.headers, state: .ready,
                since: since))
        taken.formUnion(addresses)
    }
    for (name, before) in published where desired[name] == nil {
        // An address that another endpoint of ours has taken over (it was used again) is that one's to say.
        let addresses =
            situation.snapshot.isComplete(.endpoints)
            ? before.addresses.filter { !taken.contains($0) } : before.addresses
        guard let (entries, since, until) = localEntries(addresses, situation) else { continue }
        if entries.allSatisfy(\.withdrawing) {
            list.append(
                .init(
                    name: name, addresses: addresses, mode: before.mode, headers: before.headers, state: .withdrawing,
                    since: since, until: until, withdrawnAt: before.withdrawnAt ?? situation.now))
        } else {
            list.append(before)
        }
    }
    return list.sorted { $0.name < $1.name }
}

/// What the kernel has of some addresses of ours that have been ready once; nil when there are none.
private func localEntries(
    _ addresses: [IPAddress], _ situation: Situation
) -> (entries: [EndpointEntry], since: UInt32, until: UInt32)? {
    var (entries, since, until) = ([EndpointEntry](), UInt32(0), UInt32(0))
    for address in addresses {
        guard let entry = situation.observed.endpoints[address], case .local(let first, let last) = entry.place,
            first != .max
        else { continue }
        entries.append(entry)
        (since, until) = (max(since, first), max(until, last))
    }
    return entries.isEmpty ? nil : (entries, since, until)
}

/// Whether all of a peer's list is in force here.
private func isApplied(_ peer: EncryptionNode, _ situation: Situation) -> Bool {
    guard let slot = situation.slots[peer.id] else { return false }
    let observed = situation.observed
    var listed: Set<IPAddress> = []
    listed.reserveCapacity(peer.endpoints.count)
    for endpoint in peer.endpoints {
        for index in 0..<endpoint.addressCount {
            let address = endpoint.address(index)
            guard let claim = situation.remote.claims[address], let entry = observed.endpoints[address] else {
                return false
            }
            // An address that somebody else holds: applied as the conflict was resolved.
            if claim.nodeID != peer.id || entry.isLocal {
                if entry.place == .remote(slot: slot) { listed.insert(address) }
                continue
            }
            guard entry == claim.entry(slot: slot) else { return false }
            listed.insert(address)
        }
    }
    // And nothing that it does not list: all that stand in the kernel as its own are those that were just seen there.
    return situation.remoteCounts[slot, default: 0] == listed.count
}

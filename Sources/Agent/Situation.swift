public import Cluster
public import Datapath
public import Keys
internal import Netlink

/// Everything that planning looks at: a value.
public struct Situation: Sendable {
    /// Our node's name.
    public var name: String
    /// Our node's number.
    public var nodeID: NodeID
    /// What is desired, and what other nodes say.
    public var snapshot: Snapshot
    /// What the kernel holds.
    public var observed: DatapathState
    /// Our node object as it was written last.
    public var published: EncryptionNode?
    /// DEKs.
    public var keyring: Keyring
    /// Epochs that the KMS no longer lets us use, or not yet.
    public var lapsed: Set<Epoch>
    /// Endpoints of ours whose namespace or interface is not there.
    public var unreachable: Set<String>
    /// The wall clock.
    public var now: Timestamp

    /// The epochs' decision for all nodes.
    public let decision: EpochDecision
    /// Numbers that two names claim: nothing is changed for them.
    let frozen: Set<NodeID>
    /// Other nodes that can be spoken with.
    let peers: Peers
    /// Slots of node numbers. A number that stands in two slots (it should not) has the lower one.
    let slots: [NodeID: UInt32]
    /// What other nodes' lists come to.
    let remote: RemoteEndpoints
    /// How many addresses the kernel has of each slot's node.
    let remoteCounts: [UInt32: Int]
    /// What is odd about nodes.
    let nodeProblems: Set<Problem>
    /// The highest revision of our list that anybody may have seen: what was written, and what peers say that they saw of this
    /// incarnation (our own file may have been lost).
    let seenRevision: UInt32

    /// Puts a situation together and decides about epochs.
    public init(
        name: String, nodeID: NodeID, snapshot: Snapshot, observed: DatapathState, published: EncryptionNode?,
        keyring: Keyring, lapsed: Set<Epoch> = [], unreachable: Set<String> = [], now: Timestamp
    ) {
        self.name = name
        self.nodeID = nodeID
        self.snapshot = snapshot
        self.observed = observed
        self.published = published
        self.keyring = keyring
        self.lapsed = lapsed
        self.unreachable = unreachable
        self.now = now

        var problems: Set<Problem> = []
        var holders: [NodeID: String] = [nodeID: name]
        var conflicts: [NodeID: [String]] = [:]
        for (other, node) in snapshot.nodes where other != name {
            guard let holder = holders.updateValue(other, forKey: node.id) else { continue }
            conflicts[node.id, default: [holder]].append(other)
        }
        for (id, names) in conflicts {
            let text = names.sorted().joined(separator: " and ")
            for name in names {
                problems.insert(
                    Problem(
                        .error, "nodes/\(name).json",
                        "id: \(id) is the number of \(text); no keys are installed for them until each has its own"))
            }
        }
        frozen = Set(conflicts.keys)
        peers = Peers(nodes: snapshot.nodes, own: name, frozen: frozen)
        nodeProblems = problems
        slots = observed.peers.reduce(into: [:]) { slots, peer in
            slots[peer.value.nodeID] = min(peer.key, slots[peer.value.nodeID] ?? .max)
        }
        remote = RemoteEndpoints(peers: peers, observed: observed)
        remoteCounts = observed.endpoints.values.reduce(into: [:]) { counts, entry in
            if case .remote(let slot) = entry.place { counts[slot, default: 0] += 1 }
        }

        let acknowledged = snapshot.nodes.values.compactMap { node -> UInt32? in
            guard let acknowledgement = node.applied[name], acknowledgement.incarnation == observed.incarnation,
                acknowledgement.revision < 1 << 31
            else { return nil }
            return acknowledgement.revision
        }
        seenRevision = max(published?.revision ?? 0, acknowledged.max() ?? 0)

        if let cluster = snapshot.cluster {
            var nodes: [EncryptionNode] = []
            nodes.reserveCapacity(snapshot.nodes.count)
            nodes += peers.lazy.map(\.value)
            if let published, conflicts[nodeID] == nil { nodes.append(published) }
            decision = .decide(
                cluster: cluster, epochs: snapshot.epochs, nodes: nodes, floor: observed.epochFloor, now: now)
        } else {
            // Without the cluster's object nothing new begins; what has expired ends all the same.
            decision = .decide(cluster: Cluster(id: .random()), epochs: snapshot.epochs, nodes: [], now: now)
        }
    }
}

extension Situation {
    /// Two names claim our own number.
    var isFrozen: Bool { frozen.contains(nodeID) }

    /// Live epochs that may have keys here: none that were ended before.
    var live: [Epoch] {
        snapshot.cluster == nil ? [] : decision.live.filter { $0 >= observed.epochFloor && !lapsed.contains($0) }
    }

    /// Live epochs whose DEK is here.
    var usable: [Epoch] { live.filter { keyring.dek($0) != nil } }

    /// The context of the key from or to a peer.
    func context(_ direction: Direction, peer: EncryptionNode, epoch: Epoch) -> TrafficContext? {
        guard let cluster = snapshot.cluster else { return nil }
        let own = NodeIdentity(id: nodeID, incarnation: observed.incarnation)
        let other = NodeIdentity(id: peer.id, incarnation: peer.incarnation)
        switch direction {
        case .send: return TrafficContext(cluster: cluster.id, epoch: epoch, sender: own, receiver: other)
        case .receive: return TrafficContext(cluster: cluster.id, epoch: epoch, sender: other, receiver: own)
        }
    }

    /// Whether the kernel holds exactly the right keys of an epoch for a peer, both ways.
    ///
    /// Without the DEK (a restart while the KMS does not answer) fingerprints cannot be made. Then what we said of the same two
    /// incarnations before still holds, if the keys are there.
    func hasKeys(_ name: String, _ peer: EncryptionNode, epoch: Epoch) -> Bool {
        guard let slot = slots[peer.id] else { return false }
        let isKnown = keyring.dek(epoch) != nil
        if !isKnown {
            guard published?.incarnation == observed.incarnation, let before = published?.applied[name],
                before.incarnation == peer.incarnation, before.epochs.contains(epoch)
            else { return false }
        }
        return Direction.allCases.allSatisfy { direction in
            guard let context = context(direction, peer: peer, epoch: epoch),
                let installed = observed.associations[AssociationID(slot: slot, direction: direction, epoch: epoch)]
            else { return false }
            return installed.epoch == epoch && installed.peerNodeID == peer.id
                && (!isKnown || installed.keyID == keyring.fingerprint(context))
        }
    }

    /// Live epochs that we can receive under from every node that we know.
    var held: [Epoch] {
        live.filter { epoch in
            (keyring.dek(epoch) != nil || published?.epochs.contains(epoch) == true)
                && peers.allSatisfy { hasKeys($0.key, $0.value, epoch: epoch) }
        }
    }

    /// The highest revision that the kernel waits for.
    var kernelRevision: UInt32 {
        observed.endpoints.values.reduce(0) { highest, entry in
            guard case .local(let since, let until) = entry.place else { return highest }
            return max(highest, since == .max ? 0 : since, until)
        }
    }

    /// The revision of our list that a peer has in force; 0 when it has none of this incarnation.
    func acknowledged(by peer: EncryptionNode) -> UInt32 {
        guard let acknowledgement = peer.applied[name], acknowledgement.incarnation == observed.incarnation,
            acknowledgement.revision <= published?.revision ?? 0
        else { return 0 }
        return acknowledgement.revision
    }

    /// The same for sending: 0 also when the peer has no keys of the epoch that we send with.
    func sendable(to peer: EncryptionNode) -> UInt32 {
        guard observed.sending == 0 || peer.applied[name]?.epochs.contains(observed.sending) == true else { return 0 }
        return acknowledged(by: peer)
    }

    /// Endpoints that shall be protected here.
    var desiredHere: [String: EncryptedEndpoint] { snapshot.endpoints.filter { $0.value.node == name } }

    /// Our endpoints as they were published.
    var publishedHere: [String: EncryptionNode.PublishedEndpoint] {
        (published?.endpoints ?? []).reduce(into: [:]) { $0[$1.name] = $1 }
    }
}

/// Other nodes that can be spoken with: what was read, without ours and those of whose numbers there are two. Not a copy: there may be thousands.
struct Peers: Sendable, Sequence {
    let nodes: [String: EncryptionNode]
    let own: String
    let frozen: Set<NodeID>

    func makeIterator() -> LazyFilterSequence<[String: EncryptionNode]>.Iterator {
        nodes.lazy.filter { $0.key != own && !frozen.contains($0.value.id) }.makeIterator()
    }
}

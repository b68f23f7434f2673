import Cluster
import Datapath
import Keys
import Netlink
import Secrets
import Synchronization

@testable import Agent

/// A seeded generator, so that a failing run can be run again.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}

/// A cluster without a kernel and without files: objects, and nodes that see them late, one by one.
final class World {
    /// A node: its kernel and its runtime directory outlive its daemon.
    final class Node {
        let name: String
        let id: NodeID
        var kernel: FakeDatapath
        /// What the daemon has read so far.
        var view = Snapshot()
        /// The copy in the runtime directory.
        let copy = Box<EncryptionNode>()
        var reconciler: Reconciler?
        var keyring = Keyring()
        var last = Reconciler.Report()

        init(_ name: String, _ id: NodeID) {
            self.name = name
            self.id = id
            kernel = FakeDatapath(nodeID: id)
        }
    }
    final class Box<Value: Sendable>: Sendable {
        private let value = Mutex<Value?>(nil)
        func set(_ new: Value?) { value.withLock { $0 = new } }
        var current: Value? { value.withLock { $0 } }
    }

    var cluster = Cluster(id: .random())
    var nodes: [String: Node] = [:]
    var endpoints: [String: EncryptedEndpoint] = [:]
    var epochs: [Epoch: EncryptionEpoch] = [:]
    var deks: [Epoch: SecretBytes] = [:]
    var objects: [String: Box<EncryptionNode>] = [:]
    var now = Timestamp(milliseconds: 1_800_000_000_000)

    init(nodes count: Int) {
        cluster.drainSeconds = 0
        for number in 1...count { addNode(NodeID(number)) }
    }

    @discardableResult func addNode(_ id: NodeID, name: String? = nil) -> Node {
        let node = Node(name ?? "node-\(id)", id)
        nodes[node.name] = node
        objects[node.name] = Box()
        return node
    }

    subscript(_ id: NodeID) -> Node {
        guard let node = nodes["node-\(id)"] else { preconditionFailure("there is no node \(id)") }
        return node
    }

    func openEpoch(_ number: Epoch? = nil, lifetime: Int64 = 86_400, acknowledgeWithin: Int64 = 3600) {
        let number = number ?? (epochs.keys.max() ?? 0) + 1
        deks[number] = SecretBytes(random: 32)
        epochs[number] = EncryptionEpoch(
            number: number, wrappedDEK: Base64([1]), provider: "local", kekID: "file", kekVersion: "1", notBefore: now,
            notAfter: now.adding(seconds: lifetime), acknowledgeBy: now.adding(seconds: acknowledgeWithin))
    }

    /// Puts a pod on a node.
    func addEndpoint(
        _ name: String, on id: NodeID, _ addresses: [String], mode: Mode = .strict, headers: Headers = .visible
    ) {
        let node = self[id]
        let path = "/run/netns/\(name)"
        node.kernel.with { _ = $0.namespaces.insert(path) }
        endpoints[name] = EncryptedEndpoint(
            addresses: addresses.map { try! IPAddress($0) }, node: node.name, mode: mode, headers: headers,
            networkNamespace: path)
    }

    /// Everything that there is, at once.
    var truth: Snapshot {
        Snapshot(
            cluster: cluster, nodes: objects.compactMapValues(\.current), endpoints: endpoints, epochs: epochs)
    }

    /// A daemon's look at what it has read.
    func reconcile(_ node: Node) {
        if node.reconciler == nil {
            node.keyring = Keyring()
            let (copy, object) = (node.copy, objects[node.name])
            node.reconciler = Reconciler(
                name: node.name, nodeID: node.id, datapath: node.kernel,
                published: copy.current ?? node.view.nodes[node.name]
            ) { published in
                copy.set(published)
                object?.set(published)
            }
        }
        for epoch in node.view.epochs.keys {
            if let dek = deks[epoch] { node.keyring.add(dek, epoch: epoch) }
        }
        let now = now
        if let report = node.reconciler?.reconcile(node.view, keyring: node.keyring, clock: { now }) {
            node.last = report
        }
    }

    /// The daemon dies; kernel and files stay.
    func kill(_ node: Node) {
        node.reconciler = nil
        node.kernel.revive()
    }

    /// The machine reboots: the kernel begins afresh, the runtime directory is empty; pods come back where they were.
    func reboot(_ node: Node) {
        kill(node)
        let namespaces = node.kernel.with { $0.namespaces }
        node.kernel = FakeDatapath(nodeID: node.id)
        node.kernel.with { $0.namespaces = namespaces }
        node.copy.set(nil)
    }

    /// Everybody sees everything, and works until nothing changes any more.
    @discardableResult func settle(rounds: Int = 60) -> Bool {
        // Drains take seconds in which nothing happens.
        var quiet = 0
        for _ in 0..<rounds {
            let before = nodes.values.map { $0.kernel.with { $0.changes } }.reduce(0, +)
            let objectsBefore = truth
            for node in nodes.values.sorted(by: { $0.id < $1.id }) {
                node.view = truth
                reconcile(node)
            }
            now = now.adding(seconds: 1)
            if nodes.values.map({ $0.kernel.with { $0.changes } }).reduce(0, +) == before, truth == objectsBefore {
                quiet += 1
                if quiet == 5 { return true }
            } else {
                quiet = 0
            }
        }
        return false
    }

    /// What would happen to an encrypted packet of an endpoint to every endpoint elsewhere, by the kernel's rules: broken promises,
    /// in words.
    func brokenPromises() -> [String] {
        var broken: [String] = []
        for node in nodes.values {
            let state = node.kernel.now
            guard state.sending != 0 else { continue }
            for (slot, peer) in state.peers {
                guard let other = nodes.values.first(where: { $0.id == peer.nodeID }),
                    let key = state.associations[AssociationID(slot: slot, direction: .send, epoch: state.sending)],
                    key.epoch == state.sending
                else { continue }
                let theirs = other.kernel.now
                // A peer that has begun afresh since cannot keep what it had promised before.
                guard let dek = deks[state.sending],
                    let wanted = try? TrafficKey.fingerprint(
                        dek: dek,
                        context: TrafficContext(
                            cluster: cluster.id, epoch: state.sending,
                            sender: NodeIdentity(id: node.id, incarnation: state.incarnation),
                            receiver: NodeIdentity(id: other.id, incarnation: theirs.incarnation))),
                    wanted == key.keyID
                else { continue }
                for (address, entry) in state.endpoints {
                    guard case .local(let since, let until) = entry.place, peer.acknowledged >= since,
                        until == 0 || peer.acknowledged < until
                    else { continue }
                    let receives = theirs.associations.contains {
                        $0.key.direction == .receive && $0.value.keyID == key.keyID
                    }
                    if !receives {
                        broken.append("\(node.name) sends with epoch \(state.sending), \(other.name) has no key of it")
                    }
                    if case .remote(let place) = theirs.endpoints[address]?.place,
                        theirs.peers[place]?.nodeID == node.id
                    {
                        continue
                    }
                    broken.append("\(node.name) encrypts from \(address), \(other.name) does not know it")
                }
            }
        }
        return broken
    }
}

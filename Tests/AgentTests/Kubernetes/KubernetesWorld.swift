import Cluster
import Datapath
import Keys
import Netlink

@testable import Agent

/// A cluster without kernels and without an API server: nodes that speak through statuses and slices, each late, some writes lost.
///
/// Nodes see slices as an API server shows them: every write before some moment, none after it. The operator's part, folding statuses
/// into slices, is written down here once more, as the design says it.
final class KubernetesWorld {
    let world: World
    /// What the API server has: the status of each node.
    var statuses: [String: NodeReport] = [:]
    /// Every write of a slice or of changes, in order.
    var log: [(slice: String, spec: EncryptedEndpointSlice.Spec)] = []
    var agents: [String: Agent] = [:]
    var clock = Duration.zero

    /// A node's daemon, and what of it outlives it.
    final class Agent {
        let node: World.Node
        var reader: KubernetesReader?
        /// What is to stand in the status.
        var wish: NodeReport?
        /// In the runtime directory.
        var applied: Int64 = 0
        var appliedOf: Incarnation?
        /// How much of the log it has seen.
        var position = 0
        var endpoints: [String: EncryptedEndpoint] = [:]
        var epochs: [Epoch: EncryptionEpoch] = [:]

        init(for node: World.Node) { self.node = node }
    }

    private final class Saying: @unchecked Sendable {
        var reading = Reading(Snapshot())
        var said: ((EncryptionNode, Reading) -> Void)?
    }
    private var sayings: [String: Saying] = [:]

    init(nodes: Int) {
        world = World(nodes: nodes)
        for node in world.nodes.values { agents[node.name] = Agent(for: node) }
    }

    func addNode(_ id: NodeID) {
        let node = world.addNode(id)
        agents[node.name] = Agent(for: node)
    }

    // MARK: the operator

    private func slice(of name: String) -> String { name.utf8.reduce(0) { $0 &+ Int($1) } % 2 == 0 ? "even" : "odd" }

    /// The objects after the first `count` writes.
    func objects(_ count: Int) -> [String: EncryptedEndpointSlice.Spec] {
        log[..<count].reduce(into: [:]) { $0[$1.slice] = $1.spec }
    }

    /// Every other write, where that is possible, is one of changes.
    private func changes(_ before: [NodeEntry], _ entries: [NodeEntry], _ sequence: Int64) -> [NodeChange]? {
        guard sequence % 2 == 0, before.map(\.name) == entries.map(\.name) else { return nil }
        let view = SliceView(objects(log.count))
        var list: [NodeChange] = []
        for (old, new) in zip(before, entries) where old != new {
            guard let at = view.peers[old.name]?.at, let change = NodeChange(old, after: at, to: new.report) else {
                return nil
            }
            list.append(change)
        }
        return list
    }

    /// Folds statuses into one slice, if there is something new. Returns whether there was.
    @discardableResult func fold(_ slice: String) -> Bool {
        let sequence = (log.last?.spec.sequence ?? 0) + 1
        let view = SliceView(objects(log.count))
        let before = view.peers.values.map(\.entry).filter { self.slice(of: $0.name) == slice }
            .sorted { $0.name < $1.name }
        var entries: [NodeEntry] = []
        for (name, report) in statuses.sorted(by: { $0.key < $1.key }) where self.slice(of: name) == slice {
            guard var entry = before.first(where: { $0.name == name }), entry.report.incarnation == report.incarnation
            else {
                entries.append(
                    NodeEntry(
                        name: name, report: report, incarnationAt: sequence,
                        history: [.init(revision: report.revision, at: sequence)]))
                continue
            }
            entry.report = report
            if report.revision > entry.history.last?.revision ?? 0 {
                entry.history = (entry.history + [.init(revision: report.revision, at: sequence)]).suffix(
                    NodeEntry.historyLength)
            }
            entries.append(entry)
        }
        guard entries != before else { return false }
        if let changes = changes(before, entries, sequence) {
            log.append((EncryptedEndpointSlice.changesName(sequence), .init(sequence: sequence, changes: changes)))
        } else {
            log.append((slice, .init(sequence: sequence, nodes: entries)))
        }
        return true
    }

    // MARK: nodes

    /// A status arrives at the API server, unless it is lost on the way.
    func deliver(_ agent: Agent) {
        guard let wish = agent.wish else { return }
        statuses[agent.node.name] = wish
        world.objects[agent.node.name]?.set(agent.reader == nil ? nil : agent.node.copy.current)
    }

    func reading(_ agent: Agent) -> Reading? {
        let kernel = agent.node.kernel.now
        if agent.reader == nil {
            let isSame = agent.appliedOf == kernel.incarnation
            agent.reader = KubernetesReader(
                name: agent.node.name, applied: isSame ? agent.applied : 0,
                acknowledgements: Acknowledgements(kernel: kernel, published: agent.node.copy.current))
        }
        var objects = KubernetesObjects()
        objects.cluster = world.cluster
        objects.view = SliceView(self.objects(agent.position))
        objects.epochs = agent.epochs
        objects.isSynced = true
        let published = agent.node.copy.current ?? statuses[agent.node.name]?.node
        return agent.reader?.reading(objects, endpoints: agent.endpoints, published: published, clock: clock)
    }

    private func say(_ agent: Agent, _ node: EncryptionNode, _ reading: Reading) {
        let others = Set(reading.snapshot.nodes.keys).subtracting([agent.node.name])
        agent.applied = reading.sequence
        agent.appliedOf = node.incarnation
        agent.wish = NodeReport(
            node, appliedThrough: reading.sequence, notApplied: others.subtracting(node.applied.keys).sorted())
    }

    func reconcile(_ agent: Agent) {
        guard let reading = reading(agent) else { return }
        let node = agent.node
        let saying = sayings[node.name] ?? Saying()
        sayings[node.name] = saying
        saying.reading = reading
        saying.said = { [unowned self] in say(agent, $0, $1) }
        if node.reconciler == nil {
            node.keyring = Keyring()
            let copy = node.copy
            node.reconciler = Reconciler(
                name: node.name, nodeID: node.id, datapath: node.kernel,
                published: copy.current ?? reading.snapshot.nodes[node.name]
            ) { published in
                copy.set(published)
                saying.said?(published, saying.reading)
            }
        }
        for epoch in agent.epochs.keys {
            if let dek = world.deks[epoch] { node.keyring.add(dek, epoch: epoch) }
        }
        let now = world.now
        if reading.sequence % 2 == 0 { _ = node.reconciler?.follow(reading.snapshot) }
        guard let report = node.reconciler?.reconcile(reading.snapshot, keyring: node.keyring, clock: { now }) else {
            return
        }
        node.last = report
        if let published = node.reconciler?.published, !report.needsRetry, let wish = agent.wish,
            wish.incarnation == published.incarnation, wish.appliedThrough < reading.due
        {
            say(agent, published, reading)
        }
    }

    /// The daemon dies; kernel and runtime directory stay.
    func kill(_ agent: Agent) {
        world.kill(agent.node)
        agent.reader = nil
        agent.wish = nil
        agent.position = 0
    }

    func reboot(_ agent: Agent) {
        kill(agent)
        world.reboot(agent.node)
        agent.applied = 0
        agent.appliedOf = nil
    }

    func see(_ agent: Agent, through position: Int) {
        agent.position = max(agent.position, position)
        agent.epochs = world.epochs
        agent.endpoints = world.endpoints.filter { $0.value.node == agent.node.name }
    }

    /// Everybody sees everything, until nothing changes any more. Returns how many statuses were written meanwhile; nil: no end.
    func settle(rounds: Int = 120) -> Int? {
        var quiet = 0
        var writes = 0
        for _ in 0..<rounds {
            let before = (log.count, world.nodes.values.map { $0.kernel.with { $0.changes } }.reduce(0, +))
            for agent in agents.values.sorted(by: { $0.node.id < $1.node.id }) {
                see(agent, through: log.count)
                reconcile(agent)
                if let wish = agent.wish, statuses[agent.node.name] != wish {
                    deliver(agent)
                    writes += 1
                }
            }
            fold("even")
            fold("odd")
            world.now = world.now.adding(seconds: 1)
            clock += .seconds(1)
            if before == (log.count, world.nodes.values.map { $0.kernel.with { $0.changes } }.reduce(0, +)) {
                quiet += 1
                if quiet == 5 { return writes }
            } else {
                quiet = 0
            }
        }
        return nil
    }
}

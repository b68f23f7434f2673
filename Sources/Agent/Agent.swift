internal import CSys
internal import Cluster
public import Datapath
internal import Glibc
public import KMS
public import Keys
public import Logging
public import ServiceLifecycle
internal import Synchronization

/// The daemon: follows the cluster's objects, asks the KMS for DEKs, and reconciles at every change, and every few seconds.
public actor Agent: Service {
    private let configuration: AgentConfiguration
    private let node: String
    private let nodeID: NodeID
    private let source: any ClusterSource
    private let datapath: any DatapathControl
    private let kms: any KeyManagementService
    private let directory: RuntimeDirectory
    private let logger: Logger
    private let keyring = Keyring()
    private let inbox = Inbox()
    private var reconciler: Reconciler?
    private var epochFloor: Epoch = 0
    /// Epochs of which the kernel holds keys, as far as we know.
    private var held: Set<Epoch> = []
    private var shownProblems: Set<Problem> = []
    private var writtenStatus: AgentStatus?
    private var statusDue = ContinuousClock.now
    private var writtenLeases: [DEKLifecycle.Lease] = []

    /// What has arrived from outside and was not looked at yet.
    private final class Inbox: Sendable {
        let reading = Mutex<(reading: Reading, number: Int)?>(nil)
        /// What the runtime directory has of our node's object: `RuntimeDirectory.mark`.
        let remembered = Mutex<Int?>(nil)
        /// What is being reconciled.
        let current = Mutex<Reading?>(nil)
        let wakes: AsyncStream<Void>
        let wake: AsyncStream<Void>.Continuation

        init() {
            (wakes, wake) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
        }
    }

    /// Makes a daemon that works on a cluster directory; nothing happens before `run`. The caller holds the runtime directory's lock.
    public init(
        configuration: AgentConfiguration, directory path: String, node: String, nodeID: NodeID,
        datapath: any DatapathControl, kms: any KeyManagementService, directory: RuntimeDirectory, logger: Logger
    ) {
        self.init(
            configuration: configuration, source: DirectoryClusterSource(path: path, node: node), node: node,
            nodeID: nodeID, datapath: datapath, kms: kms, directory: directory, logger: logger)
    }

    /// Makes a daemon; nothing happens before `run`. The caller holds the runtime directory's lock.
    public init(
        configuration: AgentConfiguration, source: any ClusterSource, node: String, nodeID: NodeID,
        datapath: any DatapathControl, kms: any KeyManagementService, directory: RuntimeDirectory, logger: Logger
    ) {
        self.configuration = configuration
        self.source = source
        self.node = node
        self.nodeID = nodeID
        self.datapath = datapath
        self.kms = kms
        self.directory = directory
        self.logger = logger
    }

    /// What was written to status.json last; nil as long as nothing was read.
    public var status: AgentStatus? { writtenStatus }

    /// Works until it is cancelled or shut down. The datapath stays as it is then.
    public func run() async throws {
        let inbox = inbox
        let source = source
        let leases = try adoptedLeases()
        held = Set(leases.keys)
        let keeper = DEKKeeper(kms: kms, policy: configuration.kms.lifecycle, adopted: leases)

        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                try await source.run { reading in
                    inbox.reading.withLock { $0 = (reading, ($0?.number ?? 0) + 1) }
                    inbox.wake.yield()
                }
            }
            group.addTask { await keeper.run() }
            group.addTask { for await _ in keeper.changes { inbox.wake.yield() } }
            group.addTask { await self.reconcileOnWakes(keeper) }
            try await group.next()
            group.cancelAll()
        }
    }

    private func reconcileOnWakes(_ keeper: DEKKeeper) async {
        for await _ in inbox.wakes.cancelOnGracefulShutdown() {
            guard let (reading, number) = inbox.reading.withLock({ $0 }) else { continue }
            let begin = ContinuousClock.now
            let isNews = number != seen
            seen = number
            // A reconciliation of a large cluster takes long. Meanwhile what is new of other nodes' addresses is put in force by itself.
            if isNews, begin < nextPass, isOnlyOfOthers(reading.snapshot), reconciler?.follow(reading.snapshot) != nil {
                hasWorked = true
                wake(after: nextPass - begin)
                continue
            }
            // What is free goes before a reconciliation takes more.
            trimHeap()
            let pause = await reconcile(reading, keeper)
            reconciled = Reconciled(reading.snapshot)
            let end = ContinuousClock.now
            nextPass = end + (end - begin) * 9
            wake(after: pause)
        }
        timer?.cancel()
    }
    private var timer: Task<Void, Never>?
    /// The number of the reading that was looked at last.
    private var seen = 0
    /// When it is time for another reconciliation of what is new of other nodes only: a tenth of the time goes into these at most.
    private var nextPass = ContinuousClock.now

    /// What the last reconciliation was about, other nodes apart.
    private struct Reconciled {
        var cluster: Cluster?
        var endpoints: [String: EncryptedEndpoint]
        var epochs: [Epoch: EncryptionEpoch]
        var incomplete: Set<ObjectKind>

        init(_ snapshot: Snapshot) {
            (cluster, endpoints) = (snapshot.cluster, snapshot.endpoints)
            (epochs, incomplete) = (snapshot.epochs, snapshot.incomplete)
        }
    }
    private var reconciled: Reconciled?

    private func isOnlyOfOthers(_ snapshot: Snapshot) -> Bool {
        guard let reconciled else { return false }
        return reconciled.cluster == snapshot.cluster && reconciled.endpoints == snapshot.endpoints
            && reconciled.epochs == snapshot.epochs && reconciled.incomplete == snapshot.incomplete
    }

    private func wake(after pause: Duration) {
        let alarm = inbox.wake
        timer?.cancel()
        timer = Task {
            try? await Task.sleep(for: pause)
            if !Task.isCancelled { alarm.yield() }
        }
    }

    /// Keys that the kernel holds from before go on while the KMS is asked again.
    private func adoptedLeases() throws -> [UInt32: Duration?] {
        let records = directory.leases.reduce(into: [:]) { $0[$1.epoch] = Duration.milliseconds($1.endMilliseconds) }
        let held = Set(try datapath.state().associations.values.map(\.epoch))
        return held.reduce(into: [:]) { $0.updateValue(records[$1], forKey: $1) }
    }

    /// Reconciles once and says how long to wait at most before the next time.
    private func reconcile(_ reading: Reading, _ keeper: DEKKeeper) async -> Duration {
        let now = Timestamp.now()
        let snapshot = reading.snapshot
        if reconciler == nil { reconciler = makeReconciler(snapshot) }
        var problems = snapshot.problems
        let live = liveEpochs(snapshot, reconciler?.published, now)
        // Without the cluster's object nothing is known: leases of an earlier run go on.
        let known = held.union(live)
        if snapshot.cluster != nil {
            await keeper.want(
                wrappedDEKs(known.sorted(), snapshot, &problems), held: held, nodes: snapshot.nodes.count)
        }
        for epoch in live {
            if let dek = await keeper.dek(epoch) { keyring.add(dek, epoch: epoch) }
        }
        var lapsed: Set<Epoch> = []
        // Leases end while the cluster or an epoch cannot be read, too, and while the clock is wrong.
        for epoch in known where await !keeper.isUsable(epoch) { lapsed.insert(epoch) }
        keyring.keep(only: live.filter { !lapsed.contains($0) })

        inbox.current.withLock { $0 = reading }
        // Kept, it would soon be another version of every list of the cluster.
        defer { inbox.current.withLock { $0 = nil } }
        // In place: a copy of it would keep what the last one left of every address while this one makes that anew.
        guard var report = reconciler?.reconcile(snapshot, keyring: keyring, lapsed: lapsed, clock: Timestamp.now)
        else { return .seconds(1) }
        // Of other nodes' addresses, of which there may be a hundred thousand, nothing is asked from here on.
        report.state = report.state.map { state in
            var state = state
            state.endpoints = state.endpoints.filter { $0.value.isLocal }
            return state
        }
        epochFloor = report.state?.epochFloor ?? epochFloor
        if let state = report.state { held = Set(state.associations.values.map(\.epoch)) }
        // One line each for what a person can read.
        let level = report.changes.count > 20 ? Logger.Level.debug : .info
        if level == .debug { logger.info("done", metadata: ["changes": "\(report.changes.count)"]) }
        if logger.logLevel <= level {
            for change in report.changes { logger.log(level: level, "done", metadata: ["change": "\(change)"]) }
        }

        let kmsStatus = await keeper.status
        problems.formUnion(report.problems)
        if let error = kmsStatus.error {
            let severity: Problem.Severity = kmsStatus.severity <= .warning ? .warning : .error
            problems.insert(Problem(severity, "kms", error.description))
        }
        problems = Set(problems.map(source.describe))
        report.problems = problems
        source.reconciled(report, reading, published: reconciler?.published)
        show(problems)
        write(report, snapshot, problems, kmsStatus.sentence, now)
        if !report.changes.isEmpty {
            hasWorked = true
            trimHeap()
        }
        let leases = await keeper.leases
        if leases != writtenLeases {
            writtenLeases = leases
            attempt("leases.json") { try directory.write(leases) }
        }

        var pause = Duration.seconds(report.needsRetry ? 1 : 5)
        if let next = report.nextChange {
            // A millisecond more: the clock that wakes us is another one than the clock that is compared.
            pause = min(pause, .milliseconds(max(1, next.milliseconds(since: now) + 1)))
        }
        return pause
    }

    private func makeReconciler(_ snapshot: Snapshot) -> Reconciler {
        let (directory, source, inbox) = (directory, source, inbox)
        // The copy here is what was published in this boot; the cluster's copy may be older, or somebody else's.
        let published = directory.published ?? snapshot.nodes[node]
        return Reconciler(
            name: node, nodeID: nodeID, lanes: UInt32(max(1, sysconf(Int32(_SC_NPROCESSORS_CONF)))),
            datapath: datapath, published: published
        ) { node in
            try inbox.remembered.withLock { remembered in
                let mark = RuntimeDirectory.mark(node)
                guard mark != remembered else { return }
                try directory.write(node)
                remembered = mark
            }
            if let reading = inbox.current.withLock({ $0 }) { try source.publish(node, reading) }
        }
    }

    private func liveEpochs(_ snapshot: Snapshot, _ published: EncryptionNode?, _ now: Timestamp) -> [Epoch] {
        guard let cluster = snapshot.cluster else { return [] }
        var nodes = snapshot.nodes
        nodes[node] = published
        return EpochDecision.decide(cluster: cluster, epochs: snapshot.epochs, nodes: Array(nodes.values), now: now)
            .live
    }

    private func wrappedDEKs(
        _ live: [Epoch], _ snapshot: Snapshot, _ problems: inout Set<Problem>
    ) -> [DEKKeeper.Epoch] {
        live.compactMap { number in
            guard let cluster = snapshot.cluster, let epoch = snapshot.epochs[number],
                let context = KeyContext(clusterID: cluster.id.bytes, epoch: number)
            else { return nil }
            do throws(KMSError) {
                let blob = try WrappedDEK(decoding: epoch.wrappedDEK.bytes, expected: kms.provider)
                return DEKKeeper.Epoch(context: context, blob: blob)
            } catch {
                problems.insert(Problem(.error, "epochs/\(number).json", "wrappedDEK: \(error.message)"))
                return nil
            }
        }
    }

    /// Says what is new and what is over, once each.
    private func show(_ problems: Set<Problem>) {
        for problem in problems.subtracting(shownProblems).sorted() {
            logger.log(
                level: problem.severity == .error ? .error : .warning, "problem",
                metadata: ["object": "\(problem.object)", "what": "\(problem.message)"])
        }
        for problem in shownProblems.subtracting(problems).sorted() {
            logger.notice("solved", metadata: ["object": "\(problem.object)", "what": "\(problem.message)"])
        }
        shownProblems = problems
    }

    private func write(
        _ report: Reconciler.Report, _ snapshot: Snapshot, _ problems: Set<Problem>, _ kms: String, _ now: Timestamp
    ) {
        // For people: a small part of the time, however many nodes there are. The next reconciliation comes within seconds.
        let begin = ContinuousClock.now
        guard begin >= statusDue else { return }
        defer { statusDue = begin + (ContinuousClock.now - begin) * 20 }
        let (published, own) = (reconciler?.published, node)
        var nodes = snapshot.nodes
        nodes[node] = published
        let slots = (report.state?.peers ?? [:]).reduce(into: [:]) { $0[$1.value.nodeID] = $1 }
        var status = AgentStatus(
            node: node, nodeID: nodeID, process: getpid(),
            updated: writtenStatus?.updated ?? now,
            epochs: AgentStatus.epochs(snapshot.epochs, states: report.decision.states, nodes: nodes),
            peers: snapshot.nodes.filter { $0.key != own }.sorted { $0.key < $1.key }.map { name, node in
                AgentStatus.PeerStatus(
                    name: name, nodeID: node.id, slot: slots[node.id]?.key,
                    acknowledged: slots[node.id]?.value.acknowledged ?? 0,
                    epochs: node.applied[own]?.epochs ?? [],
                    isApplied: published?.applied[name].map {
                        $0.incarnation == node.incarnation && $0.revision == node.revision
                    } ?? false)
            }, kms: kms, problems: problems.sorted(),
            pods: snapshot.endpoints.filter { $0.value.node == own }.sorted { $0.key < $1.key }.map { name, endpoint in
                AgentStatus.PodStatus(name: name, label: source.label(name), addresses: endpoint.addresses.sorted())
            })
        guard status != writtenStatus || now.milliseconds(since: status.updated) >= 60_000 else { return }
        status.updated = now
        writtenStatus = status
        attempt(AgentStatus.file) { try directory.write(status) }
    }

    /// In a large cluster every reading makes and drops many small things; what they leave free goes back to the kernel now and then.
    private func trimHeap() {
        guard hasWorked, ContinuousClock.now >= trimDue else { return }
        hasWorked = false
        csys_trim_heap()
        trimDue = .now + .seconds(2)
    }
    private var trimDue = ContinuousClock.now
    private var hasWorked = false

    private func attempt(_ what: String, _ body: () throws -> Void) {
        do {
            try body()
        } catch {
            logger.error("cannot write", metadata: ["file": "\(what)", "what": "\(error)"])
        }
    }
}

internal import CloudIdentity
internal import Cluster
internal import KMS
internal import Keys
internal import Kubernetes
internal import Logging

/// What a leader does, from the moment it leads until it does not: everything that writes is in here.
///
/// Every write looks at `leadership` first, and names the version of the object that it was thought out for, so that neither a leader
/// that has not noticed its end nor an old view of the cluster can undo what somebody else has written.
final class LeaderSession: Sendable {
    let api: any KubernetesAPI
    let hub: Hub
    let leadership: Leadership
    let configuration: OperatorConfiguration
    let namespace: String
    let kms: any KeyManagementService
    let recorder: any EventSink
    let board: StatusBoard
    let clock: KubernetesClock
    let pace: Pace
    let logger: Logger

    let pods: WorkQueue<ObjectKey>
    let nodes: WorkQueue<String>
    let creations: WorkQueue<String>
    let slicesChanged = ChangeSignal()
    let clusterChanged = ChangeSignal()
    let epochsChanged = ChangeSignal()
    let statusesChanged = ChangeSignal()

    /// How fast things are done.
    struct Pace: Sendable {
        /// Events of so long are looked at together, at least.
        var settle = Duration.milliseconds(50)
        /// Between two writes of one slice, at least, for each slice that there is, up to a hundred of them.
        var slice = Duration.milliseconds(5)
        /// Between two writes of changes, at least.
        var changes = Duration.milliseconds(200)
        /// Slices that take more room are not written for every change.
        var changesAbove: Int? = 200
        /// How long what is new of a slice's nodes stands in objects of changes only.
        var compaction = Duration.seconds(60)
        /// Between two writes of one node's endpoints, at least.
        var node = Duration.milliseconds(500)
        /// Between two rounds of slices that bring nothing but acknowledgements, at least, and more for every 1,000 nodes.
        var acknowledgements = Duration.milliseconds(250)
        /// Between two looks at epochs.
        var epochs = Duration.milliseconds(500)
        /// Between two looks at statuses of policies.
        var statuses = Duration.seconds(2)
        /// Between two looks at the cluster's ConfigMap and at who translates addresses of services.
        var cluster = Duration.seconds(30)
        /// How long a node must have been gone before its object goes.
        var nodeGrace = Duration.seconds(60)
        /// Annotations that are written at a time.
        var podWidth = 32
        /// Nodes that are written at a time.
        var nodeWidth = 32
    }

    init(
        api: any KubernetesAPI, hub: Hub, leadership: Leadership, configuration: OperatorConfiguration,
        namespace: String, kms: any KeyManagementService, recorder: any EventSink, board: StatusBoard,
        clock: KubernetesClock, pace: Pace, logger: Logger
    ) {
        self.api = api
        self.hub = hub
        self.leadership = leadership
        self.configuration = configuration
        self.namespace = namespace
        self.kms = kms
        self.recorder = recorder
        self.board = board
        self.clock = clock
        self.pace = pace
        self.logger = logger
        pods = WorkQueue(clock: clock)
        nodes = WorkQueue(clock: clock)
        creations = WorkQueue(clock: clock)
    }

    /// Whether we may write.
    var mayWrite: Bool { leadership.isCurrent && !Task.isCancelled }

    /// Works until the task is cancelled.
    func run() async {
        guard await waitForSync() else { return }
        logger.notice("the cluster is known; working")
        await hub.setLed(true)
        await withDiscardingTaskGroup { group in
            group.addTask { await self.dispatch() }
            group.addTask { await self.pods.run(width: self.pace.podWidth) { await self.annotate($0) } }
            group.addTask { await self.nodes.run(width: self.pace.nodeWidth) { await self.reconcile(node: $0) } }
            group.addTask { await self.creations.run(width: 1) { await self.create(node: $0) } }
            group.addTask { await self.runSlices() }
            group.addTask { await self.runCluster() }
            group.addTask { await self.runEpochs() }
            group.addTask { await self.runStatuses() }
        }
        await hub.setLed(false)
    }

    /// Nothing is decided on half of what there is.
    private func waitForSync() async -> Bool {
        let begin = clock.now()
        var told: [String] = []
        while !Task.isCancelled {
            if await hub.isSynced { return true }
            // Not before the first lists can have come; then whenever it is something else that is waited for.
            if clock.now() - begin >= .seconds(5) {
                let missing = await hub.missing
                if missing != told {
                    logger.warning(
                        "leading, but nothing is done before everything has been read",
                        metadata: ["missing": "\(missing.joined(separator: "; "))"])
                }
                told = missing
            }
            await pause(.milliseconds(50))
        }
        return false
    }

    func pause(_ duration: Duration) async { await clock.sleep(duration) }

    /// Hands out what is to be done.
    private func dispatch() async {
        var isFirst = true
        var holds: [String] = []
        while !Task.isCancelled {
            let work = await hub.settle(everything: isFirst)
            isFirst = false
            pods.add(work.pods)
            nodes.add(work.nodes)
            if work.hasReports { slicesChanged.set() }
            if work.hasRules { clusterChanged.set() }
            if work.hasEpochs { epochsChanged.set() }
            if work.isAnything { statusesChanged.set() }
            holds = await tell(holds)
            // Never more than a quarter of the time.
            await pause(max(pace.settle, work.took * 3))
            await hub.changed.wait()
        }
    }

    private func tell(_ before: [String]) async -> [String] {
        let holds = await hub.holds
        guard holds != before else { return before }
        if holds.isEmpty {
            logger.notice("everything is known again: what nobody asks for is lifted")
        } else {
            logger.warning(
                "nothing is lifted until everything is known again",
                metadata: ["why": "\(holds.joined(separator: "; "))"])
        }
        return holds
    }

    // MARK: Pods

    private func annotate(_ key: ObjectKey) async -> WorkOutcome {
        let witness = await hub.witness(.pods, key)
        guard mayWrite, let (plan, body, reference, version) = await hub.annotationPatch(key) else {
            podConflicts.forget(key)
            return .done
        }
        do throws(KubernetesError) {
            let pod = try await api.mergePatch(Pod.self, key, subresource: nil, body: body)
            await hub.put(trimmed(pod), since: witness)
            podConflicts.forget(key)
            board.count(.pods, isSuccess: true)
            let isWarning = plan.event.reason == "OptOutOverruled"
            recorder.record(
                isWarning ? .warning : .normal, regarding: reference, reason: plan.event.reason, action: "Annotate",
                note: plan.event.message)
            return .done
        } catch {
            switch error.code {
            case .notFound: return .done
            case .conflict:
                return podConflicts.isNew(key, version) ? .recheck(Self.watchDelay) : await refresh(Pod.self, key)
            default:
                board.count(.pods, isSuccess: false)
                logger.warning("cannot annotate", metadata: ["pod": "\(key)", "error": "\(error.message)"])
                return error.outcome
            }
        }
    }

    /// After a conflict, the watch brings what we did not know, nearly always within this time. Only if it does not, the server is asked.
    private static let watchDelay = Duration.milliseconds(500)
    private let podConflicts = Conflicts<ObjectKey>()
    private let nodeConflicts = Conflicts<String>()

    /// Our view was old: takes the newest, and tries again.
    private func refresh<O: Inventoried>(_ type: O.Type, _ key: ObjectKey) async -> WorkOutcome {
        do throws(KubernetesError) {
            let witness = await hub.witness(O.place.kind, key)
            await hub.put(trimmed(try await api.get(type, key)), since: witness)
            return .after(.milliseconds(10))
        } catch {
            return error.code == .notFound ? .done : error.outcome
        }
    }

    private func trimmed<O: KubernetesObject>(_ object: O) -> O {
        var object = object
        object.trim()
        return object
    }

    // MARK: Nodes

    private func reconcile(node name: String) async -> WorkOutcome {
        guard mayWrite else { return .done }
        switch await hub.nodeWork(name) {
        case .none:
            gone.forget(name)
            return .done
        case .create:
            creations.add([name])
            return .done
        case .write(let endpoints, let resourceVersion):
            gone.forget(name)
            return await write(endpoints, of: name, resourceVersion)
        case .merge:
            return await merge(name)
        case .remove(let uid):
            return await remove(node: name, uid)
        case .later:
            return .recheck(pace.nodeGrace)
        }
    }

    private func write(
        _ endpoints: [EncryptionNodeObject.Endpoint], of name: String, _ resourceVersion: String?
    ) async -> WorkOutcome {
        let body = JSONWriter.patch(resourceVersion: resourceVersion) { writer in
            writer.key("spec")
            writer.spec(endpoints)
        }
        let witness = await hub.witness(.encryptionNodes, ObjectKey(name: name))
        do throws(KubernetesError) {
            let header = try await api.mergePatch(
                EncryptionNodeHeader.self, ObjectKey(name: name), subresource: nil, body: body)
            await hub.wrote(
                endpoints, of: name, resourceVersion: header.metadata.resourceVersion, since: witness)
            nodeConflicts.forget(name)
            board.count(.nodes, isSuccess: true)
            // What comes in the meantime goes with the next write.
            return .after(pace.node)
        } catch {
            if error.code == .conflict {
                return nodeConflicts.isNew(name, resourceVersion)
                    ? .recheck(Self.watchDelay) : await refresh(EncryptionNodeObject.self, ObjectKey(name: name))
            }
            nodeConflicts.forget(name)
            if error.code == .notFound { return .done }
            board.count(.nodes, isSuccess: false)
            logger.warning("cannot write endpoints", metadata: ["node": "\(name)", "error": "\(error.message)"])
            return error.outcome
        }
    }

    /// While something that could ask for protection is not surely known: adds, and takes nothing away.
    private func merge(_ name: String) async -> WorkOutcome {
        do throws(KubernetesError) {
            let object = try await api.get(EncryptionNodeObject.self, ObjectKey(name: name))
            let existing = object.spec?.endpoints ?? []
            let held = await hub.heldEndpoints(name, existing: existing)
            guard held != existing, mayWrite else { return .done }
            return await write(held, of: name, object.metadata.resourceVersion)
        } catch {
            return error.code == .notFound ? .done : error.outcome
        }
    }

    private func remove(node name: String, _ uid: String?) async -> WorkOutcome {
        let waited = clock.now() - gone.since(name, clock.now())
        guard waited >= pace.nodeGrace else { return .recheck(pace.nodeGrace - waited) }
        do throws(KubernetesError) {
            do throws(KubernetesError) {
                // The watch may be behind: the server has the last word.
                _ = try await api.get(Node.self, ObjectKey(name: name))
                gone.forget(name)
                return .recheck(pace.nodeGrace)
            } catch {
                guard error.code == .notFound else { throw error }
            }
            guard mayWrite else { return .done }
            try await api.delete(EncryptionNodeObject.self, ObjectKey(name: name), preconditionUID: uid)
            gone.forget(name)
            board.count(.nodes, isSuccess: true)
            logger.notice("removed: the node is gone", metadata: ["node": "\(name)"])
            return .done
        } catch {
            if error.code == .notFound { return .done }
            if error.code == .conflict { return await refresh(EncryptionNodeObject.self, ObjectKey(name: name)) }
            logger.warning("cannot remove", metadata: ["node": "\(name)", "error": "\(error.message)"])
            return error.outcome
        }
    }
    private let gone = GoneNodes()

    // MARK: New nodes

    /// One at a time: each number is given once.
    private func create(node name: String) async -> WorkOutcome {
        guard mayWrite, case .create(let endpoints) = await hub.nodeWork(name) else { return .done }
        do throws(KubernetesError) {
            guard let number = try await numbers.next(self) else { return .recheck(.milliseconds(500)) }
            guard mayWrite else { return .done }
            let witness = await hub.witness(.encryptionNodes, ObjectKey(name: name))
            let object = try await api.create(
                EncryptionNodeObject(name: name, spec: .init(nodeID: number, endpoints: endpoints)))
            await hub.put(object, since: witness)
            board.count(.nodes, isSuccess: true)
            logger.info("new node", metadata: ["node": "\(name)", "id": "\(number)"])
            return .done
        } catch {
            if error.code == .alreadyExists { return await refresh(EncryptionNodeObject.self, ObjectKey(name: name)) }
            board.count(.nodes, isSuccess: false)
            logger.warning("cannot create", metadata: ["node": "\(name)", "error": "\(error.message)"])
            return error.outcome
        }
    }
    private let numbers = NumberSource()
}

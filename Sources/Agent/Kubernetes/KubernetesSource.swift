public import Cluster
public import Datapath
internal import Glibc
public import Keys
public import Kubernetes
public import Logging
internal import Netlink
internal import Synchronization

/// The cluster's objects from an API server; our node's object as our EncryptionNode's status; our pods where their addresses are.
///
/// What cannot be read, or is not there any more although it should be, leaves in force what was read before.
public final class KubernetesSource: ClusterSource {
    private typealias NodeTable = ObjectTable<EncryptionNodeObject, StatusPublisher.Seen>
    private typealias EpochTable = ObjectTable<EncryptionEpochObject, EncryptionEpoch>
    private typealias ClusterTable = ObjectTable<ClusterConfigMap, Cluster>

    /// Our EncryptionNode has another number than the one that we work with.
    public struct NumberChanged: Error, CustomStringConvertible {
        /// For people.
        public let description: String
    }

    private let api: any KubernetesAPI
    private let name: String
    private let nodeID: NodeID
    private let namespace: String
    private let configuration: KubernetesConfiguration
    private let directory: RuntimeDirectory
    private let clock: KubernetesClock
    private let logger: Logger

    private let signal = ChangeSignal()
    private let nodes: NodeTable
    private let slices: SliceTable
    private let epochs: EpochTable
    private let clusters: ClusterTable
    private let finder: PodFinder
    private let sandboxes: SandboxStore
    private let publisher: StatusPublisher
    /// nil: addresses of services are left alone.
    private let services: ServiceFollower?
    /// Why addresses of services cannot be replaced.
    private let servicesFailure: String?
    private let state: Mutex<State>

    private struct State {
        var reader: KubernetesReader
        var memory: KubernetesMemory
        var published: EncryptionNode?
        /// Pods as the last reading had them.
        var pods: LocalPods?
        /// What the kernel held after the last reconciliation.
        var kernel: DatapathState?
        /// What was in the way, by pod.
        var obstacles: [String: String] = [:]
        var isReady = false
        /// Since when, for the first time.
        var readySince: Duration?
        /// How many addresses had come or gone when the last reconciliation ended: see `ServiceFollower.asked`.
        var servicesAsked = 0
        /// Our EncryptionNode was there once; its pods stay when it goes.
        var spec: EncryptionNodeObject.Spec?
        var protectedPods: [String] = []
        /// As it was read last.
        var cluster: Cluster?
    }

    /// Makes a source; nothing happens before `run`.
    ///
    /// - Parameters:
    ///   - name: of our node.
    ///   - nodeID: Its number: see `nodeID(...)`.
    ///   - namespace: of the ConfigMap.
    ///   - datapath: with what an earlier run has left.
    public init(
        api: any KubernetesAPI, name: String, nodeID: NodeID, namespace: String, configuration: KubernetesConfiguration,
        directory: RuntimeDirectory, datapath: Datapath, version: String, logger: Logger
    ) throws {
        let kernel = try datapath.state()
        self.api = api
        self.name = name
        self.nodeID = nodeID
        self.namespace = namespace
        self.configuration = configuration
        self.directory = directory
        self.logger = logger
        clock = .system
        let nodes = NodeTable(signal: signal) { object, before in
            // What cannot be read of the spec stays as it was; the version is the new one.
            (
                StatusPublisher.Seen(
                    spec: object.spec ?? before?.spec, status: object.status,
                    resourceVersion: object.metadata.resourceVersion), object.spec == nil ? object.unreadable : nil
            )
        }
        self.nodes = nodes
        slices = SliceTable(own: name, signal: signal)
        epochs = EpochTable(signal: signal) { object, _ in (object.spec, object.unreadable) }
        clusters = ClusterTable(signal: signal) { object, _ in
            do throws(ObjectCoding.Problem) {
                return (try object.cluster(), nil)
            } catch {
                return (nil, error.description)
            }
        }
        finder = PodFinder(roots: configuration.roots)
        sandboxes = try SandboxStore(folder: "\(directory.path)/sandboxes") { datapath.hasLiveLinks(name: $0) }
        publisher = StatusPublisher(api: api, name: name, version: version, logger: logger) {
            nodes.content.values[name]
        }
        servicesFailure = datapath.balancerFailure
        services = datapath.balancer.map { [signal] balancer in
            ServiceFollower(
                api: api, node: name, excluded: configuration.exceptNamespaces,
                kernel: ServiceKernel(datapath: datapath, balancer: balancer), changed: signal, logger: logger)
        }
        var memory = KubernetesMemory.read(directory) ?? KubernetesMemory(nodeID: nodeID)
        memory.nodeID = nodeID
        if memory.incarnation != kernel.incarnation {
            (memory.incarnation, memory.appliedThrough, memory.notApplied) = (kernel.incarnation, 0, [])
        }
        state = Mutex(
            State(
                reader: KubernetesReader(
                    name: name, applied: memory.appliedThrough,
                    acknowledgements: Acknowledgements(kernel: kernel, published: directory.published)),
                memory: memory, kernel: kernel))
    }

    // MARK: following

    /// Follows the API server until the task is cancelled.
    public func run(_ onReading: @escaping @Sendable (Reading) -> Void) async throws {
        let signal = signal
        let watcher = try PodWatcher(roots: configuration.roots) { signal.set() }
        defer { watcher.stop() }
        var server: CNIServer?
        if let socket = configuration.socket(runtime: directory.path) {
            let gate = makeGate()
            server = try CNIServer(path: socket, logger: logger) { request in await gate.handle(request) }
        }
        defer { server?.stop() }

        try await withThrowingTaskGroup(of: Void.self) { group in
            let own = "metadata.name=\(name)"
            let (api, logger) = (api, logger)
            group.addTask { [nodes] in
                await nodes.run(Reflector(api: api, fieldSelector: own, logger: logger))
            }
            group.addTask { [slices] in await slices.run(Reflector(api: api, pageSize: 8, logger: logger)) }
            group.addTask { [epochs] in await epochs.run(Reflector(api: api, logger: logger)) }
            group.addTask { [clusters, namespace] in
                await clusters.run(
                    Reflector(
                        api: api, namespace: namespace, fieldSelector: "metadata.name=\(ClusterConfigMap.name)",
                        logger: logger))
            }
            group.addTask { await self.publisher.run() }
            if let services { group.addTask { await services.run() } }
            group.addTask { await self.reviewSandboxes() }
            group.addTask { try await self.read(onReading) }
            try await group.next()
            group.cancelAll()
        }
    }

    private func read(_ onReading: @escaping @Sendable (Reading) -> Void) async throws {
        let begin = clock.now()
        var last: Reading?
        var lookedAt = Duration.zero
        while !Task.isCancelled {
            let started = clock.now()
            let isFresh = started - lookedAt >= .seconds(30)
            if isFresh { lookedAt = started }
            let (reading, isMissing) = try makeReading(isFresh: isFresh, since: started - begin)
            if let reading, reading != last {
                last = reading
                onReading(reading)
            }
            publisher.look()
            // A third of the time at most goes into this; pods that are missing are looked for often.
            let took = clock.now() - started
            await clock.sleep(max(.milliseconds(5), took * 2))
            let alarm = Task { [clock, signal] in
                await clock.sleep(isMissing ? .milliseconds(500) : .seconds(5))
                if !Task.isCancelled { signal.set() }
            }
            await signal.wait()
            alarm.cancel()
        }
    }

    private func makeReading(isFresh: Bool, since start: Duration) throws -> (Reading?, isMissing: Bool) {
        var (objects, node) = collect()
        if let spec = node?.spec, spec.nodeID != nodeID {
            throw NumberChanged(
                description:
                    "EncryptionNode \(name) has the number \(spec.nodeID) now, and not \(nodeID); starting again with it"
            )
        }
        let sandboxes = sandboxes.sandboxes
        let (spec, attached) = state.withLock { state in
            if let spec = node?.spec { state.spec = spec }
            return (state.spec, (state.kernel?.attachments ?? [:]).mapValues(\.pod))
        }
        let pods = LocalPods(spec: spec?.endpoints ?? [], sandboxes: sandboxes)
        for sandbox in pods.takenOver { self.sandboxes.release(sandbox) }
        let findings = finder.find(pods.wanted(attached: attached), isFresh: isFresh)
        objects.problems.formUnion(findings.problems)
        for name in findings.missing.sorted() {
            guard let pod = pods.pods[name] else { continue }
            let addresses = pod.addresses.map(\.description).joined(separator: " or ")
            objects.problems.insert(
                Problem(
                    .error, "endpoints/\(name).json",
                    "no network namespace in \(configuration.roots.joined(separator: ", ")) has \(addresses)"))
        }
        objects.problems.formUnion(publisher.problems)
        if let services { objects.problems.formUnion(services.problems) }
        if let servicesFailure {
            objects.problems.insert(
                Problem(
                    .error, "services",
                    "their addresses are not replaced at sockets, so those of protected pods do not work: \(servicesFailure)"
                ))
        }
        if state.withLock({ isTiredOfServices($0) }) {
            objects.problems.insert(
                Problem(
                    .error, "services",
                    "have not been read, so protected pods start without them: their connections to services fail until they have"
                ))
        }
        return state.withLock { state in
            state.pods = pods
            keepCluster(&objects, &state)
            rememberEpochs(objects, &state)
            rememberProtected(pods, &state)
            let published = state.published ?? node?.status?.report?.node
            let reading = state.reader.reading(
                objects, endpoints: pods.endpoints(node: name, findings, attached: attached), published: published,
                clock: clock.now())
            state.isReady = reading?.snapshot.cluster != nil && !objects.incomplete.contains(.endpoints)
            if state.isReady, state.readySince == nil { state.readySince = clock.now() }
            // An API server that does not answer from the start: what must end must end all the same.
            let isLate = reading == nil && start >= .seconds(30)
            return (reading ?? (isLate ? remembered(state.memory, objects) : nil), !findings.missing.isEmpty)
        }
    }

    /// The cluster's object never ends: without it nothing else could be trusted.
    private func keepCluster(_ objects: inout KubernetesObjects, _ state: inout State) {
        if objects.cluster != nil {
            state.cluster = objects.cluster
        } else if objects.isSynced {
            objects.problems.insert(
                Problem(
                    .error, "configmap \(namespace)/\(ClusterConfigMap.name)",
                    state.cluster == nil
                        ? "is not there or cannot be read; the operator makes it. Nothing is protected before"
                        : "is gone or cannot be read; its last good version stays in force"))
            objects.cluster = state.cluster
        }
    }

    /// Whether a pod that starts finds the services in force that there are for the addresses which the last reconciliation has set: a
    /// connection that it makes before would go to kube-proxy.
    private func areServicesInForce(_ state: State) -> Bool {
        guard let services else { return true }
        return services.isInForce ? services.done >= state.servicesAsked : isTiredOfServices(state)
    }

    /// Services cannot be read, and pods have waited long enough.
    private func isTiredOfServices(_ state: State) -> Bool {
        guard let services, !services.isInForce, let since = state.readySince else { return false }
        return clock.now() - since >= .seconds(30)
    }

    /// Nothing but the ends of epochs.
    private func remembered(_ memory: KubernetesMemory, _ objects: KubernetesObjects) -> Reading {
        var problems = objects.problems
        problems.insert(
            Problem(
                .error, "api-server",
                "has not been read since the start; what is in the kernel stays in force until its epochs end"))
        return Reading(
            Snapshot(
                epochs: memory.epochs.reduce(into: [:]) { $0[$1.number] = $1 }, problems: problems,
                incomplete: Set(ObjectKind.allCases)))
    }

    /// Puts together what the tables hold.
    private func collect() -> (KubernetesObjects, StatusPublisher.Seen?) {
        let (nodes, slices, epochs, clusters) = (nodes.content, slices.content, epochs.content, clusters.content)
        let node = nodes.values[name]
        var objects = KubernetesObjects()
        objects.cluster = clusters.values[ClusterConfigMap.name]
        objects.view = slices.view
        objects.epochs = epochs.values.values.reduce(into: [:]) { $0[$1.number] = $1 }
        objects.isSynced = nodes.isSynced && slices.isSynced && epochs.isSynced && clusters.isSynced
        objects.hasUnreadableSlice = !slices.problems.isEmpty
        if slices.unknown { objects.incomplete.insert(.nodes) }
        if epochs.unknown { objects.incomplete.insert(.epochs) }
        func add(_ kind: String, _ problems: [String: String]) {
            for (name, problem) in problems {
                objects.problems.insert(
                    Problem(.error, "\(kind) \(name)", "\(problem); its last good version stays in force"))
            }
        }
        add("encryptionnode", nodes.problems)
        add("encryptedendpointslice", slices.problems)
        if !slices.view.behind.isEmpty {
            objects.problems.insert(
                Problem(
                    .warning, "encryptedendpointslices",
                    "slices or changes of \(slices.view.behind.count) nodes are missing; their last good state stays in force until the operator writes their slices anew"
                ))
        }
        add("encryptionepoch", epochs.problems)
        add("configmap", clusters.problems)
        if objects.isSynced, node?.spec == nil {
            // It was there when we started. Its pods stay.
            objects.incomplete.insert(.endpoints)
            objects.problems.insert(
                Problem(
                    .error, "encryptionnode \(name)",
                    "is not there; the operator makes it. Pods that were protected stay so, no new ones come"))
        }
        let failures = [
            ("encryptionnodes", nodes.failure), ("encryptedendpointslices", slices.failure),
            ("encryptionepochs", epochs.failure), ("configmaps", clusters.failure),
        ]
        for (kind, failure) in failures {
            guard let failure else { continue }
            objects.problems.insert(
                Problem(.warning, "api-server", "\(kind) cannot be followed: \(failure); what is known stays in force"))
        }
        return (objects, node)
    }

    private func rememberEpochs(_ objects: KubernetesObjects, _ state: inout State) {
        guard objects.isSynced else { return }
        let epochs = objects.epochs.values.sorted { $0.number < $1.number }
        guard epochs != state.memory.epochs else { return }
        state.memory.epochs = epochs
        write(state.memory)
    }

    /// For the CNI plugin while nobody answers at the socket: pods of this node that must not start then.
    private func rememberProtected(_ pods: LocalPods, _ state: inout State) {
        let names = Set(pods.pods.values.map(\.label)).sorted()
        guard names != state.protectedPods else { return }
        state.protectedPods = names
        do {
            try AtomicFile.write(
                Array(names.map { $0 + "\n" }.joined().utf8), to: "\(directory.path)/\(ProtectedPods.file)")
        } catch {
            logger.error("cannot write", metadata: ["file": "\(ProtectedPods.file)", "what": "\(error)"])
        }
    }

    private func write(_ memory: KubernetesMemory) {
        do {
            try memory.write(directory)
        } catch {
            logger.error("cannot write", metadata: ["file": "kubernetes.json", "what": "\(error)"])
        }
    }

    // MARK: publishing

    /// Hands our node's object to who writes the status.
    public func publish(_ node: EncryptionNode, _ reading: Reading) throws {
        try state.withLock { state in try say(node, reading, &state) }
        signal.set()
    }

    private func say(_ node: EncryptionNode, _ reading: Reading, _ state: inout State) throws {
        let others = Set(reading.snapshot.nodes.keys).subtracting([name])
        let notApplied = others.subtracting(node.applied.keys).sorted()
        var memory = state.memory
        (memory.incarnation, memory.appliedThrough, memory.notApplied) =
            (node.incarnation, reading.sequence, notApplied)
        if memory != state.memory { try memory.write(directory) }
        state.memory = memory
        state.published = node
        publisher.want(
            NodeReport(node, appliedThrough: reading.sequence, notApplied: notApplied), nodes: others.count + 1)
    }

    /// Keeps what the CNI plugin waits for, and what people are told.
    public func reconciled(_ report: Reconciler.Report, _ reading: Reading, published: EncryptionNode?) {
        state.withLock { state in
            state.servicesAsked = services?.asked ?? 0
            if var kernel = report.state {
                // Of other nodes nothing is asked here.
                (kernel.associations, kernel.peers) = ([:], [:])
                state.kernel = kernel
            }
            state.obstacles = report.problems.reduce(into: [:]) { obstacles, problem in
                if problem.severity == .error { obstacles[problem.object] = problem.message }
            }
            // Others wait for something that brought nothing new to us, such as slices that were numbered anew.
            if let published, !report.needsRetry, reading.snapshot.cluster != nil,
                let said = publisher.report, said.incarnation == published.incarnation,
                said.appliedThrough < reading.due
            {
                try? say(published, reading, &state)
            }
        }
        let hasKeys = !(report.state?.associations.isEmpty ?? true)
        let engine = hasKeys ? CipherDriver.current()?.name ?? "ecb(aes)" : nil
        publisher.describe(engine: engine, problems: Array(report.problems))
    }

    /// A pod's namespace/name for its UID, as far as it is known.
    public func label(_ endpoint: String) -> String? { state.withLock { $0.pods?.pods[endpoint]?.label } }

    /// A pod by its name, as far as it is known.
    public func describe(_ problem: Problem) -> Problem {
        var problem = problem
        if problem.object.hasPrefix("endpoints/"), problem.object.hasSuffix(".json") {
            let uid = String(problem.object.dropFirst("endpoints/".count).dropLast(".json".count))
            problem.object = "pod \(label(uid) ?? uid)"
        } else if problem.object.hasPrefix("nodes/"), problem.object.hasSuffix(".json") {
            problem.object = "node \(problem.object.dropFirst("nodes/".count).dropLast(".json".count))"
        } else if problem.object.hasPrefix("epochs/") {
            problem.object =
                problem.object == "epochs/"
                ? "epochs" : "epoch \(problem.object.dropFirst("epochs/".count).dropLast(".json".count))"
        }
        return problem
    }

    /// The kernel, for pods that were found by their addresses.
    public func confirming(_ datapath: Datapath) -> any DatapathControl {
        ConfirmedDatapath(
            base: datapath, confirms: { [finder] in finder.confirms($0) },
            isLive: { datapath.hasLiveLinks(name: $0) }, endpointsChanged: { [services] in services?.look($0) })
    }

    // MARK: pods that start

    private func makeGate() -> PodGate {
        PodGate(
            sandboxes: sandboxes, api: api, clock: clock, decision: configuration.decision, logger: logger,
            wanted: { [self] uid, namespace, name in
                state.withLock { state in
                    state.spec?.endpoints.first {
                        $0.name == uid || (uid == nil && $0.pod.namespace == namespace && $0.pod.name == name)
                    }?.mode
                }
            },
            notReady: { [self] in
                state.withLock {
                    $0.isReady ? nil : "ebpf-xdp-keymgr has not read the cluster's objects yet; see its log"
                }
            },
            changed: { [signal] in signal.set() },
            isInForce: { [self] sandbox in
                let (attachment, isKnown, obstacle) = state.withLock { state in
                    (
                        state.kernel?.attachments[sandbox.uid],
                        sandbox.addresses.allSatisfy { state.kernel?.endpoints[$0]?.isLocal == true },
                        state.obstacles["pod \(state.pods?.pods[sandbox.uid]?.label ?? sandbox.label)"]
                    )
                }
                // Not the one of an earlier sandbox of this pod.
                guard let attachment, attachment.isWhole, isKnown,
                    NamespaceIdentity(path: attachment.pod.networkNamespace) == sandbox.identity
                else { return (false, obstacle) }
                return (true, nil)
            },
            isAwaited: { [self] in
                state.withLock { areServicesInForce($0) }
                    ? nil : "services have not been read, or are not in force, yet"
            })
    }

    /// Pods whose protection was decided on at their start, and that the operator has not taken up: is it still asked for?
    private func reviewSandboxes() async {
        while !Task.isCancelled {
            await clock.sleep(.seconds(30))
            let isReady = state.withLock { $0.isReady }
            for sandbox in sandboxes.sandboxes where isReady && sandbox.protection != nil {
                guard Timestamp.now().milliseconds(since: sandbox.added) > 60_000 else { continue }
                let key = ObjectKey(namespace: sandbox.podNamespace, name: sandbox.podName)
                let isOver: Bool
                do throws(KubernetesError) {
                    let pod = try await api.get(PodRecord.self, key)
                    // The API server's own word, after the operator had a minute.
                    isOver = pod.metadata.uid == sandbox.uid && PodRequest(pod.metadata.annotations ?? [:]) == .none
                } catch {
                    // A pod that is gone takes its namespace with it, and the plugin tells of that.
                    isOver = false
                }
                if isOver {
                    logger.notice("protection is not asked for any more", metadata: ["pod": "\(sandbox.label)"])
                    sandboxes.release(sandbox)
                    signal.set()
                }
            }
        }
    }
}

extension KubernetesSource {
    /// Our node's number, from our EncryptionNode. Waits until the operator has made that. When the API server does not answer, an earlier
    /// run's number in this boot is taken, so that what must end ends in time.
    public static func nodeID(
        api: any KubernetesAPI, name: String, directory: RuntimeDirectory, logger: Logger
    ) async throws -> NodeID {
        let clock = KubernetesClock.system
        let begin = clock.now()
        var said = ""
        while true {
            try Task.checkCancellation()
            var what: String
            do throws(KubernetesError) {
                let node = try await api.get(EncryptionNodeObject.self, ObjectKey(name: name))
                if let spec = node.spec { return spec.nodeID }
                what = "EncryptionNode \(name) cannot be read: \(node.unreadable ?? "it has no spec")"
            } catch {
                what =
                    error.code == .notFound
                    ? "there is no EncryptionNode \(name) yet: does ebpf-xdp-operator run, and is \(name) the node's name?"
                    : "the API server does not help: \(error)"
                if error.code != .notFound, clock.now() - begin >= .seconds(10),
                    let memory = KubernetesMemory.read(directory)
                {
                    logger.warning("working with the number of an earlier run", metadata: ["what": "\(what)"])
                    return memory.nodeID
                }
            }
            if what != said { logger.warning("waiting", metadata: ["for": "\(what)"]) }
            said = what
            await clock.sleep(.milliseconds(500) + .seconds(2) * clock.random())
        }
    }
}

internal import Cluster
public import KMS
public import Kubernetes
public import Logging
internal import Synchronization
internal import Telemetry

/// The operator: watches, and works while it leads.
public final class Operator: Sendable {
    private let api: any KubernetesAPI
    private let configuration: OperatorConfiguration
    private let namespace: String
    private let identity: String
    private let kms: any KeyManagementService
    private let clock: KubernetesClock
    private let logger: Logger
    private let hub: Hub
    private let board: StatusBoard
    private let recorder: EventRecorder
    private let session = Mutex<LeaderSession?>(nil)
    let pace: LeaderSession.Pace
    let watchers: Watchers

    /// Sets everything up; nothing happens before `run`.
    ///
    /// - Parameters:
    ///   - namespace: of the Lease and the cluster's ConfigMap.
    ///   - identity: unique among the replicas: the pod's name and something random.
    public convenience init(
        api: any KubernetesAPI, configuration: OperatorConfiguration, namespace: String, identity: String,
        kms: any KeyManagementService, clock: KubernetesClock = .system, logger: Logger
    ) {
        self.init(
            api: api, configuration: configuration, namespace: namespace, identity: identity, kms: kms, clock: clock,
            logger: logger, pace: LeaderSession.Pace())
    }

    init(
        api: any KubernetesAPI, configuration: OperatorConfiguration, namespace: String, identity: String,
        kms: any KeyManagementService, clock: KubernetesClock, logger: Logger, pace: LeaderSession.Pace,
        absence: (start: Duration, later: Duration)? = nil, discoveryInterval: Duration? = nil
    ) {
        self.api = api
        self.configuration = configuration
        self.namespace = namespace
        self.identity = identity
        self.kms = kms
        self.clock = clock
        self.logger = logger
        self.pace = pace
        board = StatusBoard(configuration)
        hub = Hub(clusterDomain: configuration.domain, clock: clock)
        recorder = EventRecorder(
            api: api, component: "encryption.ebpf.xdp/operator", instance: identity, clock: clock, logger: logger)
        var watchers = Watchers(api: api, hub: hub, clock: clock, logger: logger)
        if let absence { watchers.absence = absence }
        if let discoveryInterval { watchers.discoveryInterval = discoveryInterval }
        self.watchers = watchers
    }

    /// Works until the task is cancelled; then gives the lease back. Throws only for what a restart would not change.
    public func run() async throws(KubernetesError) {
        let elector = try LeaderElector(api: api, configuration: election, clock: clock, logger: logger)
        await withDiscardingTaskGroup { group in
            group.addTask { await self.watchers.run() }
            group.addTask { await self.recorder.run() }
            await elector.run { leadership in
                await self.lead(leadership)
            } onStopped: {
                self.session.withLock { $0 = nil }
                self.board.update { $0.isLeading = false }
            }
            group.cancelAll()
        }
    }

    private var election: LeaderElector.Configuration {
        let election = configuration.leaderElection ?? OperatorConfiguration.LeaderElection()
        return LeaderElector.Configuration(
            namespace: namespace, name: election.leaseName ?? "ebpf-xdp-operator", identity: identity,
            leaseDuration: .seconds(election.leaseDurationSeconds ?? 15),
            renewDeadline: .seconds(election.renewDeadlineSeconds ?? 10),
            retryPeriod: .seconds(election.retryPeriodSeconds ?? 2))
    }

    private func lead(_ leadership: Leadership) async {
        let session = LeaderSession(
            api: api, hub: hub, leadership: leadership, configuration: configuration, namespace: namespace, kms: kms,
            recorder: recorder, board: board, clock: clock, pace: pace, logger: logger)
        self.session.withLock { $0 = session }
        board.update { status in
            status.isLeading = true
            status.term = leadership.term
        }
        await session.run()
    }

    // MARK: For probes and people

    /// What a path of the status server is answered with.
    public func answer(_ path: String) async -> (status: Int, body: String)? {
        switch path {
        case "/healthz":
            // The hub is what everything goes through: if it does not answer, nothing does.
            _ = await hub.isSynced
            return (200, "ok\n")
        case "/readyz":
            let missing = await hub.missing
            return missing.isEmpty ? (200, "ok\n") : (503, missing.joined(separator: "\n") + "\n")
        case "/metrics": return (200, await metrics())
        default: return nil
        }
    }

    private func metrics() async -> String {
        let numbers = await hub.numbers
        let status = board.status
        let session = session.withLock { $0 }
        var text = MetricsText(prefix: "xdp_encryptor_operator_")
        text.add(.gauge, "leader", "Whether this replica leads.", status.isLeading ? 1 : 0)
        text.add(.gauge, "pods", "Pods that are known.", numbers.pods)
        text.add(.gauge, "pods_asked", "Pods that shall be protected.", numbers.wanted)
        text.add(.gauge, "endpoints_ready", "Endpoints that nodes have published as protected.", numbers.endpointsReady)
        text.add(.gauge, "nodes", "Nodes that are known.", numbers.nodes)
        text.add(.gauge, "encryption_nodes", "Nodes that have a number.", numbers.encryptionNodes)
        text.add(.gauge, "encryption_nodes_reporting", "Nodes that have published something.", numbers.reporting)
        text.add(.gauge, "policies", "Encryption policies.", numbers.policies)
        text.add(.gauge, "mesh_resources", "ServiceEntries and VirtualServices.", numbers.mesh)
        text.add(.gauge, "holds", "Reasons for which nothing is lifted at present.", numbers.holds)
        text.add(.counter, "events_total", "Events of watches.", numbers.events)
        text.add(.counter, "api_events_dropped_total", "Events for people that were not written.", recorder.dropped)
        text.add(
            .gauge, "settle_seconds", "How long it took to work out the last changes.",
            [([:], numbers.settle / .seconds(1))])
        text.add(.gauge, "slices", "Endpoint slices.", status.slices)
        text.add(.gauge, "slice_sequence", "Number of the newest write of a slice.", status.sequence)
        text.add(
            .gauge, "epochs", "Epochs by state.",
            EpochDecision.State.allKnown.map { state in
                (["state": state.rawValue], Double(status.epochs.values.count { $0 == state }))
            })
        text.add(.gauge, "kms_healthy", "Whether the KMS answered well last time.", status.kmsError == nil ? 1 : 0)
        text.add(
            .gauge, "service_translation",
            "1: services work between protected pods; 0: they do not; -1: nobody can tell.",
            status.translation.works.map { $0 ? 1 : 0 } ?? -1)
        text.add(
            .counter, "writes_total", "Writes of objects.",
            StatusBoard.Target.allCases.flatMap { target in
                [
                    (["target": target.rawValue, "result": "success"], Double(status.succeeded[target] ?? 0)),
                    (["target": target.rawValue, "result": "failure"], Double(status.failed[target] ?? 0)),
                ]
            })
        if let session {
            text.add(
                .gauge, "queue", "Objects that wait to be written.",
                [
                    (["target": "pods"], Double(session.pods.count)),
                    (["target": "nodes"], Double(session.nodes.count)),
                    (["target": "new_nodes"], Double(session.creations.count)),
                ])
        }
        return text.text
    }
}

extension EpochDecision.State {
    fileprivate static let allKnown: [EpochDecision.State] = [
        .waiting, .prepared, .active, .retiring, .ended, .expired,
    ]
}

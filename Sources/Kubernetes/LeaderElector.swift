public import Logging
internal import Synchronization

/// Leadership as long as it lasts.
public final class Leadership: Sendable {
    /// Rises with every change of leader (the lease's `leaseTransitions`).
    public let term: Int
    private let clock: KubernetesClock
    private let end: Mutex<Duration>

    init(term: Int, clock: KubernetesClock, end: Duration) {
        self.term = term
        self.clock = clock
        self.end = Mutex(end)
    }

    /// Nobody else can lead at this moment. Look before every write that must not be another leader's: the task that leads is
    /// cancelled a little later than this turns false when the process was not scheduled for a while.
    public var isCurrent: Bool { clock.now() < end.withLock { $0 } }

    var deadline: Duration { end.withLock { $0 } }
    func extend(to end: Duration) { self.end.withLock { $0 = end } }
    func finish() { end.withLock { $0 = .zero } }
}

/// Lets one of several replicas lead, by a Lease; client-go's rules.
///
/// A candidate takes the lease when it is free, or when it has seen no change of it for the holder's `leaseDuration` on its own
/// monotonic clock; times that others have written decide nothing, so clocks may be wrong and may jump. A leader stops by itself
/// when its last successful renewal was sent more than `renewDeadline` ago, which is before anybody else may start.
public struct LeaderElector: Sendable {
    /// Which lease, who we are, and how fast.
    public struct Configuration: Sendable {
        /// The lease's namespace.
        public var namespace: String
        /// The lease's name.
        public var name: String
        /// Unique among the candidates: the pod's name and uid.
        public var identity: String
        /// How long the others wait for a leader that shows no life.
        public var leaseDuration: Duration
        /// How long a leader goes on without a successful renewal. Shorter than `leaseDuration`.
        public var renewDeadline: Duration
        /// Between attempts, with jitter of 20 %.
        public var retryPeriod: Duration

        /// client-go's times unless others are given.
        public init(
            namespace: String, name: String, identity: String, leaseDuration: Duration = .seconds(15),
            renewDeadline: Duration = .seconds(10), retryPeriod: Duration = .seconds(2)
        ) {
            self.namespace = namespace
            self.name = name
            self.identity = identity
            self.leaseDuration = leaseDuration
            self.renewDeadline = renewDeadline
            self.retryPeriod = retryPeriod
        }
    }

    private let api: any KubernetesAPI
    private let configuration: Configuration
    private let clock: KubernetesClock
    private let logger: Logger

    /// Makes a candidate. Throws when the times do not leave a leader time to stop before another may start.
    public init(
        api: any KubernetesAPI, configuration: Configuration, clock: KubernetesClock = .system, logger: Logger
    ) throws(KubernetesError) {
        self.api = api
        self.configuration = configuration
        self.clock = clock
        self.logger = logger
    }

    /// Campaigns, leads, campaigns again, until the task is cancelled; then gives the lease back.
    ///
    /// - Parameters:
    ///   - onStarted: leads. Cancelled when leadership ends; if it returns by itself, the lease is given back and the campaign goes on.
    ///   - onStopped: called after `onStarted` has returned, each time.
    public func run(
        onStarted: @escaping @Sendable (Leadership) async -> Void, onStopped: @escaping @Sendable () async -> Void
    ) async {
    }
}

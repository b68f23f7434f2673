public import Logging

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
        /// How long the others wait for a leader that shows no life. Whole seconds.
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
        func wrong(_ why: String) -> KubernetesError { KubernetesError(.configuration, "leader election: \(why)") }
        guard configuration.leaseDuration >= .seconds(1), configuration.leaseDuration.components.attoseconds == 0 else {
            throw wrong("the lease duration is \(configuration.leaseDuration); expected whole seconds, at least one")
        }
        guard configuration.renewDeadline < configuration.leaseDuration else {
            throw wrong("a leader has to stop (renewDeadline) before others may start (leaseDuration)")
        }
        guard configuration.retryPeriod > .zero, configuration.retryPeriod * 2 <= configuration.renewDeadline else {
            throw wrong("the retry period must be positive and fit twice into renewDeadline")
        }
        guard !configuration.identity.isEmpty else { throw wrong("the identity is empty") }
        self.api = api
        self.configuration = configuration
        self.clock = clock
        self.logger = logger
    }

    /// Campaigns, leads, campaigns again, until the task is cancelled; then gives the lease back.
    ///
    /// - Parameters:
    ///   - onStarted: leads. Cancelled when leadership ends; if it returns by itself, the lease is given back and the campaign goes on.
    ///   - onStopped: called after `onStarted` has returned, each time. The campaign waits for both.
    public func run(
        onStarted: @escaping @Sendable (Leadership) async -> Void, onStopped: @escaping @Sendable () async -> Void
    ) async {
        var record = LeaseRecord(configuration, clock: clock)
        while !Task.isCancelled {
            guard let leadership = await campaign(&record) else { return }
            logger.info("leading", metadata: ["lease": "\(record.key)", "term": "\(leadership.term)"])
            let (end, last) = await lead(leadership, record, onStarted)
            record = last
            await onStopped()
            switch end {
            case .expired:
                logger.warning(
                    "no longer leading: the lease could not be renewed in time",
                    metadata: ["lease": "\(record.key)", "renewDeadline": "\(configuration.renewDeadline)"])
            case .taken:
                logger.warning(
                    "no longer leading: another replica holds the lease",
                    metadata: ["lease": "\(record.key)", "holder": "\(record.holder ?? "")"])
            case .finished:
                await giveBack(record)
                logger.info("no longer leading: gave the lease back", metadata: ["lease": "\(record.key)"])
                // Somebody else's turn first.
                if !Task.isCancelled { await clock.sleep(configuration.retryPeriod * 2) }
            }
        }
    }

    // MARK: - Campaign

    /// Tries until we hold the lease; nil when the task is cancelled.
    private func campaign(_ record: inout LeaseRecord) async -> Leadership? {
        var wasFailing = false
        var lastHolder: String?
        while !Task.isCancelled {
            var delay = configuration.retryPeriod * (1 + 0.2 * clock.random())
            let sent = clock.now()
            do throws(KubernetesError) {
                if try await attempt(&record) {
                    return Leadership(
                        term: record.term, clock: clock, end: sent + configuration.renewDeadline)
                }
                wasFailing = false
                if let holder = record.holder, holder != lastHolder {
                    logger.info("another replica leads", metadata: ["lease": "\(record.key)", "holder": "\(holder)"])
                    lastHolder = holder
                }
            } catch {
                if !wasFailing && error.code != .cancelled {
                    logger.warning(
                        "the lease cannot be read or taken",
                        metadata: ["lease": "\(record.key)", "error": "\(error.message)"])
                }
                wasFailing = true
                delay += error.retryAfter ?? .zero
            }
            if !Task.isCancelled { await clock.sleep(delay) }
        }
        return nil
    }

    /// One try to take or renew; bounded in time, because a request that hangs must not use up the time in which another would
    /// succeed. Returns whether we hold the lease.
    private func attempt(_ record: inout LeaseRecord) async throws(KubernetesError) -> Bool {
        let start = record
        let result = await withTaskGroup(of: (LeaseRecord, Result<Bool, KubernetesError>)?.self) { group in
            group.addTask {
                var record = start
                do throws(KubernetesError) {
                    let isHeld = try await record.takeOrRenew(api)
                    return (record, .success(isHeld))
                } catch {
                    return (record, .failure(error))
                }
            }
            group.addTask {
                await clock.sleep(configuration.renewDeadline * 0.5)
                return nil
            }
            let first = await group.next() ?? nil
            group.cancelAll()
            return first
        }
        guard let (last, outcome) = result else {
            // Whether the request arrived shows in the next one: with an old version it is refused.
            throw KubernetesError(.timeout, "no answer within half of the renew deadline")
        }
        record = last
        return try outcome.get()
    }

    // MARK: - Leadership

    private enum End: Sendable {
        case finished
        case taken
        case expired
    }

    private enum Finding: Sendable {
        case end(End)
        case record(LeaseRecord, End?)
    }

    private func lead(
        _ leadership: Leadership, _ record: LeaseRecord, _ onStarted: @escaping @Sendable (Leadership) async -> Void
    ) async -> (End, LeaseRecord) {
        await withTaskGroup(of: Finding.self) { group in
            group.addTask {
                await onStarted(leadership)
                return .end(.finished)
            }
            group.addTask { await renew(leadership, record) }
            group.addTask {
                while !Task.isCancelled {
                    let left = leadership.deadline - clock.now()
                    if left <= .zero { return .end(.expired) }
                    await clock.sleep(left)
                }
                return .end(.finished)
            }
            var end: End?
            var last = record
            for await finding in group {
                switch finding {
                case .end(let reason): if end == nil { end = reason }
                case .record(let record, let reason):
                    last = record
                    if end == nil { end = reason }
                }
                leadership.finish()
                group.cancelAll()
            }
            return (end ?? .finished, last)
        }
    }

    /// Renews until the lease is another's, or the task is cancelled.
    private func renew(_ leadership: Leadership, _ start: LeaseRecord) async -> Finding {
        var record = start
        while true {
            await clock.sleep(configuration.retryPeriod * (1 + 0.2 * clock.random()))
            if Task.isCancelled { return .record(record, nil) }
            let sent = clock.now()
            do throws(KubernetesError) {
                guard try await attempt(&record) else { return .record(record, .taken) }
                leadership.extend(to: sent + configuration.renewDeadline)
            } catch {
                if error.code == .cancelled || Task.isCancelled { return .record(record, nil) }
                logger.warning(
                    "the lease could not be renewed; trying again",
                    metadata: [
                        "lease": "\(record.key)", "error": "\(error.message)",
                        "left": "\(leadership.deadline - clock.now())",
                    ])
            }
        }
    }

    /// So that the next leader need not wait. In a task of its own: ours may be cancelled already.
    private func giveBack(_ record: LeaseRecord) async {
        let task = Task {
            await withTaskGroup(of: Void.self) { group in
                group.addTask {
                    var record = record
                    try? await record.release(api)
                }
                group.addTask { await clock.sleep(configuration.retryPeriod * 2) }
                await group.next()
                group.cancelAll()
            }
        }
        await task.value
    }
}

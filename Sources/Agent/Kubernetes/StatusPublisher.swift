internal import Cluster
internal import Keys
internal import Kubernetes
internal import Logging
internal import Synchronization

/// Writes our EncryptionNode's status: what concerns ourselves at once, what only acknowledges others gathered, what is for people now
/// and then. Never holds up anybody; what could not be written is tried again, the newest only.
final class StatusPublisher: Sendable {
    /// What is to stand in the status.
    struct Wish: Sendable, Equatable {
        var report: NodeReport
        var engine: String?
        var problems: [Problem] = []
    }
    /// Our object as it was seen last.
    struct Seen: Sendable {
        var spec: EncryptionNodeObject.Spec?
        var status: EncryptionNodeObject.Status?
        var resourceVersion: String?
    }
    private struct State {
        var wish: Wish?
        var nodes = 1
        /// Since when a change has waited that need not be written at once.
        var acknowledgeSince: Duration?
        var describeSince: Duration?
        /// What the server has as far as we know, and since when.
        var written: EncryptionNodeObject.Status?
        var writtenAt: Duration?
        var resourceVersion: String?
        var failingSince: Duration?
        var failure: KubernetesError?
        var retryAt: Duration?
        var failures = 0
        var stranger: Incarnation?
    }

    private let api: any KubernetesAPI
    private let name: String
    private let version: String
    private let clock: KubernetesClock
    private let seen: @Sendable () -> Seen?
    private let logger: Logger
    private let state = Mutex(State())
    private let signal = ChangeSignal()

    /// How long what is for people waits.
    private static let describeDelay = Duration.seconds(2)
    /// How often it is shown that we are there, when there is nothing else to say.
    private static let heartbeat = Duration.seconds(300)
    /// How long the server's copy may be older than what was written before it counts as another one.
    private static let echo = Duration.seconds(10)

    /// - Parameter seen: our object as it was read last; nil when there is none.
    init(
        api: any KubernetesAPI, name: String, version: String, clock: KubernetesClock = .system, logger: Logger,
        seen: @escaping @Sendable () -> Seen?
    ) {
        self.api = api
        self.name = name
        self.version = version
        self.clock = clock
        self.logger = logger
        self.seen = seen
    }

    /// How long a write waits that only acknowledges: all nodes together write 200 times a second at most.
    static func acknowledgeDelay(nodes: Int) -> Duration { max(.milliseconds(250), .milliseconds(nodes * 5)) }

    /// What the status says, or will say.
    var report: NodeReport? { state.withLock { $0.wish?.report } }

    /// Sets what is to be said of the node; what is for people stays.
    func want(_ report: NodeReport, nodes: Int) {
        state.withLock { state in
            state.wish = Wish(report: report, engine: state.wish?.engine, problems: state.wish?.problems ?? [])
            state.nodes = nodes
        }
        signal.set()
    }

    /// Sets what is for people. Nothing is written before there is a report.
    func describe(engine: String?, problems: [Problem]) {
        let isNews = state.withLock { state in
            guard var wish = state.wish else { return false }
            let kept = Array(problems.sorted().prefix(20))
            guard wish.engine != engine || wish.problems != kept else { return false }
            wish.engine = engine
            wish.problems = kept
            state.wish = wish
            return true
        }
        if isNews { signal.set() }
    }

    /// Our object was seen.
    func look() { signal.set() }

    /// What a person should know.
    var problems: Set<Problem> {
        let now = clock.now()
        return state.withLock { state in
            var problems: Set<Problem> = []
            if let since = state.failingSince, let failure = state.failure, now - since >= .seconds(5) {
                problems.insert(
                    Problem(
                        .error, "encryptionnode \(name)",
                        "its status cannot be written: \(failure); other nodes do not see what has changed here"))
            }
            if let stranger = state.stranger {
                problems.insert(
                    Problem(
                        .error, "encryptionnode \(name)",
                        "somebody else writes its status (incarnation \(stranger)); it is written again. Does another ebpf-xdp-keymgr have this node's name?"
                    ))
            }
            return problems
        }
    }

    /// Works until the task is cancelled.
    func run() async {
        while !Task.isCancelled {
            let now = clock.now()
            let current = seen()
            switch state.withLock({ Self.next(&$0, current, now, name: name) }) {
            case .write(let wish):
                await write(wish, current)
            case .wait(let pause):
                let alarm = Task { [clock, signal] in
                    await clock.sleep(pause)
                    if !Task.isCancelled { signal.set() }
                }
                await signal.wait()
                alarm.cancel()
            }
        }
    }

    private enum Step {
        case write(Wish)
        case wait(Duration)
    }

    private static func next(_ state: inout State, _ seen: Seen?, _ now: Duration, name: String) -> Step {
        let idle = Duration.seconds(60)
        guard let wish = state.wish, let seen else { return .wait(idle) }
        if let retry = state.retryAt, retry > now { return .wait(retry - now) }
        // The server's own copy counts, once it cannot be an echo of an earlier write of ours any more.
        if state.writtenAt == nil || now - (state.writtenAt ?? now) > echo, state.written?.report != seen.status?.report
        {
            if let report = seen.status?.report, state.written != nil, report.incarnation != wish.report.incarnation {
                state.stranger = report.incarnation
            }
            state.written = seen.status
        } else if state.written?.report == seen.status?.report, let at = state.writtenAt, now - at > .seconds(60) {
            state.stranger = nil
        }
        let written = state.written
        guard let report = written?.report else { return .write(wish) }
        if !isSameOfOurselves(report, wish.report) { return .write(wish) }

        var wait = idle
        func gather(_ differs: Bool, _ since: inout Duration?, _ delay: Duration) -> Bool {
            guard differs else {
                since = nil
                return false
            }
            let begin = since ?? now
            since = begin
            if begin + delay <= now { return true }
            wait = min(wait, begin + delay - now)
            return false
        }
        if gather(report != wish.report, &state.acknowledgeSince, acknowledgeDelay(nodes: state.nodes)) {
            return .write(wish)
        }
        let differs = written?.engine != wish.engine || written?.problems ?? [] != wish.problems
        if gather(differs, &state.describeSince, describeDelay) { return .write(wish) }
        if let at = state.writtenAt, now - at >= heartbeat { return .write(wish) }
        if state.writtenAt == nil { state.writtenAt = now }
        return .wait(wait)
    }

    /// Everything but acknowledgements of others.
    private static func isSameOfOurselves(_ left: NodeReport, _ right: NodeReport) -> Bool {
        var left = left
        left.appliedThrough = right.appliedThrough
        left.notApplied = right.notApplied
        return left == right
    }

    private func write(_ wish: Wish, _ seen: Seen?) async {
        var object = EncryptionNodeObject(name: name, spec: seen?.spec ?? .init(nodeID: wish.report.id))
        object.status = status(wish)
        // Only over what we have seen: a write that was delayed in the network must not undo a later one.
        let known = state.withLock { $0.resourceVersion }
        object.metadata.resourceVersion = known ?? seen?.resourceVersion
        do throws(KubernetesError) {
            let result: EncryptionNodeObject
            do throws(KubernetesError) {
                result = try await api.replaceStatus(object)
            } catch {
                guard error.code == .conflict else { throw error }
                let fresh = try await api.get(EncryptionNodeObject.self, ObjectKey(name: name))
                object.metadata.resourceVersion = fresh.metadata.resourceVersion
                if let spec = fresh.spec { object.spec = spec }
                result = try await api.replaceStatus(object)
            }
            let now = clock.now()
            state.withLock { state in
                state.written = object.status
                state.writtenAt = now
                state.resourceVersion = result.metadata.resourceVersion
                (state.failingSince, state.failure, state.retryAt, state.failures) = (nil, nil, nil, 0)
            }
        } catch {
            failed(error)
        }
    }

    private func failed(_ error: KubernetesError) {
        guard error.code != .cancelled else { return }
        let now = clock.now()
        let (isFirst, pause) = state.withLock { state in
            let isFirst = state.failingSince == nil
            state.failingSince = state.failingSince ?? now
            state.failure = error
            // What the server took all the same is unknown: its version is read anew.
            state.resourceVersion = nil
            let most = Duration.milliseconds(250 << min(state.failures, 7))
            let pause = (error.retryAfter ?? .zero) + min(most, .seconds(30)) * clock.random() + .milliseconds(20)
            state.failures += 1
            state.retryAt = now + pause
            return (isFirst, pause)
        }
        logger.log(
            level: isFirst ? .warning : .debug, "status not written",
            metadata: ["what": "\(error.message)", "retryIn": "\(pause)"])
    }

    private func status(_ wish: Wish) -> EncryptionNodeObject.Status {
        let now = Timestamp.now()
        let worst = wish.problems.first { $0.severity == .error }
        let isReady = worst == nil && wish.report.sending != 0
        let reason = isReady ? "Working" : worst == nil ? "NoEpoch" : "Problem"
        let message =
            worst.map(\.description)
            ?? (isReady ? "sends with epoch \(wish.report.sending)" : "no epoch is sent with yet")
        let condition = Condition("Ready", isReady ? .isTrue : .isFalse, reason: reason, message: message, at: now)
        let before = state.withLock { $0.written?.conditions } ?? []
        return EncryptionNodeObject.Status(
            report: wish.report, engine: wish.engine, problems: wish.problems,
            conditions: [condition].keepingTransitions(of: before), heartbeat: now, version: version)
    }
}

internal import Cluster
internal import KMS
internal import Keys
internal import Kubernetes
internal import Synchronization

/// Where Events go: `EventRecorder`, or a test.
protocol EventSink: Sendable {
    func record(
        _ severity: Event.Severity, regarding: ObjectReference, reason: String, action: String, note: String)
}

extension EventRecorder: EventSink {
    func record(
        _ severity: Event.Severity, regarding: ObjectReference, reason: String, action: String, note: String
    ) {
        record(severity, regarding: regarding, related: nil, reason: reason, action: action, note: note)
    }
}

/// What the parts of the operator tell each other, metrics and probes.
final class StatusBoard: Sendable {
    struct Status: Sendable {
        /// As the API server has it; nil: not known yet.
        var cluster: Cluster?
        var translation: ServiceTranslation
        var epochs: [Epoch: EpochDecision.State] = [:]
        var problems: Set<Problem> = []
        var kmsError: KMSError?
        var slices = 0
        var sequence: Int64 = 0
        var isLeading = false
        var term = 0
        var succeeded: [Target: Int] = [:]
        var failed: [Target: Int] = [:]
    }

    /// What is written.
    enum Target: String, Sendable, Hashable, CaseIterable {
        case pods, nodes, slices, epochs, policies
    }

    private let value: Mutex<Status>

    /// What the configuration says; nothing else is known yet.
    init(_ configuration: OperatorConfiguration) {
        let translation = ServiceTranslation.judge(
            ServiceProxies(), attachMode: configuration.attachMode ?? .pod,
            socketLoadBalancing: configuration.socketLoadBalancing ?? false)
        value = Mutex(Status(translation: translation))
    }

    var status: Status { value.withLock { $0 } }

    @discardableResult
    func update<Result>(_ body: (inout Status) -> Result) -> Result where Result: Sendable {
        value.withLock { body(&$0) }
    }

    func count(_ target: Target, isSuccess: Bool) {
        value.withLock { status in
            if isSuccess {
                status.succeeded[target, default: 0] += 1
            } else {
                status.failed[target, default: 0] += 1
            }
        }
    }
}

public import Logging
internal import Synchronization

/// Writes events without ever holding up who reports them: repetitions are counted, bursts are limited, and what is too much is dropped
/// and counted.
public final class EventRecorder: Sendable {
    private let api: any KubernetesAPI
    private let droppedCount = Atomic<UInt64>(0)

    /// Makes a recorder; `run` sends.
    ///
    /// - Parameters:
    ///   - component: "encryption.ebpf.xdp/operator": letters, digits and - _ . with at most one slash.
    ///   - instance: which replica: the pod's name.
    public init(
        api: any KubernetesAPI, component: String, instance: String, clock: KubernetesClock = .system, logger: Logger
    ) {
        self.api = api
    }

    /// How many events were not written: too many at once, or refused by the server.
    public var dropped: UInt64 { droppedCount.load(ordering: .relaxed) }

    /// Reports something. Returns at once; safe from any thread.
    ///
    /// - Parameters:
    ///   - reason: UpperCamelCase, for machines.
    ///   - action: UpperCamelCase: what was done or tried.
    ///   - note: a sentence for people; cut to 1,024 bytes.
    public func record(
        _ severity: Event.Severity, regarding: ObjectReference, related: ObjectReference? = nil, reason: String,
        action: String, note: String
    ) {
    }

    /// Sends until the task is cancelled; then what waits is tried once more for a short while.
    public func run() async {
    }
}

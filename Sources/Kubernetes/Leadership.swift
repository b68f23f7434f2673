internal import Synchronization

/// Leadership as long as it lasts.
public final class Leadership: Sendable {
    /// Rises with every change of leader (the lease's `leaseTransitions`).
    public let term: Int
    private let clock: KubernetesClock
    private let end: Mutex<Duration?>

    /// Leadership that lasts until `end` on the clock, unless it is extended.
    public init(term: Int, clock: KubernetesClock, end: Duration) {
        self.term = term
        self.clock = clock
        self.end = Mutex(end)
    }

    /// Nobody else can lead at this moment. Look before every write that must not be another leader's: when the process was not
    /// scheduled for a while, this turns false before the task that leads learns that it is cancelled.
    public var isCurrent: Bool { clock.now() < deadline }

    /// When it ends, unless it is extended.
    var deadline: Duration { end.withLock { $0 } ?? .zero }
    /// A renewal has succeeded.
    func extend(to end: Duration) { self.end.withLock { if $0 != nil { $0 = end } } }
    /// It is over, for good.
    func finish() { end.withLock { $0 = nil } }
}

/// When the one who makes epochs makes the next one: there is none yet, the newest is old enough, or the KEK has been rotated.
///
/// Rotating a KEK never changes DEKs that were wrapped before; only a new epoch brings a DEK under the new version. Pure: times are
/// `TimeSource.monotonic`, given to it.
public struct EpochSchedule: Sendable {
    /// Why a new epoch is made.
    public enum Reason: Sendable, Hashable {
        /// The cluster has none.
        case first
        /// The newest has reached the age at which it is replaced.
        case age
        /// The KEK's version is another than the one that wrapped the newest.
        case kekRotated(from: String, to: String)
    }

    /// What to do now.
    public enum Action: Sendable, Hashable {
        /// Ask for the KEK's version, and report it.
        case poll
        /// Make an epoch, and report it.
        case open(Reason)
        /// Call `next` again at this moment.
        case wait(until: Duration)
    }

    /// The bounds.
    public struct Policy: Sendable, Hashable {
        /// An epoch is replaced at half of this, less up to a tenth of jitter.
        public var ttl: Duration
        /// How often the KEK's version is asked for, give or take a fifth.
        public var pollInterval: Duration
        /// How the KMS is spared.
        public var gate: KMSGate.Policy

        /// The defaults: 24 hours, every 5 minutes.
        public init(
            ttl: Duration = .seconds(86400), pollInterval: Duration = .seconds(300),
            gate: KMSGate.Policy = KMSGate.Policy()
        ) {
            self.ttl = ttl
            self.pollInterval = pollInterval
            self.gate = gate
        }
    }

    private let policy: Policy
    private var gate: KMSGate
    /// When the newest epoch is due for replacement; nil: there is none.
    private var replaceAt: Duration?
    private var wrappedBy: String?
    private var pollAt: Duration
    private var pending: Reason?
    /// Epochs in a row that the KMS has made and nobody could write down, and when to try again.
    private var unwritten = 0
    private var openAt = Duration.zero
    private var generator: any RandomNumberGenerator & Sendable

    /// - Parameters:
    ///   - age: Of the newest epoch; nil if there is none.
    ///   - kekVersion: What wrapped the newest epoch.
    public init(
        policy: Policy = Policy(), now: Duration, age: Duration?, kekVersion: String?,
        generator: any RandomNumberGenerator & Sendable = SystemRandomNumberGenerator()
    ) {
        self.policy = policy
        self.generator = generator
        gate = KMSGate(policy: policy.gate, now: now)
        pollAt = now
        wrappedBy = kekVersion
        if let age { replaceAt = now - age + lifetime() } else { pending = .first }
    }

    /// What is due. After `.poll` and `.open`, report the outcome before calling again.
    public mutating func next(now: Duration) -> Action {
        if pending == nil, let replaceAt, now >= replaceAt { pending = .age }
        guard pending != nil || now >= pollAt else { return .wait(until: min(pollAt, replaceAt ?? pollAt)) }
        if pending != nil, now < openAt { return .wait(until: openAt) }
        if case .wait(let until) = gate.permission(now: now) { return .wait(until: until) }
        if let pending { return .open(pending) }
        return .poll
    }

    /// The KEK's version was told.
    public mutating func polled(_ version: String, now: Duration) {
        gate.succeeded(now: now)
        pollAt = now + policy.pollInterval * (0.8 + 0.4 * random())
        if let wrappedBy, wrappedBy != version { pending = .kekRotated(from: wrappedBy, to: version) }
    }

    /// An epoch was made, by us or by somebody else.
    public mutating func opened(kekVersion: String, now: Duration) {
        gate.succeeded(now: now)
        pending = nil
        unwritten = 0
        openAt = now
        wrappedBy = kekVersion
        replaceAt = now + lifetime()
    }

    /// No epoch could be made yet, for a reason that has nothing to do with the KMS.
    public mutating func notOpened() { gate.notAsked() }

    /// The KMS has made an epoch, but it could not be written down: the KMS is not asked for another one at every attempt, but after a
    /// second, doubling to a minute.
    public mutating func notWritten(now: Duration) {
        gate.succeeded(now: now)
        openAt = now + .seconds(min(60, 1 << min(unwritten, 6)))
        unwritten += 1
    }

    /// Polling or making failed.
    public mutating func failed(_ error: KMSError, now: Duration) {
        gate.failed(error, now: now, random: random())
    }

    private mutating func lifetime() -> Duration { policy.ttl * (0.5 - 0.1 * random()) }
    private mutating func random() -> Double { Double.random(in: 0..<1, using: &generator) }
}

/// How long a node may use the DEK of each epoch: a lease from the KMS.
///
/// Every successful unwrap gives a lease of one TTL from the moment of the *request*. From about half of it on, the node unwraps
/// again, which proves that the KMS still lets it. When no renewal succeeds, the lease ends at its TTL, whatever the reason, and the
/// epoch's keys must be removed: traffic fails closed. A renewal after that gives the epoch back.
///
/// Pure: events go in with their time, `Step` comes out. The driver (`DEKKeeper`) calls the KMS and holds the DEKs; the reconciler
/// asks which epochs are usable and removes the keys of those that are not. Times are `TimeSource.monotonic`.
public struct DEKLifecycle: Sendable {
    /// The bounds.
    public struct Policy: Sendable, Hashable {
        /// The lease.
        public var ttl: Duration
        /// Share of the lease after which renewal starts; drawn for each lease anew.
        public var renewal: ClosedRange<Double>
        /// What an epoch that the kernel holds at our start gets, if no record says more: it is not known how old it is.
        public var adoption: Duration
        /// The first request for a new epoch waits up to this long for each node of the cluster: they all hear of it at once.
        public var spread: Duration
        /// How the KMS is spared.
        public var gate: KMSGate.Policy

        /// The defaults: 24 hours, renewal at 45 to 55 %.
        public init(
            ttl: Duration = .seconds(86400), renewal: ClosedRange<Double> = 0.45...0.55,
            adoption: Duration = .seconds(3600),
            spread: Duration = .milliseconds(10), gate: KMSGate.Policy = KMSGate.Policy()
        ) {
            self.ttl = ttl
            self.renewal = renewal
            self.adoption = min(adoption, ttl)
            self.spread = spread
            // A short lease must see several attempts between its renewal and its end.
            self.gate = gate.bounded(by: ttl)
        }
    }

    /// What a restarted process knows of an epoch: write it down (it is no secret) together with the boot's id.
    public struct Lease: Sendable, Hashable, Codable {
        /// The epoch.
        public var epoch: UInt32
        /// `CLOCK_BOOTTIME` in milliseconds when the lease ends.
        public var endMilliseconds: Int64
    }

    /// What to do now.
    public struct Step: Sendable, Hashable {
        /// Unwrap these DEKs, and report each.
        public var unwrap: [UInt32] = []
        /// The leases of these epochs have ended since the last step: remove their keys and forget their DEKs.
        public var expired: [UInt32] = []
        /// Call `step` again at this moment; nil: after the next event.
        public var wakeAt: Duration?
    }

    private struct Entry: Sendable {
        /// nil: never unwrapped, or ended.
        var leaseEnd: Duration?
        /// When to ask next.
        var renewAt: Duration
        var asking = false
        var error: KMSError?
        /// The blob itself is bad: the gate is not to be blamed for it.
        var failures = 0
    }

    private let policy: Policy
    private var gate: KMSGate
    private var entries: [UInt32: Entry] = [:]
    private var lastSuccess: Duration?
    private var lastError: KMSError?
    private var generator: any RandomNumberGenerator & Sendable

    /// - Parameters:
    ///   - adopted: Epochs whose keys the kernel holds already, with the lease's end where a record has it. They are usable at once, and
    ///     are renewed at once: a restart during an outage disturbs nothing, and one without an outage repairs the lease.
    public init(
        policy: Policy = Policy(), now: Duration, adopted: [UInt32: Duration?] = [:],
        generator: any RandomNumberGenerator & Sendable = SystemRandomNumberGenerator()
    ) {
        self.policy = policy
        self.generator = generator
        gate = KMSGate(policy: policy.gate, now: now)
        for (epoch, end) in adopted {
            // No record may promise more than a TTL from now.
            let end = min(end ?? now + policy.adoption, now + policy.ttl)
            entries[epoch] = Entry(leaseEnd: end, renewAt: now)
        }
    }

    /// The epochs that there are. Others are forgotten without further ado, but for those that are `held`: keys of them are in use, and
    /// their leases end when they end. `nodes` is how many there are in the cluster.
    public mutating func want(_ epochs: Set<UInt32>, held: Set<UInt32> = [], nodes: Int = 1, now: Duration) {
        for epoch in entries.keys where !epochs.contains(epoch) && !held.contains(epoch) { entries[epoch] = nil }
        for epoch in epochs where entries[epoch] == nil {
            // The only epoch is wanted at once: nothing works before it.
            let delay = entries.isEmpty && epochs.count == 1 ? .zero : policy.spread * Double(nodes) * random()
            entries[epoch] = Entry(leaseEnd: nil, renewAt: now + delay)
        }
    }

    /// A wrapped DEK was replaced (the epoch's object changed): ask again now.
    public mutating func blobChanged(_ epoch: UInt32, now: Duration) {
        guard entries[epoch] != nil else { return }
        entries[epoch]?.renewAt = now
        entries[epoch]?.failures = 0
    }

    /// What is due.
    public mutating func step(now: Duration) -> Step {
        var step = Step()
        for (epoch, entry) in entries.sorted(by: { $0.key < $1.key }) {
            if let end = entry.leaseEnd, now >= end {
                entries[epoch]?.leaseEnd = nil
                step.expired.append(epoch)
            } else if let end = entry.leaseEnd {
                step.wakeAt = earlier(step.wakeAt, end)
            }
            guard !entry.asking else { continue }
            guard now >= entry.renewAt else {
                step.wakeAt = earlier(step.wakeAt, entry.renewAt)
                continue
            }
            switch gate.permission(now: now) {
            case .go:
                entries[epoch]?.asking = true
                step.unwrap.append(epoch)
            case .wait(let until): step.wakeAt = earlier(step.wakeAt, until)
            }
        }
        return step
    }

    /// An unwrap succeeded. `askedAt` is when it was asked for: the lease counts from there.
    public mutating func unwrapped(_ epoch: UInt32, askedAt: Duration, now: Duration) {
        gate.succeeded(now: now)
        lastSuccess = now
        lastError = nil
        guard entries[epoch] != nil else { return }
        let share = policy.renewal.lowerBound + (policy.renewal.upperBound - policy.renewal.lowerBound) * random()
        entries[epoch] = Entry(leaseEnd: askedAt + policy.ttl, renewAt: askedAt + policy.ttl * share)
    }

    /// An unwrap was answered for a blob that is no longer wanted: the KMS is well, and the new blob is asked for at once.
    public mutating func answered(_ epoch: UInt32, now: Duration) {
        gate.succeeded(now: now)
        entries[epoch]?.asking = false
        entries[epoch]?.renewAt = now
    }

    /// An unwrap could not be asked for yet: its blob is not there.
    public mutating func postpone(_ epoch: UInt32, until: Duration) {
        gate.notAsked()
        entries[epoch]?.asking = false
        entries[epoch]?.renewAt = until
    }

    /// An unwrap failed.
    public mutating func failed(_ epoch: UInt32, _ error: KMSError, now: Duration) {
        lastError = error
        if error.category == .badBlob {
            // Only this epoch waits, and rarely asks again: a blob does not heal, but a KMS may. It answered about this one, unless we
            // have seen ourselves that the blob is none of its own: that says nothing of the KMS.
            if error.kind == .notAuthentic { gate.succeeded(now: now) } else { gate.notAsked() }
            entries[epoch]?.failures += 1
            let failures = entries[epoch]?.failures ?? 1
            let ceiling = min(policy.gate.refusalCap, policy.gate.refusalBase * Double(1 << min(failures - 1, 10)))
            let delay = ceiling * (0.5 + 0.5 * random())
            entries[epoch]?.renewAt = now + delay
        } else {
            gate.failed(error, now: now, random: random())
        }
        entries[epoch]?.asking = false
        entries[epoch]?.error = error
    }

    // MARK: What it looks like

    /// Whether keys of this epoch may be in use.
    public func isUsable(_ epoch: UInt32, now: Duration) -> Bool {
        entries[epoch]?.leaseEnd.map { now < $0 } ?? false
    }

    /// When the lease ends; nil if there is none.
    public func leaseEnd(_ epoch: UInt32) -> Duration? { entries[epoch]?.leaseEnd }

    /// The records for a restart.
    public var leases: [Lease] {
        entries.sorted { $0.key < $1.key }.compactMap { epoch, entry in
            entry.leaseEnd.map { Lease(epoch: epoch, endMilliseconds: Int64($0 / .milliseconds(1))) }
        }
    }

    /// The state for people, metrics and readiness.
    public func status(now: Duration) -> KMSStatus {
        let ends = entries.values.map { $0.leaseEnd }
        let error =
            entries.values.compactMap(\.error).first { $0 == lastError } ?? entries.values.compactMap(\.error).first
        let hasExpired = !ends.isEmpty && ends.allSatisfy { $0.map { now >= $0 } ?? true }
        return KMSStatus(
            state: KMSStatus.State(
                error: error, hasKeys: !hasExpired, isWaiting: entries.isEmpty || error == nil && hasExpired),
            error: error, circuit: gate.circuit(at: now), lastSuccess: lastSuccess,
            remaining: ends.compactMap { $0 }.max().map { max(.zero, $0 - now) }, ttl: policy.ttl)
    }

    private mutating func random() -> Double { Double.random(in: 0..<1, using: &generator) }

    private func earlier(_ a: Duration?, _ b: Duration) -> Duration { a.map { min($0, b) } ?? b }
}

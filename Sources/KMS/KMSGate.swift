/// When the KMS may be asked again: back-off with full jitter, a retry budget, `Retry-After`, and a circuit breaker. One for all
/// calls of a process. A value without I/O; time is given to it.
public struct KMSGate: Sendable {
    /// The bounds.
    public struct Policy: Sendable, Hashable {
        /// Longest wait before the first retry; doubles with every further failure.
        public var base: Duration
        /// Longest wait at all.
        public var cap: Duration
        /// Longest first wait and longest wait after a refusal: the key's owner has to act first.
        public var refusalBase: Duration
        /// See `refusalBase`.
        public var refusalCap: Duration
        /// Failures in a row after which only one probe at a time is let through.
        public var failuresToOpen: Int
        /// Retries that may be made at once; first attempts are free.
        public var budget: Int
        /// One more retry after every such time.
        public var budgetRefill: Duration

        /// The defaults: a node retries 10 times in a row at most and then 4 times a minute.
        public init(
            base: Duration = .seconds(1), cap: Duration = .seconds(300), refusalBase: Duration = .seconds(30),
            refusalCap: Duration = .seconds(900), failuresToOpen: Int = 5, budget: Int = 10,
            budgetRefill: Duration = .seconds(15)
        ) {
            self.base = base
            self.cap = cap
            self.refusalBase = refusalBase
            self.refusalCap = refusalCap
            self.failuresToOpen = failuresToOpen
            self.budget = budget
            self.budgetRefill = budgetRefill
        }

        /// The same, with no wait longer than a twentieth of a lease.
        func bounded(by ttl: Duration) -> Policy {
            var policy = self
            policy.cap = min(cap, ttl / 20)
            policy.base = min(base, policy.cap)
            policy.refusalCap = min(refusalCap, ttl / 20)
            policy.refusalBase = min(refusalBase, policy.refusalCap)
            policy.budgetRefill = min(budgetRefill, ttl / 50)
            return policy
        }
    }

    /// What the gate says to somebody who wants to call.
    public enum Permission: Sendable, Hashable {
        /// Call, and report the outcome.
        case go
        /// Ask again at this moment.
        case wait(until: Duration)
    }

    /// As in the literature.
    public enum Circuit: String, Sendable, Hashable {
        /// Calls pass.
        case closed
        /// Calls wait.
        case open
        /// One call is on its way to find out.
        case halfOpen = "half-open"
    }

    private let policy: Policy
    private var failures = 0
    private var notBefore: Duration = .zero
    private var probing = false
    private var retries: Double
    private var refilledAt: Duration

    /// Starts closed, with a full budget.
    public init(policy: Policy = Policy(), now: Duration) {
        self.policy = policy
        retries = Double(policy.budget)
        refilledAt = now
    }

    /// The breaker's state.
    public func circuit(at now: Duration) -> Circuit {
        guard failures >= policy.failuresToOpen else { return .closed }
        return probing ? .halfOpen : .open
    }

    /// Asks for a call. After `.go`, exactly one of `succeeded`, `failed` and `notAsked` must follow.
    public mutating func permission(now: Duration) -> Permission {
        guard failures > 0 else { return .go }
        guard now >= notBefore else { return .wait(until: notBefore) }
        if failures >= policy.failuresToOpen && probing { return .wait(until: now + policy.base) }
        refill(now)
        guard retries >= 1 else { return .wait(until: now + policy.budgetRefill * (1 - retries)) }
        retries -= 1
        probing = true
        return .go
    }

    /// The call was answered as hoped.
    public mutating func succeeded(now: Duration) {
        failures = 0
        probing = false
        notBefore = now
    }

    /// The call was not made after all.
    public mutating func notAsked() {
        probing = false
        if failures > 0 { retries = min(Double(policy.budget), retries + 1) }
    }

    /// The call failed; `random` is uniform in 0..<1 and another one each time.
    public mutating func failed(_ kind: KMSError, now: Duration, random: Double) {
        failures += 1
        probing = false
        let isRefusal = kind.category == .refusal || kind.category == .badBlob
        let (base, cap) = isRefusal ? (policy.refusalBase, policy.refusalCap) : (policy.base, policy.cap)
        let ceiling = min(cap, base * Double(1 << min(failures - 1, 20)))
        var delay = ceiling * random
        if isRefusal { delay = ceiling / 2 + delay / 2 }
        if case .throttled(let retryAfter?) = kind.kind {
            // Everybody was told the same time: spread over as much again, and over no less than the back-off would.
            delay = retryAfter + max(retryAfter, ceiling) * random
        }
        notBefore = max(notBefore, now + delay)
    }

    private mutating func refill(_ now: Duration) {
        retries = min(Double(policy.budget), retries + (now - refilledAt) / policy.budgetRefill)
        refilledAt = now
    }
}

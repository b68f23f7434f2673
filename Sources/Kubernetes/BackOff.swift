/// Waits that grow while nothing works, with full jitter: many clients that lost the same server do not return in the same moment.
struct BackOff: Sendable {
    let base: Duration
    let maximum: Duration
    private var failures = 0

    init(base: Duration = .milliseconds(250), maximum: Duration = .seconds(30)) {
        self.base = base
        self.maximum = maximum
    }

    /// Something worked.
    mutating func reset() { failures = 0 }

    /// How long to wait now.
    ///
    /// - Parameters:
    ///   - random: from 0 up to 1.
    ///   - retryAfter: what the server asks for: waited in any case, and some more.
    mutating func next(random: Double, retryAfter: Duration? = nil) -> Duration {
        let limit = min(maximum, base * (1 << min(failures, 20)))
        failures += 1
        return (retryAfter ?? .zero) + limit * random
    }
}

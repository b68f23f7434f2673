internal import Glibc

/// Time and chance, injected so that tests own them.
public struct KubernetesClock: Sendable {
    /// Since some fixed moment; goes on while the machine sleeps, never jumps. All decisions are made by this.
    public var now: @Sendable () -> Duration
    /// Waits; returns early only when the task is cancelled.
    public var sleep: @Sendable (Duration) async -> Void
    /// Microseconds since 1970 in UTC. For people who read leases and events, never for decisions.
    public var wallMicroseconds: @Sendable () -> Int64
    /// From 0 up to 1, for jitter.
    public var random: @Sendable () -> Double

    /// Makes a clock of its functions.
    public init(
        now: @escaping @Sendable () -> Duration, sleep: @escaping @Sendable (Duration) async -> Void,
        wallMicroseconds: @escaping @Sendable () -> Int64, random: @escaping @Sendable () -> Double
    ) {
        self.now = now
        self.sleep = sleep
        self.wallMicroseconds = wallMicroseconds
        self.random = random
    }

    /// The machine's own.
    public static let system = KubernetesClock(
        now: {
            let time = read(CLOCK_BOOTTIME)
            return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
        },
        sleep: { duration in try? await Task.sleep(for: duration, tolerance: .milliseconds(1)) },
        wallMicroseconds: {
            let time = read(CLOCK_REALTIME)
            return Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1000
        },
        random: { Double.random(in: 0..<1) })

    private static func read(_ clock: clockid_t) -> timespec {
        var time = timespec()
        clock_gettime(clock, &time)
        return time
    }
}

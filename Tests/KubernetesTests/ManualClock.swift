import Synchronization

@testable import Kubernetes

/// Time that passes only when a test says so.
final class ManualClock: Sendable {
    private struct Sleeper {
        var id: Int
        var until: Duration
        var continuation: CheckedContinuation<Void, Never>
    }
    private struct State {
        var now: Duration = .seconds(1000)
        var wall: Int64 = 1_800_000_000_000_000
        var sleepers: [Sleeper] = []
        var cancelled: Set<Int> = []
        var nextID = 0
    }
    private let state = Mutex(State())

    /// No jitter unless `random` says otherwise.
    func clock(random: @escaping @Sendable () -> Double = { 0 }) -> KubernetesClock {
        KubernetesClock(
            now: { self.now }, sleep: { await self.sleep($0) }, wallMicroseconds: { self.state.withLock { $0.wall } },
            random: random)
    }

    var now: Duration { state.withLock { $0.now } }
    var sleeping: Int { state.withLock { $0.sleepers.count } }

    /// The clock on the wall only: what decides nothing.
    func jumpWall(seconds: Int64) { state.withLock { $0.wall += seconds * 1_000_000 } }

    /// Lets time pass without waking anybody up: the process was not scheduled.
    func freeze(for duration: Duration) { state.withLock { $0.now += duration } }

    /// Lets time pass in small steps, so that everything that sleeps wakes when it should, and reacts before time goes on.
    func advance(_ duration: Duration, step: Duration = .milliseconds(100)) async {
        let end = now + duration
        while now < end {
            await settle()
            let due = state.withLock { state in
                state.now = min(end, state.now + step)
                state.wall += step.components.seconds * 1_000_000 + step.components.attoseconds / 1_000_000_000_000
                let due = state.sleepers.filter { $0.until <= state.now }
                state.sleepers.removeAll { $0.until <= state.now }
                return due
            }
            for sleeper in due { sleeper.continuation.resume() }
        }
        await settle()
    }

    /// Lets other tasks run until they wait.
    func settle() async {
        for _ in 0..<60 { await Task.yield() }
    }

    private func sleep(_ duration: Duration) async {
        if duration <= .zero {
            await Task.yield()
            return
        }
        let id = state.withLock { state in
            state.nextID += 1
            return state.nextID
        }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isCancelled = state.withLock { state in
                    if state.cancelled.remove(id) != nil { return true }
                    state.sleepers.append(
                        Sleeper(id: id, until: state.now + duration, continuation: continuation))
                    return false
                }
                if isCancelled { continuation.resume() }
            }
        } onCancel: {
            let sleeper = state.withLock { state -> Sleeper? in
                guard let index = state.sleepers.firstIndex(where: { $0.id == id }) else {
                    state.cancelled.insert(id)
                    return nil
                }
                return state.sleepers.remove(at: index)
            }
            sleeper?.continuation.resume()
        }
    }
}

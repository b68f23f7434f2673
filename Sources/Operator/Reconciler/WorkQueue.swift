internal import Kubernetes
internal import Synchronization

/// What became of a piece of work.
enum WorkOutcome: Sendable {
    /// Done; come back when something changes.
    case done
    /// Not done: again after a back-off of its own.
    case again
    /// Again after this time, and not before, whatever changes.
    case after(Duration)
    /// Again after this time, or when something changes.
    case recheck(Duration)
    /// The server wants to be left alone: nothing of this queue for this time.
    case pause(Duration)
}

/// Keys to work on: each at most once at a time, however often it is added; failures wait with back-off, each key its own.
///
/// What is to be done for a key is found out when its turn comes, so that nothing old is ever written.
final class WorkQueue<Key: Hashable & Sendable>: Sendable {
    private struct State {
        var waiting: Set<Key> = []
        var order: [Key] = []
        var head = 0
        var working: Set<Key> = []
        var later: [Key: (time: Duration, isFirm: Bool)] = [:]
        var agenda = Agenda<Key>()
        var failures: [Key: Int] = [:]
        var pausedUntil = Duration.zero
        var finished = 0
    }
    private let state = Mutex(State())
    private let signal = ChangeSignal()
    private let clock: KubernetesClock

    init(clock: KubernetesClock = .system) {
        self.clock = clock
    }

    /// Adds keys.
    func add(_ keys: some Sequence<Key>) {
        state.withLock { state in
            for key in keys where state.later[key]?.isFirm != true && state.waiting.insert(key).inserted {
                state.order.append(key)
                state.later[key] = nil
            }
        }
        signal.set()
    }

    /// How many keys wait or are worked on.
    var count: Int { state.withLock { $0.waiting.count + $0.working.count + $0.later.count } }

    /// How many keys were done.
    var finished: Int { state.withLock { $0.finished } }

    /// Works on up to `width` keys at a time until the task is cancelled.
    func run(width: Int, _ work: @escaping @Sendable (Key) async -> WorkOutcome) async {
        await withDiscardingTaskGroup { group in
            let alarm = Alarm(signal: signal, clock: clock)
            while !Task.isCancelled {
                let (ready, wakeAt) = take(width)
                for key in ready {
                    group.addTask {
                        let outcome = await work(key)
                        self.finish(key, outcome)
                    }
                }
                alarm.set(wakeAt)
                await signal.wait()
            }
            alarm.set(nil)
            group.cancelAll()
        }
    }

    private func take(_ width: Int) -> (ready: [Key], wakeAt: Duration?) {
        let now = clock.now()
        return state.withLock { state in
            while let (time, key) = state.agenda.first, time <= now || state.later[key]?.time != time {
                state.agenda.removeFirst()
                // Otherwise it was put off, or has had its turn.
                guard state.later[key]?.time == time else { continue }
                state.later[key] = nil
                if state.waiting.insert(key).inserted { state.order.append(key) }
            }
            guard state.pausedUntil <= now else { return ([], state.pausedUntil) }
            var ready: [Key] = []
            var busy: [Key] = []
            while state.working.count < width, state.head < state.order.count {
                let key = state.order[state.head]
                state.head += 1
                guard state.waiting.contains(key) else { continue }
                if state.working.contains(key) {
                    // Changed while it is worked on: its turn comes again.
                    busy.append(key)
                    continue
                }
                state.waiting.remove(key)
                state.working.insert(key)
                ready.append(key)
            }
            state.order.append(contentsOf: busy)
            if state.head > 1024, state.head * 2 > state.order.count {
                state.order.removeFirst(state.head)
                state.head = 0
            }
            return (ready, state.agenda.first?.time)
        }
    }

    private func finish(_ key: Key, _ outcome: WorkOutcome) {
        let now = clock.now()
        let random = clock.random()
        state.withLock { state in
            state.working.remove(key)
            switch outcome {
            case .done:
                state.failures[key] = nil
                state.finished += 1
            case .again:
                let failures = min(state.failures[key, default: 0] + 1, 10)
                state.failures[key] = failures
                let ceiling = min(Duration.seconds(30), .milliseconds(100) * (1 << failures))
                state.later[key] = (now + ceiling * (0.5 + 0.5 * random), true)
            case .after(let delay):
                state.failures[key] = nil
                state.later[key] = (now + delay, true)
            case .recheck(let delay):
                state.failures[key] = nil
                state.later[key] = (now + delay, false)
            case .pause(let delay):
                state.pausedUntil = max(state.pausedUntil, now + delay)
                state.later[key] = (now + delay * (1 + random), true)
            }
            guard let later = state.later[key] else { return }
            if !state.waiting.contains(key) {
                state.agenda.insert(later.time, key)
            } else if later.isFirm {
                // What has changed meanwhile comes with it, when its time has come.
                state.waiting.remove(key)
                state.agenda.insert(later.time, key)
            } else {
                state.later[key] = nil
            }
        }
        signal.set()
    }
}

/// Keys by time: a binary heap.
struct Agenda<Key> {
    private var entries: [(time: Duration, key: Key)] = []

    /// The earliest.
    var first: (time: Duration, key: Key)? { entries.first }

    mutating func insert(_ time: Duration, _ key: Key) {
        entries.append((time, key))
        var index = entries.count - 1
        while index > 0, entries[index].time < entries[(index - 1) / 2].time {
            entries.swapAt(index, (index - 1) / 2)
            index = (index - 1) / 2
        }
    }

    mutating func removeFirst() {
        guard let last = entries.popLast(), !entries.isEmpty else { return }
        entries[0] = last
        var index = 0
        while true {
            var least = index
            for child in [2 * index + 1, 2 * index + 2]
            where child < entries.count && entries[child].time < entries[least].time {
                least = child
            }
            if least == index { return }
            entries.swapAt(index, least)
            index = least
        }
    }
}

/// Sets a signal at a time; a new time takes the place of the old one.
final class Alarm: Sendable {
    private let signal: ChangeSignal
    private let clock: KubernetesClock
    private let task = Mutex<Task<Void, Never>?>(nil)

    init(signal: ChangeSignal, clock: KubernetesClock) {
        self.signal = signal
        self.clock = clock
    }

    func set(_ time: Duration?) {
        let next = time.map { time in
            Task { [signal, clock] in
                await clock.sleep(max(.milliseconds(1), time - clock.now()))
                if !Task.isCancelled { signal.set() }
            }
        }
        task.withLock { task in
            task?.cancel()
            task = next
        }
    }

    deinit { task.withLock { $0?.cancel() } }
}

extension KubernetesError {
    /// What a failed request means for its key.
    var outcome: WorkOutcome {
        switch code {
        case .tooManyRequests: .pause(retryAfter ?? .seconds(1))
        case .unavailable: retryAfter.map { .pause($0) } ?? .again
        default: .again
        }
    }
}

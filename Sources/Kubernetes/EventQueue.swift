/// What an `EventRecorder` still has to write: repetitions counted together, bursts limited, memory bounded. A pure state machine.
struct EventQueue {
    /// Reports that are the same event again.
    struct Key: Hashable, Sendable {
        var severity: Event.Severity
        var regarding: ObjectReference
        var related: ObjectReference?
        var reason: String
        var action: String
        var note: String
    }

    /// Something to write now.
    struct Item: Sendable {
        var key: Key
        /// Nil: it has not been written yet.
        var name: String?
        var count: Int
        var first: Int64
        var last: Int64
        /// Different for each event.
        var serial: UInt64
    }

    enum Limits {
        /// Waiting to be written.
        static let waiting = 1000
        /// Remembered, in order to count repetitions.
        static let remembered = 4096
        /// A repetition after this time is a new event.
        static let memory = Duration.seconds(600)
        /// Repetitions are written this often at most.
        static let repetition = Duration.seconds(10)
        /// Of different events about one object, at once; then one every minute.
        static let burst = 25.0
        static let refill = 1.0 / 60
    }

    private struct Entry {
        var name: String?
        var count = 0
        var first: Int64 = 0
        var last: Int64 = 0
        var lastSeen: Duration = .zero
        var writtenAt: Duration?
        var isWaiting = false
        var serial: UInt64
    }
    private struct Bucket {
        var tokens = Limits.burst
        var at: Duration
    }

    private var entries: [Key: Entry] = [:]
    private var waiting: [Key] = []
    private var buckets: [ObjectReference: Bucket] = [:]
    private var serial: UInt64 = 0

    /// Takes a report. Returns false when it is dropped.
    mutating func add(_ key: Key, now: Duration, wall: Int64) -> Bool {
        if var entry = entries[key], now - entry.lastSeen < Limits.memory || entry.isWaiting {
            entry.count += 1
            entry.last = wall
            entry.lastSeen = now
            if !entry.isWaiting {
                guard waiting.count < Limits.waiting else { return false }
                entry.isWaiting = true
                waiting.append(key)
            }
            entries[key] = entry
            return true
        }
        guard waiting.count < Limits.waiting, take(from: key.regarding, now) else { return false }
        if entries.count >= Limits.remembered { forget() }
        serial += 1
        entries[key] = Entry(count: 1, first: wall, last: wall, lastSeen: now, isWaiting: true, serial: serial)
        waiting.append(key)
        return true
    }

    /// What to write now, if anything; otherwise how long to wait, if anything waits.
    ///
    /// - Parameter isLast: do not wait with repetitions.
    mutating func next(now: Duration, isLast: Bool = false) -> (item: Item?, wait: Duration?) {
        var soonest: Duration?
        for (index, key) in waiting.enumerated() {
            guard let entry = entries[key] else { continue }
            if !isLast, let writtenAt = entry.writtenAt, writtenAt + Limits.repetition > now {
                let wait = writtenAt + Limits.repetition - now
                soonest = min(soonest ?? wait, wait)
                continue
            }
            waiting.remove(at: index)
            entries[key]?.isWaiting = false
            return (
                Item(
                    key: key, name: entry.name, count: entry.count, first: entry.first, last: entry.last,
                    serial: entry.serial), nil
            )
        }
        return (nil, soonest)
    }

    /// The item could not be written for want of time: it is the next one again.
    mutating func putBack(_ item: Item) {
        guard let entry = entries[item.key], !entry.isWaiting else { return }
        entries[item.key]?.isWaiting = true
        waiting.insert(item.key, at: 0)
    }

    /// The item has been written under this name; nil: it could not be, and the next report begins a new event.
    mutating func written(_ item: Item, name: String?, now: Duration) {
        guard entries[item.key] != nil else { return }
        if let name {
            entries[item.key]?.name = name
            entries[item.key]?.writtenAt = now
        } else if entries[item.key]?.isWaiting == false {
            entries[item.key] = nil
        } else {
            entries[item.key]?.name = nil
        }
    }

    private mutating func take(from object: ObjectReference, _ now: Duration) -> Bool {
        if buckets.count >= Limits.remembered {
            // Full ones say nothing.
            buckets = buckets.filter { Self.tokens(of: $0.value, now) < Limits.burst }
            if buckets.count >= Limits.remembered { return false }
        }
        var bucket = buckets[object] ?? Bucket(at: now)
        bucket.tokens = Self.tokens(of: bucket, now)
        bucket.at = now
        let isAllowed = bucket.tokens >= 1
        if isAllowed { bucket.tokens -= 1 }
        buckets[object] = bucket
        return isAllowed
    }

    private static func tokens(of bucket: Bucket, _ now: Duration) -> Double {
        min(Limits.burst, bucket.tokens + (now - bucket.at) / .seconds(1) * Limits.refill)
    }

    /// Drops the older half of what does not wait.
    private mutating func forget() {
        let idle = entries.filter { !$0.value.isWaiting }.sorted { $0.value.lastSeen < $1.value.lastSeen }
        for (key, _) in idle.prefix(max(1, idle.count / 2)) { entries[key] = nil }
    }
}

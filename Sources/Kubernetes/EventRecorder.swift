internal import FoundationEssentials
public import Logging
internal import Synchronization

/// Writes events without ever holding up who reports them: repetitions are counted, bursts are limited, and what is too much is dropped
/// and counted.
public final class EventRecorder: Sendable {
    private let api: any KubernetesAPI
    private let component: String
    private let instance: String
    private let clock: KubernetesClock
    private let logger: Logger
    private let queue = Mutex(EventQueue())
    private let signal = ChangeSignal()
    private let droppedCount = Atomic<UInt64>(0)
    /// Servers before 1.21 take events about objects without a namespace in kube-system only, newer ones in `default` as well, where
    /// people look.
    private let isOldServer = Atomic(false)
    private let hasComplained = Atomic(false)

    /// Between two writes: bursts of the queue go out at this pace.
    private static let pace = Duration.milliseconds(50)

    /// Makes a recorder; `run` sends.
    ///
    /// - Parameters:
    ///   - component: "encryption.ebpf.xdp/operator": letters, digits and - _ . with at most one slash.
    ///   - instance: which replica: the pod's name.
    public init(
        api: any KubernetesAPI, component: String, instance: String, clock: KubernetesClock = .system, logger: Logger
    ) {
        self.api = api
        self.component = component
        self.instance = Self.cut(instance, 128)
        self.clock = clock
        self.logger = logger
    }

    /// How many reports were not written: too many at once, or refused by the server.
    public var dropped: UInt64 { droppedCount.load(ordering: .relaxed) }

    /// Reports something. Returns at once; safe from any thread.
    ///
    /// - Parameters:
    ///   - reason: UpperCamelCase, for machines.
    ///   - action: UpperCamelCase: what was done or tried.
    ///   - note: a sentence for people; cut to 1,024 bytes. Reports with another note are other events.
    public func record(
        _ severity: Event.Severity, regarding: ObjectReference, related: ObjectReference? = nil, reason: String,
        action: String, note: String
    ) {
        let key = EventQueue.Key(
            severity: severity, regarding: regarding, related: related, reason: Self.cut(reason, 128),
            action: Self.cut(action, 128), note: Self.cut(note, 1024))
        if queue.withLock({ $0.add(key, now: clock.now(), wall: clock.wallMicroseconds()) }) {
            signal.set()
        } else {
            droppedCount.add(1, ordering: .relaxed)
        }
    }

    /// Sends until the task is cancelled; then what waits is tried once, for two seconds.
    public func run() async {
        while !Task.isCancelled {
            let (item, wait) = queue.withLock { $0.next(now: clock.now()) }
            if let item {
                await write(item)
                await clock.sleep(Self.pace)
            } else if let wait {
                await clock.sleep(wait)
            } else {
                await signal.wait()
            }
        }
        let rest = Task {
            await withTaskGroup(of: Void.self) { group in
                group.addTask {
                    while !Task.isCancelled,
                        let item = self.queue.withLock({ $0.next(now: self.clock.now(), isLast: true).item })
                    {
                        await self.write(item, attempts: 1)
                    }
                }
                group.addTask { await self.clock.sleep(.seconds(2)) }
                await group.next()
                group.cancelAll()
            }
        }
        await rest.value
    }

    private func write(_ item: EventQueue.Item, attempts: Int = 4) async {
        var backOff = BackOff(base: .milliseconds(500), maximum: .seconds(10))
        var name = item.name
        for attempt in 1...attempts {
            do throws(KubernetesError) {
                let written = try await send(item, name)
                queue.withLock { $0.written(item, name: written, now: clock.now()) }
                return
            } catch {
                if error.code == .notFound && name != nil {
                    // The server forgets events after an hour: begin again.
                    name = nil
                    continue
                }
                if error.code == .cancelled {
                    // By the end of `run`, which has a moment left for what waits.
                    queue.withLock { $0.putBack(item) }
                    return
                }
                if error.code == .invalid, item.key.regarding.namespace == nil,
                    !isOldServer.exchange(true, ordering: .relaxed)
                {
                    name = nil
                    continue
                }
                guard error.isTransient, attempt < attempts, !Task.isCancelled else {
                    // Once where a person sees it: a right may be missing, and then none can be written.
                    logger.log(
                        level: hasComplained.exchange(true, ordering: .relaxed) ? .debug : .warning,
                        "an event could not be written",
                        metadata: ["regarding": "\(item.key.regarding.name ?? "")", "error": "\(error.message)"])
                    break
                }
                await clock.sleep(backOff.next(random: clock.random(), retryAfter: error.retryAfter))
            }
        }
        droppedCount.add(1, ordering: .relaxed)
        queue.withLock { $0.written(item, name: nil, now: clock.now()) }
    }

    /// Creates the event, or counts it up; returns its name.
    private func send(_ item: EventQueue.Item, _ name: String?) async throws(KubernetesError) -> String {
        // Where events about objects without a namespace have to be.
        let namespace =
            item.key.regarding.namespace ?? (isOldServer.load(ordering: .relaxed) ? "kube-system" : "default")
        let series = item.count > 1 ? Event.Series(count: item.count, lastObservedTime: MicroTime.text(item.last)) : nil
        if let name, let series {
            struct Patch: Encodable { var series: Event.Series }
            guard let body = try? JSONEncoder().encode(Patch(series: series)) else { return name }
            _ = try await api.mergePatch(
                Event.self, ObjectKey(namespace: namespace, name: name), subresource: nil, body: Array(body))
            return name
        }
        // The same for every attempt: an answer that was lost must not make two of it.
        let suffix = String(UInt64(bitPattern: item.first) &* 1000 &+ item.serial % 1000, radix: 16)
        // Names of objects may be as long as names of events, and some may have characters that these must not have.
        let subject = (item.key.regarding.name ?? "").lowercased().map {
            $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-") ? $0 : "."
        }
        let prefix = String(subject).split(separator: ".").joined(separator: ".")
        let newName = Self.cut(prefix.isEmpty ? "event" : prefix, 200) + ".x" + suffix
        var event = Event(metadata: ObjectMeta(name: newName, namespace: namespace))
        event.eventTime = MicroTime.text(item.first)
        event.series = series
        event.reportingController = component
        event.reportingInstance = instance
        event.action = item.key.action
        event.reason = item.key.reason
        event.regarding = item.key.regarding
        event.related = item.key.related
        event.note = item.key.note
        event.type = item.key.severity.rawValue
        do throws(KubernetesError) {
            return try await api.create(event).metadata.name
        } catch {
            // Our own, of an attempt whose answer was lost.
            if error.code == .alreadyExists { return newName }
            throw error
        }
    }

    /// At most so many bytes, at a character's end.
    private static func cut(_ text: String, _ limit: Int) -> String {
        guard text.utf8.count > limit else { return text }
        var end = text.utf8.index(text.startIndex, offsetBy: limit)
        while end.samePosition(in: text) == nil { end = text.utf8.index(before: end) }
        return String(text[..<end])
    }
}

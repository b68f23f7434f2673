import Kubernetes
import Synchronization
import Testing

@testable import Operator

@Suite(.timeLimit(.minutes(1))) struct WorkQueueTests {
    private final class Log: Sendable {
        private let value = Mutex((done: [Int](), running: [Int: Int](), overlaps: 0, most: 0))
        func begin(_ key: Int) {
            value.withLock { value in
                value.running[key, default: 0] += 1
                if value.running[key] ?? 0 > 1 { value.overlaps += 1 }
                value.most = max(value.most, value.running.values.reduce(0, +))
            }
        }
        func end(_ key: Int) {
            value.withLock { value in
                value.running[key, default: 1] -= 1
                value.done.append(key)
            }
        }
        var done: [Int] { value.withLock { $0.done } }
        var overlaps: Int { value.withLock { $0.overlaps } }
        var most: Int { value.withLock { $0.most } }
    }

    /// Time that passes when the test says so.
    private final class Time: Sendable {
        private let value = Mutex(Duration.seconds(1000))
        var now: Duration { value.withLock { $0 } }
        func advance(_ duration: Duration) { value.withLock { $0 += duration } }
        var clock: KubernetesClock {
            KubernetesClock(
                now: { self.now },
                sleep: { duration in
                    let end = self.now + duration
                    while self.now < end, !Task.isCancelled { try? await Task.sleep(for: .milliseconds(1)) }
                }, wallMicroseconds: { 0 }, random: { 0.5 })
        }
    }

    private func until(_ condition: () -> Bool) async throws {
        for _ in 0..<1000 where !condition() { try await Task.sleep(for: .milliseconds(5)) }
        #expect(condition())
    }

    @Test func eachKeyOnceAtATimeAndNoMoreThanTheWidth() async throws {
        let queue = WorkQueue<Int>()
        let log = Log()
        let task = Task {
            await queue.run(width: 4) { key in
                log.begin(key)
                try? await Task.sleep(for: .milliseconds(2))
                log.end(key)
                return .done
            }
        }
        for _ in 0..<20 {
            queue.add(0..<10)
            try await Task.sleep(for: .milliseconds(1))
        }
        try await until { queue.count == 0 }
        #expect(log.overlaps == 0)
        #expect(log.most == 4)
        #expect(Set(log.done) == Set(0..<10))
        // What is added while it is worked on is done again, but not once for every time it was added.
        #expect(log.done.count < 200)
        task.cancel()
        await task.value
    }

    @Test func failuresWaitAndDoNotHoldUpOthers() async throws {
        let time = Time()
        let queue = WorkQueue<Int>(clock: time.clock)
        let log = Log()
        let task = Task {
            await queue.run(width: 1) { key in
                log.end(key)
                return key == 1 && log.done.count { $0 == 1 } < 3 ? .again : .done
            }
        }
        queue.add([1, 2, 3])
        try await until { log.done.count { $0 == 1 } == 1 && log.done.contains(3) }
        // Events do not shorten a back-off.
        for _ in 0..<50 { queue.add([1]) }
        try await Task.sleep(for: .milliseconds(50))
        #expect(log.done.count { $0 == 1 } == 1)
        try await until {
            time.advance(.milliseconds(50))
            return queue.count == 0
        }
        #expect(log.done.count { $0 == 1 } == 3)
        task.cancel()
        await task.value
    }

    @Test func aServerThatWantsToBeLeftAloneIs() async throws {
        let time = Time()
        let queue = WorkQueue<Int>(clock: time.clock)
        let log = Log()
        let task = Task {
            await queue.run(width: 2) { key in
                log.end(key)
                return log.done.count == 1 ? .pause(.milliseconds(300)) : .done
            }
        }
        queue.add([1])
        try await until { !log.done.isEmpty }
        queue.add([2, 3, 4])
        time.advance(.milliseconds(299))
        try await Task.sleep(for: .milliseconds(50))
        #expect(log.done == [1])
        // The pause may have begun late, on a busy machine.
        try await until {
            time.advance(.milliseconds(50))
            return queue.count == 0
        }
        #expect(Set(log.done) == [1, 2, 3, 4])
        task.cancel()
        await task.value
    }

    @Test func checksComeEarlierWhenSomethingChanges() async throws {
        let queue = WorkQueue<Int>()
        let log = Log()
        let task = Task {
            await queue.run(width: 1) { key in
                log.end(key)
                return log.done.count == 1 ? .recheck(.seconds(3600)) : .done
            }
        }
        queue.add([1])
        try await until { log.done.count == 1 }
        #expect(queue.count == 1)
        queue.add([1])
        try await until { log.done.count == 2 && queue.count == 0 }
        task.cancel()
        await task.value
    }
}

@Suite struct AgendaTests {
    @Test(arguments: 1...20)
    func earliestFirst(seed: UInt64) {
        var random = SplitMix(state: seed)
        var agenda = Agenda<Int>()
        var times: [Int] = []
        for number in 0..<200 {
            if Int.random(in: 0..<3, using: &random) == 0, let first = agenda.first {
                #expect(first.time == .milliseconds(times.min() ?? -1))
                times.remove(at: times.firstIndex(of: times.min() ?? -1) ?? 0)
                agenda.removeFirst()
            } else {
                let time = Int.random(in: 0..<50, using: &random)
                times.append(time)
                agenda.insert(.milliseconds(time), number)
            }
        }
        for time in times.sorted() {
            #expect(agenda.first?.time == .milliseconds(time))
            agenda.removeFirst()
        }
        #expect(agenda.first == nil)
        agenda.removeFirst()
    }
}

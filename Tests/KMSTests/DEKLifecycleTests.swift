import Testing

@testable import KMS

/// Repeats itself, so that a failure can be looked at. (SplitMix64.)
struct Dice: RandomNumberGenerator, Sendable {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}

private let hour = Duration.seconds(3600)
private let outage = KMSError(.unreachable, .aws, "no answer")

@Suite struct DEKLifecycleTests {
    private func make(
        _ policy: DEKLifecycle.Policy = .init(), adopted: [UInt32: Duration?] = [:], now: Duration = .zero
    )
        -> DEKLifecycle
    {
        DEKLifecycle(policy: policy, now: now, adopted: adopted, generator: Dice(state: 1))
    }

    @Test func asksAtOnceThenAtHalf() {
        var life = make()
        life.want([1], now: .zero)
        #expect(life.step(now: .zero).unwrap == [1])
        #expect(life.step(now: .zero).unwrap.isEmpty, "one question at a time")
        life.unwrapped(1, askedAt: .zero, now: .seconds(1))
        let step = life.step(now: .seconds(2))
        #expect(step.unwrap.isEmpty)
        let wake = step.wakeAt ?? .zero
        #expect(wake > hour * 24 * 0.45 && wake < hour * 24 * 0.55)
        #expect(life.step(now: wake).unwrap == [1])
        life.unwrapped(1, askedAt: wake, now: wake)
        #expect(life.leaseEnd(1) == wake + hour * 24)
    }

    @Test func theLeaseCountsFromTheQuestion() {
        var life = make()
        life.want([1], now: .zero)
        _ = life.step(now: .zero)
        life.unwrapped(1, askedAt: .zero, now: hour)
        #expect(life.leaseEnd(1) == hour * 24)
    }

    /// The whole of an outage that lasts longer than the TTL, minute by minute.
    @Test func failsClosedAndRecovers() {
        var life = make()
        var asked = 0
        var closedAt: Duration?
        var severities: [KMSStatus.Severity] = []
        life.want([1], now: .zero)
        for minute in 0..<60 * 40 {
            let now = Duration.seconds(minute * 60)
            let step = life.step(now: now)
            if step.expired == [1] { closedAt = now }
            for epoch in step.unwrap {
                asked += 1
                if minute == 0 || minute > 60 * 30 {
                    life.unwrapped(epoch, askedAt: now, now: now)
                } else {
                    life.failed(epoch, outage, now: now)
                }
            }
            let severity = life.status(now: now).severity
            if severities.last != severity { severities.append(severity) }
            #expect(
                life.isUsable(1, now: now)
                    == (minute < 60 * 24 || minute > 60 * 30 && life.status(now: now).state == .healthy))
        }
        #expect(closedAt == hour * 24)
        #expect(severities == [.fine, .warning, .critical, .failedClosed, .fine])
        #expect(asked < 4 * 60 * 20, "the budget holds")
        #expect(life.status(now: hour * 40).state == .healthy)
    }

    @Test func refusalsAreLoudAtOnceAndAskedRarely() {
        for kind in [KMSError.Kind.denied, .disabled, .pendingDeletion, .keyNotFound] {
            var life = make()
            life.want([1], now: .zero)
            _ = life.step(now: .zero)
            life.unwrapped(1, askedAt: .zero, now: .zero)
            var asked = 0
            for minute in stride(from: 60 * 14, to: 60 * 20, by: 1) {
                let now = Duration.seconds(minute * 60)
                for epoch in life.step(now: now).unwrap {
                    asked += 1
                    life.failed(epoch, KMSError(kind, .aws, "no"), now: now)
                    #expect(life.status(now: now).severity == .critical)
                    #expect(life.status(now: now).state.rawValue == kind.label)
                }
            }
            #expect((24...80).contains(asked), "every 7.5 to 15 minutes: \(asked)")
            #expect(life.step(now: hour * 24).expired == [1], "nothing is extended")
        }
    }

    @Test func aBadBlobDoesNotHoldUpOthers() {
        var life = make()
        life.want([1, 2], now: .zero)
        #expect(life.step(now: .milliseconds(10)).unwrap == [1, 2])
        life.failed(1, KMSError(.notAuthentic, .aws, "x"), now: .zero)
        life.unwrapped(2, askedAt: .zero, now: .zero)
        #expect(!life.isUsable(1, now: .zero) && life.isUsable(2, now: .zero))
        #expect(life.status(now: .zero).state == .badBlob)
        #expect(life.status(now: .zero).isServing)
        life.want([2, 3], now: .seconds(1))
        #expect(life.step(now: .milliseconds(1010)).unwrap == [3], "the gate is open")
        #expect(life.status(now: .seconds(1)).state == .healthy, "the bad epoch has gone")
        life.blobChanged(2, now: .seconds(2))
        #expect(life.step(now: .seconds(2)).unwrap == [2])
    }

    @Test func aRestartDuringAnOutageGoesOn() {
        let now = hour * 100
        var life = make(adopted: [4: now + hour * 3, 5: nil, 6: now + hour * 1000], now: now)
        #expect(life.isUsable(4, now: now) && life.isUsable(5, now: now))
        #expect(life.leaseEnd(5) == now + hour, "of unknown age: an hour")
        #expect(life.leaseEnd(6) == now + hour * 24, "no record promises more than a TTL")
        life.want([4, 5], now: now)
        #expect(life.step(now: now).unwrap == [4, 5])
        life.failed(4, outage, now: now)
        life.failed(5, outage, now: now)
        #expect(life.isUsable(4, now: now + hour * 2))
        #expect(life.step(now: now + hour).expired == [5])
        #expect(life.step(now: now + hour * 3).expired == [4])
        #expect(life.leases.isEmpty)
    }

    @Test func leasesCanBeWrittenDown() {
        var life = make()
        life.want([7], now: .zero)
        _ = life.step(now: .zero)
        life.unwrapped(7, askedAt: .milliseconds(1500), now: .seconds(2))
        #expect(life.leases == [.init(epoch: 7, endMilliseconds: 86_401_500)])
    }
}

@Suite struct KMSGateTests {
    @Test func backsOffWithFullJitterUpToTheCap() {
        var gate = KMSGate(now: .zero)
        #expect(gate.permission(now: .zero) == .go)
        gate.failed(outage, now: .zero, random: 0.999)
        guard case .wait(let until) = gate.permission(now: .zero) else {
            Issue.record("no back-off")
            return
        }
        #expect(until < .seconds(1) && until > .milliseconds(900))
        var now = until
        for _ in 0..<30 {
            while case .wait(let until) = gate.permission(now: now) { now = until }
            gate.failed(outage, now: now, random: 0.999)
        }
        guard case .wait(let last) = gate.permission(now: now) else { return }
        #expect(last - now <= .seconds(300) && last - now > .seconds(299))
    }

    @Test func obeysRetryAfter() {
        var gate = KMSGate(now: .zero)
        _ = gate.permission(now: .zero)
        gate.failed(KMSError(.throttled(retryAfter: .seconds(20)), .aws, ""), now: .zero, random: 0)
        #expect(gate.permission(now: .seconds(19)) == .wait(until: .seconds(20)))
        #expect(gate.permission(now: .seconds(20)) == .go)
    }

    @Test func opensAndProbes() {
        var gate = KMSGate(now: .zero)
        for failure in 1...5 {
            #expect(gate.permission(now: .seconds(failure * 1000)) == .go)
            #expect(gate.circuit(at: .zero) == .closed)
            gate.failed(outage, now: .seconds(failure * 1000), random: 0.5)
        }
        #expect(gate.circuit(at: .zero) == .open)
        #expect(gate.permission(now: .seconds(9000)) == .go)
        #expect(gate.circuit(at: .zero) == .halfOpen)
        #expect(gate.permission(now: .seconds(9000)) != .go, "one probe")
        gate.succeeded(now: .seconds(9001))
        #expect(gate.circuit(at: .zero) == .closed)
        #expect(gate.permission(now: .seconds(9001)) == .go)
    }

    @Test func theBudgetBounds() {
        var gate = KMSGate(policy: .init(base: .milliseconds(1), cap: .milliseconds(1)), now: .zero)
        _ = gate.permission(now: .zero)
        gate.failed(outage, now: .zero, random: 0)
        var calls = 0
        for second in 0..<600 {
            while gate.permission(now: .seconds(second)) == .go {
                calls += 1
                gate.failed(outage, now: .seconds(second), random: 0)
            }
        }
        #expect((45...51).contains(calls), "10 and 4 a minute for ten minutes: \(calls)")
    }
}

@Suite struct EpochScheduleTests {
    private let policy = EpochSchedule.Policy()

    @Test func opensTheFirstAndReplacesTheOld() {
        var schedule = EpochSchedule(now: .zero, age: nil, kekVersion: nil, generator: Dice(state: 3))
        #expect(schedule.next(now: .zero) == .open(.first))
        schedule.opened(kekVersion: "1", now: .zero)
        #expect(schedule.next(now: .zero) == .poll)
        schedule.polled("1", now: .zero)
        guard case .wait(let until) = schedule.next(now: .zero) else {
            Issue.record("nothing to wait for")
            return
        }
        #expect(until >= .seconds(240) && until <= .seconds(360))
        #expect(schedule.next(now: hour * 12) == .open(.age))
    }

    @Test func answersARotationWithAnEpoch() {
        var schedule = EpochSchedule(now: .zero, age: .seconds(10), kekVersion: "v1", generator: Dice(state: 3))
        #expect(schedule.next(now: .zero) == .poll)
        schedule.polled("v2", now: .zero)
        #expect(schedule.next(now: .zero) == .open(.kekRotated(from: "v1", to: "v2")))
        schedule.failed(outage, now: .zero)
        guard case .wait(let until) = schedule.next(now: .zero) else {
            Issue.record("no back-off")
            return
        }
        #expect(schedule.next(now: until) == .open(.kekRotated(from: "v1", to: "v2")), "not forgotten")
        schedule.opened(kekVersion: "v2", now: until)
        if case .open = schedule.next(now: until) { Issue.record("opened twice") }
    }

    /// A full disk, or an API server that refuses: the KMS does not have to make a DEK for every attempt.
    @Test func asksRarelyWhileNothingCanBeWritten() {
        var schedule = EpochSchedule(now: .zero, age: nil, kekVersion: nil, generator: Dice(state: 3))
        var asked = 0
        for halfSecond in 0..<7200 {
            let now = Duration.milliseconds(500 * halfSecond)
            guard case .open = schedule.next(now: now) else { continue }
            asked += 1
            schedule.notWritten(now: now)
        }
        #expect((60...70).contains(asked), "\(asked) in an hour")
        schedule.opened(kekVersion: "1", now: hour)
        #expect(schedule.next(now: hour) == .poll)
    }
}

/// A thousand nodes that started together and have the same KMS.
@Suite struct FleetTests {
    private final class Node {
        var life: DEKLifecycle
        init(seed: UInt64) {
            life = DEKLifecycle(now: .zero, adopted: [1: hour * 24], generator: Dice(state: seed))
            life.want([1], now: .zero)
        }
    }

    /// Runs the fleet second by second; returns requests per second and the times of each node's retries.
    private func run(
        _ nodes: [Node], from: Int, to: Int, answer: (Int) -> KMSError?
    ) -> (perSecond: [Int: Int], times: [[Duration]]) {
        var perSecond: [Int: Int] = [:]
        var times: [[Duration]] = nodes.map { _ in [] }
        var wake = nodes.map { _ in Duration.seconds(from) }
        for second in from..<to {
            for (index, node) in nodes.enumerated() {
                // Each node acts at its own moment within the second.
                while wake[index] < .seconds(second + 1) {
                    let now = wake[index]
                    let step = node.life.step(now: now)
                    for epoch in step.unwrap {
                        perSecond[second, default: 0] += 1
                        times[index].append(now)
                        if let error = answer(second) {
                            node.life.failed(epoch, error, now: now)
                        } else {
                            node.life.unwrapped(epoch, askedAt: now, now: now)
                        }
                    }
                    let next =
                        step.unwrap.isEmpty
                        ? step.wakeAt ?? .seconds(to) : node.life.step(now: now).wakeAt ?? .seconds(to)
                    wake[index] = max(next, now + .microseconds(1))
                }
            }
        }
        return (perSecond, times)
    }

    @Test func renewsUnderTheBudget() {
        let budget = 20
        let nodes = (0..<1000).map { Node(seed: UInt64($0) &* 7919 + 1) }
        // All have renewed at 0, as after a roll-out.
        for node in nodes {
            _ = node.life.step(now: .zero)
            node.life.unwrapped(1, askedAt: .zero, now: .zero)
        }
        // One hour without an answer, in the middle of the renewals.
        let down = 41_000..<44_600
        let (perSecond, times) = run(nodes, from: 38_000, to: 50_000) { down.contains($0) ? outage : nil }
        let peak = perSecond.values.max() ?? 0
        let inOutage = perSecond.filter { down.contains($0.key) }.values.reduce(0, +)
        print(
            "FLEET 1000 nodes, one hour of outage within the renewals: peak \(peak) requests/s (budget \(budget)), \(perSecond.values.reduce(0, +)) requests, \(inOutage) of them during the outage"
        )
        #expect(peak <= budget)
        #expect(nodes.allSatisfy { $0.life.status(now: .seconds(50_000)).state == .healthy })
        let retries = Set(times.filter { $0.count > 1 }.map { $0 })
        #expect(retries.count == times.filter { $0.count > 1 }.count, "no two nodes retry in step")
        let moments = times.flatMap { $0 }
        #expect(Set(moments).count == moments.count, "no two requests at the same moment")
    }

    /// A new epoch: everybody hears of it at once.
    @Test func aNewEpochIsAskedForOverTime() {
        let nodes = (0..<1000).map { Node(seed: UInt64($0) &* 15_485_863 + 9) }
        for node in nodes {
            _ = node.life.step(now: .zero)
            node.life.unwrapped(1, askedAt: .zero, now: .zero)
            node.life.want([1, 2], nodes: 1000, now: .zero)
        }
        let (perSecond, _) = run(nodes, from: 0, to: 60) { _ in nil }
        let peak = perSecond.values.max() ?? 0
        print(
            "FLEET 1000 nodes hear of a new epoch: all asked within \(perSecond.keys.max() ?? 0) s, peak \(peak) requests/s (budget 150)"
        )
        #expect(peak <= 150)
        #expect(perSecond.values.reduce(0, +) == 1000)
        #expect(nodes.allSatisfy { $0.life.isUsable(2, now: .seconds(60)) })
    }

    @Test func throttlingSpreadsThem() {
        let nodes = (0..<1000).map { Node(seed: UInt64($0) &* 104_729 + 5) }
        for node in nodes {
            _ = node.life.step(now: .zero)
            node.life.failed(1, KMSError(.throttled(retryAfter: .seconds(60)), .aws, ""), now: .zero)
        }
        let (perSecond, _) = run(nodes, from: 0, to: 200) { _ in nil }
        let peak = perSecond.values.max() ?? 0
        print("FLEET 1000 nodes throttled at once with Retry-After 60 s: peak \(peak) requests/s, none before 60 s")
        #expect(perSecond.keys.min() ?? 0 >= 60)
        #expect(peak <= 40)
    }
}

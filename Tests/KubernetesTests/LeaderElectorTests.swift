import Logging
import Synchronization
import Testing

@testable import Kubernetes

private let quiet = Logger(label: "tests") { _ in SwiftLogNoOpLogHandler() }

/// Several candidates on one lease, one clock each.
@Suite struct LeaderElectorTests {
    /// A candidate and what it believes.
    private final class Candidate: Sendable {
        let name: String
        let leadership = Mutex<Leadership?>(nil)
        let starts = Mutex(0)
        let stops = Mutex(0)
        let returns: Bool
        private let task = Mutex<Task<Void, Never>?>(nil)

        init(_ name: String, returns: Bool = false) {
            self.name = name
            self.returns = returns
        }

        /// May write now.
        var leads: Bool { leadership.withLock { $0?.isCurrent ?? false } }
        /// Its task runs.
        var works: Bool { leadership.withLock { $0 != nil } }
        var term: Int? { leadership.withLock { $0?.term } }

        func start(_ api: any KubernetesAPI, _ clock: ManualClock) throws {
            let elector = try LeaderElector(
                api: api, configuration: .init(namespace: "default", name: "operator", identity: name),
                clock: clock.clock(), logger: quiet)
            task.withLock {
                $0 = Task {
                    await elector.run { leadership in
                        self.starts.withLock { $0 += 1 }
                        self.leadership.withLock { $0 = leadership }
                        if !self.returns {
                            while !Task.isCancelled { await clock.clock().sleep(.seconds(3600)) }
                        }
                        self.leadership.withLock { $0 = nil }
                    } onStopped: {
                        self.stops.withLock { $0 += 1 }
                    }
                }
            }
        }

        func stop() async {
            let task = task.withLock { $0 }
            task?.cancel()
            await task?.value
        }
    }

    @Test func oneLeadsAndTheOtherFollowsAtOnceWhenItStops() async throws {
        let (api, clock) = (FakeAPI(), ManualClock())
        let (a, b) = (Candidate("a"), Candidate("b"))
        try a.start(api, clock)
        await clock.advance(.seconds(1))
        try b.start(api, clock)
        await clock.advance(.seconds(60))
        #expect(a.leads && !b.works)
        #expect(api.lease?.spec?.holderIdentity == "a")
        #expect(api.lease?.spec?.leaseTransitions == 0)
        #expect(api.lease?.spec?.leaseDurationSeconds == 15)
        let stopping = Task { await a.stop() }
        await clock.advance(.seconds(4))
        await stopping.value
        // The lease was given back: no need to wait for it to run out.
        #expect(b.leads && !a.works)
        #expect(b.term == 1)
        #expect(a.stops.withLock { $0 } == 1)
        await stop(b, clock)
        #expect(api.lease?.spec?.holderIdentity == "")
    }

    @Test func aLeaderThatDiesIsReplacedAfterTheLease() async throws {
        let (api, clock) = (FakeAPI(), ManualClock())
        // A leader that is gone without giving anything back, as a killed process is.
        var lease = Lease(metadata: ObjectMeta(name: "operator", namespace: "default"), spec: .init())
        lease.metadata.resourceVersion = "0"
        lease.spec?.holderIdentity = "dead"
        lease.spec?.leaseDurationSeconds = 15
        // In the past, or in the future: it does not matter.
        lease.spec?.renewTime = "2099-01-01T00:00:00.000000Z"
        lease.spec?.leaseTransitions = 4
        let dead = lease
        api.state.withLock { $0.lease = dead }
        let b = Candidate("b")
        try b.start(api, clock)
        await clock.advance(.seconds(14))
        #expect(!b.works)
        await clock.advance(.seconds(4))
        #expect(b.leads && b.term == 5)
        await stop(b, clock)
    }

    @Test func aLeaderThatCannotRenewStopsBeforeAnotherStarts() async throws {
        let (apiA, clock) = (FakeAPI(), ManualClock())
        let (a, b) = (Candidate("a"), Candidate("b"))
        // Both see the same lease; only a loses the network.
        let viaA = PartitionedAPI(apiA)
        try a.start(viaA, clock)
        await clock.advance(.seconds(1))
        try b.start(apiA, clock)
        await clock.advance(.seconds(20))
        #expect(a.leads && !b.works)
        viaA.isCut.withLock { $0 = true }
        var both = 0
        var neither = 0
        for _ in 0..<300 {
            await clock.advance(.milliseconds(100))
            if a.leads && b.leads { both += 1 }
            if !a.works && !b.works { neither += 1 }
        }
        #expect(both == 0)
        #expect(neither >= 20, "between renewDeadline and leaseDuration nobody leads")
        #expect(b.leads && !a.works)
        // It comes back as a follower.
        viaA.isCut.withLock { $0 = false }
        await clock.advance(.seconds(30))
        #expect(b.leads && !a.works)
        await stop(a, clock)
        await stop(b, clock)
    }

    @Test func aRequestThatHangsDoesNotKeepALeader() async throws {
        let (api, clock) = (FakeAPI(), ManualClock())
        let a = Candidate("a")
        try a.start(api, clock)
        await clock.advance(.seconds(5))
        #expect(a.leads)
        api.state.withLock { $0.hangs = true }
        await clock.advance(.seconds(13))
        #expect(!a.leads && !a.works)
        #expect(a.stops.withLock { $0 } == 1)
        api.state.withLock { $0.hangs = false }
        await clock.advance(.seconds(10))
        #expect(a.leads)
        await stop(a, clock)
    }

    @Test func aProcessThatWasNotScheduledKnowsThatItNoLongerLeads() async throws {
        let (api, clock) = (FakeAPI(), ManualClock())
        let a = Candidate("a")
        try a.start(api, clock)
        await clock.advance(.seconds(5))
        #expect(a.leads)
        // Suspended for a minute: nothing ran, but the first look tells.
        clock.freeze(for: .seconds(60))
        #expect(!a.leads)
        await clock.advance(.seconds(1))
        #expect(a.stops.withLock { $0 } == 1)
        await stop(a, clock)
    }

    @Test func twoLeadersForAMomentOnlyOneMayWrite() async throws {
        // The old leader's task goes on (it does not look at cancellation), while another takes over: isCurrent tells them apart.
        let (api, clock) = (FakeAPI(), ManualClock())
        let old = Leadership(term: 1, clock: clock.clock(), end: clock.now + .seconds(10))
        let b = Candidate("b")
        var lease = Lease(metadata: ObjectMeta(name: "operator", namespace: "default"), spec: .init())
        lease.spec?.holderIdentity = "a"
        lease.spec?.leaseDurationSeconds = 15
        lease.metadata.resourceVersion = "0"
        let held = lease
        api.state.withLock { $0.lease = held }
        try b.start(api, clock)
        for _ in 0..<200 {
            await clock.advance(.milliseconds(100))
            #expect(!(old.isCurrent && b.leads))
        }
        #expect(b.leads && !old.isCurrent)
        await stop(b, clock)
    }

    @Test func wallClocksMayJump() async throws {
        let (api, clock) = (FakeAPI(), ManualClock())
        let (a, b) = (Candidate("a"), Candidate("b"))
        try a.start(api, clock)
        await clock.advance(.seconds(1))
        try b.start(api, clock)
        await clock.advance(.seconds(5))
        for jump in [86_400, -172_800, 3_600, -60] as [Int64] {
            clock.jumpWall(seconds: jump)
            let before = api.lease?.spec?.renewTime
            await clock.advance(.seconds(20))
            #expect(a.leads && !b.works)
            // Renewals differ from each other even when the clock went back.
            #expect(api.lease?.spec?.renewTime != before)
        }
        #expect(a.starts.withLock { $0 } == 1)
        await stop(a, clock)
        await stop(b, clock)
    }

    @Test func aRenewalWhoseAnswerWasLostIsNotMistakenForAnother() async throws {
        let (api, clock) = (FakeAPI(), ManualClock())
        let a = Candidate("a")
        try a.start(api, clock)
        await clock.advance(.seconds(5))
        api.state.withLock { $0.losesAnswers = true }
        await clock.advance(.seconds(5))
        api.state.withLock { $0.losesAnswers = false }
        await clock.advance(.seconds(20))
        #expect(a.leads)
        #expect(a.starts.withLock { $0 } == 1)
        await stop(a, clock)
    }

    @Test func aLeaseThatSomebodyTakesByHandIsLost() async throws {
        let (api, clock) = (FakeAPI(), ManualClock())
        let a = Candidate("a")
        try a.start(api, clock)
        await clock.advance(.seconds(5))
        api.state.withLock {
            $0.version += 1
            $0.lease?.metadata.resourceVersion = "\($0.version)"
            $0.lease?.spec?.holderIdentity = "somebody"
        }
        await clock.advance(.seconds(3))
        #expect(!a.works && !a.leads)
        // Nobody renews it: a leads again when it has run out, with a higher term.
        await clock.advance(.seconds(20))
        #expect(a.leads && a.term == 1)
        await stop(a, clock)
    }

    @Test func whoReturnsGivesTheLeaseToOthers() async throws {
        let (api, clock) = (FakeAPI(), ManualClock())
        let (a, b) = (Candidate("a", returns: true), Candidate("b"))
        try a.start(api, clock)
        try b.start(api, clock)
        await clock.advance(.seconds(8))
        #expect(b.leads)
        await stop(a, clock)
        await stop(b, clock)
    }

    @Test func refusesTimesThatAllowTwoLeaders() {
        func elector(_ lease: Int, _ renew: Int, _ retry: Int) throws {
            _ = try LeaderElector(
                api: FakeAPI(),
                configuration: .init(
                    namespace: "n", name: "l", identity: "i", leaseDuration: .seconds(lease),
                    renewDeadline: .seconds(renew),
                    retryPeriod: .seconds(retry)), logger: quiet)
        }
        #expect(throws: Never.self) { try elector(15, 10, 2) }
        for (lease, renew, retry) in [(10, 10, 2), (10, 15, 2), (15, 10, 6), (15, 10, 0), (0, 0, 0)] {
            #expect(throws: KubernetesError.self) { try elector(lease, renew, retry) }
        }
    }

    private func stop(_ candidate: Candidate, _ clock: ManualClock) async {
        let stopping = Task { await candidate.stop() }
        await clock.advance(.seconds(1))
        await stopping.value
    }
}

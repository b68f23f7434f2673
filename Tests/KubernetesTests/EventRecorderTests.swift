import Logging
import Synchronization
import Testing

@testable import Kubernetes

private let quiet = Logger(label: "tests") { _ in SwiftLogNoOpLogHandler() }
private let policy = ObjectReference(
    apiVersion: "encryption.ebpf.xdp/v1alpha1", kind: "EncryptionPolicy", name: "p", uid: "u")

@Suite struct EventRecorderTests {
    private func recorder(_ api: FakeAPI, _ clock: ManualClock) -> EventRecorder {
        EventRecorder(
            api: api, component: "encryption.ebpf.xdp/operator", instance: "operator-0", clock: clock.clock(),
            logger: quiet)
    }

    @Test func repetitionsAreCountedInOneEvent() async {
        let (api, clock) = (FakeAPI(), ManualClock())
        let recorder = recorder(api, clock)
        let task = Task { await recorder.run() }
        for _ in 0..<50 {
            recorder.record(.warning, regarding: policy, reason: "Conflict", action: "Resolve", note: "two policies")
            await clock.advance(.milliseconds(200))
        }
        await clock.advance(.seconds(12))
        let events = api.state.withLock { $0.events }
        #expect(events.count == 1)
        #expect(events.values.first?.series?.count == 50)
        #expect(events.values.first?.metadata.namespace == "default")
        #expect(events.values.first?.type == "Warning")
        // Not one request a repetition.
        #expect(api.state.withLock { $0.writes } <= 5)
        #expect(recorder.dropped == 0)
        task.cancel()
        await clock.advance(.seconds(3))
        await task.value
    }

    @Test func aNoisyObjectIsLimitedAndOthersAreNot() async {
        let (api, clock) = (FakeAPI(), ManualClock())
        let recorder = recorder(api, clock)
        let task = Task { await recorder.run() }
        for number in 0..<500 {
            recorder.record(.normal, regarding: policy, reason: "R", action: "A", note: "number \(number)")
        }
        var other = policy
        other.uid = "v"
        recorder.record(.normal, regarding: other, reason: "R", action: "A", note: "important")
        await clock.advance(.seconds(5))
        let notes = api.state.withLock { $0.events.values.compactMap { $0.note } }
        #expect(notes.count == 26)
        #expect(notes.contains("important"))
        #expect(recorder.dropped == 475)
        task.cancel()
        await clock.advance(.seconds(3))
        await task.value
    }

    @Test func neverBlocksAndStaysBoundedWhileNobodySends() {
        let recorder = recorder(FakeAPI(), ManualClock())
        for number in 0..<20_000 {
            var object = policy
            object.uid = "\(number)"
            recorder.record(.normal, regarding: object, reason: "R", action: "A", note: "n")
        }
        #expect(recorder.dropped == 19_000)
    }

    @Test func olderServersTakeEventsWithoutANamespaceElsewhere() async {
        let (api, clock) = (FakeAPI(), ManualClock())
        let recorder = recorder(api, clock)
        api.state.withLock { $0.refusesDefaultNamespace = true }
        let task = Task { await recorder.run() }
        recorder.record(.normal, regarding: policy, reason: "R", action: "A", note: "first")
        recorder.record(.normal, regarding: policy, reason: "R", action: "A", note: "second")
        await clock.advance(.seconds(1))
        recorder.record(.normal, regarding: policy, reason: "R", action: "A", note: "second")
        await clock.advance(.seconds(12))
        let events = api.state.withLock { $0.events.values.sorted { ($0.note ?? "") < ($1.note ?? "") } }
        #expect(events.map(\.metadata.namespace) == ["kube-system", "kube-system"])
        #expect(events.last?.series?.count == 2)
        #expect(recorder.dropped == 0)
        task.cancel()
        await clock.advance(.seconds(3))
        await task.value
    }

    @Test func triesAgainAndThenGivesUp() async {
        let (api, clock) = (FakeAPI(), ManualClock())
        let recorder = recorder(api, clock)
        api.state.withLock { $0.failure = KubernetesError(.unavailable, "gone") }
        let task = Task { await recorder.run() }
        recorder.record(.normal, regarding: policy, reason: "R", action: "A", note: "lost")
        await clock.advance(.seconds(30))
        #expect(recorder.dropped == 1)
        api.state.withLock { $0.failure = nil }
        recorder.record(.normal, regarding: policy, reason: "R", action: "A", note: "kept")
        await clock.advance(.seconds(1))
        #expect(api.state.withLock { $0.events.values.map { $0.note } } == ["kept"])
        task.cancel()
        await clock.advance(.seconds(3))
        await task.value
    }

    @Test func whatWaitsIsWrittenAtTheEnd() async {
        let (api, clock) = (FakeAPI(), ManualClock())
        let recorder = recorder(api, clock)
        for number in 0..<5 {
            recorder.record(.normal, regarding: policy, reason: "R", action: "A", note: "\(number)")
        }
        let task = Task { await recorder.run() }
        task.cancel()
        await clock.advance(.seconds(3))
        await task.value
        #expect(api.state.withLock { $0.events.count } == 5)
    }

    @Test func anEventThatTheServerForgotIsMadeAgain() async {
        let (api, clock) = (FakeAPI(), ManualClock())
        let recorder = recorder(api, clock)
        let task = Task { await recorder.run() }
        recorder.record(.normal, regarding: policy, reason: "R", action: "A", note: "n")
        await clock.advance(.seconds(11))
        api.state.withLock { $0.events.removeAll() }
        recorder.record(.normal, regarding: policy, reason: "R", action: "A", note: "n")
        await clock.advance(.seconds(11))
        #expect(api.state.withLock { $0.events.values.first?.series?.count } == 2)
        task.cancel()
        await clock.advance(.seconds(3))
        await task.value
    }

    @Test func timesAreWrittenAsTheAPIReadsThem() {
        #expect(MicroTime.text(0) == "1970-01-01T00:00:00.000000Z")
        #expect(MicroTime.text(1_777_896_000_250_001) == "2026-05-04T12:00:00.250001Z")
        #expect(MicroTime.text(-1) == "1969-12-31T23:59:59.999999Z")
    }
}

import Logging
import Synchronization
import Testing

@testable import Kubernetes

private let quiet = Logger(label: "tests") { _ in SwiftLogNoOpLogHandler() }

/// Notes what a reflector says.
private final class Notes: Sendable {
    private let lines = Mutex<[String]>([])
    var all: [String] { lines.withLock { $0 } }

    func take(_ event: Reflector<Widget>.Event) {
        let line =
            switch event {
            case .reset: "reset"
            case .listed(let widget): "listed \(widget.key)"
            case .synced: "synced"
            case .applied(let widget): "applied \(widget.key) \(widget.spec?.size ?? -1)"
            case .deleted(let key, let uid): "deleted \(key) \(uid ?? "")"
            case .undecodable(let object): "undecodable \(object.key): \(object.problem)"
            case .failing(let error): "failing \(error.code)"
            case .recovered: "recovered"
            }
        lines.withLock { $0.append(line) }
    }
}

private func widget(_ name: String, version: String, size: Int = 1) -> Widget {
    var widget = Widget(name, size: size)
    widget.metadata.resourceVersion = version
    widget.metadata.uid = "uid-\(name)"
    return widget
}

private func page(
    _ names: [String], version: String, continueToken: String? = nil
) -> Result<ObjectList<Widget>, KubernetesError> {
    .success(
        ObjectList(
            items: names.map { widget($0, version: version) }, resourceVersion: version, continueToken: continueToken))
}

@Suite struct ReflectorTests {
    /// Runs a reflector on a script until its last watch is silent.
    private func run(_ api: FakeAPI, clock: ManualClock = ManualClock(), seconds: Int = 60) async -> [String] {
        let notes = Notes()
        let reflector = Reflector<Widget>(api: api, pageSize: 2, clock: clock.clock(), logger: quiet)
        let task = Task { await reflector.run { notes.take($0) } }
        await clock.advance(.seconds(seconds))
        task.cancel()
        await task.value
        return notes.all
    }

    @Test func listsInPagesThenWatchesAndResumesFromBookmarks() async {
        let api = FakeAPI(
            lists: [page(["a", "b"], version: "10", continueToken: "t"), page(["c"], version: "10")],
            watches: [
                [
                    .event(.opened), .event(.added(widget("d", version: "11"))),
                    .event(.modified(widget("a", version: "12", size: 5))),
                    .event(.deleted(widget("b", version: "13").metadata)),
                    .event(.bookmark(resourceVersion: "40")), .end,
                ], [.event(.opened), .silence],
            ])
        let notes = await run(api)
        #expect(
            notes == [
                "reset", "listed default/a", "listed default/b", "listed default/c", "synced", "applied default/d 1",
                "applied default/a 5", "deleted default/b uid-b",
            ])
        api.state.withLock { state in
            #expect(state.listOptions.map { $0.limit } == [2, 2])
            #expect(state.listOptions.map { $0.continueToken } == [nil, "t"])
            #expect(state.watchOptions.map { $0.resourceVersion } == ["10", "40"])
            #expect(state.watchOptions.allSatisfy { (300...600).contains($0.timeout.components.seconds) })
        }
    }

    @Test func listsAgainWhenTheVersionHasExpired() async {
        let gone = KubernetesError(.expired, "too old", status: 410)
        let api = FakeAPI(
            lists: [page(["a", "b"], version: "10"), page(["b"], version: "90")],
            watches: [[.event(.opened), .fail(gone)], [.event(.opened), .silence]])
        #expect(
            await run(api) == [
                "reset", "listed default/a", "listed default/b", "synced", "reset", "listed default/b", "synced",
            ])
        // An expiry is no failure.
        #expect(api.state.withLock { $0.watchOptions.last?.resourceVersion } == "90")
    }

    @Test func beginsAgainWhenAListExpiresBetweenPages() async {
        let api = FakeAPI(lists: [
            page(["a"], version: "10", continueToken: "t"), .failure(KubernetesError(.expired, "too old", status: 410)),
            page(["a", "b"], version: "20"),
        ])
        #expect(
            await run(api) == ["reset", "listed default/a", "reset", "listed default/a", "listed default/b", "synced"])
        #expect(api.state.withLock { $0.listOptions.map { $0.continueToken } } == [nil, "t", nil])
    }

    @Test func resumesAfterABrokenConnectionWithoutListing() async {
        let broken = KubernetesError(.network, "reset by peer")
        let api = FakeAPI(
            lists: [page(["a"], version: "10")],
            watches: [
                [.event(.opened), .event(.added(widget("b", version: "11"))), .fail(broken)], [.fail(broken)],
                [.event(.opened), .event(.modified(widget("b", version: "12", size: 3))), .silence],
            ])
        #expect(
            await run(api) == [
                "reset", "listed default/a", "synced", "applied default/b 1", "failing network", "failing network",
                "recovered", "applied default/b 3",
            ])
        #expect(api.state.withLock { $0.watchOptions.map { $0.resourceVersion } } == ["10", "11", "11"])
    }

    @Test func listsAgainAfterNonsense() async {
        let api = FakeAPI(
            lists: [page(["a"], version: "10"), page(["a"], version: "11")],
            watches: [[.event(.opened), .fail(KubernetesError(.decoding, "not JSON"))]])
        #expect(
            await run(api) == [
                "reset", "listed default/a", "synced", "failing decoding", "reset", "listed default/a", "synced",
                "recovered",
            ])
    }

    @Test func waitsLongerAndLongerWhileTheServerIsGone() async {
        let api = FakeAPI()
        let clock = ManualClock()
        let reflector = Reflector<Widget>(api: api, clock: clock.clock(random: { 0.999 }), logger: quiet)
        let task = Task { await reflector.run { _ in } }
        await clock.advance(.seconds(300))
        // 0.25, 0.5, 1, 2, 4, 8, 16, then every 30 s: 7 + 9 and a bit.
        let attempts = api.state.withLock { $0.listOptions.count }
        #expect((14...18).contains(attempts), "\(attempts) attempts in five minutes")
        task.cancel()
        await task.value
    }

    @Test func aServerThatEndsEveryWatchAtOnceIsNotAskedInATightLoop() async {
        let api = FakeAPI(
            lists: [page(["a"], version: "10")],
            watches: Array(repeating: [.event(.opened), .end], count: 100_000))
        let clock = ManualClock()
        let reflector = Reflector<Widget>(api: api, clock: clock.clock(random: { 0.5 }), logger: quiet)
        let task = Task { await reflector.run { _ in } }
        await clock.advance(.seconds(60))
        #expect(api.state.withLock { $0.watchOptions.count } < 20)
        task.cancel()
        await task.value
    }

    @Test func aStormOfExpiredWatchesIsNotAStormOfLists() async {
        let gone = KubernetesError(.expired, "too old", status: 410)
        let api = FakeAPI(
            lists: Array(repeating: page(["a"], version: "10"), count: 10_000),
            watches: Array(repeating: [.event(.opened), .fail(gone)], count: 10_000))
        let clock = ManualClock()
        let reflector = Reflector<Widget>(api: api, clock: clock.clock(random: { 0.5 }), logger: quiet)
        let task = Task { await reflector.run { _ in } }
        await clock.advance(.seconds(120))
        #expect((5...16).contains(api.state.withLock { $0.listOptions.count }))
        task.cancel()
        await task.value
    }

    @Test func aClientThatIsShutDownIsNoReasonToSpin() async {
        let api = FakeAPI(
            lists: [page(["a"], version: "10")],
            watches: Array(repeating: [.fail(KubernetesError(.cancelled, "shut down"))], count: 100_000))
        let clock = ManualClock()
        let reflector = Reflector<Widget>(api: api, clock: clock.clock(random: { 0.5 }), logger: quiet)
        let task = Task { await reflector.run { _ in } }
        await clock.advance(.seconds(60))
        #expect(api.state.withLock { $0.watchOptions.count } < 20)
        task.cancel()
        await task.value
    }

    @Test func honoursRetryAfter() async {
        let busy = KubernetesError(.tooManyRequests, "slow down", status: 429, retryAfter: .seconds(20))
        let api = FakeAPI(lists: [.failure(busy), page(["a"], version: "1")])
        let clock = ManualClock()
        let reflector = Reflector<Widget>(api: api, clock: clock.clock(), logger: quiet)
        let task = Task { await reflector.run { _ in } }
        await clock.advance(.seconds(19))
        #expect(api.state.withLock { $0.listOptions.count } == 1)
        await clock.advance(.seconds(2))
        #expect(api.state.withLock { $0.listOptions.count } == 2)
        task.cancel()
        await task.value
    }

    @Test func oddObjectsHoldUpNothingElse() async {
        let odd = UndecodableObject(
            key: ObjectKey(namespace: "default", name: "b"), resourceVersion: "12", problem: "spec.size: expected Int")
        let api = FakeAPI(
            lists: [page(["a", "b"], version: "10")],
            watches: [
                [
                    .event(.opened), .event(.undecodable(odd)), .event(.modified(widget("a", version: "13", size: 2))),
                    .end,
                ],
                [.event(.opened), .silence],
            ])
        let notes = await run(api)
        #expect(notes.suffix(2) == ["undecodable default/b: spec.size: expected Int", "applied default/a 2"])
        #expect(api.state.withLock { $0.watchOptions.map { $0.resourceVersion } } == ["10", "13"])
    }
}

@Suite struct ChangeSignalTests {
    @Test func aWaitingReaderIsWokenAndACancelledOneReturns() async {
        let signal = ChangeSignal()
        let reader = Task { await signal.wait() }
        try? await Task.sleep(for: .milliseconds(10))
        signal.set()
        await reader.value
        let other = Task { await signal.wait() }
        try? await Task.sleep(for: .milliseconds(10))
        other.cancel()
        await other.value
    }
}

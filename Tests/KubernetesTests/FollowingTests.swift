import Lab
import Logging
import Testing

@testable import Kubernetes

/// The real reflector and store against the stand-in, on bad days.
@Suite(.serialized) struct FollowingTests {
    private func key(_ name: String) -> ObjectKey { ObjectKey(namespace: "default", name: name) }

    @Test func followsThroughBrokenWatchesCompactionsAndOutages() async throws {
        try await ServerFixture.run { fixture in
            let (client, server) = (fixture.client, fixture.server)
            for name in ["a", "b"] { _ = try await client.create(Widget(name)) }
            try await fixture.following(pageSize: 1) { store in
                try await eventually("the first list") { store.isSynced && store.count == 2 }
                _ = try await client.create(Widget("c"))
                try await client.delete(Widget.self, key("a"))
                try await eventually("live events") { store[key("c")] != nil && store[key("a")] == nil }

                try server.control(#"{"drop": true}"#)
                _ = try await client.create(Widget("d"))
                try await eventually("resumption after a broken connection") { store[key("d")] != nil }

                // In the middle of an event: it is not half believed, and comes again.
                try server.control(#"{"cut": true}"#)
                _ = try await client.create(Widget("e", size: 7))
                try await eventually("resumption after half an event") { store[key("e")]?.spec?.size == 7 }

                // What happened before a compaction is only in a new list; b was deleted without an event for us.
                try server.control(#"{"down": true}"#)
                try await eventually("a failure that shows") { store.failure != nil }
                #expect(store.count == 4 && store.isSynced, "what is known stays")
                try server.control(#"{"down": false, "fail": {"status": 503, "watch": true}}"#)
                try await client.delete(Widget.self, key("b"))
                try server.control(#"{"compact": true, "clear": true}"#)
                try await eventually("a new list after 410") { store[key("b")] == nil }
                try await eventually("health") { store.failure == nil }
                #expect(store.count == 3)

                try server.control(#"{"fail": {"kind": "garbage", "times": 2, "method": "GET"}}"#)
                try server.control(#"{"drop": true}"#)
                _ = try await client.mergePatch(
                    Widget.self, key("c"), subresource: nil, body: Array(#"{"spec":{"size":3}}"#.utf8))
                try await eventually("nonsense is survived") { store[key("c")]?.spec?.size == 3 }
            }
        }
    }

    @Test func bookmarksSpareListsAfterQuietTimes() async throws {
        try await ServerFixture.run(["--history", "10"]) { fixture in
            let (client, server) = (fixture.client, fixture.server)
            _ = try await client.create(Widget("a"))
            try await fixture.following { store in
                try await eventually("the first list") { store.isSynced }
                try await eventually("a watch") { try server.control("{}").contains(#""watches":1"#) }
                // Others write a lot; our kind is quiet.
                try server.load(
                    (0..<50).map {
                        #"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m\#($0)","namespace":"default"}}"#
                    })
                try server.control(#"{"bookmark": true}"#)
                // Time to arrive, also on a busy machine.
                try await Task.sleep(for: .milliseconds(300))
                let lists = try lists(server)
                try server.control(#"{"compact": true}"#)
                try server.control(#"{"drop": true}"#)
                _ = try await client.create(Widget("b"))
                try await eventually("resumption from the bookmark") { store[key("b")] != nil }
                #expect(try self.lists(server) == lists)
            }
        }
    }

    @Test func aSilentWatchIsBegunAnew() async throws {
        try await ServerFixture.run(
            ["--bookmark-interval", "0.1"],
            configure: { configuration, _ in
                configuration.timeouts.watchIdle = .milliseconds(600)
            }
        ) { fixture in
            let (client, server) = (fixture.client, fixture.server)
            try await fixture.following { store in
                try await eventually("a watch") { try store.isSynced && server.control("{}").contains(#""watches":1"#) }
                // Connected, but nothing comes: not even bookmarks. On a quiet day that is how it is, and no failure.
                let lists = try lists(server)
                func watches() throws -> Int {
                    let text = try server.control("{}").firstMatch(of: /"counters":\{[^}]*"watches":(\d+)/)?.1
                    return text.flatMap { Int($0) } ?? 0
                }
                let before = try watches()
                try server.control(#"{"stall": true}"#)
                _ = try await client.create(Widget("a"))
                try await eventually("other watches") { try watches() >= before + 2 }
                #expect(store.failure == nil)
                try server.control(#"{"stall": false}"#)
                try await eventually("the event that was missed") { store[key("a")] != nil }
                #expect(try self.lists(server) == lists)
            }
        }
    }

    @Test func oddObjectsAreSkippedAndTheirLastVersionStays() async throws {
        try await ServerFixture.run { fixture in
            let (client, server) = (fixture.client, fixture.server)
            _ = try await client.create(Widget("a", size: 4))
            try await fixture.following { store in
                try await eventually("the first list") { store.count == 1 }
                // Past the schema, as an older CRD would have let it.
                try server.control(
                    #"{"load": [{"apiVersion":"tests.example/v1beta1","kind":"Widget","metadata":{"name":"a","namespace":"default"},"spec":{"size":"huge"}}]}"#
                )
                _ = try await client.create(Widget("b"))
                try await eventually("the others") { store[key("b")] != nil }
                #expect(store[key("a")]?.spec?.size == 4)
                #expect(store.problems[key("a")]?.contains("spec.size") == true)
                try server.control(#"{"compact": true, "drop": true}"#)
                _ = try await client.create(Widget("c"))
                try await eventually("after a new list, too") { store[key("c")] != nil }
                #expect(store[key("a")]?.spec?.size == 4)
                _ = try await client.mergePatch(
                    Widget.self, key("a"), subresource: nil, body: Array(#"{"spec":{"size":6}}"#.utf8))
                try await eventually("mended") { store[key("a")]?.spec?.size == 6 && store.problems.isEmpty }
            }
        }
    }

    @Test func aKindThatIsNotThereYetIsWaitedFor() async throws {
        let server = try KubernetesServer()
        let client = try KubernetesClient(ClientConfiguration(server: server.url), logger: quietLogger)
        let store = Store<Widget>()
        let task = Task { await store.run(Reflector(api: client, logger: quietLogger)) }
        try await eventually("a failure that says so") { store.failure?.code == .notFound }
        #expect(!store.isSynced)
        #expect(
            try server.request(
                "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body: Widget.definition
            ).status == 201)
        try await eventually("the kind") { store.isSynced && store.failure == nil }
        task.cancel()
        await task.value
        await client.shutdown()
        #expect(server.complaints == "")
    }

    @Test func selectorsOfAReflectorMakeObjectsComeAndGo() async throws {
        try await ServerFixture.run { fixture in
            let client = fixture.client
            let store = Store<Widget>()
            let task = Task { await store.run(Reflector(api: client, labelSelector: "on=yes", logger: quietLogger)) }
            try await eventually("the first list") { store.isSynced }
            _ = try await client.create(Widget("a"))
            for (value, count) in [("yes", 1), ("no", 0), ("yes", 1)] {
                _ = try await client.mergePatch(
                    Widget.self, key("a"), subresource: nil,
                    body: Array(#"{"metadata":{"labels":{"on":"\#(value)"}}}"#.utf8))
                try await eventually("\(value)") { store.count == count }
            }
            task.cancel()
            await task.value
        }
    }

    @Test func aHugeListAndABurstOfEventsAreFollowed() async throws {
        try await ServerFixture.run { fixture in
            let server = fixture.server
            let count = 20_000
            for start in stride(from: 0, to: count, by: 5000) {
                try server.load((start..<start + 5000).map { Widget.json("w\($0)", version: 1) })
            }
            let clock = ContinuousClock()
            try await fixture.following { store in
                let begin = clock.now
                try await eventually("the list", seconds: 60) { store.isSynced && store.count == count }
                let listed = clock.now - begin
                try await eventually("a watch") { try server.control("{}").contains(#""watches":1"#) }
                let middle = clock.now
                for round in 2...3 {
                    try server.load((0..<5000).map { Widget.json("w\($0)", version: 1, size: "\(round)") })
                }
                try await eventually("the events", seconds: 60) { store[key("w4999")]?.spec?.size == 3 }
                print("FOLLOW \(count) objects listed in \(listed), 10000 events followed in \(clock.now - middle)")
                // One entry for each, however often they have changed.
                #expect(store.count == count)
            }
        }
    }

    @Test func electionAndEventsOnARealServer() async throws {
        try await ServerFixture.run { fixture in
            let client = fixture.client
            let elector = try LeaderElector(
                api: client,
                configuration: .init(
                    namespace: "default", name: "operator", identity: "me", leaseDuration: .seconds(3),
                    renewDeadline: .seconds(2),
                    retryPeriod: .milliseconds(200)), logger: quietLogger)
            let signal = ChangeSignal()
            let task = Task {
                await elector.run { _ in
                    signal.set()
                    while !Task.isCancelled { try? await Task.sleep(for: .seconds(1)) }
                } onStopped: {
                }
            }
            await signal.wait()
            let leaseKey = ObjectKey(namespace: "default", name: "operator")
            let first = try await client.get(Lease.self, leaseKey)
            #expect(first.spec?.holderIdentity == "me")
            try await Task.sleep(for: .milliseconds(600))
            #expect(try await client.get(Lease.self, leaseKey).spec?.renewTime != first.spec?.renewTime)
            task.cancel()
            await task.value
            #expect(try await client.get(Lease.self, leaseKey).spec?.holderIdentity == "")

            let recorder = EventRecorder(
                api: client, component: "encryption.ebpf.xdp/operator", instance: "operator-0", logger: quietLogger)
            let sending = Task { await recorder.run() }
            let widget = try await client.create(Widget("a"))
            for _ in 0..<3 {
                recorder.record(
                    .warning, regarding: ObjectReference(widget), reason: "Odd", action: "Look", note: "It is odd.")
            }
            try await Task.sleep(for: .milliseconds(100))
            recorder.record(
                .normal, regarding: ObjectReference(apiVersion: "v1", kind: "Node", name: "Node_1.example"),
                reason: "Seen", action: "Look", note: "x")
            recorder.record(
                .warning, regarding: ObjectReference(widget), reason: "Odd", action: "Look", note: "It is odd.")
            sending.cancel()
            await sending.value
            let events = try await client.listAll(Event.self).items
            #expect(events.count == 2)
            #expect(events.first { $0.reason == "Odd" }?.series?.count == 4)
            #expect(recorder.dropped == 0)
        }
    }

    private func lists(_ server: KubernetesServer) throws -> Int {
        let state = try server.control("{}")
        return Int(state.split(separator: "\"lists\":").last?.prefix { $0.isNumber } ?? "") ?? -1
    }
}

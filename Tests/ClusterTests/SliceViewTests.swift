import Foundation
import Keys
import Kubernetes
import Netlink
import Testing

@testable import Cluster

/// What slices and changes come to, as one who reads them sees it.
@Suite struct SliceViewTests {
    private let incarnation = Incarnation.random()

    private func report(_ id: NodeID, revision: UInt32, _ endpoints: [String]) -> NodeReport {
        var node = EncryptionNode(id: id, incarnation: incarnation)
        node.revision = revision
        node.endpoints = endpoints.map {
            .init(name: $0, addresses: [try! IPAddress("10.0.0.1")], mode: .strict, state: .ready, since: 1)
        }
        return NodeReport(node)
    }

    private func entry(_ name: String, revision: UInt32 = 1, _ endpoints: [String] = ["a", "b", "c"]) -> NodeEntry {
        NodeEntry(
            name: name, report: report(1, revision: revision, endpoints), incarnationAt: 1,
            history: [.init(revision: revision, at: 5)])
    }

    private func slice(_ sequence: Int64, _ entries: NodeEntry...) -> EncryptedEndpointSlice.Spec {
        .init(sequence: sequence, nodes: entries)
    }

    private func changes(_ sequence: Int64, _ changes: NodeChange...) -> EncryptedEndpointSlice.Spec {
        .init(sequence: sequence, changes: changes)
    }

    private func change(_ name: String, after: Int64, revision: UInt32, removed: [String] = [], added: [String] = [])
        -> NodeChange
    {
        var change = NodeChange(name: name, after: after)
        change.revision = revision
        change.removed = removed
        change.endpoints = report(1, revision: revision, added).endpoints
        return change
    }

    private func names(_ view: SliceView, _ node: String) -> [String]? {
        view.peers[node]?.entry.report.endpoints.map(\.name)
    }

    @Test func changesApplyToWhatTheyWereMadeFor() {
        var view = SliceView(["slice-1": slice(5, entry("x"))])
        view.put("changes-6", changes(6, change("x", after: 5, revision: 2, removed: ["b"], added: ["aa"])))
        #expect(names(view, "x") == ["a", "aa", "c"])
        #expect(view.peers["x"]?.entry.history == [.init(revision: 1, at: 5), .init(revision: 2, at: 6)])
        #expect(view.sequence == 6 && view.due == 6 && view.behind.isEmpty)
        view.put("changes-7", changes(7, change("x", after: 6, revision: 3, removed: ["a"])))
        #expect(names(view, "x") == ["aa", "c"])
        // Its object goes, what it said stays.
        view.remove("changes-6")
        #expect(names(view, "x") == ["aa", "c"])
    }

    @Test func aChangeThatWasMissedLeavesTheNodeAsItWas() {
        var view = SliceView(["slice-1": slice(5, entry("x"), entry("y"))])
        view.put("changes-8", changes(8, change("x", after: 7, revision: 3, removed: ["a"])))
        #expect(names(view, "x") == ["a", "b", "c"])
        #expect(view.behind == ["x": 8])
        // Nothing applies any more, not even what would fit.
        view.put("changes-9", changes(9, change("x", after: 5, revision: 4, removed: ["b"])))
        view.put("changes-10", changes(10, change("y", after: 5, revision: 2, removed: ["b"])))
        #expect(names(view, "x") == ["a", "b", "c"])
        #expect(names(view, "y") == ["a", "c"])
        // Until its slice is written anew.
        view.put("slice-1", slice(11, entry("x", revision: 4, ["c"]), entry("y", revision: 2, ["a", "c"])))
        #expect(names(view, "x") == ["c"])
        #expect(view.behind.isEmpty)
    }

    @Test func oldChangesAreNoNews() {
        var view = SliceView(["slice-1": slice(9, entry("x"))])
        view.put("changes-7", changes(7, change("x", after: 5, revision: 2, removed: ["a"])))
        view.put("changes-9", changes(9, change("x", after: 5, revision: 2, removed: ["a"])))
        #expect(names(view, "x") == ["a", "b", "c"])
        #expect(view.behind.isEmpty)
        // A node that has gone is gone.
        view.put("changes-10", changes(10, change("z", after: 5, revision: 2)))
        #expect(view.peers["z"] == nil && view.behind.isEmpty)
    }

    @Test func aListIsPutTogetherWhateverItsOrder() {
        let objects = [
            "changes-6": changes(6, change("x", after: 5, revision: 2, removed: ["b"])),
            "changes-8": changes(8, change("x", after: 6, revision: 3, added: ["d"])),
            "slice-1": slice(5, entry("x")),
            "slice-2": slice(7, entry("y")),
            "changes-4": changes(4, change("y", after: 3, revision: 9, removed: ["a"])),
        ]
        let view = SliceView(objects)
        #expect(names(view, "x") == ["a", "c", "d"])
        #expect(names(view, "y") == ["a", "b", "c"])
        #expect(view.behind.isEmpty && view.sequence == 8)
        // Without one of them, the node stays as its slice has it.
        let partial = SliceView(objects.filter { $0.key != "changes-6" })
        #expect(names(partial, "x") == ["a", "b", "c"])
        #expect(partial.behind == ["x": 8])
    }

    @Test func aSliceThatCannotBeReadKeepsItsLastGoodState() {
        var view = SliceView(["slice-1": slice(5, entry("x")), "slice-2": slice(6, entry("y"))])
        view.put("changes-7", changes(7, change("x", after: 5, revision: 2, removed: ["b"])))
        let listed = SliceView(["slice-2": slice(6, entry("y"))], unreadable: ["slice-1", "changes-7"], earlier: view)
        #expect(names(listed, "x") == ["a", "c"])
        #expect(listed.peers["x"]?.at == 7)
        #expect(listed.hasSlice("slice-1"))
        // What is not there, and is not unreadable, has gone.
        #expect(SliceView(["slice-2": slice(6, entry("y"))], earlier: view).peers["x"] == nil)
    }

    @Test func nodesMoveBetweenSlicesAndLeave() {
        var view = SliceView(["slice-1": slice(5, entry("x"), entry("y"))])
        view.put("slice-2", slice(6, entry("y", revision: 2)))
        view.put("slice-1", slice(7, entry("x")))
        #expect(view.peers["y"]?.entry.report.revision == 2)
        view.put("slice-2", slice(8))
        #expect(view.peers.keys.sorted() == ["x"])
        view.put("slice-1", slice(9))
        #expect(view.peers.isEmpty)
    }

    @Test func aSliceThatIsLostTakesNobodyWithIt() {
        var view = SliceView(["slice-1": slice(5, entry("x"), entry("y"), entry("z")), "slice-2": slice(6, entry("w"))])
        view.put("changes-7", changes(7, change("x", after: 5, revision: 2, removed: ["b"])))
        // One of them is on its way to another slice.
        view.put("slice-2", slice(8, entry("w"), entry("z")))
        view.remove("slice-1")
        #expect(view.peers.keys.sorted() == ["w", "x", "y", "z"])
        #expect(names(view, "x") == ["a", "c"])
        #expect(view.behind.keys.sorted() == ["x", "y"])
        view.put("changes-9", changes(9, change("x", after: 7, revision: 3, removed: ["a"])))
        #expect(names(view, "x") == ["a", "c"])
        // It is written again, by somebody who may have forgotten the number, in another slice as well. Who is not in it has gone.
        var again = view
        again.put("slice-1", slice(3, entry("x", revision: 3, ["c"])))
        #expect(names(again, "x") == ["c"])
        #expect(again.peers.keys.sorted() == ["w", "x", "z"] && again.behind.isEmpty)
        view.put("slice-3", slice(4, entry("x", revision: 3, ["c"]), entry("y", ["a"])))
        #expect(names(view, "x") == ["c"] && names(view, "y") == ["a"])
        #expect(view.behind.isEmpty)
        // Its number counts from then on.
        view.put("changes-5", changes(5, change("x", after: 3, revision: 4)))
        #expect(view.behind == ["x": 5])
    }

    @Test("What makes no sense together with the entry leaves the entry as it was")
    func unsound() {
        let view = SliceView(["slice-1": slice(5, entry("x"))])
        var since = change("x", after: 5, revision: 2, added: ["d"])
        since.endpoints[0].since = 3
        var address = change("x", after: 5, revision: 2, added: ["d"])
        address.endpoints[0].addresses = []
        for bad in [change("x", after: 5, revision: 2, removed: ["no such"]), since, address] {
            var view = view
            view.put("changes-6", changes(6, bad))
            #expect(names(view, "x") == ["a", "b", "c"])
            #expect(view.behind == ["x": 6])
        }
    }

    @Test(arguments: [
        #"{"sequence":6}"#,
        #"{"sequence":6,"changes":[{"name":"x"}]}"#,
        #"{"sequence":6,"changes":[{"name":"x","after":6}]}"#,
        #"{"sequence":6,"changes":[{"name":"x","after":0}]}"#,
        #"{"sequence":6,"changes":[{"name":"x","after":5,"removed":["a"]}]}"#,
        #"{"sequence":6,"changes":[{"name":"x","after":5,"revision":2,"removed":["a","a"]}]}"#,
        #"{"sequence":6,"changes":[{"name":"x","after":5,"revision":2,"removed":["a"],"endpoints":[{"name":"a","addresses":["10.0.0.1"]}]}]}"#,
        #"{"sequence":6,"changes":[{"name":"x","after":5},{"name":"x","after":5}]}"#,
        #"{"sequence":6,"changes":[{"name":"x","after":5,"appliedThrough":-1}]}"#,
        #"{"sequence":6,"changes":[{"name":"x","after":5,"revision":2,"endpoints":[{"name":"a","addresses":["10.0.0.300"]}]}]}"#,
        #"{"sequence":6,"changes":[{"name":"x","after":5,"revision":2,"endpoints":[{"name":"a","addresses":["10.0.0.3"],"headers":"odd"}]}]}"#,
    ])
    func unreadable(_ spec: String) throws {
        let json = Data(#"{"metadata":{"name":"changes-6"},"spec":\#(spec)}"#.utf8)
        let object = try JSONDecoder().decode(EncryptedEndpointSlice.self, from: json)
        #expect(object.spec == nil)
        #expect(object.unreadable != nil)
        json.withUnsafeBytes { bytes in
            var reader = JSONReader(bytes)
            #expect(((try? EncryptedEndpointSlice.read(&reader)) ?? nil) == nil)
        }
    }

    @Test func changesAreTheSameReadQuicklyOrDecoded() throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .withoutEscapingSlashes
        var old = entry("x").report
        old.endpoints[0].state = .withdrawing
        var new = report(1, revision: 4, ["b", "c", "d"])
        new.endpoints[2].since = 4
        new.endpoints[1].mode = .permissive
        new.endpoints[1].headers = .hidden
        (new.epochs, new.sending, new.sendingSince) = ([1, 2], 2, Timestamp(milliseconds: 1_700_000_000_000))
        (new.appliedThrough, new.notApplied) = (9, ["y"])
        let before = NodeEntry(name: "x", report: old, incarnationAt: 1, history: [])
        let change = try #require(NodeChange(before, after: 5, to: new))
        #expect(change.removed == ["a"] && change.endpoints.map(\.name) == ["c", "d"])
        let object = EncryptedEndpointSlice(name: "changes-6", spec: .init(sequence: 6, changes: [change]))
        let json = try encoder.encode(object)
        #expect(try JSONDecoder().decode(EncryptedEndpointSlice.self, from: json) == object)
        json.withUnsafeBytes { bytes in
            var reader = JSONReader(bytes)
            #expect(((try? EncryptedEndpointSlice.read(&reader)) ?? nil) == object)
        }
        #expect(change.applied(to: before, at: 6)?.report == new)
    }

    @Test("A node's name may be as long in changes as in slices", arguments: [100, 101, 253])
    func longNames(length: Int) throws {
        let name = String(repeating: "n", count: length)
        var new = entry(name).report
        new.revision += 1
        let change = try #require(NodeChange(entry(name), after: 5, to: new))
        for spec in [slice(6, entry(name)), changes(6, change)] {
            let json = try JSONEncoder().encode(EncryptedEndpointSlice(name: "x", spec: spec))
            let object = try JSONDecoder().decode(EncryptedEndpointSlice.self, from: json)
            #expect(object.spec == spec, "\(object.unreadable ?? "")")
            json.withUnsafeBytes { bytes in
                var reader = JSONReader(bytes)
                #expect(((try? EncryptedEndpointSlice.read(&reader)) ?? nil)?.spec == spec)
            }
        }
    }

    @Test func headersAloneAreAChange() throws {
        let before = entry("x")
        var new = before.report
        new.revision += 1
        new.endpoints[0].headers = .hidden
        let change = try #require(NodeChange(before, after: 5, to: new))
        #expect(!change.isWholeList && change.removed.isEmpty && change.endpoints == [new.endpoints[0]])
        var view = SliceView()
        view.put("slice-1", slice(5, before))
        view.put("changes-6", changes(6, change))
        #expect(view.peers["x"]?.entry.report == new)
        #expect(view.peers["x"]?.entry.history.last == .init(revision: new.revision, at: 6))
        // And back.
        let now = try #require(view.peers["x"]?.entry)
        let back = try #require(NodeChange(now, after: 6, to: before.report))
        #expect(back.endpoints.map(\.headers) == [.visible])
        view.put("changes-7", changes(7, back))
        #expect(view.peers["x"]?.entry.report == before.report)
    }

    @Test func anotherIncarnationIsNoChange() {
        var new = entry("x").report
        new.incarnation = .random()
        #expect(NodeChange(entry("x"), after: 5, to: new) == nil)
    }

    @Test func aListOutOfOrderIsWrittenAsAWhole() throws {
        let new = report(1, revision: 2, ["c", "a", "d", "b"])
        let change = try #require(NodeChange(entry("x"), after: 5, to: new))
        #expect(change.isWholeList)
        #expect(change.applied(to: entry("x"), at: 6)?.report == new)
    }
}

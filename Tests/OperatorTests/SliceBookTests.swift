import Cluster
import Keys
import Kubernetes
import Netlink
import Testing

@testable import Operator

/// Slices: assignment, numbers, histories, and what happens when somebody else writes them.
@Suite struct SliceBookTests {
    private func report(
        _ id: NodeID, revision: UInt32 = 1, addresses: Int = 1, incarnation: Incarnation, through: Int64 = 0
    ) -> NodeReport {
        var node = EncryptionNode(id: id, incarnation: incarnation)
        node.revision = revision
        node.endpoints = (0..<addresses).map { index in
            let bytes: [UInt8] = [
                10, UInt8(truncatingIfNeeded: id), UInt8(truncatingIfNeeded: index >> 8),
                UInt8(truncatingIfNeeded: index),
            ]
            return .init(
                name: "e\(index)", addresses: [IPAddress(bytes: bytes)].compactMap(\.self), mode: .strict,
                state: .ready, since: 1)
        }
        return NodeReport(node, appliedThrough: through)
    }

    /// Writes everything that is due, as an API server would take it.
    @discardableResult
    private func write(
        _ book: inout SliceBook, _ server: inout [String: EncryptedEndpointSlice.Spec], acknowledgements: Bool = true
    ) -> [String] {
        var written: [String] = []
        for _ in 0..<20 {
            let due = book.due(withAcknowledgements: acknowledgements)
            if due.isEmpty { break }
            for name in due {
                let spec = book.draft(name)
                server[name] = spec
                book.written(name, spec, resourceVersion: "\(spec.sequence)")
                written.append(name)
            }
        }
        return written
    }

    private func nodes(_ server: [String: EncryptedEndpointSlice.Spec]) -> [String] {
        server.values.flatMap { $0.nodes.map(\.name) }.sorted()
    }

    @Test func whatANodeSaysItHasAppliedDoesNotUseUpTheNumbers() {
        var book = SliceBook()
        var server: [String: EncryptedEndpointSlice.Spec] = [:]
        book.update("a", report(1, incarnation: .random(), through: 40))
        write(&book, &server)
        #expect(server["slice-1"]?.sequence == 41)
        book.update("b", report(2, incarnation: .random(), through: .max))
        write(&book, &server)
        #expect(nodes(server) == ["a", "b"])
        #expect(server["slice-1"]?.sequence == 42)
        // Nor for the next leader, who reads it in the slice.
        var next = SliceBook(server.map { EncryptedEndpointSlice(name: $0.key, spec: $0.value) })
        write(&next, &server)
        #expect(server["slice-1"]?.sequence == 43)
    }

    @Test func nodesFillSlicesAndStay() {
        var book = SliceBook()
        var server: [String: EncryptedEndpointSlice.Spec] = [:]
        let incarnation = Incarnation.random()
        for id in 1...100 {
            book.update("node-\(id)", report(NodeID(id), addresses: 20, incarnation: incarnation))
        }
        write(&book, &server)
        #expect(nodes(server).count == 100)
        #expect(Set(nodes(server)).count == 100)
        #expect(server.count == 4)
        for spec in server.values {
            #expect(spec.nodes.reduce(0) { $0 + $1.report.endpoints.count } <= EncryptedEndpointSlice.capacity)
        }
        // A change costs one write.
        book.update("node-7", report(7, revision: 2, addresses: 21, incarnation: incarnation))
        #expect(write(&book, &server).count == 1)
        #expect(!book.hasWork)
        #expect(write(&book, &server).isEmpty)
    }

    @Test func numbersRiseAndHistoriesTellWhen() throws {
        var book = SliceBook()
        var server: [String: EncryptedEndpointSlice.Spec] = [:]
        let incarnation = Incarnation.random()
        book.update("a", report(1, incarnation: incarnation))
        book.update("b", report(2, incarnation: incarnation))
        write(&book, &server)
        #expect(book.entry("a")?.history == [.init(revision: 1, at: 1)])
        for revision in 2...40 {
            book.update("a", report(1, revision: UInt32(revision), incarnation: incarnation))
            write(&book, &server)
        }
        let entry = try #require(book.entry("a"))
        #expect(entry.history.count == 16)
        #expect(entry.history.last == .init(revision: 40, at: 40))
        #expect(entry.incarnationAt == 1)
        #expect(entry.sequence(ofRevision: 40) == 40)
        #expect(entry.sequence(ofRevision: 41) == nil)
        // What the history has forgotten counts as its oldest.
        #expect(entry.sequence(ofRevision: 3) == 25)
        // Another incarnation begins anew.
        book.update("a", report(1, revision: 41, incarnation: .random()))
        write(&book, &server)
        #expect(book.entry("a")?.incarnationAt == 41)
        #expect(book.entry("a")?.history == [.init(revision: 41, at: 41)])
    }

    @Test func acknowledgementsComeToAnEnd() throws {
        var book = SliceBook()
        var server: [String: EncryptedEndpointSlice.Spec] = [:]
        let incarnation = Incarnation.random()
        book.update("a", report(1, incarnation: incarnation))
        book.update("b", report(2, incarnation: incarnation))
        write(&book, &server)
        let due = EncryptedEndpointSlice.acknowledgementDue(server.values.flatMap(\.nodes))
        for name in ["a", "b"] {
            book.update(name, report(name == "a" ? 1 : 2, incarnation: incarnation, through: due))
        }
        // Nothing that anybody waits for.
        #expect(!book.isUrgent)
        #expect(write(&book, &server, acknowledgements: false).isEmpty)
        #expect(write(&book, &server).count == 1)
        #expect(EncryptedEndpointSlice.acknowledgementDue(server.values.flatMap(\.nodes)) == due)
        let a = try #require(book.entry("a"))
        let b = try #require(book.entry("b"))
        #expect(a.isInForce(revision: 1, at: b))
        var refusing = b
        refusing.report.notApplied = ["a"]
        #expect(!a.isInForce(revision: 1, at: refusing))
        #expect(!a.isInForce(revision: 2, at: b))
    }

    @Test func aListThatChangesUnderItsRevisionIsAcknowledgedAnew() {
        var book = SliceBook()
        var server: [String: EncryptedEndpointSlice.Spec] = [:]
        let incarnation = Incarnation.random()
        book.update("a", report(1, revision: 5, incarnation: incarnation))
        write(&book, &server)
        book.update("a", report(1, revision: 5, addresses: 2, incarnation: incarnation))
        write(&book, &server)
        #expect(book.entry("a")?.history == [.init(revision: 5, at: 2)])
        // Back, as a restored backup has it.
        book.update("a", report(1, revision: 3, incarnation: incarnation))
        write(&book, &server)
        #expect(book.entry("a")?.history == [.init(revision: 3, at: 3)])
    }

    @Test func nodesThatGrowMoveAndAreNeverMissing() {
        var book = SliceBook()
        var server: [String: EncryptedEndpointSlice.Spec] = [:]
        let incarnation = Incarnation.random()
        for id in 1...30 { book.update("n\(id + 100)", report(NodeID(id), addresses: 20, incarnation: incarnation)) }
        write(&book, &server)
        for id in 1...30 {
            book.update("n\(id + 100)", report(NodeID(id), revision: 2, addresses: 60, incarnation: incarnation))
            // After every single write, everybody stands somewhere.
            while let name = book.due(withAcknowledgements: true).first {
                let spec = book.draft(name)
                server[name] = spec
                book.written(name, spec, resourceVersion: "\(spec.sequence)")
                #expect(Set(nodes(server)).count == 30)
            }
        }
        #expect(nodes(server).count == 30)
        for spec in server.values {
            #expect(spec.nodes.reduce(0) { $0 + $1.report.endpoints.count } <= EncryptedEndpointSlice.capacity)
        }
    }

    @Test func nodesThatAreGoneLeave() {
        var book = SliceBook()
        var server: [String: EncryptedEndpointSlice.Spec] = [:]
        book.update("a", report(1, incarnation: .random()))
        book.update("b", report(2, incarnation: .random()))
        write(&book, &server)
        book.update("a", nil)
        write(&book, &server)
        #expect(nodes(server) == ["b"])
        #expect(book.entry("a") == nil)
        book.retain(only: [])
        write(&book, &server)
        #expect(nodes(server) == [])
        #expect(!book.hasWork)
    }

    @Test func aNewLeaderGoesOnAboveTheHighestAndWritesEverythingOnce() {
        var first = SliceBook()
        var server: [String: EncryptedEndpointSlice.Spec] = [:]
        let incarnation = Incarnation.random()
        for id in 1...60 { first.update("node-\(id)", report(NodeID(id), addresses: 20, incarnation: incarnation)) }
        write(&first, &server)
        let highest = first.highest
        let objects = server.map { name, spec in
            var slice = EncryptedEndpointSlice(name: name, spec: spec)
            slice.metadata.resourceVersion = "rv-\(name)"
            return slice
        }
        var second = SliceBook(objects)
        for id in 1...60 { second.update("node-\(id)", report(NodeID(id), addresses: 20, incarnation: incarnation)) }
        #expect(second.highest == highest)
        #expect(Set(second.due(withAcknowledgements: false)) == Set(server.keys))
        let before = server
        #expect(Set(write(&second, &server)) == Set(before.keys))
        for (name, spec) in server {
            #expect(spec.sequence > highest)
            // Nothing has changed but the number: nobody has to acknowledge anything anew.
            #expect(spec.nodes == before[name]?.nodes)
        }
    }

    @Test func lostSlicesDoNotSetNumbersBack() {
        // All slices were deleted, but nodes remember what they have acknowledged.
        var book = SliceBook()
        book.update("a", report(1, incarnation: .random(), through: 500))
        var server: [String: EncryptedEndpointSlice.Spec] = [:]
        write(&book, &server)
        #expect(server.values.first?.sequence ?? 0 > 500)
        #expect(book.entry("a")?.history.first?.at ?? 0 > 500)
    }

    @Test func aSliceThatSomebodyElseWroteIsWrittenAgain() {
        var book = SliceBook()
        var server: [String: EncryptedEndpointSlice.Spec] = [:]
        let incarnation = Incarnation.random()
        book.update("a", report(1, incarnation: incarnation))
        book.update("b", report(2, incarnation: incarnation))
        write(&book, &server)
        // Another leader's late write: a higher number, an older list, without b.
        var foreign = server["slice-1"]!
        foreign.sequence = 90
        foreign.nodes.removeLast()
        var slice = EncryptedEndpointSlice(name: "slice-1", spec: foreign)
        slice.metadata.resourceVersion = "foreign"
        book.load(slice)
        #expect(book.resourceVersion("slice-1") == "foreign")
        #expect(write(&book, &server) == ["slice-1"])
        #expect(nodes(server) == ["a", "b"])
        #expect(server["slice-1"]?.sequence ?? 0 > 90)
        // Deleted by a person.
        book.lost("slice-1")
        #expect(book.resourceVersion("slice-1") == nil)
        #expect(write(&book, &server) == ["slice-1"])
        #expect(nodes(server) == ["a", "b"])
    }

    @Test func aNodeInTwoSlicesEndsInOne() {
        let incarnation = Incarnation.random()
        func slice(_ name: String, _ sequence: Int64, _ nodes: [String]) -> EncryptedEndpointSlice {
            EncryptedEndpointSlice(
                name: name,
                spec: .init(
                    sequence: sequence,
                    nodes: nodes.map {
                        NodeEntry(
                            name: $0, report: report(1, incarnation: incarnation), incarnationAt: sequence,
                            history: [.init(revision: 1, at: sequence)])
                    }))
        }
        let objects = [slice("slice-1", 10, ["a", "b"]), slice("slice-2", 11, ["b"])]
        var book = SliceBook(objects)
        var server = objects.reduce(into: [:]) { $0[$1.metadata.name] = $1.spec! }
        write(&book, &server)
        #expect(nodes(server) == ["a", "b"])
        #expect(server["slice-2"]?.nodes.map(\.name) == ["b"])
        #expect(book.entry("b")?.incarnationAt == 11)
    }

    /// Many nodes, changes and failures in any order: numbers rise strictly, nobody is ever missing, and in the end every slice says
    /// what nodes have said last.
    @Test(arguments: 1...20)
    func anyOrder(seed: UInt64) {
        var random = SplitMix(state: seed)
        var book = SliceBook()
        var server: [String: EncryptedEndpointSlice.Spec] = [:]
        var latest: [String: NodeReport] = [:]
        var last: Int64 = 0
        var seen: Set<String> = []
        for _ in 0..<400 {
            let id = NodeID.random(in: 1...25, using: &random)
            let name = "n\(id)"
            switch Int.random(in: 0..<10, using: &random) {
            case 0 where latest.count > 3:
                latest[name] = nil
                book.update(name, nil)
            case 1:
                let report = report(
                    id, addresses: Int.random(in: 0...120, using: &random), incarnation: .random(), through: last)
                latest[name] = report
                book.update(name, report)
            case 2...5:
                guard let before = latest[name] else { continue }
                let report = report(
                    id, revision: before.revision + 1, addresses: Int.random(in: 0...200, using: &random),
                    incarnation: before.incarnation, through: last)
                latest[name] = report
                book.update(name, report)
            default:
                guard let name = book.due(withAcknowledgements: Bool.random(using: &random)).first else { continue }
                let spec = book.draft(name)
                #expect(spec.sequence > last)
                last = spec.sequence
                switch Int.random(in: 0..<6, using: &random) {
                case 0:
                    // Refused.
                    break
                case 1:
                    // Taken, but the answer was lost.
                    server[name] = spec
                    var slice = EncryptedEndpointSlice(name: name, spec: spec)
                    slice.metadata.resourceVersion = "\(spec.sequence)"
                    book.load(slice)
                default:
                    server[name] = spec
                    book.written(name, spec, resourceVersion: "\(spec.sequence)")
                }
                let standing = Set(nodes(server))
                #expect(seen.subtracting(standing).allSatisfy { latest[$0] == nil })
                seen = standing
            }
        }
        write(&book, &server)
        let entries = server.values.flatMap(\.nodes)
        #expect(entries.count == latest.count)
        for entry in entries { #expect(entry.report == latest[entry.name]) }
        for entry in entries {
            #expect(entry.history.map(\.at) == entry.history.map(\.at).sorted())
            #expect(entry.history.last?.revision == entry.report.revision)
        }
    }
}

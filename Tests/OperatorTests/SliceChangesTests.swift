import Cluster
import Keys
import Kubernetes
import Netlink
import Testing

@testable import Operator

/// Slices and changes between a leader, an API server and those who read: whatever happens, a reader never sees anything but what some node
/// has said, and in the end what it said last.
@Suite struct SliceChangesTests {
    /// An API server, as far as this matters: objects, and who reads them in order.
    private struct Server {
        var objects: [String: EncryptedEndpointSlice] = [:]
        /// Follows every write.
        var follower = SliceView()
        var version = 0

        mutating func put(_ name: String, _ spec: EncryptedEndpointSlice.Spec) {
            version += 1
            var object = EncryptedEndpointSlice(name: name, spec: spec)
            object.metadata.resourceVersion = "\(version)"
            object.metadata.uid = objects[name]?.metadata.uid ?? "uid-\(version)"
            objects[name] = object
            follower.put(name, spec)
        }

        mutating func delete(_ name: String) {
            objects[name] = nil
            follower.remove(name)
        }

        /// What somebody sees who reads everything now.
        var listed: SliceView { SliceView(objects.compactMapValues(\.spec)) }
    }

    private func report(
        _ id: NodeID, revision: UInt32, addresses: Int, first: Int, incarnation: Incarnation, through: Int64
    ) -> NodeReport {
        var node = EncryptionNode(id: id, incarnation: incarnation)
        node.revision = revision
        node.endpoints = (first..<first + addresses).map { index in
            let bytes: [UInt8] = [10, UInt8(truncatingIfNeeded: id), UInt8(index >> 8 & 255), UInt8(index & 255)]
            return .init(
                name: "e\(index + 10000)", addresses: [IPAddress(bytes: bytes)].compactMap(\.self), mode: .strict,
                state: .ready, since: 1)
        }
        return NodeReport(node, appliedThrough: through)
    }

    private func settle(_ book: inout SliceBook, _ server: inout Server) {
        for _ in 0..<50 {
            if let spec = book.draftChanges(withAcknowledgements: true) {
                let name = EncryptedEndpointSlice.changesName(spec.sequence)
                server.put(name, spec)
                book.written(changes: name, spec, uid: server.objects[name]?.metadata.uid)
            }
            for name in book.due(withAcknowledgements: true) { write(name, &book, &server) }
            if !book.hasWork { return }
        }
        Issue.record("no end")
    }

    private func write(_ name: String, _ book: inout SliceBook, _ server: inout Server) {
        let spec = book.draft(name)
        server.put(name, spec)
        book.written(name, spec, resourceVersion: server.objects[name]?.metadata.resourceVersion)
    }

    private func tidy(_ book: inout SliceBook, _ server: inout Server) {
        for name in book.dirty { write(name, &book, &server) }
        for (name, _) in book.obsolete {
            server.delete(name)
            book.deleted(changes: name)
        }
    }

    @Test func whatIsNewIsWrittenApart() throws {
        var book = SliceBook(changesAbove: 50)
        var server = Server()
        let incarnation = Incarnation.random()
        func say(_ id: NodeID, _ revision: UInt32, _ addresses: Int, through: Int64 = 0) {
            book.update(
                "n\(id)",
                report(
                    id, revision: revision, addresses: addresses, first: 0, incarnation: incarnation, through: through))
        }
        for id in 1...20 { say(NodeID(id), 1, 20) }
        settle(&book, &server)
        #expect(server.objects.count == 1)
        say(3, 2, 21)
        say(4, 1, 20, through: 1)
        #expect(!book.isUrgent && book.hasChanges(withAcknowledgements: false))
        let draft = book.draftChanges(withAcknowledgements: false)
        let spec = try #require(draft)
        #expect(spec.changes?.map(\.name) == ["n3"])
        #expect(spec.addressCount == 1)
        let name = EncryptedEndpointSlice.changesName(spec.sequence)
        server.put(name, spec)
        book.written(changes: name, spec, uid: nil)
        #expect(!book.hasChanges(withAcknowledgements: false) && book.hasChanges(withAcknowledgements: true))
        settle(&book, &server)
        #expect(book.changesCount == 2)
        #expect(book.entry("n3")?.history.last == .init(revision: 2, at: spec.sequence))
        #expect(server.listed.peers["n3"]?.entry == book.entry("n3"))
        // At leisure, the slice has all of it, and the changes go.
        #expect(book.dirty == ["slice-1"] && book.obsolete.isEmpty)
        tidy(&book, &server)
        #expect(server.objects.keys.sorted() == ["slice-1"])
        #expect(book.changesCount == 0 && book.dirty.isEmpty && !book.hasWork)
        #expect(server.listed.peers["n3"]?.entry == book.entry("n3"))
        #expect(server.follower.peers["n4"]?.entry.report.appliedThrough == 1)
        // Small slices are written as a whole, new nodes and other incarnations as well.
        book.update("n5", report(5, revision: 9, addresses: 1, first: 0, incarnation: .random(), through: 0))
        #expect(book.isUrgent && !book.hasChanges(withAcknowledgements: true))
    }

    @Test func manyChangesTakeSeveralObjects() {
        var book = SliceBook(changesAbove: 50)
        var server = Server()
        let incarnation = Incarnation.random()
        for id in 1...200 {
            book.update(
                "n\(id)",
                report(NodeID(id), revision: 1, addresses: 25, first: 0, incarnation: incarnation, through: 0))
        }
        settle(&book, &server)
        let slices = server.objects.count
        for id in 1...200 {
            book.update(
                "n\(id)",
                report(NodeID(id), revision: 2, addresses: 25, first: 100, incarnation: incarnation, through: 0))
        }
        settle(&book, &server)
        #expect(server.objects.count >= slices + 2)
        for (node, peer) in server.follower.peers { #expect(peer.entry == book.entry(node)) }
    }

    /// Many nodes, changes, failures, leaders and readers in any order.
    @Test(.serialized, arguments: 1...25)
    func anyOrder(seed: UInt64) async {
        var random = SplitMix(state: seed)
        var book = SliceBook(changesAbove: 40)
        var server = Server()
        var latest: [String: NodeReport] = [:]
        var said: [String: Set<NodeReport>] = [:]
        var last: Int64 = 0
        /// Writes of which nobody knows whether they will be taken yet.
        var late: [(name: String, spec: EncryptedEndpointSlice.Spec)] = []
        /// One who follows, but begins anew at times.
        var reader = SliceView()
        func tell(_ name: String, _ report: NodeReport?) {
            latest[name] = report
            if let report { said[name, default: []].insert(report) }
            book.update(name, report)
        }
        func look() {
            for view in [server.follower, server.listed, reader] {
                for (node, peer) in view.peers { #expect(said[node]?.contains(peer.entry.report) == true) }
            }
            // Whoever is there stays there.
            #expect(latest.keys.allSatisfy { server.follower.peers[$0] == nil || server.listed.peers[$0] != nil })
        }
        for _ in 0..<400 {
            // Other tests wait for answers in time.
            await Task.yield()
            let id = NodeID.random(in: 1...25, using: &random)
            let name = "n\(id)"
            switch Int.random(in: 0..<24, using: &random) {
            case 0 where latest.count > 3: tell(name, nil)
            case 1, 2:
                tell(
                    name,
                    report(
                        id, revision: 1, addresses: Int.random(in: 0...60, using: &random), first: 0,
                        incarnation: .random(), through: last))
            case 3...9:
                guard let before = latest[name] else { continue }
                tell(
                    name,
                    report(
                        id, revision: before.revision + 1,
                        addresses: max(0, before.endpoints.count + Int.random(in: -3...3, using: &random)),
                        first: Int.random(in: 0...3, using: &random), incarnation: before.incarnation, through: last))
            case 10:
                guard var report = latest[name] else { continue }
                report.appliedThrough = last
                tell(name, report)
            case 11...15:
                guard let spec = book.draftChanges(withAcknowledgements: Bool.random(using: &random)) else { continue }
                #expect(spec.sequence > last)
                last = spec.sequence
                let name = EncryptedEndpointSlice.changesName(spec.sequence)
                if let there = server.objects[name] {
                    // Another leader's, which has taken the number: refused.
                    book.doubt(spec)
                    book.load(there)
                    continue
                }
                switch Int.random(in: 0..<8, using: &random) {
                case 0: book.doubt(spec)
                case 1:
                    // Taken later.
                    book.doubt(spec)
                    late.append((name, spec))
                case 2:
                    // Taken, but the answer was lost.
                    server.put(name, spec)
                    book.doubt(spec)
                    book.load(server.objects[name]!)
                default:
                    server.put(name, spec)
                    book.written(changes: name, spec, uid: server.objects[name]?.metadata.uid)
                }
            case 16...18:
                let due = book.due(withAcknowledgements: Bool.random(using: &random))
                guard let name = due.first ?? book.dirty.randomElement(using: &random) else { continue }
                let spec = book.draft(name)
                #expect(spec.sequence > last)
                last = spec.sequence
                switch Int.random(in: 0..<8, using: &random) {
                case 0: break
                case 1:
                    server.put(name, spec)
                    book.load(server.objects[name]!)
                default:
                    server.put(name, spec)
                    book.written(name, spec, resourceVersion: server.objects[name]?.metadata.resourceVersion)
                }
            case 19:
                for (name, _) in book.obsolete {
                    server.delete(name)
                    book.deleted(changes: name)
                }
            case 20 where !late.isEmpty:
                let (name, spec) = late.removeFirst()
                guard server.objects[name] == nil else { continue }
                server.put(name, spec)
                // Seen by the one who leads now.
                if !book.knowsChanges(name) { book.load(server.objects[name]!) }
            case 21 where Int.random(in: 0..<4, using: &random) == 0:
                // Another leader.
                book = SliceBook(Array(server.objects.values), changesAbove: 40)
                for (name, report) in latest { book.update(name, report) }
                book.retain(only: Set(latest.keys))
                // It does not know of numbers whose writes have not arrived.
                last = book.highest
            case 22 where Int.random(in: 0..<4, using: &random) == 0:
                // A person deletes changes.
                guard let name = server.objects.keys.filter({ EncryptedEndpointSlice.isOfChanges($0) }).min() else {
                    continue
                }
                server.delete(name)
                book.lost(changes: name)
            default:
                // Somebody reads everything, at this moment.
                reader = SliceView(server.objects.compactMapValues(\.spec), earlier: reader)
            }
            look()
        }
        for (name, spec) in late where server.objects[name] == nil {
            server.put(name, spec)
            if !book.knowsChanges(name) { book.load(server.objects[name]!) }
        }
        settle(&book, &server)
        look()
        // Those who have missed nothing know everything without waiting for slices; everybody does when those have been written.
        tidy(&book, &server)
        settle(&book, &server)
        for view in [server.follower, server.listed] {
            #expect(view.behind.isEmpty)
            #expect(view.peers.mapValues(\.entry.report) == latest)
            for (node, peer) in view.peers { #expect(peer.entry == book.entry(node)) }
        }
        #expect(book.changesCount == 0)
    }

    /// Without failures, a reader knows after every write what was written, and so does one who begins then.
    @Test(.serialized, arguments: 1...10)
    func everyPrefix(seed: UInt64) async {
        var random = SplitMix(state: seed)
        var book = SliceBook(changesAbove: 40)
        var server = Server()
        let incarnations = (0...30).map { _ in Incarnation.random() }
        var latest: [String: NodeReport] = [:]
        for id in 1...30 {
            latest["n\(id)"] = report(
                NodeID(id), revision: 1, addresses: 10, first: 0, incarnation: incarnations[id], through: 0)
        }
        for (name, report) in latest { book.update(name, report) }
        settle(&book, &server)
        for _ in 0..<200 {
            await Task.yield()
            for _ in 0..<Int.random(in: 0...4, using: &random) {
                let id = Int.random(in: 1...30, using: &random)
                guard let before = latest["n\(id)"] else { continue }
                let new = report(
                    NodeID(id), revision: before.revision + 1, addresses: Int.random(in: 0...20, using: &random),
                    first: Int.random(in: 0...9, using: &random), incarnation: incarnations[id],
                    through: server.listed.sequence)
                latest["n\(id)"] = new
                book.update("n\(id)", new)
            }
            if Bool.random(using: &random), let spec = book.draftChanges(withAcknowledgements: true) {
                let name = EncryptedEndpointSlice.changesName(spec.sequence)
                server.put(name, spec)
                book.written(changes: name, spec, uid: nil)
            } else if let name = (book.due(withAcknowledgements: true) + book.dirty.shuffled(using: &random)).first {
                write(name, &book, &server)
            } else {
                for (name, _) in book.obsolete {
                    server.delete(name)
                    book.deleted(changes: name)
                }
            }
            for view in [server.follower, server.listed] {
                #expect(view.behind.isEmpty)
                for (node, peer) in view.peers { #expect(peer.entry == book.entry(node)) }
                #expect(view.peers.count == 30)
            }
        }
    }
}

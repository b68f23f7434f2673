internal import Glibc
internal import Synchronization

/// What etcd and the watch cache of an API server do: objects as bytes, one version counter, a window of history, watchers.
final class Store: Sendable {
    typealias Bytes = [UInt8]

    /// A kind of objects.
    struct Kind: Sendable {
        var group: String
        var version: String
        var kind: String
        var plural: String
        var isNamespaced: Bool

        var apiVersion: String { group.isEmpty ? version : "\(group)/\(version)" }
        /// Stands before every object's own bytes.
        var head: Bytes { Array("{\"kind\":\"\(kind)\",\"apiVersion\":\"\(apiVersion)\",".utf8) }
    }

    /// One version of one object. `inner`: everything after the opening brace, without kind and apiVersion.
    struct Object: Sendable {
        var version: Int
        var inner: Bytes
        var json: ArraySlice<UInt8> { ([UInt8(ascii: "{")] + inner)[...] }
    }

    /// A refusal as the API server words it.
    struct Refusal: Error {
        var status: Int
        var reason: String
        var message: String
    }

    /// A kind's objects. Each has a lock of its own: what is ordered is the changes of one kind.
    private final class Table: Sendable {
        struct State: Sendable {
            var objects: [String: Object] = [:]
            var history: [(version: Int, name: String, chunk: Bytes)] = []
            var oldest: Int
            var watchers: [Watcher] = []
        }
        let kind: Kind
        let head: Bytes
        let state: Mutex<State>

        init(_ kind: Kind, oldest: Int) {
            self.kind = kind
            head = kind.head
            state = Mutex(State(oldest: oldest))
        }
    }
    /// What is left of lists that are read in pages.
    private struct Pages: Sendable {
        var rest: [Int: (version: Int, objects: ArraySlice<Bytes>)] = [:]
        var next = 1
    }
    private static let first = 1000
    /// Counted up under the lock of the table that is changed: who looks into a table, and then here, has seen all of it up to here.
    private let counter = Atomic<Int>(first)
    private let tables: [String: Table]
    private let pages = Mutex(Pages())
    /// Changes of each kind that watches can resume over.
    private static let window = 20_000

    /// One watch: what waits to be sent.
    final class Watcher: Sendable {
        let name: String?
        let pending = Mutex<(chunks: [Bytes], isOver: Bool)>(([], false))
        /// A pipe with a byte in it when there is something: read from `signal`.
        let signal: Int32
        private let bell: Int32

        init(name: String?) {
            self.name = name
            var ends: [Int32] = [0, 0]
            precondition(pipe(&ends) == 0, "no pipe: errno \(errno)")
            (signal, bell) = (ends[0], ends[1])
        }

        deinit {
            close(signal)
            close(bell)
        }

        func give(_ chunk: Bytes) {
            let wasEmpty = pending.withLock { pending in
                pending.chunks.append(chunk)
                return pending.chunks.count == 1
            }
            if wasEmpty {
                var byte: UInt8 = 1
                _ = write(bell, &byte, 1)
            }
        }

        func take() -> [Bytes] {
            pending.withLock { pending in
                defer { pending.chunks = [] }
                return pending.chunks
            }
        }
    }

    init(_ kinds: [Kind]) {
        tables = kinds.reduce(into: [:]) { $0[Self.id($1)] = Table($1, oldest: Self.first) }
    }

    func kind(_ group: String, _ plural: String) -> Kind? { tables["\(group)/\(plural)"]?.kind }
    func kinds(_ group: String) -> [Kind] { tables.values.map(\.kind).filter { $0.group == group } }
    var version: Int { counter.load(ordering: .sequentiallyConsistent) }
    func count(_ kind: Kind) -> Int { tables[Self.id(kind)]?.state.withLock { $0.objects.count } ?? 0 }

    private static func id(_ kind: Kind) -> String { "\(kind.group)/\(kind.plural)" }

    static func chunk(_ change: StaticString, _ head: Bytes, _ inner: Bytes) -> Bytes {
        let opening = "{\"type\":\"\(change)\",\"object\":"
        let length = opening.utf8.count + head.count + inner.count + 2
        var chunk: Bytes = []
        chunk.reserveCapacity(length + 16)
        chunk.append(contentsOf: "\(String(length, radix: 16))\r\n".utf8)
        chunk.append(contentsOf: opening.utf8)
        chunk.append(contentsOf: head)
        chunk.append(contentsOf: inner)
        chunk.append(contentsOf: "}\n\r\n".utf8)
        return chunk
    }

    // MARK: Reading

    func get(_ kind: Kind, _ name: String) -> Object? { tables[Self.id(kind)]?.state.withLock { $0.objects[name] } }

    func names(_ kind: Kind) -> [String] {
        tables[Self.id(kind)]?.state.withLock { Array($0.objects.keys) } ?? []
    }

    /// The body of a page of a list.
    func page(_ kind: Kind, name: String?, prefix: String?, limit: Int, token: String?) throws(Refusal) -> Bytes {
        let listed = token == nil ? list(kind, name: name, prefix: prefix) : nil
        let page = pages.withLock { pages -> (version: Int, items: ArraySlice<Bytes>, next: Int?)? in
            guard let all = listed ?? token.flatMap({ Int($0) }).flatMap({ pages.rest.removeValue(forKey: $0) }) else {
                return nil
            }
            let items = limit > 0 ? all.objects.prefix(limit) : all.objects
            let rest = all.objects.dropFirst(items.count)
            guard !rest.isEmpty else { return (all.version, items, nil) }
            let number = pages.next
            pages.next += 1
            pages.rest[number] = (all.version, rest)
            return (all.version, items, number)
        }
        guard let page else { throw Refusal(status: 410, reason: "Expired", message: "the continue token is too old") }
        let more = page.next.map { ",\"continue\":\"\($0)\"" } ?? ""
        var body = Array(
            "{\"kind\":\"\(kind.kind)List\",\"apiVersion\":\"\(kind.apiVersion)\",\"metadata\":{\"resourceVersion\":\"\(page.version)\"\(more)},\"items\":["
                .utf8)
        body.reserveCapacity(page.items.reduce(body.count) { $0 + $1.count + 2 })
        for (index, item) in page.items.enumerated() {
            body.append(contentsOf: (index == 0 ? "{" : ",{").utf8)
            body.append(contentsOf: item)
        }
        body.append(contentsOf: "]}".utf8)
        return body
    }

    private func list(_ kind: Kind, name: String?, prefix: String?) -> (version: Int, objects: ArraySlice<Bytes>)? {
        tables[Self.id(kind)]?.state.withLock { state in
            let found = state.objects.filter { key, _ in
                (name.map { key == $0 || key.hasSuffix("/\($0)") } ?? true)
                    && (prefix.map { key.hasPrefix($0) } ?? true)
            }
            return (version, found.values.map(\.inner)[...])
        }
    }

    /// Begins a watch; nil when the version is too old.
    func watch(_ kind: Kind, name: String?, from version: Int) -> Watcher? {
        let watcher = Watcher(name: name)
        return tables[Self.id(kind)]?.state.withLock { table in
            guard version >= table.oldest else { return nil }
            for event in table.history where event.version > version && (name == nil || event.name == name) {
                watcher.give(event.chunk)
            }
            table.watchers.append(watcher)
            return watcher
        }
    }

    func end(_ watcher: Watcher, _ kind: Kind) {
        tables[Self.id(kind)]?.state.withLock { $0.watchers.removeAll { $0 === watcher } }
    }

    /// Sends everybody a bookmark.
    func bookmark() {
        for table in tables.values {
            table.state.withLock { state in
                guard !state.watchers.isEmpty else { return }
                let inner = Array("\"metadata\":{\"resourceVersion\":\"\(version)\"}}".utf8)
                let chunk = Self.chunk("BOOKMARK", table.head, inner)
                for watcher in state.watchers { watcher.give(chunk) }
            }
        }
    }

    // MARK: Writing

    /// Changes an object under the lock: gets it as it is and the next version, and gives the new inner bytes; nil: no change.
    @discardableResult
    func change(
        _ kind: Kind, _ name: String, _ body: (Object?, Int) throws(Refusal) -> Bytes?
    ) throws(Refusal) -> Object? {
        guard let table = tables[Self.id(kind)] else { return nil }
        let outcome = table.state.withLock { state -> Result<Object?, Refusal> in
            let before = state.objects[name]
            // A number that is not used is no loss.
            let version = counter.add(1, ordering: .sequentiallyConsistent).newValue
            do throws(Refusal) {
                guard let inner = try body(before, version) else { return .success(before) }
                let object = Object(version: version, inner: inner)
                state.objects[name] = object
                Self.publish(before == nil ? "ADDED" : "MODIFIED", name, object, table.head, &state)
                return .success(object)
            } catch {
                return .failure(error)
            }
        }
        return try outcome.get()
    }

    /// Takes an object away. Returns false when there is none.
    @discardableResult
    func remove(_ kind: Kind, _ name: String) -> Bool {
        guard let table = tables[Self.id(kind)] else { return false }
        return table.state.withLock { state in
            guard let before = state.objects.removeValue(forKey: name) else { return false }
            let version = counter.add(1, ordering: .sequentiallyConsistent).newValue
            let inner = Self.versioned(before.inner, version)
            Self.publish("DELETED", name, Object(version: version, inner: inner), table.head, &state)
            return true
        }
    }

    private static func publish(
        _ change: StaticString, _ name: String, _ object: Object, _ head: Bytes, _ table: inout Table.State
    ) {
        let chunk = chunk(change, head, object.inner)
        table.history.append((object.version, name, chunk))
        if table.history.count >= window * 2 {
            table.oldest = table.history[window].version
            table.history.removeFirst(window)
        }
        for watcher in table.watchers where watcher.name == nil || watcher.name == name { watcher.give(chunk) }
    }

    /// With another version in its metadata.
    static func versioned(_ inner: Bytes, _ version: Int, _ more: String = "") -> Bytes {
        let patch = Array("{\"metadata\":{\"resourceVersion\":\"\(version)\"\(more)}}".utf8)
        return Array(RawJSON.merge(([UInt8(ascii: "{")] + inner)[...], patch[...]).dropFirst())
    }
}

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

    /// Touched under the lock only.
    private final class Table: @unchecked Sendable {
        let kind: Kind
        let head: Bytes
        var objects: [String: Object] = [:]
        var history: [(version: Int, name: String, chunk: Bytes)] = []
        var oldest: Int
        var watchers: [Watcher] = []

        init(_ kind: Kind, oldest: Int) {
            self.kind = kind
            head = kind.head
            self.oldest = oldest
        }
    }
    private struct State: Sendable {
        var version = 1000
        var tables: [String: Table] = [:]
        var pages: [Int: (version: Int, objects: ArraySlice<Bytes>)] = [:]
        var nextPage = 1
    }
    private let state = Mutex(State())
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
        state.withLock { state in
            for kind in kinds {
                state.tables["\(kind.group)/\(kind.plural)"] = Table(kind, oldest: state.version)
            }
        }
    }

    func kind(_ group: String, _ plural: String) -> Kind? { state.withLock { $0.tables["\(group)/\(plural)"]?.kind } }
    func kinds(_ group: String) -> [Kind] {
        state.withLock { $0.tables.values.map(\.kind).filter { $0.group == group } }
    }
    var version: Int { state.withLock { $0.version } }
    func count(_ kind: Kind) -> Int { state.withLock { $0.tables[Self.id(kind)]?.objects.count ?? 0 } }

    private static func id(_ kind: Kind) -> String { "\(kind.group)/\(kind.plural)" }

    static func chunk(_ change: StaticString, _ head: Bytes, _ inner: Bytes) -> Bytes {
        var line = Array("{\"type\":\"".utf8)
        change.withUTF8Buffer { line.append(contentsOf: $0) }
        line.append(contentsOf: "\",\"object\":".utf8)
        line.append(contentsOf: head)
        line.append(contentsOf: inner)
        line.append(contentsOf: "}\n".utf8)
        return Array((String(line.count, radix: 16) + "\r\n").utf8) + line + Array("\r\n".utf8)
    }

    // MARK: Reading

    func get(_ kind: Kind, _ name: String) -> Object? { state.withLock { $0.tables[Self.id(kind)]?.objects[name] } }

    func names(_ kind: Kind) -> [String] {
        state.withLock { $0.tables[Self.id(kind)].map { Array($0.objects.keys) } ?? [] }
    }

    /// The body of a page of a list.
    func page(_ kind: Kind, name: String?, prefix: String?, limit: Int, token: String?) throws(Refusal) -> Bytes {
        let page = state.withLock { state -> (version: Int, items: ArraySlice<Bytes>, next: Int?)? in
            var all: (version: Int, objects: ArraySlice<Bytes>)
            if let token {
                guard let found = Int(token).flatMap({ state.pages.removeValue(forKey: $0) }) else { return nil }
                all = found
            } else {
                guard let table = state.tables[Self.id(kind)] else { return nil }
                let found = table.objects.filter { key, _ in
                    (name.map { key == $0 || key.hasSuffix("/\($0)") } ?? true)
                        && (prefix.map { key.hasPrefix($0) } ?? true)
                }
                all = (state.version, found.values.map(\.inner)[...])
            }
            let items = limit > 0 ? all.objects.prefix(limit) : all.objects
            let rest = all.objects.dropFirst(items.count)
            guard !rest.isEmpty else { return (all.version, items, nil) }
            let number = state.nextPage
            state.nextPage += 1
            state.pages[number] = (all.version, rest)
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

    /// Begins a watch; nil when the version is too old.
    func watch(_ kind: Kind, name: String?, from version: Int) -> Watcher? {
        let watcher = Watcher(name: name)
        return state.withLock { state in
            guard let table = state.tables[Self.id(kind)], version >= table.oldest else { return nil }
            for event in table.history where event.version > version && (name == nil || event.name == name) {
                watcher.give(event.chunk)
            }
            table.watchers.append(watcher)
            return watcher
        }
    }

    func end(_ watcher: Watcher, _ kind: Kind) {
        state.withLock { $0.tables[Self.id(kind)]?.watchers.removeAll { $0 === watcher } }
    }

    /// Sends everybody a bookmark.
    func bookmark() {
        state.withLock { state in
            for table in state.tables.values where !table.watchers.isEmpty {
                let inner = Array("\"metadata\":{\"resourceVersion\":\"\(state.version)\"}}".utf8)
                let chunk = Self.chunk("BOOKMARK", table.head, inner)
                for watcher in table.watchers { watcher.give(chunk) }
            }
        }
    }

    // MARK: Writing

    /// Changes an object under the lock: gets it as it is and the next version, and gives the new inner bytes; nil: no change.
    @discardableResult
    func change(
        _ kind: Kind, _ name: String, _ body: (Object?, Int) throws(Refusal) -> Bytes?
    ) throws(Refusal) -> Object? {
        let outcome = state.withLock { state -> Result<Object?, Refusal> in
            guard let table = state.tables[Self.id(kind)] else { return .success(nil) }
            let before = table.objects[name]
            do throws(Refusal) {
                guard let inner = try body(before, state.version + 1) else { return .success(before) }
                state.version += 1
                let object = Object(version: state.version, inner: inner)
                table.objects[name] = object
                Self.publish(before == nil ? "ADDED" : "MODIFIED", name, object, table)
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
        state.withLock { state in
            guard let table = state.tables[Self.id(kind)], let before = table.objects.removeValue(forKey: name) else {
                return false
            }
            state.version += 1
            let inner = Self.versioned(before.inner, state.version)
            Self.publish("DELETED", name, Object(version: state.version, inner: inner), table)
            return true
        }
    }

    private static func publish(_ change: StaticString, _ name: String, _ object: Object, _ table: Table) {
        let chunk = chunk(change, table.head, object.inner)
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

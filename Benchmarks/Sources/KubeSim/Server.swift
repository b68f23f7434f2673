internal import Glibc
internal import Synchronization

/// As much of an API server as operator and agent need, over HTTP/1.1 on a socket that is given: lists in pages, watches with bookmarks,
/// get, create, replace, merge patch, delete, status subresources, optimistic locking, discovery.
///
/// Fast, and nothing else: it checks no schema and no rights. Tests/kube/apiserver.py is the one that is strict.
final class Server: Sendable {
    typealias Bytes = [UInt8]
    let store: Store
    /// Called after a write of a client, with the kind's plural and the object's name.
    private let onWrite: @Sendable (String, String) -> Void
    private let counters = Mutex<[String: Int]>([:])

    init(_ store: Store, onWrite: @escaping @Sendable (String, String) -> Void) {
        self.store = store
        self.onWrite = onWrite
        startThread { [store] in
            while true {
                pause(5)
                store.bookmark()
            }
        }
    }

    /// Requests that were answered well, by client, verb and kind, such as "ebpf-xdp-operator patch pods".
    var requests: [String: Int] { counters.withLock { $0 } }

    /// Serves a listening socket, in the network namespace in which that was made.
    func serve(_ listener: Int32) {
        startThread { [self] in
            while true {
                let socket = accept(listener, nil, nil)
                guard socket >= 0 else { continue }
                var on: Int32 = 1
                setsockopt(socket, Int32(IPPROTO_TCP), TCP_NODELAY, &on, 4)
                startThread { [self] in
                    Connection(socket, self).run()
                    close(socket)
                }
            }
        }
    }

    struct Request {
        var method: String
        var path: [String]
        var query: [String: String]
        var client: String
        var body: Bytes
    }

    /// What a request comes to: a status and a body, or a watch.
    enum Answer {
        case body(Int, Bytes)
        case watch(Store.Kind, Store.Watcher?, seconds: Int)
    }

    func answer(_ request: Request) -> Answer {
        do throws(Store.Refusal) {
            return try route(request)
        } catch {
            let text =
                "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\"message\":\"\(error.message)\",\"reason\":\"\(error.reason)\",\"code\":\(error.status)}"
            return .body(error.status, Array(text.utf8))
        }
    }

    private static let missing = Store.Refusal(status: 404, reason: "NotFound", message: "there is no such object")

    private func route(_ request: Request) throws(Store.Refusal) -> Answer {
        var rest = request.path[...]
        guard let root = rest.popFirst(), root == "api" || root == "apis" else { throw Self.missing }
        let group = root == "api" ? "" : rest.popFirst() ?? ""
        guard let version = rest.popFirst() else { return try discover(group) }
        guard !rest.isEmpty else { return try discover(group, version) }
        var namespace: String?
        if rest.first == "namespaces", rest.count >= 3 {
            namespace = rest[rest.startIndex + 1]
            rest = rest.dropFirst(2)
        }
        guard let plural = rest.popFirst(), let kind = store.kind(group, plural), kind.version == version else {
            throw Self.missing
        }
        let name = rest.popFirst()
        let answer = try serve(request, kind, namespace, name, rest.popFirst())
        let verb =
            switch (request.method, name) {
            case ("GET", nil): request.query["watch"] == nil ? "list" : "watch"
            case ("GET", _): "get"
            case ("POST", _): "create"
            case ("PUT", _): "update"
            case ("PATCH", _): "patch"
            default: "delete"
            }
        let what = "\(request.client) \(verb) \(plural)\(request.path.last == "status" ? "/status" : "")"
        counters.withLock { $0[what, default: 0] += 1 }
        return answer
    }

    private func discover(_ group: String) throws(Store.Refusal) -> Answer {
        guard let kind = store.kinds(group).first else { throw Self.missing }
        let version = "{\"groupVersion\":\"\(kind.apiVersion)\",\"version\":\"\(kind.version)\"}"
        return .body(
            200,
            Array(
                "{\"kind\":\"APIGroup\",\"name\":\"\(group)\",\"versions\":[\(version)],\"preferredVersion\":\(version)}"
                    .utf8)
        )
    }

    private func discover(_ group: String, _ version: String) throws(Store.Refusal) -> Answer {
        let kinds = store.kinds(group).filter { $0.version == version }
        guard !kinds.isEmpty else { throw Self.missing }
        let list = kinds.map { "{\"name\":\"\($0.plural)\",\"kind\":\"\($0.kind)\",\"namespaced\":\($0.isNamespaced)}" }
        return .body(200, Array("{\"kind\":\"APIResourceList\",\"resources\":[\(list.joined(separator: ","))]}".utf8))
    }

    private func serve(
        _ request: Request, _ kind: Store.Kind, _ namespace: String?, _ name: String?, _ subresource: String?
    ) throws(Store.Refusal) -> Answer {
        guard let name else {
            if request.method == "POST" { return try create(request, kind, namespace) }
            guard request.method == "GET" else {
                throw Store.Refusal(status: 405, reason: "MethodNotAllowed", message: "")
            }
            let field = request.query["fieldSelector"].flatMap {
                $0.hasPrefix("metadata.name=") ? String($0.dropFirst(14)) : nil
            }
            let selected = field.map { field in namespace.map { "\($0)/\(field)" } ?? field }
            if request.query["watch"] != nil {
                let from = Int(request.query["resourceVersion"] ?? "") ?? 0
                return .watch(
                    kind, store.watch(kind, name: selected, from: from),
                    seconds: Int(request.query["timeoutSeconds"] ?? "") ?? 300)
            }
            return .body(
                200,
                try store.page(
                    kind, name: selected, prefix: namespace.map { "\($0)/" },
                    limit: Int(request.query["limit"] ?? "") ?? 0, token: request.query["continue"]))
        }
        let key = namespace.map { "\($0)/\(name)" } ?? name
        switch request.method {
        case "GET":
            guard let object = store.get(kind, key) else { throw Self.missing }
            return .body(200, kind.head + object.inner)
        case "DELETE":
            guard store.remove(kind, key) else { throw Self.missing }
            onWrite(kind.plural, name)
            return .body(200, Array("{\"kind\":\"Status\",\"status\":\"Success\"}".utf8))
        case "PUT", "PATCH":
            let isPatch = request.method == "PATCH"
            let object = try store.change(kind, key) { (before, version) throws(Store.Refusal) in
                guard let before else { throw Self.missing }
                return try Self.changed(
                    before, request.body, isPatch: isPatch, isStatus: subresource == "status", version)
            }
            guard let object else { throw Self.missing }
            onWrite(kind.plural, name)
            return .body(200, kind.head + object.inner)
        default: throw Store.Refusal(status: 405, reason: "MethodNotAllowed", message: "")
        }
    }

    private static func changed(
        _ before: Store.Object, _ body: Bytes, isPatch: Bool, isStatus: Bool, _ version: Int
    ) throws(Store.Refusal) -> Bytes {
        let members = RawJSON.members(body[...])
        let metadata = members.first { RawJSON.isKey($0.key, "metadata") }?.value ?? []
        if let asked = RawJSON.text(metadata, "resourceVersion"), asked != "\(before.version)" {
            throw Store.Refusal(status: 409, reason: "Conflict", message: "the object has been modified")
        }
        let present = before.json
        if let asked = RawJSON.text(metadata, "uid"), asked != RawJSON.text(present, "metadata", "uid") {
            throw Store.Refusal(status: 409, reason: "Conflict", message: "Precondition failed: UID in precondition")
        }
        // A write of the status writes nothing else, any other write does not write it. The new version goes with it.
        let numbered = Array("{\"resourceVersion\":\"\(version)\"}".utf8)
        var patch = Array("{\"metadata\":".utf8)
        patch.append(contentsOf: isStatus ? numbered : RawJSON.merge(metadata, numbered[...]))
        for member in members {
            let isForStatus = RawJSON.isKey(member.key, "status")
            if RawJSON.isKey(member.key, "kind") || RawJSON.isKey(member.key, "apiVersion") { continue }
            if RawJSON.isKey(member.key, "metadata") || (isStatus ? !isForStatus : isForStatus) { continue }
            patch.append(contentsOf: ",\"".utf8)
            patch.append(contentsOf: member.key)
            patch.append(contentsOf: "\":".utf8)
            patch.append(contentsOf: member.value)
        }
        patch.append(UInt8(ascii: "}"))
        var target = present
        if !isPatch {
            // What a replacement replaces goes first; metadata is merged, which is as good here.
            let empty = isStatus ? "{\"status\":null}" : "{\"spec\":null,\"data\":null}"
            target = RawJSON.merge(target, Array(empty.utf8)[...])[...]
        }
        return Array(RawJSON.merge(target, patch[...]).dropFirst())
    }

    private static let serial = Atomic<Int>(1)

    private func create(_ request: Request, _ kind: Store.Kind, _ namespace: String?) throws(Store.Refusal) -> Answer {
        guard let name = RawJSON.text(request.body[...], "metadata", "name") else {
            throw Store.Refusal(status: 422, reason: "Invalid", message: "metadata.name is missing")
        }
        let key = namespace.map { "\($0)/\(name)" } ?? name
        let serial = Self.serial.add(1, ordering: .relaxed).newValue
        let object = try store.change(kind, key) { (before, version) throws(Store.Refusal) in
            guard before == nil else {
                throw Store.Refusal(status: 409, reason: "AlreadyExists", message: "\(key) exists already")
            }
            let bare = RawJSON.merge(request.body[...], Array("{\"kind\":null,\"apiVersion\":null}".utf8)[...])
            return Store.versioned(
                Array(bare.dropFirst()), version,
                ",\"uid\":\"00000000-0000-4000-9000-\(padded(serial, 12))\",\"generation\":1,\"creationTimestamp\":\"\(rfc3339())\""
            )
        }
        onWrite(kind.plural, name)
        guard let object else { throw Self.missing }
        return .body(201, kind.head + object.inner)
    }
}

/// A number with zeros in front.
func padded(_ number: Int, _ digits: Int) -> String {
    let text = String(number)
    return String(repeating: "0", count: max(0, digits - text.count)) + text
}

/// Now, as the API writes times.
func rfc3339() -> String {
    var now = time(nil)
    var parts = tm()
    gmtime_r(&now, &parts)
    func two(_ number: Int32) -> String { padded(Int(number), 2) }
    return
        "\(parts.tm_year + 1900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))T\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))Z"
}

import Foundation
import Kubernetes
import Synchronization

/// An API server in memory: versions, optimistic locking, merge patches, the status subresource, watches with a history that can be
/// forgotten, and faults on demand.
final class FakeAPI: KubernetesAPI {
    /// JSON as Foundation has it; only ever changed under the lock.
    private struct JSONObject: @unchecked Sendable {
        var value: [String: Any]
        subscript(key: String) -> Any? {
            get { value[key] }
            set { value[key] = newValue }
        }
        var metadata: [String: Any]? { value["metadata"] as? [String: Any] }
    }
    private struct Stored {
        var object: JSONObject
        var version: Int
    }
    private struct Change {
        var version: Int
        var plural: String
        var kind: String
        var object: JSONObject
    }
    /// A verb and a resource.
    struct Request: Hashable, CustomStringConvertible {
        var verb: String
        var plural: String
        var key: ObjectKey?
        var description: String { "\(verb) \(plural) \(key.map { "\($0)" } ?? "")" }
    }
    private struct State: @unchecked Sendable {
        var objects: [String: [ObjectKey: Stored]] = [:]
        var changes: [Change] = []
        var version = 100
        var oldest = 0
        var absent: Set<String> = []
        var fault: @Sendable (Request) -> KubernetesError? = { _ in nil }
        var slow: @Sendable (Request) async -> Void = { _ in }
        var log: [Request] = []
        var watchGeneration = 0
        var delivered: [String: Int] = [:]
    }
    private let state = Mutex(State())

    // MARK: For tests

    /// What requests fail with.
    func setFault(_ fault: @escaping @Sendable (Request) -> KubernetesError?) { state.withLock { $0.fault = fault } }
    func clearFault() { setFault { _ in nil } }
    /// What happens between a request that was carried out and the arrival of its answer.
    func setSlow(_ slow: @escaping @Sendable (Request) async -> Void) { state.withLock { $0.slow = slow } }
    /// Waits until a watch has handed over all that has happened to a kind.
    func delivery<O: KubernetesObject>(of type: O.Type) async {
        let plural = O.resource.plural
        let version = state.withLock { state in state.changes.last { $0.plural == plural }?.version ?? 0 }
        while state.withLock({ $0.delivered[plural] ?? 0 }) < version {
            do { try await Task.sleep(for: .milliseconds(1)) } catch { return }
        }
    }
    /// Kinds that the server does not have.
    func setAbsent(_ plurals: Set<String>) { state.withLock { $0.absent = plurals } }
    /// Forgets history: every watch gets 410.
    func compact() {
        state.withLock { state in
            state.version += 1
            state.oldest = state.version
            state.changes = []
        }
    }
    /// Ends all watches.
    func dropWatches() { state.withLock { $0.watchGeneration += 1 } }
    var log: [Request] { state.withLock { $0.log } }
    func clearLog() { state.withLock { $0.log = [] } }

    func put<O: KubernetesObject>(_ object: O) throws {
        let json = try Self.json(object)
        state.withLock { state in
            _ = Self.store(
                &state, O.self, object.key, json, create: state.objects[O.resource.plural]?[object.key] == nil)
        }
    }
    func remove<O: KubernetesObject>(_ type: O.Type, _ key: ObjectKey) {
        state.withLock { state in _ = Self.drop(&state, type, key) }
    }
    func all<O: KubernetesObject>(_ type: O.Type) throws -> [ObjectKey: O] {
        try state.withLock { state in
            try (state.objects[O.resource.plural] ?? [:]).mapValues { try Self.object($0.object) }
        }
    }
    func find<O: KubernetesObject>(_ type: O.Type, _ key: ObjectKey) throws -> O? {
        try state.withLock { state in
            try state.objects[O.resource.plural]?[key].map { try Self.object($0.object) }
        }
    }

    // MARK: KubernetesAPI

    func get<O: KubernetesObject>(_ type: O.Type, _ key: ObjectKey) async throws(KubernetesError) -> O {
        try begin("get", O.self, key)
        let answer: O = try state.withLock { state throws(KubernetesError) in
            guard let stored = state.objects[O.resource.plural]?[key] else { throw Self.notFound(key) }
            return try Self.decoded(stored.object)
        }
        await end("get", O.self, key)
        return answer
    }

    func list<O: KubernetesObject>(
        _ type: O.Type, namespace: String?, options: ListOptions
    ) async throws(KubernetesError) -> ObjectList<O> {
        try begin("list", O.self, nil)
        let answer: ObjectList<O> = try state.withLock { state throws(KubernetesError) in
            let all = (state.objects[O.resource.plural] ?? [:]).sorted { $0.key < $1.key }
            let start = options.continueToken.flatMap { Int($0) } ?? 0
            let page = all.dropFirst(start).prefix(options.limit ?? .max)
            var list = ObjectList<O>(items: [], resourceVersion: "\(state.version)")
            for (key, stored) in page {
                do throws(KubernetesError) {
                    list.items.append(try Self.decoded(stored.object))
                } catch {
                    list.undecodable.append(
                        UndecodableObject(key: key, resourceVersion: "\(stored.version)", problem: error.message))
                }
            }
            if start + page.count < all.count { list.continueToken = "\(start + page.count)" }
            return list
        }
        await end("list", O.self, nil)
        return answer
    }

    func watch<O: KubernetesObject>(
        _ type: O.Type, namespace: String?, options: WatchOptions, onEvent: (WatchEvent<O>) async throws -> Void
    ) async throws(KubernetesError) {
        try begin("watch", O.self, nil)
        var version = Int(options.resourceVersion) ?? 0
        let generation = state.withLock { $0.watchGeneration }
        do {
            try await onEvent(.opened)
            while !Task.isCancelled {
                let step = try state.withLock {
                    state throws(KubernetesError) -> (changes: [WatchEvent<O>], end: Bool, version: Int) in
                    if version < state.oldest { throw KubernetesError(.expired, "too old", status: 410) }
                    if state.absent.contains(O.resource.plural) { throw KubernetesError(.notFound, "no such kind") }
                    if let error = state.fault(Request(verb: "watching", plural: O.resource.plural)) { throw error }
                    let changes = state.changes.filter { $0.version > version && $0.plural == O.resource.plural }
                    let events = changes.map { change -> WatchEvent<O> in
                        do throws(KubernetesError) {
                            let object: O = try Self.decoded(change.object)
                            return change.kind == "DELETED" ? .deleted(object.metadata) : .modified(object)
                        } catch {
                            let metadata = change.object.metadata
                            return .undecodable(
                                UndecodableObject(
                                    key: ObjectKey(
                                        namespace: metadata?["namespace"] as? String,
                                        name: metadata?["name"] as? String ?? ""), resourceVersion: "\(change.version)",
                                    problem: error.message))
                        }
                    }
                    return (events, state.watchGeneration != generation, changes.last?.version ?? version)
                }
                version = step.version
                for event in step.changes { try await onEvent(event) }
                state.withLock { $0.delivered[O.resource.plural] = max($0.delivered[O.resource.plural] ?? 0, version) }
                if step.end { return }
                try? await Task.sleep(for: .milliseconds(3))
            }
        } catch let error as KubernetesError {
            throw error
        } catch {
            throw KubernetesError(.handler, "\(error)")
        }
        throw KubernetesError(.cancelled, "cancelled")
    }

    func create<O: KubernetesObject>(_ object: O) async throws(KubernetesError) -> O {
        try begin("create", O.self, object.key)
        let json = try Self.encoded(object)
        let answer: O = try state.withLock { state throws(KubernetesError) in
            guard state.objects[O.resource.plural]?[object.key] == nil else {
                throw KubernetesError(.alreadyExists, "there is one", status: 409)
            }
            return try Self.decoded(Self.store(&state, O.self, object.key, json, create: true))
        }
        await end("create", O.self, object.key)
        return answer
    }

    func replace<O: KubernetesObject>(_ object: O) async throws(KubernetesError) -> O {
        try begin("replace", O.self, object.key)
        let json = try Self.encoded(object)
        return try state.withLock { state throws(KubernetesError) in
            guard let stored = state.objects[O.resource.plural]?[object.key] else { throw Self.notFound(object.key) }
            if let version = object.metadata.resourceVersion, version != "\(stored.version)" { throw Self.conflict }
            var merged = json
            merged["status"] = stored.object["status"]
            return try Self.decoded(Self.store(&state, O.self, object.key, merged, create: false))
        }
    }

    func replaceStatus<O: KubernetesObject>(_ object: O) async throws(KubernetesError) -> O {
        try begin("replaceStatus", O.self, object.key)
        let json = try Self.encoded(object)
        return try state.withLock { state throws(KubernetesError) in
            guard let stored = state.objects[O.resource.plural]?[object.key] else { throw Self.notFound(object.key) }
            if let version = object.metadata.resourceVersion, version != "\(stored.version)" { throw Self.conflict }
            var merged = stored.object
            merged["status"] = json["status"]
            return try Self.decoded(Self.store(&state, O.self, object.key, merged, create: false))
        }
    }

    func mergePatch<O: KubernetesObject>(
        _ type: O.Type, _ key: ObjectKey, subresource: String?, body: [UInt8]
    ) async throws(KubernetesError) -> O {
        let verb = subresource == nil ? "patch" : "patchStatus"
        try begin(verb, O.self, key)
        guard let patch = try? JSONSerialization.jsonObject(with: Data(body)) as? [String: Any] else {
            throw KubernetesError(.badRequest, "no JSON")
        }
        let given = JSONObject(value: patch)
        let answer: O = try state.withLock { state throws(KubernetesError) in
            guard let stored = state.objects[O.resource.plural]?[key] else { throw Self.notFound(key) }
            var patch = given
            let metadata = patch.metadata
            if let version = metadata?["resourceVersion"] as? String, version != "\(stored.version)" {
                throw Self.conflict
            }
            let uid = stored.object.metadata?["uid"] as? String
            if let wanted = metadata?["uid"] as? String, wanted != uid { throw Self.conflict }
            if subresource == "status" {
                patch = JSONObject(value: ["status": patch["status"] ?? [:]])
            } else {
                patch["status"] = nil
            }
            return try Self.decoded(
                Self.store(
                    &state, O.self, key, JSONObject(value: Self.merge(stored.object.value, patch.value)), create: false)
            )
        }
        await end(verb, O.self, key)
        return answer
    }

    func apply<O: KubernetesObject>(
        _ object: O, subresource: String?, fieldManager: String, force: Bool
    ) async throws(KubernetesError) -> O {
        throw KubernetesError(.other, "not in this server")
    }

    func delete<O: KubernetesObject>(
        _ type: O.Type, _ key: ObjectKey, preconditionUID: String?
    ) async throws(KubernetesError) {
        try begin("delete", O.self, key)
        try state.withLock { state throws(KubernetesError) in
            guard let stored = state.objects[O.resource.plural]?[key] else { throw Self.notFound(key) }
            let uid = stored.object.metadata?["uid"] as? String
            if let preconditionUID, preconditionUID != uid { throw Self.conflict }
            _ = Self.drop(&state, type, key)
        }
    }

    func servedVersions(group: String, plural: String) async throws(KubernetesError) -> [String] {
        try state.withLock { state throws(KubernetesError) in
            if let error = state.fault(Request(verb: "discover", plural: plural)) { throw error }
            return state.absent.contains(plural) ? [] : ["v1"]
        }
    }

    // MARK: Inside

    private func begin<O: KubernetesObject>(_ verb: String, _ type: O.Type, _ key: ObjectKey?) throws(KubernetesError) {
        if Task.isCancelled { throw KubernetesError(.cancelled, "cancelled") }
        try state.withLock { state throws(KubernetesError) in
            let request = Request(verb: verb, plural: O.resource.plural, key: key)
            state.log.append(request)
            if let error = state.fault(request) { throw error }
            if state.absent.contains(O.resource.plural) {
                throw KubernetesError(.notFound, "the server has no \(O.resource.plural)", status: 404)
            }
        }
    }

    private func end<O: KubernetesObject>(_ verb: String, _ type: O.Type, _ key: ObjectKey?) async {
        let slow = state.withLock { $0.slow }
        await slow(Request(verb: verb, plural: O.resource.plural, key: key))
    }

    private static let conflict = KubernetesError(.conflict, "somebody was faster", status: 409)
    private static func notFound(_ key: ObjectKey) -> KubernetesError {
        KubernetesError(.notFound, "\(key) is not there", status: 404)
    }

    @discardableResult
    private static func store<O: KubernetesObject>(
        _ state: inout State, _ type: O.Type, _ key: ObjectKey, _ json: JSONObject, create: Bool
    ) -> JSONObject {
        state.version += 1
        var json = json
        var metadata = json.metadata ?? [:]
        let before = state.objects[O.resource.plural]?[key]
        metadata["resourceVersion"] = "\(state.version)"
        metadata["uid"] = before?.object.metadata?["uid"] ?? metadata["uid"] ?? "uid-\(state.version)"
        let generation = before?.object.metadata?["generation"] as? Int ?? 0
        let isSameSpec = (before?.object["spec"] as? NSObject) == (json["spec"] as? NSObject)
        metadata["generation"] = before != nil && isSameSpec ? generation : generation + 1
        json["metadata"] = metadata
        state.objects[O.resource.plural, default: [:]][key] = Stored(object: json, version: state.version)
        state.changes.append(
            Change(version: state.version, plural: O.resource.plural, kind: create ? "ADDED" : "MODIFIED", object: json)
        )
        return json
    }

    private static func drop<O: KubernetesObject>(_ state: inout State, _ type: O.Type, _ key: ObjectKey) -> Bool {
        guard let stored = state.objects[O.resource.plural]?.removeValue(forKey: key) else { return false }
        state.version += 1
        state.changes.append(
            Change(version: state.version, plural: O.resource.plural, kind: "DELETED", object: stored.object))
        return true
    }

    /// RFC 7396.
    private static func merge(_ target: [String: Any], _ patch: [String: Any]) -> [String: Any] {
        var result = target
        for (key, value) in patch {
            if value is NSNull {
                result[key] = nil
            } else if let inner = value as? [String: Any] {
                result[key] = merge(result[key] as? [String: Any] ?? [:], inner)
            } else {
                result[key] = value
            }
        }
        return result
    }

    private static func json<O: KubernetesObject>(_ object: O) throws -> JSONObject {
        JSONObject(value: try JSONSerialization.jsonObject(with: JSONEncoder().encode(object)) as? [String: Any] ?? [:])
    }
    private static func object<O: KubernetesObject>(_ json: JSONObject) throws -> O {
        try JSONDecoder().decode(O.self, from: JSONSerialization.data(withJSONObject: json.value))
    }
    private static func encoded<O: KubernetesObject>(_ object: O) throws(KubernetesError) -> JSONObject {
        do { return try json(object) } catch { throw KubernetesError(.badRequest, "\(error)") }
    }
    private static func decoded<O: KubernetesObject>(_ json: JSONObject) throws(KubernetesError) -> O {
        do {
            var object: O = try object(json)
            object.trim()
            return object
        } catch {
            throw KubernetesError(.decoding, "\(error)")
        }
    }
}

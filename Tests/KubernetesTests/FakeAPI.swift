import Synchronization

@testable import Kubernetes

/// An API without a server: leases and events with optimistic locking, scripted lists and watches, faults on demand.
final class FakeAPI: KubernetesAPI {
    enum WatchStep: Sendable {
        case event(WatchEvent<Widget>)
        case fail(KubernetesError)
        case end
        /// Nothing happens until the task is cancelled.
        case silence
    }
    struct State {
        var lease: Lease?
        var version = 0
        var events: [String: Event] = [:]
        var writes = 0
        /// Thrown by every request on leases and events.
        var failure: KubernetesError?
        /// As servers before 1.21 do, for events about objects without a namespace.
        var refusesDefaultNamespace = false
        /// Requests on leases never return.
        var hangs = false
        /// The write arrives, but its answer does not.
        var losesAnswers = false
        var lists: [Result<ObjectList<Widget>, KubernetesError>] = []
        var listOptions: [ListOptions] = []
        var watches: [[WatchStep]] = []
        var watchOptions: [WatchOptions] = []
    }
    let state = Mutex(State())

    init(lists: [Result<ObjectList<Widget>, KubernetesError>] = [], watches: [[WatchStep]] = []) {
        state.withLock {
            $0.lists = lists
            $0.watches = watches
        }
    }

    var lease: Lease? { state.withLock { $0.lease } }

    private func hang() async throws(KubernetesError) {
        while state.withLock({ $0.hangs }) {
            if Task.isCancelled { throw KubernetesError(.cancelled, "cancelled") }
            await Task.yield()
        }
    }

    private func check() throws(KubernetesError) {
        if let failure = state.withLock({ $0.failure }) { throw failure }
    }

    func get<O: KubernetesObject>(_ type: O.Type, _ key: ObjectKey) async throws(KubernetesError) -> O {
        try await hang()
        try check()
        guard let object = state.withLock({ $0.lease }) as? O else { throw KubernetesError(.notFound, "no such lease") }
        return object
    }

    func list<O: KubernetesObject>(
        _ type: O.Type, namespace: String?, options: ListOptions
    ) async throws(KubernetesError) -> ObjectList<O> {
        let next = state.withLock { state -> Result<ObjectList<Widget>, KubernetesError> in
            state.listOptions.append(options)
            return state.lists.isEmpty
                ? .failure(KubernetesError(.network, "no more lists")) : state.lists.removeFirst()
        }
        guard let page = try next.get() as? ObjectList<O> else {
            throw KubernetesError(.other, "not a list of widgets")
        }
        return page
    }

    func watch<O: KubernetesObject>(
        _ type: O.Type, namespace: String?, options: WatchOptions, onEvent: (WatchEvent<O>) async throws -> Void
    ) async throws(KubernetesError) {
        let steps = state.withLock { state in
            state.watchOptions.append(options)
            return state.watches.isEmpty ? [.silence] : state.watches.removeFirst()
        }
        do {
            for step in steps {
                switch step {
                case .event(let event):
                    guard let event = event as? WatchEvent<O> else { throw KubernetesError(.other, "not a widget") }
                    try await onEvent(event)
                case .fail(let error): throw error
                case .end: return
                case .silence:
                    while !Task.isCancelled { try? await Task.sleep(for: .milliseconds(5)) }
                    throw KubernetesError(.cancelled, "cancelled")
                }
            }
        } catch {
            throw error as? KubernetesError ?? KubernetesError(.handler, "\(error)")
        }
    }

    func create<O: KubernetesObject>(_ object: O) async throws(KubernetesError) -> O {
        try await hang()
        try check()
        return try state.withLock { state throws(KubernetesError) in
            state.writes += 1
            var object = object
            object.metadata.resourceVersion = "\(state.version)"
            if let event = object as? Event {
                if state.refusesDefaultNamespace, event.metadata.namespace == "default" {
                    throw KubernetesError(.invalid, "involvedObject.namespace: does not match event.namespace")
                }
                guard state.events[event.metadata.name] == nil else { throw KubernetesError(.alreadyExists, "exists") }
                state.events[event.metadata.name] = event
                return object
            }
            guard state.lease == nil else { throw KubernetesError(.alreadyExists, "exists") }
            state.version += 1
            object.metadata.resourceVersion = "\(state.version)"
            state.lease = object as? Lease
            return object
        }
    }

    func replace<O: KubernetesObject>(_ object: O) async throws(KubernetesError) -> O {
        try await hang()
        try check()
        return try state.withLock { state throws(KubernetesError) in
            state.writes += 1
            guard let lease = state.lease else { throw KubernetesError(.notFound, "gone") }
            guard object.metadata.resourceVersion == lease.metadata.resourceVersion else {
                throw KubernetesError(.conflict, "the object has been modified")
            }
            var object = object
            if (object as? Lease)?.spec != lease.spec { state.version += 1 }
            object.metadata.resourceVersion = "\(state.version)"
            state.lease = object as? Lease
            if state.losesAnswers { throw KubernetesError(.network, "the connection broke") }
            return object
        }
    }

    func mergePatch<O: KubernetesObject>(
        _ type: O.Type, _ key: ObjectKey, subresource: String?, body: [UInt8]
    ) async throws(KubernetesError) -> O {
        try check()
        return try state.withLock { state throws(KubernetesError) in
            state.writes += 1
            guard var event = state.events[key.name] else { throw KubernetesError(.notFound, "forgotten") }
            let text = String(decoding: body, as: UTF8.self)
            let count = text.split(separator: "\"count\":").last?.prefix { $0.isNumber } ?? ""
            event.series = .init(count: Int(count) ?? 0, lastObservedTime: "")
            state.events[key.name] = event
            guard let object = event as? O else { throw KubernetesError(.other, "not an event") }
            return object
        }
    }

    func replaceStatus<O: KubernetesObject>(_ object: O) async throws(KubernetesError) -> O { object }
    func apply<O: KubernetesObject>(
        _ object: O, subresource: String?, fieldManager: String, force: Bool
    ) async throws(KubernetesError) -> O { object }
    func delete<O: KubernetesObject>(
        _ type: O.Type, _ key: ObjectKey, preconditionUID: String?
    ) async throws(KubernetesError) {}
    func servedVersions(group: String, plural: String) async throws(KubernetesError) -> [String] { ["v1"] }
}

/// The same server through a network that can be cut.
final class PartitionedAPI: KubernetesAPI {
    let isCut = Mutex(false)
    private let api: FakeAPI

    init(_ api: FakeAPI) { self.api = api }

    private func check() throws(KubernetesError) {
        if isCut.withLock({ $0 }) { throw KubernetesError(.network, "no route to host") }
    }

    func get<O: KubernetesObject>(_ type: O.Type, _ key: ObjectKey) async throws(KubernetesError) -> O {
        try check()
        return try await api.get(type, key)
    }
    func list<O: KubernetesObject>(
        _ type: O.Type, namespace: String?, options: ListOptions
    ) async throws(KubernetesError) -> ObjectList<O> {
        try check()
        return try await api.list(type, namespace: namespace, options: options)
    }
    func watch<O: KubernetesObject>(
        _ type: O.Type, namespace: String?, options: WatchOptions, onEvent: (WatchEvent<O>) async throws -> Void
    ) async throws(KubernetesError) {
        try check()
        try await api.watch(type, namespace: namespace, options: options, onEvent: onEvent)
    }
    func create<O: KubernetesObject>(_ object: O) async throws(KubernetesError) -> O {
        try check()
        return try await api.create(object)
    }
    func replace<O: KubernetesObject>(_ object: O) async throws(KubernetesError) -> O {
        try check()
        return try await api.replace(object)
    }
    func replaceStatus<O: KubernetesObject>(_ object: O) async throws(KubernetesError) -> O { object }
    func mergePatch<O: KubernetesObject>(
        _ type: O.Type, _ key: ObjectKey, subresource: String?, body: [UInt8]
    ) async throws(KubernetesError) -> O { try await api.mergePatch(type, key, subresource: subresource, body: body) }
    func apply<O: KubernetesObject>(
        _ object: O, subresource: String?, fieldManager: String, force: Bool
    ) async throws(KubernetesError) -> O { object }
    func delete<O: KubernetesObject>(
        _ type: O.Type, _ key: ObjectKey, preconditionUID: String?
    ) async throws(KubernetesError) {}
    func servedVersions(group: String, plural: String) async throws(KubernetesError) -> [String] { [] }
}

import Kubernetes
import Synchronization

/// The current objects of a kind by key, as a reflector has told of them: what these tests compare with what the server has.
final class Store<O: KubernetesObject>: Sendable {
    private struct State {
        var objects: [ObjectKey: O] = [:]
        var isSynced = false
        /// Keys of a list in progress.
        var listed: Set<ObjectKey>?
        var problems: [ObjectKey: String] = [:]
        var failure: KubernetesError?
    }
    private let state = Mutex(State())

    /// One whole list has arrived: what is not here does not exist (or did not a moment ago).
    var isSynced: Bool { state.withLock { $0.isSynced } }

    /// How many objects there are.
    var count: Int { state.withLock { $0.objects.count } }

    /// One object.
    subscript(_ key: ObjectKey) -> O? { state.withLock { $0.objects[key] } }

    /// All objects, as they are now. No copy until somebody changes the store.
    var objects: [ObjectKey: O] { state.withLock { $0.objects } }

    /// Objects whose newest version does not fit the type, and why. The last version that did, if any, is still among `objects`.
    var problems: [ObjectKey: String] { state.withLock { $0.problems } }

    /// Why the server's state cannot be followed right now; nil while it can.
    var failure: KubernetesError? { state.withLock { $0.failure } }

    /// Takes an event of the reflector.
    func handle(_ event: Reflector<O>.Event) {
        state.withLock { state in Self.handle(event, &state) }
    }

    /// Keeps the store up to date with a reflector, until the task is cancelled.
    func run(_ reflector: Reflector<O>) async {
        await reflector.run { event in handle(event) }
    }

    private static func handle(_ event: Reflector<O>.Event, _ state: inout State) {
        switch event {
        case .reset:
            state.listed = []
        case .listed(let object):
            state.listed?.insert(object.key)
            put(object, &state)
        case .synced:
            if let listed = state.listed {
                state.objects = state.objects.filter { listed.contains($0.key) }
                state.problems = state.problems.filter { listed.contains($0.key) }
            }
            state.listed = nil
            state.isSynced = true
            state.failure = nil
        case .applied(let object):
            put(object, &state)
        case .deleted(let key, _):
            state.problems[key] = nil
            state.objects[key] = nil
        case .undecodable(let object):
            state.listed?.insert(object.key)
            state.problems[object.key] = object.problem
        case .failing(let error):
            state.failure = error
        case .recovered:
            state.failure = nil
        }
    }

    private static func put(_ object: O, _ state: inout State) {
        state.problems[object.key] = nil
        state.objects[object.key] = object
    }
}

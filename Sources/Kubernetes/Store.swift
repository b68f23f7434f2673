internal import Synchronization

/// The current objects of a kind by key, kept by a `Reflector`; one copy of each, however fast they change.
///
/// Readers learn of changes through a `ChangeSignal`, which several stores may share, and take the keys that have changed since they
/// last looked. So a slow reader costs memory for the newest state only.
public final class Store<O: KubernetesObject>: Sendable {
    private struct State {
        var objects: [ObjectKey: O] = [:]
        var changed: Set<ObjectKey> = []
        var isSynced = false
        /// Keys of a list in progress.
        var listed: Set<ObjectKey>?
        var problems: [ObjectKey: String] = [:]
        var failure: KubernetesError?
    }
    private let state = Mutex(State())
    private let signal: ChangeSignal

    /// Makes an empty store.
    ///
    /// - Parameter signal: set whenever something has changed; share one to wait for several stores at once.
    public init(signal: ChangeSignal = ChangeSignal()) {
        self.signal = signal
    }

    /// Set when there are changes to take, when the first list is complete, and when reflecting begins or ceases to fail.
    public var changes: ChangeSignal { signal }

    /// One whole list has arrived: what is not here does not exist (or did not a moment ago).
    public var isSynced: Bool { state.withLock { $0.isSynced } }

    /// How many objects there are.
    public var count: Int { state.withLock { $0.objects.count } }

    /// One object.
    public subscript(_ key: ObjectKey) -> O? { state.withLock { $0.objects[key] } }

    /// All objects, as they are now. No copy until somebody changes the store.
    public var objects: [ObjectKey: O] { state.withLock { $0.objects } }

    /// Objects whose newest version does not fit the type, and why. The last version that did, if any, is still among `objects`.
    public var problems: [ObjectKey: String] { state.withLock { $0.problems } }

    /// Why the server's state cannot be followed right now; nil while it can.
    public var failure: KubernetesError? { state.withLock { $0.failure } }

    /// The keys of what was added, changed or deleted since the last call.
    public func takeChanges() -> Set<ObjectKey> {
        state.withLock { state in
            defer { state.changed = [] }
            return state.changed
        }
    }

    /// Takes an event of the reflector.
    public func handle(_ event: Reflector<O>.Event) {
        let isNews = state.withLock { state in Self.handle(event, &state) }
        if isNews { signal.set() }
    }

    /// Keeps the store up to date with a reflector, until the task is cancelled.
    public func run(_ reflector: Reflector<O>) async {
        await reflector.run { event in handle(event) }
    }

    private static func handle(_ event: Reflector<O>.Event, _ state: inout State) -> Bool {
        switch event {
        case .reset:
            state.listed = []
            return false
        case .listed(let object):
            state.listed?.insert(object.key)
            return put(object, &state)
        case .synced:
            let gone = state.listed.map { listed in state.objects.keys.filter { !listed.contains($0) } } ?? []
            for key in gone { state.objects[key] = nil }
            state.changed.formUnion(gone)
            if let listed = state.listed { state.problems = state.problems.filter { listed.contains($0.key) } }
            state.listed = nil
            let isNews = !state.isSynced || !gone.isEmpty || state.failure != nil
            state.isSynced = true
            state.failure = nil
            return isNews
        case .applied(let object):
            return put(object, &state)
        case .deleted(let key, let uid):
            state.problems[key] = nil
            guard let object = state.objects[key] else { return false }
            // The deletion of an object that has been replaced by another of its name is old news.
            if let uid, let current = object.metadata.uid, uid != current { return false }
            state.objects[key] = nil
            state.changed.insert(key)
            return true
        case .undecodable(let object):
            state.listed?.insert(object.key)
            let isNews = state.problems[object.key] != object.problem
            state.problems[object.key] = object.problem
            return isNews
        case .failing(let error):
            let isNews = state.failure == nil
            state.failure = error
            return isNews
        case .recovered:
            let isNews = state.failure != nil
            state.failure = nil
            return isNews
        }
    }

    private static func put(_ object: O, _ state: inout State) -> Bool {
        let key = object.key
        if !state.problems.isEmpty { state.problems[key] = nil }
        if let version = object.metadata.resourceVersion, let old = state.objects[key],
            old.metadata.resourceVersion == version, old.metadata.uid == object.metadata.uid
        {
            return false
        }
        state.objects[key] = object
        state.changed.insert(key)
        return true
    }
}

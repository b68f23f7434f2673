internal import Datapath
internal import Kubernetes
internal import Netlink
internal import Synchronization

/// Services and who is behind them, as the API server has them, and which of them have changed since somebody looked.
final class ServiceTable: Sendable {
    private struct State {
        var services = Kind<ServiceFacts>()
        var slices = Kind<SliceFacts>()
        /// Names of slices, by service.
        var behind: [ObjectKey: Set<ObjectKey>] = [:]
        /// Services that have changed.
        var changed: Set<ObjectKey> = []
    }

    private struct Kind<Facts: Sendable> {
        var values: [ObjectKey: Facts] = [:]
        /// Objects of a list in progress.
        var listed: Set<ObjectKey>?
        var isSynced = false
        var failure: KubernetesError?
    }

    private let node: String
    private let excluded: Set<String>
    private let signal: ChangeSignal
    private let state = Mutex(State())

    /// - Parameters:
    ///   - node: ours.
    ///   - excluded: Namespaces whose services are left alone.
    ///   - signal: Set at every change.
    init(node: String, excluded: Set<String>, signal: ChangeSignal) {
        self.node = node
        self.excluded = excluded
        self.signal = signal
    }

    /// Whether a whole list of both kinds has arrived.
    var isSynced: Bool { state.withLock { $0.services.isSynced && $0.slices.isSynced } }

    /// Why a kind cannot be followed, by its plural.
    var failures: [String: KubernetesError] {
        state.withLock { state in
            var failures: [String: KubernetesError] = [:]
            failures["services"] = state.services.failure
            failures["endpointslices"] = state.slices.failure
            return failures
        }
    }

    /// All services, those that have no address to be replaced left out.
    var services: [ObjectKey] { state.withLock { Array($0.services.values.keys) } }

    /// Services that have changed since the last call.
    func takeChanges() -> Set<ObjectKey> {
        state.withLock { state in
            defer { state.changed = [] }
            return state.changed
        }
    }

    /// What is known of a service; nil: it is gone, or has no address.
    func service(_ key: ObjectKey) -> (facts: ServiceFacts, slices: [SliceFacts])? {
        state.withLock { state in
            state.services.values[key].map { facts in
                (facts, (state.behind[key] ?? []).compactMap { state.slices.values[$0] })
            }
        }
    }

    /// These have to be looked at again.
    func putBack(_ keys: some Sequence<ObjectKey>) {
        state.withLock { $0.changed.formUnion(keys) }
    }

    func handle(_ event: Reflector<ServiceObject>.Event) {
        state.withLock { state in
            apply(event, &state, \.services, { ServiceFacts($0) }) { key, _, _, state in
                state.changed.insert(key)
            }
        }
        signal.set()
    }

    func handle(_ event: Reflector<EndpointSliceObject>.Event) {
        state.withLock { state in
            apply(event, &state, \.slices, { SliceFacts($0, node: node) }) { key, before, now, state in
                for service in Set([before?.service, now?.service].compactMap(\.self)) {
                    state.changed.insert(service)
                    if service == now?.service {
                        state.behind[service, default: []].insert(key)
                    } else {
                        state.behind[service]?.remove(key)
                        if state.behind[service]?.isEmpty == true { state.behind[service] = nil }
                    }
                }
            }
        }
        signal.set()
    }

    /// `changed` is called with an object's name and what was and is known of it.
    private func apply<O: KubernetesObject, Facts: Hashable & Sendable>(
        _ event: Reflector<O>.Event, _ state: inout State, _ kind: WritableKeyPath<State, Kind<Facts>>,
        _ read: (O) -> Facts?, _ changed: (ObjectKey, Facts?, Facts?, inout State) -> Void
    ) {
        func set(_ key: ObjectKey, _ facts: Facts?) {
            let before = state[keyPath: kind].values[key]
            guard before != facts else { return }
            state[keyPath: kind].values[key] = facts
            changed(key, before, facts, &state)
        }
        func isExcluded(_ key: ObjectKey) -> Bool { key.namespace.map(excluded.contains) ?? false }
        switch event {
        case .reset: state[keyPath: kind].listed = []
        case .listed(let object):
            state[keyPath: kind].listed?.insert(object.key)
            if !isExcluded(object.key) { set(object.key, read(object)) }
        case .applied(let object):
            if !isExcluded(object.key) { set(object.key, read(object)) }
        case .undecodable(let object):
            // Its last version stays.
            state[keyPath: kind].listed?.insert(object.key)
        case .deleted(let key, _): set(key, nil)
        case .synced:
            if let listed = state[keyPath: kind].listed {
                for key in state[keyPath: kind].values.keys where !listed.contains(key) { set(key, nil) }
            }
            state[keyPath: kind].listed = nil
            state[keyPath: kind].isSynced = true
            state[keyPath: kind].failure = nil
        case .failing(let error): state[keyPath: kind].failure = error
        case .recovered: state[keyPath: kind].failure = nil
        }
    }
}

internal import Cluster
internal import Kubernetes
internal import Synchronization

/// Slices and changes as they come from the server, put together at once: what has been put together is not kept beside it.
///
/// As in an `ObjectTable`, a list takes effect as a whole, and what cannot be read leaves in force what was read before.
final class SliceTable: Sendable {
    /// Everything at one moment.
    struct Content: Sendable {
        var view: SliceView
        /// Names of objects whose newest version cannot be read, and why.
        var problems: [String: String] = [:]
        /// One whole list has arrived.
        var isSynced = false
        /// Why the server cannot be followed.
        var failure: KubernetesError?

        /// There is a slice of which no version could be read: nodes are there that are not known.
        var unknown: Bool {
            problems.keys.contains { !EncryptedEndpointSlice.isOfChanges($0) && !view.hasSlice($0) }
        }
    }
    private struct State {
        var content: Content
        /// A list in progress.
        var listing: (specs: [String: EncryptedEndpointSlice.Spec], problems: [String: String])?
    }
    private let state: Mutex<State>
    private let signal: ChangeSignal

    /// - Parameters:
    ///   - own: our node.
    ///   - signal: Set at every change.
    init(own: String, signal: ChangeSignal) {
        state = Mutex(State(content: Content(view: SliceView(own: own))))
        self.signal = signal
    }

    var content: Content { state.withLock { $0.content } }

    /// Follows the server until the task is cancelled.
    func run(_ reflector: Reflector<EncryptedEndpointSlice>) async {
        await reflector.run { event in handle(event) }
    }

    func handle(_ event: Reflector<EncryptedEndpointSlice>.Event) {
        state.withLock { apply(event, &$0) }
        signal.set()
    }

    private func apply(_ event: Reflector<EncryptedEndpointSlice>.Event, _ state: inout State) {
        switch event {
        case .reset:
            state.listing = ([:], [:])
        case .listed(let object):
            let name = object.metadata.name
            if var spec = object.spec {
                spec.share(with: state.content.view)
                state.listing?.specs[name] = spec
            } else {
                state.listing?.problems[name] = object.unreadable
            }
        case .undecodable(let object) where state.listing != nil:
            state.listing?.problems[object.key.name] = object.problem
        case .synced:
            if let listing = state.listing {
                state.content.view = SliceView(
                    listing.specs, unreadable: listing.problems.keys, earlier: state.content.view)
                state.content.problems = listing.problems
            }
            state.listing = nil
            state.content.isSynced = true
            state.content.failure = nil
        case .applied(let object):
            let name = object.metadata.name
            state.content.problems[name] = object.unreadable
            guard var spec = object.spec else { return }
            spec.share(with: state.content.view)
            state.content.view.put(name, spec)
        case .deleted(let key, _):
            state.content.view.remove(key.name)
            state.content.problems[key.name] = nil
        case .undecodable(let object):
            state.content.problems[object.key.name] = object.problem
        case .failing(let error):
            state.content.failure = error
        case .recovered:
            state.content.failure = nil
        }
    }
}

// A slice is written anew now and then, and readings of a moment ago are still in use then: without this, every address of the cluster
// would be in memory several times.

extension EncryptedEndpointSlice.Spec {
    /// Takes the memory of what is known as far as nothing has changed.
    fileprivate mutating func share(with view: SliceView) {
        for index in nodes.indices {
            if let known = view.peers[nodes[index].name] { nodes[index].share(known.entry) }
        }
    }
}

extension NodeEntry {
    fileprivate mutating func share(_ earlier: NodeEntry) {
        if name == earlier.name { name = earlier.name }
        if report.epochs == earlier.report.epochs { report.epochs = earlier.report.epochs }
        if report.endpoints == earlier.report.endpoints { report.endpoints = earlier.report.endpoints }
    }
}

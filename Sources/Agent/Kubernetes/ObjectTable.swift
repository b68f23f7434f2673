internal import Kubernetes
internal import Synchronization

/// The last good version of each object of a kind, kept by a `Reflector`.
///
/// A list takes effect as a whole, when it is complete: what is read from here is always the state of one moment on the server, which
/// acknowledgements depend on.
final class ObjectTable<O: KubernetesObject, Value: Sendable>: Sendable {
    /// What an object comes to: a value, or why there is none.
    typealias Reading = (value: Value?, problem: String?)

    /// Everything at one moment.
    struct Content: Sendable {
        /// By name.
        var values: [String: Value] = [:]
        /// Names of objects whose newest version cannot be read, and why. The last good version, if any, is among `values`.
        var problems: [String: String] = [:]
        /// One whole list has arrived.
        var isSynced = false
        /// Why the server cannot be followed, and for how long already.
        var failure: KubernetesError?
        /// Counts up with every change.
        var generation = 0

        /// Objects that are there, but of which no version could be read.
        var unknown: Bool { problems.keys.contains { values[$0] == nil } }
    }
    private struct State {
        var content = Content()
        /// A list in progress.
        var listing: (values: [String: Value], problems: [String: String])?
    }
    private let state = Mutex(State())
    private let read: @Sendable (O, Value?) -> Reading
    private let signal: ChangeSignal

    /// - Parameters:
    ///   - signal: Set at every change.
    ///   - read: Takes out of an object, and of the value before, what is wanted.
    init(signal: ChangeSignal, read: @escaping @Sendable (O, Value?) -> Reading) {
        self.signal = signal
        self.read = read
    }

    var content: Content { state.withLock { $0.content } }

    /// Follows the server until the task is cancelled.
    func run(_ reflector: Reflector<O>) async {
        await reflector.run { event in handle(event) }
    }

    func handle(_ event: Reflector<O>.Event) {
        state.withLock { state in
            apply(event, &state)
            state.content.generation += 1
        }
        signal.set()
    }

    private func apply(_ event: Reflector<O>.Event, _ state: inout State) {
        switch event {
        case .reset:
            state.listing = ([:], [:])
        case .listed(let object):
            let name = object.key.name
            let reading = read(object, state.content.values[name])
            state.listing?.values[name] = reading.value ?? state.content.values[name]
            state.listing?.problems[name] = reading.problem
        case .undecodable(let object) where state.listing != nil:
            state.listing?.values[object.key.name] = state.content.values[object.key.name]
            state.listing?.problems[object.key.name] = object.problem
        case .synced:
            if let listing = state.listing { (state.content.values, state.content.problems) = listing }
            state.listing = nil
            state.content.isSynced = true
            state.content.failure = nil
        case .applied(let object):
            let name = object.key.name
            let reading = read(object, state.content.values[name])
            if let value = reading.value { state.content.values[name] = value }
            state.content.problems[name] = reading.problem
        case .deleted(let key, _):
            state.content.values[key.name] = nil
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

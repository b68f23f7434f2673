internal import Dispatch
internal import Glibc
internal import Synchronization

/// What must be undone when the process ends, however it ends: normally, by an error, or by SIGINT, SIGTERM, or SIGHUP as when a
/// terminal is closed. (After a SIGKILL, the next lab clears away what it finds: `Lab.removeAbandoned`.)
final class Cleanup: Sendable {
    static let shared = Cleanup()

    private struct State {
        var next = 0
        var actions: [Int: @Sendable () -> Void] = [:]
        var sources: [any DispatchSourceSignal] = []
        var isEnding = false
    }
    private let state = Mutex(State())

    /// Registers an action. From the first one on, these signals run all actions and then end the process.
    func add(_ action: @escaping @Sendable () -> Void) -> Int {
        state.withLock { state in
            if state.sources.isEmpty {
                for number in [SIGINT, SIGTERM, SIGHUP] {
                    let before = Glibc.signal(number, SIG_IGN)
                    // nohup(1)
                    if number == SIGHUP, unsafeBitCast(before, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self) {
                        continue
                    }
                    let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
                    source.setEventHandler { [unowned self] in
                        runAll()
                        _exit(128 + number)
                    }
                    source.resume()
                    state.sources.append(source)
                }
            }
            state.next += 1
            state.actions[state.next] = action
            return state.next
        }
    }

    /// Runs one action, once. Does not return when a signal is ending the process: what fails because everything is taken away under
    /// its feet has nothing to say any more.
    func run(_ token: Int) {
        let (action, isEnding) = state.withLock { ($0.actions.removeValue(forKey: token), $0.isEnding) }
        while isEnding { pause() }
        action?()
    }

    private func runAll() {
        let actions = state.withLock { state in
            state.isEnding = true
            defer { state.actions.removeAll() }
            return state.actions.sorted { $0.key > $1.key }.map(\.value)
        }
        for action in actions { action() }
    }
}

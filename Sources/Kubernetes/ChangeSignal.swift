internal import Synchronization

/// "Something has changed": set as often as you like, seen once. One reader; any number of writers, which it never blocks.
public final class ChangeSignal: Sendable {
    private struct State {
        var isSet = false
        var waiter: CheckedContinuation<Void, Never>?
    }
    private let state = Mutex(State())

    /// Makes a signal that is not set.
    public init() {}

    /// Sets it. Wakes the reader, now or when it next waits.
    public func set() {
        let waiter = state.withLock { state in
            if let waiter = state.waiter {
                state.waiter = nil
                return Optional(waiter)
            }
            state.isSet = true
            return nil
        }
        waiter?.resume()
    }

    /// Waits until it has been set since the last wait returned; resets it. Returns at once when the task is cancelled.
    public func wait() async {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let (ready, displaced) = state.withLock { state in
                    if state.isSet || Task.isCancelled {
                        state.isSet = false
                        return (true, CheckedContinuation<Void, Never>?.none)
                    }
                    let displaced = state.waiter
                    state.waiter = continuation
                    return (false, displaced)
                }
                // A second reader is a mistake of the caller, but must not leave the first one hanging.
                displaced?.resume()
                if ready { continuation.resume() }
            }
        } onCancel: {
            let waiter = state.withLock { state in
                defer { state.waiter = nil }
                return state.waiter
            }
            waiter?.resume()
        }
    }
}

internal import Cluster
internal import Glibc
internal import Netlink
internal import Synchronization

/// Says when pods may have come or gone: namespaces appear or vanish (inotify), interfaces of the host change (rtnetlink). One thread with
/// a small stack waits.
final class PodWatcher: Sendable {
    private let state: State

    private final class State: Sendable {
        let inotify: Int32
        let wakeReader: Int32, wakeWriter: Int32
        let stopped = Atomic<Bool>(false)
        let roots: [String]
        let onChange: @Sendable () -> Void

        init(roots: [String], inotify: Int32, pipe: [Int32], _ onChange: @escaping @Sendable () -> Void) {
            self.roots = roots
            self.inotify = inotify
            (wakeReader, wakeWriter) = (pipe[0], pipe[1])
            self.onChange = onChange
        }

        deinit {
            close(inotify)
            close(wakeReader)
            close(wakeWriter)
        }
    }

    /// How long changes are gathered, milliseconds: making a pod is a dozen of them.
    private static let debounce: Int32 = 20

    /// Begins to watch. `onChange` is called on the watching thread.
    init(roots: [String], onChange: @escaping @Sendable () -> Void) throws(FileError) {
        let inotify = inotify_init1(Int32(IN_CLOEXEC) | Int32(IN_NONBLOCK))
        guard inotify >= 0 else { throw FileError("watch", roots.first ?? "namespaces", errno: errno) }
        var wake: [Int32] = [-1, -1]
        guard pipe(&wake) == 0 else {
            close(inotify)
            throw FileError("watch", roots.first ?? "namespaces", errno: errno)
        }
        for end in wake { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        // Nothing tells of new processes: those are found by looking.
        state = State(roots: roots.filter { !NamespaceList.isProcesses($0) }, inotify: inotify, pipe: wake, onChange)
        let error = startThread { [state] in Self.watch(state) }
        guard error == 0 else { throw FileError("start a thread for", roots.first ?? "namespaces", errno: error) }
    }

    deinit { stop() }

    /// Ends the watch.
    func stop() {
        state.stopped.store(true, ordering: .releasing)
        var one: UInt8 = 1
        _ = write(state.wakeWriter, &one, 1)
    }

    private static func watch(_ state: State) {
        // Without it, inotify and the regular looks remain.
        let monitor = try? LinkMonitor()
        let links = monitor?.descriptor ?? -1
        while !state.stopped.load(ordering: .acquiring) {
            for root in state.roots {
                _ = inotify_add_watch(
                    state.inotify, root,
                    UInt32(IN_CREATE | IN_DELETE | IN_MOVED_TO | IN_MOVED_FROM | IN_ATTRIB | IN_ONLYDIR))
            }
            var waiting = [
                pollfd(fd: state.inotify, events: Int16(POLLIN), revents: 0),
                pollfd(fd: state.wakeReader, events: Int16(POLLIN), revents: 0),
                pollfd(fd: links, events: Int16(POLLIN), revents: 0),
            ]
            // A folder that did not exist is looked for again.
            guard poll(&waiting, 3, 5000) > 0, waiting[1].revents == 0 else { continue }
            _ = poll(nil, 0, debounce)
            var buffer = [UInt8](repeating: 0, count: 4096)
            while read(state.inotify, &buffer, buffer.count) > 0 {}
            monitor?.drain()
            state.onChange()
        }
    }
}

internal import Glibc
internal import Synchronization

/// Watches a cluster directory: a snapshot when it is opened, and another one whenever something in it has changed.
///
/// inotify says when to look; a slow rescan finds what inotify cannot see (network file systems). One thread with a small stack
/// waits, so that nothing blocks the pool of the tasks.
public final class DirectorySource: Sendable {
    /// The directory.
    public let path: String
    private let state: State

    private final class State: Sendable {
        let inotify: Int32
        /// A pipe: a byte in it ends the waiting.
        let wakeReader: Int32, wakeWriter: Int32
        let onSnapshot: @Sendable (Snapshot) -> Void
        let path: String
        let rescan: Int32
        let stopped = Atomic<Bool>(false)

        init(
            path: String, rescan: Int32, inotify: Int32, pipe: [Int32],
            _ onSnapshot: @escaping @Sendable (Snapshot) -> Void
        ) {
            self.path = path
            self.rescan = rescan
            self.inotify = inotify
            (wakeReader, wakeWriter) = (pipe[0], pipe[1])
            self.onSnapshot = onSnapshot
        }

        deinit {
            close(inotify)
            close(wakeReader)
            close(wakeWriter)
        }
    }

    /// How long writes are gathered before they are read, milliseconds.
    private static let debounce: Int32 = 5

    /// Begins to watch. `onSnapshot` is called on the watching thread, with the first snapshot soon and then on every change.
    public init(
        path: String, rescanMilliseconds: Int32 = 5000, onSnapshot: @escaping @Sendable (Snapshot) -> Void
    ) throws(FileError) {
        self.path = path
        let inotify = inotify_init1(Int32(IN_CLOEXEC) | Int32(IN_NONBLOCK))
        guard inotify >= 0 else { throw FileError("watch", path, errno: errno) }
        var wake: [Int32] = [-1, -1]
        guard pipe(&wake) == 0 else {
            close(inotify)
            throw FileError("watch", path, errno: errno)
        }
        for end in wake { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        state = State(path: path, rescan: rescanMilliseconds, inotify: inotify, pipe: wake, onSnapshot)
        let error = startThread { [state] in Self.watch(state) }
        guard error == 0 else { throw FileError("start a thread for", path, errno: error) }
    }

    deinit { stop() }

    /// Ends the watch; no call follows one that is under way.
    public func stop() {
        state.stopped.store(true, ordering: .releasing)
        var one: UInt8 = 1
        _ = write(state.wakeWriter, &one, 1)
    }

    private static func watch(_ state: State) {
        var reader = DirectoryReader(path: state.path)
        var last: Snapshot?
        while !state.stopped.load(ordering: .acquiring) {
            // Added again every time: a folder that was replaced needs a new watch, and one that is there already is no error.
            addWatches(state)
            let snapshot = reader.scan()
            if snapshot != last {
                last = snapshot
                state.onSnapshot(snapshot)
            }
            wait(state)
        }
    }

    private static func addWatches(_ state: State) {
        let events = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_DELETE_SELF | IN_ONLYDIR
        for kind in ObjectKind.allCases {
            let folder = kind.folder.map { "\(state.path)/\($0)" } ?? state.path
            _ = inotify_add_watch(state.inotify, folder, UInt32(events))
        }
    }

    /// Returns when something has changed, the rescan is due, or the watch has ended.
    private static func wait(_ state: State) {
        var waiting = [
            pollfd(fd: state.inotify, events: Int16(POLLIN), revents: 0),
            pollfd(fd: state.wakeReader, events: Int16(POLLIN), revents: 0),
        ]
        guard poll(&waiting, 2, state.rescan) > 0, waiting[1].revents == 0 else { return }
        // Writers come in bursts: read once for all of them, soon.
        _ = poll(nil, 0, debounce)
        var buffer = [UInt8](repeating: 0, count: 4096)
        while read(state.inotify, &buffer, buffer.count) > 0 {}
    }
}

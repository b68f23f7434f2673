internal import Cluster
internal import Glibc
internal import Logging
internal import Synchronization

/// Answers the CNI plugin: one request a connection, root only. A thread of its own waits for connections, and each connection has
/// one: they wait, sometimes for seconds, and there are few of them.
final class CNIServer: Sendable {
    typealias Handler = @Sendable (CNIRequest) async -> CNIReply

    /// The most connections at a time: as many as a node has pods, which may all start at once. Others wait: who is sent away would think
    /// that nobody is there, and let its pod start.
    private static let maximumConnections = 512
    /// How long a request may take to arrive.
    private static let requestTimeout = Duration.seconds(5)

    private let path: String
    private let state: State

    private final class State: Sendable {
        let listener: UnixSocket
        let handler: Handler
        let logger: Logger
        let connections = Atomic<Int>(0)
        let stopped = Atomic<Bool>(false)

        init(_ listener: consuming UnixSocket, _ handler: @escaping Handler, _ logger: Logger) {
            self.listener = listener
            self.handler = handler
            self.logger = logger
        }
    }

    /// Begins to listen.
    init(path: String, logger: Logger, handler: @escaping Handler) throws(FileError) {
        self.path = path
        state = State(try UnixSocket.listen(path), handler, logger)
        let error = startThread { [state] in Self.accept(state) }
        guard error == 0 else { throw FileError("start a thread for", path, errno: error) }
    }

    deinit { stop() }

    /// Ends listening; the plugin then sees that nobody is there.
    func stop() {
        guard !state.stopped.exchange(true, ordering: .acquiringAndReleasing) else { return }
        unlink(path)
        shutdown(state.listener.fd, Int32(SHUT_RDWR))
    }

    private static func accept(_ state: State) {
        while !state.stopped.load(ordering: .acquiring) {
            guard state.connections.load(ordering: .relaxed) < maximumConnections else {
                usleep(10_000)
                continue
            }
            let fd = Glibc.accept(state.listener.fd, nil, nil)
            guard fd >= 0 else {
                // Out of descriptors, or shut down.
                if !state.stopped.load(ordering: .acquiring) { usleep(10_000) }
                continue
            }
            _ = fcntl(fd, F_SETFD, FD_CLOEXEC)
            state.connections.add(1, ordering: .relaxed)
            let error = startThread {
                serve(UnixSocket(owning: fd), state)
                state.connections.subtract(1, ordering: .relaxed)
            }
            if error != 0 {
                close(fd)
                state.connections.subtract(1, ordering: .relaxed)
            }
        }
    }

    private static func serve(_ connection: consuming UnixSocket, _ state: State) {
        guard connection.peerUser() == 0 else {
            state.logger.warning("somebody who is not root has asked at the CNI socket; not answered")
            return
        }
        guard let line = connection.readLine(until: .now + requestTimeout) else { return }
        let reply: CNIReply
        if let request = CNIMessage.decode(CNIRequest.self, from: line), request.version == 1 {
            reply = wait(for: request, state)
        } else {
            reply = CNIReply(
                .refused, "the request cannot be read: do xdp-encryptor and ebpf-xdp-keymgr have the same version?")
        }
        connection.setTimeout(requestTimeout)
        _ = connection.write(CNIMessage.encode(reply))
    }

    /// Runs the handler as a task and blocks this thread until it is done.
    private static func wait(for request: CNIRequest, _ state: State) -> CNIReply {
        let answer = Answer()
        let handler = state.handler
        Task { answer.set(await handler(request)) }
        return answer.wait()
    }

    private final class Answer: @unchecked Sendable {
        // The semaphore orders the write before the read.
        private var reply = CNIReply(.later, "no answer")
        private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

        init() { sem_init(semaphore, 0, 0) }

        deinit {
            sem_destroy(semaphore)
            semaphore.deallocate()
        }

        func set(_ reply: CNIReply) {
            self.reply = reply
            sem_post(semaphore)
        }

        func wait() -> CNIReply {
            while sem_wait(semaphore) != 0 {}
            return reply
        }
    }
}

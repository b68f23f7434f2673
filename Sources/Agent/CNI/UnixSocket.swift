internal import Cluster
internal import Glibc

/// A stream socket in the file system, with whole lines and time-outs.
struct UnixSocket: ~Copyable, Sendable {
    let fd: Int32

    init(owning fd: Int32) {
        self.fd = fd
    }

    deinit { close(fd) }

    /// Connects to a path.
    static func connect(_ path: String, timeout: Duration) throws(FileError) -> UnixSocket {
        let made = UnixSocket(owning: try make(path))
        made.setTimeout(timeout)
        let result = try withAddress(path) { Glibc.connect(made.fd, $0, $1) }
        guard result == 0 else { throw FileError("connect to", path, errno: errno) }
        return made
    }

    /// Listens at a path, mode 0600: what an earlier process has left there is replaced. The caller holds the daemon's lock.
    static func listen(_ path: String) throws(FileError) -> UnixSocket {
        let made = UnixSocket(owning: try make(path))
        // Bound under another name and renamed: nobody meets it before it has its mode and listens.
        let temporary = path + ".new"
        unlink(temporary)
        guard try withAddress(temporary, { bind(made.fd, $0, $1) }) == 0 else {
            throw FileError("make socket", temporary, errno: errno)
        }
        guard chmod(temporary, 0o600) == 0, Glibc.listen(made.fd, 512) == 0, rename(temporary, path) == 0 else {
            let error = errno
            unlink(temporary)
            throw FileError("make socket", path, errno: error)
        }
        return made
    }

    private static func make(_ path: String) throws(FileError) -> Int32 {
        let fd = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard fd >= 0 else { throw FileError("make a socket for", path, errno: errno) }
        return fd
    }

    private static func withAddress(
        _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) throws(FileError) -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
            throw FileError("the path of socket \(path) is too long; sockets take 107 bytes")
        }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }

    /// Of reads and writes, each.
    borrowing func setTimeout(_ timeout: Duration) {
        let (seconds, attoseconds) = timeout.components
        var value = timeval(tv_sec: Int(seconds), tv_usec: Int(attoseconds / 1_000_000_000_000))
        if value.tv_sec == 0, value.tv_usec == 0 { value.tv_usec = 1000 }
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(fd, SOL_SOCKET, option, &value, socklen_t(MemoryLayout<timeval>.size))
        }
    }

    /// The user of the process at the other end, as the kernel knows it.
    borrowing func peerUser() -> UInt32? {
        // struct ucred, which needs _GNU_SOURCE: pid, uid, gid.
        var credentials: (Int32, UInt32, UInt32) = (0, 0, 0)
        var size = socklen_t(12)
        guard getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0, size == 12 else { return nil }
        return credentials.1
    }

    /// Writes all of it.
    borrowing func write(_ bytes: [UInt8]) -> Bool {
        var done = 0
        while done < bytes.count {
            let sent = bytes.withUnsafeBytes { buffer in
                send(fd, buffer.baseAddress.map { $0 + done }, buffer.count - done, Int32(MSG_NOSIGNAL))
            }
            if sent > 0 {
                done += sent
            } else if errno != EINTR {
                return false
            }
        }
        return true
    }

    /// Reads up to a line end, which is not part of the answer; nil when there is none in time, or it is too long.
    borrowing func readLine(limit: Int = CNIMessage.limit, until deadline: ContinuousClock.Instant) -> [UInt8]? {
        var line: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while line.count <= limit {
            let left = deadline - .now
            guard left > .zero else { return nil }
            setTimeout(left)
            let count = recv(fd, &buffer, buffer.count, 0)
            if count == 0 { return nil }
            if count < 0 {
                if errno == EINTR { continue }
                return nil
            }
            line += buffer[..<count]
            if let end = line.firstIndex(of: UInt8(ascii: "\n")) { return Array(line[..<end]) }
        }
        return nil
    }
}

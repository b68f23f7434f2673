internal import Glibc

/// Owns a file descriptor and closes it.
struct FileDescriptor: ~Copyable, Sendable {
    let raw: Int32

    /// Takes ownership of an open descriptor.
    init(owning raw: Int32) {
        self.raw = raw
    }

    /// Makes a descriptor of our own for what `other` refers to.
    init(duplicating other: Int32, _ operation: @autoclosure () -> String) throws(BPFError) {
        raw = try checkCall(fcntl(other, F_DUPFD_CLOEXEC, 3), operation())
    }

    deinit {
        close(raw)
    }
}

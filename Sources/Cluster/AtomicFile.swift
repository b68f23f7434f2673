internal import Glibc

/// A failed operation on a file: what, on which path, why.
public struct FileError: Error, Sendable, CustomStringConvertible {
    /// For people.
    public let description: String
    /// errno(3), 0 when there is none.
    public let errno: Int32

    /// Makes an error from the operation's name and errno.
    public init(_ operation: String, _ path: String, errno: Int32) {
        self.errno = errno
        description = "cannot \(operation) \(path): \(errorText(errno))"
    }

    /// Makes an error of a sentence.
    public init(_ description: String) {
        self.description = description
        errno = 0
    }
}

/// Files that are replaced as a whole: a reader sees the old content or the new one, also after a crash.
public enum AtomicFile {
    /// Writes a temporary file beside, syncs it, renames it, syncs the folder. Mode 0640 unless a tighter one is asked for.
    public static func write(_ bytes: [UInt8], to path: String, mode: UInt32 = 0o640) throws(FileError) {
        try write(bytes, to: path, mode: mode, replaces: true)
    }

    /// The same, but an error (EEXIST) when the file is there already: of two writers one wins.
    public static func create(_ bytes: [UInt8], at path: String, mode: UInt32 = 0o640) throws(FileError) {
        try write(bytes, to: path, mode: mode, replaces: false)
    }

    private static func write(_ bytes: [UInt8], to path: String, mode: UInt32, replaces: Bool) throws(FileError) {
        let (folder, name) = split(path)
        // Readers skip names that begin with a dot.
        let temporary = "\(folder)/.\(name).\(getpid()).\(UInt32.random(in: 0 ... .max)).tmp"
        let fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode)
        guard fd >= 0 else { throw FileError("make", temporary, errno: errno) }
        defer { close(fd) }
        do throws(FileError) {
            try writeAll(bytes, to: fd, path: temporary)
            guard fsync(fd) == 0 else { throw FileError("sync", temporary, errno: errno) }
            if replaces {
                guard rename(temporary, path) == 0 else { throw FileError("replace", path, errno: errno) }
            } else {
                guard link(temporary, path) == 0 else { throw FileError("make", path, errno: errno) }
                unlink(temporary)
            }
        } catch {
            unlink(temporary)
            throw error
        }
        let directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { throw FileError("open", folder, errno: errno) }
        defer { close(directory) }
        guard fsync(directory) == 0 else { throw FileError("sync", folder, errno: errno) }
    }

    /// The content of a regular file of at most `limit` bytes.
    public static func read(_ path: String, limit: Int = 16 << 20) throws(FileError) -> [UInt8] {
        // O_NONBLOCK: a FIFO of that name must not hang us.
        let fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard fd >= 0 else { throw FileError("open", path, errno: errno) }
        defer { close(fd) }
        var status = stat()
        guard fstat(fd, &status) == 0 else { throw FileError("examine", path, errno: errno) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw FileError("\(path) is not a regular file") }
        guard status.st_size <= limit else {
            throw FileError("\(path) has \(status.st_size) bytes; \(limit) are the most")
        }
        var bytes = [UInt8](repeating: 0, count: Int(status.st_size) + 1)
        var length = 0
        while length < bytes.count {
            let got = bytes.withUnsafeMutableBytes { buffer in
                Glibc.read(fd, buffer.baseAddress.map { $0 + length }, buffer.count - length)
            }
            if got == 0 { break }
            if got > 0 {
                length += got
            } else if errno != EINTR {
                throw FileError("read", path, errno: errno)
            }
        }
        return Array(bytes[..<min(length, Int(status.st_size))])
    }

    private static func writeAll(_ bytes: [UInt8], to fd: Int32, path: String) throws(FileError) {
        var done = 0
        while done < bytes.count {
            let written = bytes.withUnsafeBytes { buffer in
                Glibc.write(fd, buffer.baseAddress.map { $0 + done }, buffer.count - done)
            }
            if written > 0 {
                done += written
            } else if errno != EINTR {
                throw FileError("write", path, errno: errno)
            }
        }
    }

    private static func split(_ path: String) -> (folder: String, name: String) {
        guard let slash = path.lastIndex(of: "/") else { return (".", path) }
        return (slash == path.startIndex ? "/" : String(path[..<slash]), String(path[path.index(after: slash)...]))
    }
}

/// strerror(3), thread-safe.
func errorText(_ error: Int32) -> String {
    var buffer = [CChar](repeating: 0, count: 128)
    guard strerror_r(error, &buffer, buffer.count) == 0 else { return "error \(error)" }
    return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

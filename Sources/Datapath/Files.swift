internal import BPF
internal import Glibc

/// The few file operations that pins and records need, with errors that name the path.
enum Files {
    /// Makes a folder and those above it, for root alone. Nothing happens when it is there.
    static func makeFolder(_ path: String) throws(DatapathError) {
        if mkdir(path, 0o700) == 0 || errno == EEXIST { return }
        guard errno == ENOENT, let slash = path.lastIndex(of: "/"), slash != path.startIndex else {
            throw failure("make folder \(path)")
        }
        try makeFolder(String(path[..<slash]))
        if mkdir(path, 0o700) != 0, errno != EEXIST { throw failure("make folder \(path)") }
    }

    /// Names in a folder, sorted; empty when there is no folder.
    static func list(_ path: String) throws(DatapathError) -> [String] {
        guard let folder = opendir(path) else {
            if errno == ENOENT || errno == ENOTDIR { return [] }
            throw failure("list \(path)")
        }
        defer { closedir(folder) }
        var names: [String] = []
        while let entry = readdir(folder) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    /// Removes a file; nothing happens when there is none.
    static func remove(_ path: String) throws(DatapathError) {
        if unlink(path) != 0, errno != ENOENT { throw failure("remove \(path)") }
    }

    /// Removes a folder with the files and folders in it; nothing happens when there is none.
    static func removeFolder(_ path: String) throws(DatapathError) {
        for name in try list(path) {
            let inner = "\(path)/\(name)"
            if unlink(inner) == 0 { continue }
            guard errno == EISDIR || errno == EPERM else { throw failure("remove \(inner)") }
            try removeFolder(inner)
        }
        if rmdir(path) != 0, errno != ENOENT { throw failure("remove \(path)") }
    }

    /// The content of a small file, or nil when there is none.
    static func read(_ path: String) throws(DatapathError) -> [UInt8]? {
        guard let file = fopen(path, "re") else {
            if errno == ENOENT { return nil }
            throw failure("read \(path)")
        }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 14)
        while true {
            let count = fread(&buffer, 1, buffer.count, file)
            if count == 0 { break }
            bytes += buffer[..<count]
        }
        if ferror(file) != 0 { throw failure("read \(path)") }
        return bytes
    }

    /// Writes a file so that readers see the old content or the new, whatever happens meanwhile.
    static func write(_ bytes: [UInt8], to path: String) throws(DatapathError) {
        let draft = "\(path).new"
        let fd = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard fd >= 0 else { throw failure("write \(draft)") }
        var written = 0
        while written < bytes.count {
            let count = bytes[written...].withUnsafeBytes { Glibc.write(fd, $0.baseAddress, $0.count) }
            if count < 0 {
                if errno == EINTR { continue }
                let error = failure("write \(draft)")
                close(fd)
                unlink(draft)
                throw error
            }
            written += count
        }
        fsync(fd)
        close(fd)
        if rename(draft, path) != 0 { throw failure("rename \(draft)") }
    }

    private static func failure(_ operation: String) -> DatapathError {
        let code = errno
        return DatapathError(.failed, "\(operation): \(BPFError.text(of: code)) (errno \(code))")
    }
}

/// An exclusive lock on a folder, for as long as the value lives. The kernel lets go of it when the process ends, however it ends.
final class FolderLock: Sendable {
    private let fd: Int32

    init(_ path: String) throws(DatapathError) {
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard fd >= 0 else {
            throw DatapathError(.failed, "open \(path): \(BPFError.text(of: errno))")
        }
        // A process that is just ending, or a child of ours between fork and exec, may hold it a moment longer.
        var patience = 40
        while flock(fd, LOCK_EX | LOCK_NB) != 0 {
            let code = errno
            guard code == EWOULDBLOCK || code == EINTR, patience > 0 else {
                throw DatapathError(
                    .failed,
                    code == EWOULDBLOCK
                        ? "another process works on \(path): is ebpf-xdp-keymgr running? Stop it first"
                        : "lock \(path): \(BPFError.text(of: code))")
            }
            patience -= 1
            usleep(25_000)
        }
    }

    deinit {
        close(fd)
    }
}

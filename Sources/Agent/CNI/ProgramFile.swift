internal import Cluster
internal import Glibc

/// A program that is copied piece by piece: it is large, and whoever installs it may have little memory.
enum ProgramFile {
    /// Makes `target` a copy of `program`, as a whole or not at all: it may be started at any moment. Returns whether it was none before.
    static func replace(_ target: String, with program: String) throws(FileError) -> Bool {
        if try isSame(program, target) { return false }
        let source = open(program, O_RDONLY | O_CLOEXEC)
        guard source >= 0 else { throw FileError("open", program, errno: errno) }
        defer { close(source) }
        let draft = target + ".new"
        unlink(draft)
        let copy = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o755)
        guard copy >= 0 else { throw FileError("make", draft, errno: errno) }
        do throws(FileError) {
            // Nobody can execute a file that is open for writing.
            defer { close(copy) }
            try transfer(source, copy, draft)
            guard fchmod(copy, 0o755) == 0, fsync(copy) == 0 else { throw FileError("write", draft, errno: errno) }
        } catch {
            unlink(draft)
            throw error
        }
        guard rename(draft, target) == 0 else {
            let error = FileError("replace", target, errno: errno)
            unlink(draft)
            throw error
        }
        return true
    }

    /// Whether the second is an executable copy of the first.
    static func isSame(_ program: String, _ target: String) throws(FileError) -> Bool {
        let first = open(program, O_RDONLY | O_CLOEXEC)
        guard first >= 0 else { throw FileError("open", program, errno: errno) }
        defer { close(first) }
        let second = open(target, O_RDONLY | O_CLOEXEC)
        guard second >= 0 else { return false }
        defer { close(second) }
        var ofFirst = stat()
        var ofSecond = stat()
        guard fstat(first, &ofFirst) == 0, fstat(second, &ofSecond) == 0, ofFirst.st_size == ofSecond.st_size,
            ofSecond.st_mode & 0o777 == 0o755
        else { return false }
        var (a, b) = ([UInt8](repeating: 0, count: 1 << 16), [UInt8](repeating: 0, count: 1 << 16))
        var offset: off_t = 0
        while true {
            let got = pread(first, &a, a.count, offset)
            guard got > 0 else { return got == 0 }
            guard pread(second, &b, got, offset) == got, memcmp(a, b, got) == 0 else { return false }
            offset += off_t(got)
        }
    }

    private static func transfer(_ source: Int32, _ copy: Int32, _ path: String) throws(FileError) {
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let got = read(source, &buffer, buffer.count)
            if got < 0, errno == EINTR { continue }
            guard got >= 0 else { throw FileError("read for", path, errno: errno) }
            if got == 0 { return }
            guard write(copy, buffer, got) == got else { throw FileError("write", path, errno: errno) }
        }
    }
}

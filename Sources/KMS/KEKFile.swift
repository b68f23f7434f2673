internal import Crypto
internal import FoundationEssentials
internal import Glibc
internal import Secrets

/// The KEKs of provider `local`, as read from their file.
struct KEKFile {
    /// One of them.
    struct KEK {
        let bytes: SecretBytes
        /// A fingerprint: eight bytes of HKDF-SHA256, in hexadecimal.
        let version: String

        init(_ bytes: SecretBytes) {
            self.bytes = bytes
            let print = HKDF<SHA256>.deriveKey(
                inputKeyMaterial: bytes.withUnsafeBytes { SymmetricKey(data: $0) },
                info: Array("xdp-encryptor/1 kek version".utf8),
                outputByteCount: 8)
            version = print.withUnsafeBytes { hex($0) }
        }

        /// A copy that zeroes itself.
        var key: SymmetricKey { bytes.withUnsafeBytes { SymmetricKey(data: $0) } }
    }

    /// In the order of the file; never empty.
    let keks: [KEK]
    /// The one that wraps.
    let current: KEK

    private static let maximumSize = 4096

    /// Opens, checks and parses. The checks are made on the open file, so that nobody can swap it in between.
    static func read(_ path: String) throws(KMSError) -> KEKFile {
        func problem(_ what: String) -> KMSError { KMSError(.misconfigured, .local, "KEK file \(path) \(what)") }
        let fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
        guard fd >= 0 else {
            switch errno {
            case ENOENT: throw problem("does not exist; make one with `xdp-encryptor keys init`")
            case ELOOP: throw problem("is a symbolic link; name the file itself")
            default: throw problem("cannot be opened: \(errorText(errno))")
            }
        }
        defer { close(fd) }
        var status = stat()
        guard fstat(fd, &status) == 0 else { throw problem("cannot be examined: \(errorText(errno))") }
        guard status.st_mode & S_IFMT == S_IFREG else { throw problem("is not a regular file") }
        guard status.st_uid == geteuid() else {
            throw problem("belongs to user \(status.st_uid), and this process runs as user \(geteuid()); chown it")
        }
        guard status.st_mode & 0o7777 == 0o600 || status.st_mode & 0o7777 == 0o400 else {
            throw problem(
                "has mode \(octal(status.st_mode & 0o7777)); it must be 0600, so that nobody else reads it: chmod 600 \(path)"
            )
        }
        guard status.st_size <= maximumSize else {
            throw problem("has \(status.st_size) bytes; \(maximumSize) are the most")
        }

        var length = 0
        var failure: Int32 = 0
        let text = SecretBytes(count: maximumSize + 1) { buffer in
            while length < buffer.count {
                let got = Glibc.read(fd, buffer.baseAddress.map { $0 + length }, buffer.count - length)
                if got > 0 {
                    length += got
                } else if got == 0 {
                    return
                } else if errno != EINTR {
                    failure = errno
                    return
                }
            }
        }
        guard failure == 0 else { throw problem("cannot be read: \(errorText(failure))") }
        guard length <= maximumSize else { throw problem("has more than \(maximumSize) bytes") }
        guard let keks = text.withUnsafeBytes({ parse(UnsafeRawBufferPointer(rebasing: $0[..<length])) }),
            let first = keks.first
        else {
            throw problem("must hold one KEK a line, 64 hexadecimal digits each, and nothing else")
        }
        return KEKFile(keks: keks, current: first)
    }

    /// Nil unless every line has 64 hexadecimal digits. A line end after the last is optional.
    static func parse(_ text: UnsafeRawBufferPointer) -> [KEK]? {
        var keks: [KEK] = []
        for line in text.split(separator: 0x0a, omittingEmptySubsequences: true) {
            guard line.count == 2 * DEK.size else { return nil }
            var isHex = true
            let bytes = SecretBytes(count: DEK.size) { kek in
                for i in 0..<DEK.size {
                    guard let high = nibble(line[line.startIndex + 2 * i]),
                        let low = nibble(line[line.startIndex + 2 * i + 1])
                    else {
                        isHex = false
                        return
                    }
                    kek[i] = high << 4 | low
                }
            }
            guard isHex else { return nil }
            keks.append(KEK(bytes))
        }
        return keks
    }

    private static func nibble(_ digit: UInt8) -> UInt8? {
        switch digit {
        case 0x30...0x39: digit - 0x30
        case 0x41...0x46: digit - 0x41 + 10
        case 0x61...0x66: digit - 0x61 + 10
        default: nil
        }
    }
}

extension LocalKMS {
    /// Makes a KEK file with one new random KEK, mode 0600. Refuses to replace anything.
    public static func createKEKFile(at path: String) throws(KMSError) {
        func problem(_ what: String) -> KMSError { KMSError(.misconfigured, .local, "KEK file \(path) \(what)") }
        let fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard fd >= 0 else {
            switch errno {
            case EEXIST: throw problem("exists already; it is never overwritten")
            case ENOENT:
                throw problem("cannot be made: its folder does not exist; make that first")
            default: throw problem("cannot be made: \(errorText(errno))")
            }
        }
        defer { close(fd) }
        let digits = Array("0123456789abcdef".utf8)
        let kek = SecretBytes(random: DEK.size)
        let line = SecretBytes(count: 2 * DEK.size + 1) { line in
            kek.withUnsafeBytes { kek in
                for (i, byte) in kek.enumerated() {
                    line[2 * i] = digits[Int(byte >> 4)]
                    line[2 * i + 1] = digits[Int(byte & 15)]
                }
            }
            line[2 * DEK.size] = 0x0a
        }
        // fchmod: the umask may have taken the owner's own permission away.
        let written =
            fchmod(fd, 0o600) == 0 && line.withUnsafeBytes { write(fd, $0.baseAddress, $0.count) } == line.count
        guard written, fsync(fd) == 0 else {
            let error = errno
            unlink(path)
            throw problem("cannot be written: \(errorText(error))")
        }
    }
}

/// strerror(3), thread-safe.
func errorText(_ error: Int32) -> String {
    var buffer = [CChar](repeating: 0, count: 128)
    guard strerror_r(error, &buffer, buffer.count) == 0 else { return "error \(error)" }
    return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

private func octal(_ mode: mode_t) -> String { "0" + String(mode, radix: 8) }

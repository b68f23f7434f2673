internal import Glibc
public import Secrets

/// A file that something else rotates: a projected service-account token, an agent's sink.
public struct TokenFile: Sendable, Hashable {
    /// Absolute path.
    public let path: String

    private static let maximumSize = 16 * 1024

    /// Names the file. Links are followed: Kubernetes swaps projected tokens through one.
    public init(_ path: String) {
        self.path = path
    }

    /// The content without white space at its end, read now, straight into secret memory.
    public func read() throws(IdentityError) -> SecretBytes {
        let fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard fd >= 0 else {
            throw IdentityError(
                .unavailable,
                "token file \(path) cannot be opened: \(errno == ENOENT ? "it does not exist" : "error \(errno)"); check the pod's projected volume"
            )
        }
        defer { close(fd) }
        var length = 0
        var failure: Int32 = 0
        let content = SecretBytes(count: Self.maximumSize + 1) { buffer in
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
        guard failure == 0 else {
            throw IdentityError(.unavailable, "token file \(path) cannot be read: error \(failure)")
        }
        guard length <= Self.maximumSize else {
            throw IdentityError(
                .misconfigured, "token file \(path) has more than \(Self.maximumSize) bytes: it is no token")
        }
        let token = content.withUnsafeBytes { bytes in
            while length > 0, bytes[length - 1] <= 0x20 { length -= 1 }
            return SecretBytes(copying: UnsafeRawBufferPointer(rebasing: bytes[..<length]))
        }
        guard token.count > 0 else { throw IdentityError(.unavailable, "token file \(path) is empty") }
        // What goes into a header or a form must not end it.
        guard token.withUnsafeBytes({ $0.allSatisfy { (0x21...0x7e).contains($0) } }) else {
            throw IdentityError(.misconfigured, "token file \(path) holds something else than one line of ASCII")
        }
        return token
    }
}

/// `application/x-www-form-urlencoded`, put together in secret memory.
public enum FormBody {
    /// One value of a form.
    public enum Value: Sendable {
        /// No secret.
        case text(String)
        /// A secret.
        case secret(SecretBytes)
    }

    /// Encodes fields in the order given.
    public static func encode(_ fields: [(String, Value)]) -> SecretBytes {
        var text: [UInt8] = []
        for (index, (name, value)) in fields.enumerated() {
            if index > 0 { text.append(0x26) }
            text += PercentEncoding.encode(name.utf8)
            text.append(0x3d)
            switch value {
            case .text(let plain): text += PercentEncoding.encode(plain.utf8)
            case .secret(let secret):
                // Reserved before, so that no growth leaves a copy behind.
                text.reserveCapacity(text.count + 3 * secret.count + 1024)
                var encoded = secret.withUnsafeBytes { PercentEncoding.encode($0) }
                text += encoded
                wipe(&encoded)
            }
        }
        return SecretBytes(zeroing: &text)
    }
}

/// RFC 3986: everything but letters, digits and - _ . ~ as %XX.
enum PercentEncoding {
    private static let digits = Array("0123456789ABCDEF".utf8)

    static func encode(_ bytes: some Sequence<UInt8>, keeping kept: StaticString = "") -> [UInt8] {
        var text: [UInt8] = []
        // Growing would leave copies of a secret behind.
        text.reserveCapacity(3 * bytes.underestimatedCount)
        for byte in bytes {
            switch byte {
            case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2d, 0x2e, 0x5f, 0x7e: text.append(byte)
            default:
                if (0..<kept.utf8CodeUnitCount).contains(where: { kept.utf8Start[$0] == byte }) {
                    text.append(byte)
                } else {
                    text += [0x25, digits[Int(byte >> 4)], digits[Int(byte & 15)]]
                }
            }
        }
        return text
    }

    /// Undoes %XX; anything else stays.
    static func decode(_ text: some Collection<UInt8>) -> [UInt8] {
        let text = Array(text)
        var bytes: [UInt8] = []
        var index = 0
        while index < text.count {
            if text[index] == 0x25, index + 2 < text.count, let high = JSONParser.hexValue(text[index + 1]),
                let low = JSONParser.hexValue(text[index + 2])
            {
                bytes.append(high << 4 | low)
                index += 3
            } else {
                bytes.append(text[index])
                index += 1
            }
        }
        return bytes
    }
}

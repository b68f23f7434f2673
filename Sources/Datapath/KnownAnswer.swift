internal import FoundationEssentials
internal import Keys

/// A line of `xdp-encryptor gcm`: one JSON object that asks for one text to be sealed or opened, and its answer.
///
///     {"op":"seal","key":hex,"nonce":hex,"aad":hex,"plaintext":hex}            {"ciphertext":hex,"tag":hex}
///     {"op":"open","key":hex,"nonce":hex,"aad":hex,"ciphertext":hex,"tag":hex}  {"plaintext":hex}
///
/// Everything that cannot be done is answered with {"error":"..."}.
public struct KnownAnswer: Sendable {
    /// What to do.
    public enum Operation: Sendable, Hashable {
        /// Encrypt.
        case seal(plaintext: [UInt8])
        /// Verify, then decrypt.
        case open(ciphertext: [UInt8], tag: [UInt8])
    }

    /// What to do.
    public let operation: Operation
    /// 16 or 32 bytes.
    public let key: [UInt8]
    /// 12 bytes.
    public let nonce: [UInt8]
    /// 0 to 256 bytes.
    public let aad: [UInt8]

    /// Why a line cannot be answered.
    public struct Problem: Error, Sendable, Hashable, CustomStringConvertible {
        /// For people.
        public let description: String
    }

    /// Reads a line. Fields that are not asked for are left alone.
    public init(line: some Collection<UInt8>) throws(Problem) {
        let fields = try Self.fields(line)
        key = try Self.bytes(fields.key, "key", KernelCipher.Limit.keys.contains, "16 or 32 bytes")
        nonce = try Self.bytes(
            fields.nonce, "nonce", { $0 == KernelCipher.Limit.nonce }, "\(KernelCipher.Limit.nonce) bytes")
        aad = try Self.bytes(
            fields.aad, "aad", { $0 <= KernelCipher.Limit.aad }, "0 to \(KernelCipher.Limit.aad) bytes")
        func text(_ value: String?, _ name: String) throws(Problem) -> [UInt8] {
            try Self.bytes(value, name, { $0 <= KernelCipher.Limit.text }, "0 to \(KernelCipher.Limit.text) bytes")
        }
        switch fields.op {
        case "seal": operation = .seal(plaintext: try text(fields.plaintext, "plaintext"))
        case "open":
            let tag = try Self.bytes(
                fields.tag, "tag", { $0 == KernelCipher.Limit.tag }, "\(KernelCipher.Limit.tag) bytes")
            operation = .open(ciphertext: try text(fields.ciphertext, "ciphertext"), tag: tag)
        case let other?: throw Problem(description: "op is \"\(other.prefix(32))\"; expected \"seal\" or \"open\"")
        case nil: throw Problem(description: "op is missing; expected \"seal\" or \"open\"")
        }
    }

    private struct Fields: Decodable {
        var op: String?
        var key: String?
        var nonce: String?
        var aad: String?
        var plaintext: String?
        var ciphertext: String?
        var tag: String?
    }

    private static func fields(_ line: some Collection<UInt8>) throws(Problem) -> Fields {
        do {
            return try JSONDecoder().decode(Fields.self, from: Data(line))
        } catch DecodingError.typeMismatch(_, let context) where !context.codingPath.isEmpty {
            throw Problem(description: "\(context.codingPath.last?.stringValue ?? "a field") is not a string")
        } catch DecodingError.typeMismatch {
            throw Problem(description: "the line is not a JSON object")
        } catch {
            throw Problem(description: "the line is not valid JSON")
        }
    }

    private static func bytes(
        _ value: String?, _ name: String, _ isAllowed: (Int) -> Bool, _ expected: String
    ) throws(Problem) -> [UInt8] {
        guard let value else {
            throw Problem(description: "\(name) is missing; expected \(expected) as hexadecimal digits")
        }
        guard let bytes = [UInt8](hex: value) else {
            throw Problem(description: "\(name) is not an even number of hexadecimal digits; expected \(expected)")
        }
        guard isAllowed(bytes.count) else {
            throw Problem(description: "\(name) has \(bytes.count) bytes; expected \(expected)")
        }
        return bytes
    }
}

extension KnownAnswer {
    /// Answers a line with a line (without its end). Never throws: what goes wrong is the answer.
    public static func answer(line: some Collection<UInt8>, _ cipher: KernelCipher) -> String {
        do {
            return try KnownAnswer(line: line).answer(cipher)
        } catch {
            return text(error: error.description)
        }
    }

    /// An answer that says what went wrong.
    public static func text(error: String) -> String {
        guard let data = try? JSONEncoder().encode(["error": error]) else { return #"{"error":"unknown"}"# }
        return String(decoding: data, as: UTF8.self)
    }

    private func answer(_ cipher: KernelCipher) throws(Problem) -> String {
        do {
            switch operation {
            case .seal(let plaintext):
                let sealed = try cipher.seal(key: key, nonce: nonce, aad: aad, plaintext: plaintext)
                return #"{"ciphertext":"\#(sealed.ciphertext.hex)","tag":"\#(sealed.tag.hex)"}"#
            case .open(let ciphertext, let tag):
                let plaintext = try cipher.open(key: key, nonce: nonce, aad: aad, ciphertext: ciphertext, tag: tag)
                guard let plaintext else { return Self.text(error: "authentication failed") }
                return #"{"plaintext":"\#(plaintext.hex)"}"#
            }
        } catch {
            throw Problem(description: error.message)
        }
    }
}

/// Cuts bytes into lines as they come, and holds back no more than one line of bounded length.
public struct LineSplitter: Sendable {
    /// A line without its end, or what stands for one that is too long.
    public enum Line: Sendable, Hashable {
        /// Without its newline.
        case text([UInt8])
        /// Longer than the limit; its content is gone.
        case tooLong
    }

    private let limit: Int
    private var pending: [UInt8] = []
    private var isSkipping = false

    /// - Parameter limit: bytes of the longest line that is kept.
    public init(limit: Int) {
        self.limit = limit
    }

    /// Takes more bytes and returns the lines that they complete.
    public mutating func take(_ bytes: some Sequence<UInt8>) -> [Line] {
        var lines: [Line] = []
        for byte in bytes {
            if byte == UInt8(ascii: "\n") {
                lines.append(isSkipping ? .tooLong : .text(pending))
                pending.removeAll(keepingCapacity: true)
                isSkipping = false
            } else if pending.count < limit {
                pending.append(byte)
            } else {
                isSkipping = true
            }
        }
        return lines
    }

    /// The last line, when the input ended without a newline.
    public mutating func finish() -> Line? {
        defer {
            pending = []
            isSkipping = false
        }
        if isSkipping { return .tooLong }
        return pending.isEmpty ? nil : .text(pending)
    }
}

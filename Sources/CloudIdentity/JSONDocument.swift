public import Secrets

/// A JSON text in secret memory, parsed without copying a string out of it.
///
/// Answers of a KMS carry DEKs as strings. A decoder that makes Swift strings of them would leave copies all over the heap;
/// here a string is a range of the text until somebody asks for it as text (no secret), or as a secret.
/// Strict RFC 8259 with bounds: at most 32 levels and 4,096 values, no key twice in an object, no invalid UTF-8.
public struct JSONDocument: Sendable {
    /// The text.
    let text: SecretBytes
    private let root: Node

    /// Text that is no JSON, or beyond the bounds.
    public struct Malformed: Error, Sendable, Hashable {
        /// Where, and what was expected.
        public let message: String
    }

    /// A parsed value: strings and numbers are ranges of the text, keys are Swift strings.
    indirect enum Node: Sendable {
        case object([String: Node])
        case array([Node])
        /// Between the quotes, still escaped.
        case string(Range<Int>, isEscaped: Bool)
        case number(Range<Int>)
        case bool(Bool)
        case null
    }

    /// Parses an answer.
    public init(_ text: SecretBytes) throws(Malformed) {
        self.text = text
        root = try text.withUnsafeBytes { (bytes) throws(Malformed) in
            var parser = JSONParser(bytes: bytes)
            return try parser.parse()
        }
    }

    /// The outermost value.
    public var value: Value { Value(node: root, text: text) }

    /// A value of a document; every accessor returns nil for another type.
    public struct Value: Sendable {
        let node: Node
        let text: SecretBytes

        /// A member of an object.
        public subscript(key: String) -> Value? {
            guard case .object(let members) = node, let member = members[key] else { return nil }
            return Value(node: member, text: text)
        }

        /// The elements of an array.
        public var array: [Value]? {
            guard case .array(let elements) = node else { return nil }
            return elements.map { Value(node: $0, text: text) }
        }

        /// A boolean.
        public var bool: Bool? {
            guard case .bool(let value) = node else { return nil }
            return value
        }

        /// A whole number, or one written as a string (as Google and Azure do).
        public var integer: Int64? {
            switch node {
            case .number(let range): text.withUnsafeBytes { Int64(String(decoding: $0[range], as: UTF8.self)) }
            case .string: string.flatMap { Int64($0) }
            default: nil
            }
        }

        /// Seconds since 1970 as AWS writes them: whole or with a fraction. The text, to compare.
        public var numberText: String? {
            guard case .number(let range) = node else { return nil }
            return text.withUnsafeBytes { String(decoding: $0[range], as: UTF8.self) }
        }

        /// A string that is no secret.
        public var string: String? {
            guard case .string(let range, let isEscaped) = node else { return nil }
            return text.withUnsafeBytes { bytes in
                let raw = bytes[range]
                return isEscaped ? JSONParser.unescape(raw) : String(decoding: raw, as: UTF8.self)
            }
        }

        /// The bytes of a string that is a secret: tokens and the like. Nil if it has escapes, which none has.
        public var secret: SecretBytes? {
            withRawString { SecretBytes(copying: $0) }
        }

        /// The bytes that a string holds in base64.
        public func bytes(_ encoding: Base64) -> [UInt8]? {
            string.flatMap { encoding.decode($0) }
        }

        /// The bytes that a string holds in base64, decoded from secret memory straight into secret memory.
        public func secretBytes(_ encoding: Base64) -> SecretBytes? {
            withRawString { encoding.decodeSecret($0) } ?? nil
        }

        private func withRawString<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result? {
            guard case .string(let range, let isEscaped) = node else { return nil }
            return text.withUnsafeBytes { bytes in
                // Only "\/" is allowed to be undone here: some encoders write base64 that way.
                guard isEscaped else { return body(UnsafeRawBufferPointer(rebasing: bytes[range])) }
                var isPlain = true
                var count = 0
                let unescaped = SecretBytes(count: range.count) { buffer in
                    var index = range.lowerBound
                    while index < range.upperBound {
                        if bytes[index] == 0x5c {
                            index += 1
                            if bytes[index] != 0x2f { isPlain = false }
                        }
                        buffer[count] = bytes[index]
                        count += 1
                        index += 1
                    }
                }
                guard isPlain else { return nil }
                return unescaped.withUnsafeBytes { body(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
            }
        }
    }
}

/// Recursive descent over bytes.
struct JSONParser {
    let bytes: UnsafeRawBufferPointer
    private var position = 0
    private var values = 0

    init(bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
    }

    mutating func parse() throws(JSONDocument.Malformed) -> JSONDocument.Node {
        let node = try value(depth: 0)
        skipSpace()
        guard position == bytes.count else { throw malformed("nothing more") }
        return node
    }

    private func malformed(_ expected: String) -> JSONDocument.Malformed {
        JSONDocument.Malformed(message: "byte \(position): expected \(expected)")
    }

    private var current: UInt8? { position < bytes.count ? bytes[position] : nil }

    private mutating func skipSpace() {
        while let byte = current, byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 { position += 1 }
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard current == byte else { return false }
        position += 1
        return true
    }

    private mutating func value(depth: Int) throws(JSONDocument.Malformed) -> JSONDocument.Node {
        values += 1
        guard depth <= 32, values <= 4096 else { throw malformed("fewer values and levels") }
        skipSpace()
        switch current {
        case 0x7b: return try object(depth: depth)
        case 0x5b: return try array(depth: depth)
        case 0x22:
            let (range, isEscaped) = try string()
            return .string(range, isEscaped: isEscaped)
        case 0x74: return try word("true", .bool(true))
        case 0x66: return try word("false", .bool(false))
        case 0x6e: return try word("null", .null)
        default: return try number()
        }
    }

    private mutating func word(_ text: StaticString, _ node: JSONDocument.Node) throws(JSONDocument.Malformed)
        -> JSONDocument.Node
    {
        for i in 0..<text.utf8CodeUnitCount {
            guard take(text.utf8Start[i]) else { throw malformed("\(text)") }
        }
        return node
    }

    private mutating func object(depth: Int) throws(JSONDocument.Malformed) -> JSONDocument.Node {
        position += 1
        var members: [String: JSONDocument.Node] = [:]
        skipSpace()
        if take(0x7d) { return .object(members) }
        while true {
            skipSpace()
            let (range, isEscaped) = try string()
            guard let key = isEscaped ? Self.unescape(bytes[range]) : String(decoding: bytes[range], as: UTF8.self)
            else {
                throw malformed("a key with valid escapes")
            }
            skipSpace()
            guard take(0x3a) else { throw malformed(":") }
            guard members.updateValue(try value(depth: depth + 1), forKey: key) == nil else {
                throw malformed("a key only once")
            }
            skipSpace()
            if take(0x7d) { return .object(members) }
            guard take(0x2c) else { throw malformed(", or }") }
        }
    }

    private mutating func array(depth: Int) throws(JSONDocument.Malformed) -> JSONDocument.Node {
        position += 1
        var elements: [JSONDocument.Node] = []
        skipSpace()
        if take(0x5d) { return .array(elements) }
        while true {
            elements.append(try value(depth: depth + 1))
            skipSpace()
            if take(0x5d) { return .array(elements) }
            guard take(0x2c) else { throw malformed(", or ]") }
        }
    }

    private mutating func string() throws(JSONDocument.Malformed) -> (Range<Int>, isEscaped: Bool) {
        guard take(0x22) else { throw malformed("a string") }
        let start = position
        var isEscaped = false
        while let byte = current {
            switch byte {
            case 0x22:
                position += 1
                guard Self.isUTF8(bytes[start..<position - 1]) else { throw malformed("UTF-8") }
                return (start..<position - 1, isEscaped)
            case 0x5c:
                isEscaped = true
                position += 1
                try escape()
            case 0..<0x20: throw malformed("no control character")
            default: position += 1
            }
        }
        throw malformed("the end of a string")
    }

    private mutating func escape() throws(JSONDocument.Malformed) {
        switch current {
        case 0x22, 0x5c, 0x2f, 0x62, 0x66, 0x6e, 0x72, 0x74: position += 1
        case 0x75:
            position += 1
            for _ in 0..<4 {
                guard let digit = current, Self.hexValue(digit) != nil else {
                    throw malformed("four hexadecimal digits")
                }
                position += 1
            }
        default: throw malformed("an escape of JSON")
        }
    }

    private mutating func number() throws(JSONDocument.Malformed) -> JSONDocument.Node {
        let start = position
        func isDigit(_ byte: UInt8?) -> Bool { byte.map { (0x30...0x39).contains($0) } ?? false }
        _ = take(0x2d)
        guard isDigit(current) else { throw malformed("a value") }
        if !take(0x30) { while isDigit(current) { position += 1 } }
        if take(0x2e) {
            guard isDigit(current) else { throw malformed("a digit") }
            while isDigit(current) { position += 1 }
        }
        if take(0x65) || take(0x45) {
            _ = take(0x2b) || take(0x2d)
            guard isDigit(current) else { throw malformed("a digit") }
            while isDigit(current) { position += 1 }
        }
        return .number(start..<position)
    }

    /// Nil for a lone surrogate. The escapes themselves were checked before.
    static func unescape(_ raw: Slice<UnsafeRawBufferPointer>) -> String? {
        var text: [UInt8] = []
        var index = raw.startIndex
        func unit(_ at: Int) -> UInt32 { (0..<4).reduce(0) { $0 << 4 | UInt32(hexValue(raw[at + $1]) ?? 0) } }
        while index < raw.endIndex {
            guard raw[index] == 0x5c else {
                text.append(raw[index])
                index += 1
                continue
            }
            index += 2
            switch raw[index - 1] {
            case 0x62: text.append(0x08)
            case 0x66: text.append(0x0c)
            case 0x6e: text.append(0x0a)
            case 0x72: text.append(0x0d)
            case 0x74: text.append(0x09)
            case 0x75:
                var code = unit(index)
                index += 4
                if (0xd800..<0xdc00).contains(code) {
                    guard index + 6 <= raw.endIndex, raw[index] == 0x5c, raw[index + 1] == 0x75 else { return nil }
                    let low = unit(index + 2)
                    guard (0xdc00..<0xe000).contains(low) else { return nil }
                    code = 0x10000 + (code - 0xd800) << 10 + (low - 0xdc00)
                    index += 6
                }
                guard let scalar = Unicode.Scalar(code) else { return nil }
                text += Array(String(Character(scalar)).utf8)
            default: text.append(raw[index - 1])
            }
        }
        return String(decoding: text, as: UTF8.self)
    }

    static func hexValue(_ digit: UInt8) -> UInt8? {
        switch digit {
        case 0x30...0x39: digit - 0x30
        case 0x41...0x46: digit - 0x41 + 10
        case 0x61...0x66: digit - 0x61 + 10
        default: nil
        }
    }

    private static func isUTF8(_ raw: Slice<UnsafeRawBufferPointer>) -> Bool {
        if raw.allSatisfy({ $0 < 0x80 }) { return true }
        return String(validating: raw, as: UTF8.self) != nil
    }
}

/// A JSON text to send, written without a library because some of its strings are secrets.
public struct JSONWriter {
    private var pieces: [Piece] = []
    private enum Piece {
        case text([UInt8])
        case secretBase64(SecretBytes, Base64)
        case secretText(SecretBytes)
    }

    /// An empty text.
    public init() {}

    /// An object with members in the order given.
    public static func object(_ members: [(String, JSONWriter)]) -> JSONWriter {
        var writer = JSONWriter()
        writer.raw("{")
        for (index, (key, value)) in members.enumerated() {
            if index > 0 { writer.raw(",") }
            writer.raw(quoted(key) + ":")
            writer.pieces += value.pieces
        }
        writer.raw("}")
        return writer
    }

    /// An array.
    public static func array(_ elements: [JSONWriter]) -> JSONWriter {
        var writer = JSONWriter()
        writer.raw("[")
        for (index, element) in elements.enumerated() {
            if index > 0 { writer.raw(",") }
            writer.pieces += element.pieces
        }
        writer.raw("]")
        return writer
    }

    /// A string.
    public static func string(_ text: String) -> JSONWriter {
        var writer = JSONWriter()
        writer.raw(quoted(text))
        return writer
    }

    /// A number.
    public static func integer(_ value: Int) -> JSONWriter {
        var writer = JSONWriter()
        writer.raw(String(value))
        return writer
    }

    /// A string with bytes in base64.
    public static func base64(_ bytes: [UInt8], _ encoding: Base64 = .standard) -> JSONWriter {
        .string(encoding.encode(bytes))
    }

    /// A string with secret bytes in base64.
    public static func base64(_ secret: SecretBytes, _ encoding: Base64 = .standard) -> JSONWriter {
        var writer = JSONWriter()
        writer.pieces = [.text([0x22]), .secretBase64(secret, encoding), .text([0x22])]
        return writer
    }

    /// A string that is a secret; it must need no escapes, as JWTs and tokens do.
    public static func secret(_ secret: SecretBytes) -> JSONWriter {
        var writer = JSONWriter()
        writer.pieces = [.text([0x22]), .secretText(secret), .text([0x22])]
        return writer
    }

    /// The text, put together in secret memory.
    public func bytes() -> SecretBytes {
        var count = 0
        for piece in pieces {
            switch piece {
            case .text(let text): count += text.count
            case .secretBase64(let secret, let encoding):
                count += encoding == .standard ? (secret.count + 2) / 3 * 4 : (secret.count * 4 + 2) / 3
            case .secretText(let secret): count += secret.count
            }
        }
        return SecretBytes(count: count) { buffer in
            var offset = 0
            func append(_ bytes: UnsafeRawBufferPointer) {
                UnsafeMutableRawBufferPointer(rebasing: buffer[offset...]).copyMemory(from: bytes)
                offset += bytes.count
            }
            for piece in pieces {
                switch piece {
                case .text(let text): text.withUnsafeBytes(append)
                case .secretBase64(let secret, let encoding):
                    var text = secret.withUnsafeBytes { encoding.encodeBytes($0) }
                    text.withUnsafeBytes(append)
                    wipe(&text)
                case .secretText(let secret): secret.withUnsafeBytes(append)
                }
            }
        }
    }

    private mutating func raw(_ text: String) { pieces.append(.text(Array(text.utf8))) }

    private static func quoted(_ text: String) -> String {
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": quoted += "\\\""
            case "\\": quoted += "\\\\"
            case "\u{0}"..<"\u{20}":
                let digits = Array("0123456789abcdef")
                quoted += "\\u00\(digits[Int(scalar.value >> 4)])\(digits[Int(scalar.value & 15)])"
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }
}

internal import Glibc

/// Reads JSON in one pass, straight from its bytes, for the kinds that there are a hundred thousand objects of, or very large ones:
/// what nobody wants is skipped, not decoded. Several times faster than Codable, and it makes nothing but the result.
///
/// It knows what such objects normally look like, and gives up on anything else: then Codable decodes, and says what is wrong.
public struct JSONReader {
    /// Not what was expected here.
    public struct Unexpected: Error {
        /// Says no more: who gives up is asked nothing.
        public init() {}
    }

    /// A member's key, or any text without escapes: bytes that live as long as the reader.
    public struct Text {
        /// The bytes between the quotes.
        public let bytes: UnsafeRawBufferPointer

        /// Whether it is this.
        public static func == (text: Text, other: StaticString) -> Bool {
            text.bytes.count == other.utf8CodeUnitCount && text.hasPrefix(other)
        }

        /// For the cases of a switch.
        public static func ~= (other: StaticString, text: Text) -> Bool { text == other }

        /// Whether it begins with this.
        public func hasPrefix(_ prefix: StaticString) -> Bool {
            begins(bytes, with: prefix)
        }

        /// As a string.
        public var string: String { String(decoding: bytes, as: UTF8.self) }
    }

    private let bytes: UnsafeRawBufferPointer
    private var at = 0

    /// Reads these bytes, which must live longer than the reader.
    public init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
    }

    private mutating func next() throws(Unexpected) -> UInt8 {
        while at < bytes.count {
            let byte = bytes[at]
            if byte > 0x20 { return byte }
            at += 1
        }
        throw Unexpected()
    }

    private mutating func expect(_ byte: Unicode.Scalar) throws(Unexpected) {
        guard try next() == UInt8(ascii: byte) else { throw Unexpected() }
        at += 1
    }

    /// Whether nothing but white space is left.
    public mutating func isAtEnd() -> Bool { (try? next()) == nil }

    /// Takes a null, if there is one.
    public mutating func null() throws(Unexpected) -> Bool {
        guard try next() == UInt8(ascii: "n") else { return false }
        try word("null")
        return true
    }

    private mutating func word(_ word: StaticString) throws(Unexpected) {
        guard begins(UnsafeRawBufferPointer(rebasing: bytes[at...]), with: word) else { throw Unexpected() }
        at += word.utf8CodeUnitCount
    }

    /// Reads an object: `body` reads or skips the value of each key. Null is an object without members.
    public mutating func object(
        _ body: (inout JSONReader, Text) throws(Unexpected) -> Void
    ) throws(Unexpected) {
        if try null() { return }
        try expect("{")
        if try next() == UInt8(ascii: "}") {
            at += 1
            return
        }
        while true {
            let key = try text()
            try expect(":")
            try body(&self, key)
            if try next() == UInt8(ascii: "}") { break }
            try expect(",")
        }
        at += 1
    }

    /// Reads a list: `body` reads each element. Null is an empty list.
    public mutating func array(_ body: (inout JSONReader) throws(Unexpected) -> Void) throws(Unexpected) {
        if try null() { return }
        try expect("[")
        if try next() == UInt8(ascii: "]") {
            at += 1
            return
        }
        while true {
            try body(&self)
            if try next() == UInt8(ascii: "]") { break }
            try expect(",")
        }
        at += 1
    }

    /// Reads a text that has no escapes.
    public mutating func text() throws(Unexpected) -> Text {
        try expect("\"")
        let start = at
        while at < bytes.count {
            let byte = bytes[at]
            if byte == UInt8(ascii: "\"") {
                at += 1
                return Text(bytes: UnsafeRawBufferPointer(rebasing: bytes[start..<at - 1]))
            }
            guard byte != UInt8(ascii: "\\"), byte >= 0x20 else { throw Unexpected() }
            at += 1
        }
        throw Unexpected()
    }

    /// Reads a text that has no escapes; nil for null.
    public mutating func string() throws(Unexpected) -> String? { try null() ? nil : try text().string }

    /// Reads a whole number.
    public mutating func integer<Number: FixedWidthInteger>(_ type: Number.Type = Number.self) throws(Unexpected)
        -> Number
    {
        let isNegative = try next() == UInt8(ascii: "-")
        if isNegative { at += 1 }
        let start = at
        var number: Number = 0
        while at < bytes.count, bytes[at] >= 0x30, bytes[at] <= 0x39 {
            let (product, isTooMuch) = number.multipliedReportingOverflow(by: 10)
            let digit = Number(bytes[at] & 15)
            let (sum, isOver) =
                isNegative ? product.subtractingReportingOverflow(digit) : product.addingReportingOverflow(digit)
            guard !isTooMuch, !isOver else { throw Unexpected() }
            number = sum
            at += 1
        }
        // Neither 007 nor 1.5 nor 1e3.
        guard at > start, at == start + 1 || bytes[start] != 0x30 else { throw Unexpected() }
        if at < bytes.count, [UInt8(ascii: "."), UInt8(ascii: "e"), UInt8(ascii: "E")].contains(bytes[at]) {
            throw Unexpected()
        }
        return number
    }

    /// Reads true or false.
    public mutating func bool() throws(Unexpected) -> Bool {
        if try next() == UInt8(ascii: "t") {
            try word("true")
            return true
        }
        try word("false")
        return false
    }

    /// Passes over a value, whatever it is. Brackets are counted, not matched.
    public mutating func skip() throws(Unexpected) {
        var depth = 0
        repeat {
            switch try next() {
            case UInt8(ascii: "\""): try skipText()
            case UInt8(ascii: "{"), UInt8(ascii: "["):
                depth += 1
                at += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                guard depth > 0 else { throw Unexpected() }
                depth -= 1
                at += 1
            case UInt8(ascii: ","), UInt8(ascii: ":"):
                guard depth > 0 else { throw Unexpected() }
                at += 1
            default: skipWord()
            }
        } while depth > 0
    }

    private mutating func skipWord() {
        while at < bytes.count {
            switch bytes[at] {
            case ...0x20, UInt8(ascii: ","), UInt8(ascii: ":"), UInt8(ascii: "}"), UInt8(ascii: "]"),
                UInt8(ascii: "\""):
                return
            default: at += 1
            }
        }
    }

    private mutating func skipText() throws(Unexpected) {
        at += 1
        while at < bytes.count {
            guard let base = bytes.baseAddress,
                let found = memchr(base + at, Int32(UInt8(ascii: "\"")), bytes.count - at)
            else { throw Unexpected() }
            let end = UnsafeRawPointer(found) - base
            // A quote behind an odd number of backslashes is a part of the text.
            var slashes = 0
            while end - 1 - slashes >= at, bytes[end - 1 - slashes] == UInt8(ascii: "\\") { slashes += 1 }
            at = end + 1
            if slashes % 2 == 0 { return }
        }
        throw Unexpected()
    }
}

private func begins(_ bytes: UnsafeRawBufferPointer, with prefix: StaticString) -> Bool {
    guard bytes.count >= prefix.utf8CodeUnitCount, let base = bytes.baseAddress else {
        return prefix.utf8CodeUnitCount == 0
    }
    return memcmp(base, prefix.utf8Start, prefix.utf8CodeUnitCount) == 0
}

extension ObjectMeta {
    /// Reads metadata without owners and finalizers, and with those annotations only whose key begins so.
    public init(json: inout JSONReader, annotations prefix: StaticString) throws(JSONReader.Unexpected) {
        self.init(name: "")
        var meta = self
        try json.object { (json, key) throws(JSONReader.Unexpected) in
            switch key {
            case "name": meta.name = try json.string() ?? ""
            case "namespace": meta.namespace = try json.string()
            case "uid": meta.uid = try json.string()
            case "resourceVersion": meta.resourceVersion = try json.string()
            case "generation": meta.generation = try json.null() ? nil : try json.integer()
            case "deletionTimestamp": meta.deletionTimestamp = try json.string()
            case "creationTimestamp": meta.creationTimestamp = try json.string()
            case "labels":
                var labels: [String: String] = [:]
                try json.object { (json, key) throws(JSONReader.Unexpected) in
                    labels[key.string] = try json.text().string
                }
                meta.labels = labels
            case "annotations":
                var annotations: [String: String] = [:]
                try json.object { (json, key) throws(JSONReader.Unexpected) in
                    if key.hasPrefix(prefix) {
                        annotations[key.string] = try json.text().string
                    } else {
                        try json.skip()
                    }
                }
                meta.annotations = annotations
            default: try json.skip()
            }
        }
        self = meta
    }
}

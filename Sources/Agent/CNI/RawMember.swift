/// Finds a member of the outermost object of a JSON text, as it is written: what a plugin hands on must not change by being read and
/// written again. The text must be valid JSON.
func rawMember(_ key: String, of text: [UInt8]) -> ArraySlice<UInt8>? {
    var scanner = RawScanner(text: text)
    return scanner.member(key)
}

/// The elements of a JSON array, each as it is written; nil when the text is no array. The text must be valid JSON.
func rawElements(of text: [UInt8]) -> [ArraySlice<UInt8>]? {
    var scanner = RawScanner(text: text)
    return scanner.elements()
}

private struct RawScanner {
    let text: [UInt8]
    var position = 0

    private static let quote = UInt8(ascii: "\"")
    private static let backslash = UInt8(ascii: "\\")

    mutating func member(_ key: String) -> ArraySlice<UInt8>? {
        skipSpace()
        guard take(UInt8(ascii: "{")) else { return nil }
        var found: ArraySlice<UInt8>?
        while true {
            skipSpace()
            guard position < text.count, text[position] == Self.quote, let name = string() else { return found }
            skipSpace()
            guard take(UInt8(ascii: ":")) else { return nil }
            skipSpace()
            guard let value = value() else { return nil }
            // The last of several counts, as for decoders.
            if name.elementsEqual(key.utf8) { found = value }
            skipSpace()
            guard take(UInt8(ascii: ",")) else { return found }
        }
    }

    mutating func elements() -> [ArraySlice<UInt8>]? {
        skipSpace()
        guard take(UInt8(ascii: "[")) else { return nil }
        skipSpace()
        if take(UInt8(ascii: "]")) { return [] }
        var found: [ArraySlice<UInt8>] = []
        while true {
            skipSpace()
            guard let value = value(), !value.isEmpty else { return nil }
            found.append(value)
            skipSpace()
            if take(UInt8(ascii: "]")) { return found }
            guard take(UInt8(ascii: ",")) else { return nil }
        }
    }

    private mutating func skipSpace() {
        while position < text.count, [0x20, 0x09, 0x0a, 0x0d].contains(text[position]) { position += 1 }
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard position < text.count, text[position] == byte else { return false }
        position += 1
        return true
    }

    /// What is between the quotes, still escaped.
    private mutating func string() -> ArraySlice<UInt8>? {
        guard take(Self.quote) else { return nil }
        let start = position
        while position < text.count {
            switch text[position] {
            case Self.backslash: position += 2
            case Self.quote:
                position += 1
                return text[start..<(position - 1)]
            default: position += 1
            }
        }
        return nil
    }

    private mutating func value() -> ArraySlice<UInt8>? {
        let start = position
        guard position < text.count else { return nil }
        switch text[position] {
        case Self.quote:
            guard string() != nil else { return nil }
        case UInt8(ascii: "{"), UInt8(ascii: "["):
            var depth = 0
            repeat {
                guard position < text.count else { return nil }
                switch text[position] {
                case Self.quote:
                    guard string() != nil else { return nil }
                    continue
                case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
                case UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
                default: break
                }
                position += 1
            } while depth > 0
        default:
            let end: [UInt8] = [0x20, 0x09, 0x0a, 0x0d, UInt8(ascii: ","), UInt8(ascii: "}"), UInt8(ascii: "]")]
            while position < text.count, !end.contains(text[position]) { position += 1 }
        }
        return text[start..<position]
    }
}

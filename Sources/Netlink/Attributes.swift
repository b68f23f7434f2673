/// One attribute of a netlink message: a type and bytes (the kernel's struct nlattr).
struct Attribute: Equatable {
    /// Without the flags for nesting and byte order.
    var type: UInt16
    var value: ArraySlice<UInt8>

    /// A number in host byte order, or nil when the attribute is shorter.
    func number<N: FixedWidthInteger & BitwiseCopyable>(as type: N.Type = N.self) -> N? {
        guard value.count >= MemoryLayout<N>.size else { return nil }
        return value.withUnsafeBytes { $0.loadUnaligned(as: N.self) }
    }

    /// Text up to its NUL.
    var text: String { String(decoding: value.prefix { $0 != 0 }, as: UTF8.self) }

    /// The attributes inside.
    var nested: [Attribute] { Attribute.list(value) }

    /// Splits bytes into attributes. Stops at the first that is cut off: what the kernel sends is whole.
    static func list(_ bytes: ArraySlice<UInt8>) -> [Attribute] {
        var list: [Attribute] = []
        var rest = bytes
        while rest.count >= 4 {
            let (length, type) = rest.withUnsafeBytes {
                (Int($0.loadUnaligned(as: UInt16.self)), $0.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
            }
            guard length >= 4, length <= rest.count else { break }
            list.append(
                Attribute(type: type & 0x3fff, value: rest[(rest.startIndex + 4)..<(rest.startIndex + length)]))
            rest = rest.dropFirst((length + 3) & ~3)
        }
        return list
    }
}

/// Builds the payload of a request: fixed structs first, then attributes, each aligned to 4 bytes.
struct Payload {
    private(set) var bytes: [UInt8] = []

    mutating func append<T: BitwiseCopyable>(_ value: T) {
        withUnsafeBytes(of: value) { bytes.append(contentsOf: $0) }
        align()
    }

    mutating func append(_ attribute: Attribute, nested: Bool = false) {
        append(UInt16(4 + attribute.value.count), attribute.type | (nested ? 0x8000 : 0))
        bytes.append(contentsOf: attribute.value)
        align()
    }

    mutating func attribute<T: BitwiseCopyable>(_ type: Int32, _ value: T) {
        append(Attribute(type: UInt16(type), value: withUnsafeBytes(of: value) { Array($0)[...] }))
    }

    /// A NUL-terminated string.
    mutating func attribute(_ type: Int32, text: String) {
        append(Attribute(type: UInt16(type), value: (Array(text.utf8) + [0])[...]))
    }

    /// An attribute whose presence is its value.
    mutating func flag(_ type: Int32) {
        append(Attribute(type: UInt16(type), value: []))
    }

    mutating func nested(_ type: Int32, _ build: (inout Payload) -> Void) {
        var inner = Payload()
        build(&inner)
        append(Attribute(type: UInt16(type), value: inner.bytes[...]), nested: true)
    }

    private mutating func append(_ length: UInt16, _ type: UInt16) {
        withUnsafeBytes(of: (length, type)) { bytes.append(contentsOf: $0) }
    }

    private mutating func align() {
        while bytes.count % 4 != 0 { bytes.append(0) }
    }
}

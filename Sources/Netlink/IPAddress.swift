internal import Glibc

/// An IP address of either family, kept as the 16 bytes that the kernel half uses: IPv6 as it is, IPv4 as ::ffff:a.b.c.d
/// (RFC 4291 section 2.5.5.2). Network byte order.
public struct IPAddress: Hashable, Sendable {
    /// High and low 8 bytes, as big-endian numbers.
    public let high: UInt64, low: UInt64

    /// Takes the high and low 8 bytes, as big-endian numbers.
    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// Takes 4 bytes (IPv4) or 16 (IPv6, or IPv4 as ::ffff:a.b.c.d), network byte order; nil for any other count.
    public init?(bytes: [UInt8]) {
        func number(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
        switch bytes.count {
        case 4: self.init(high: 0, low: Self.mappedPrefix | number(bytes[...]))
        case 16: self.init(high: number(bytes[..<8]), low: number(bytes[8...]))
        default: return nil
        }
    }

    /// Reads the text form, as strictly as inet_pton(3): dotted IPv4 without leading zeros, or IPv6 without a zone. An IPv4
    /// address in IPv6's clothes (::ffff:10.0.0.1) is refused: it would be the same value as 10.0.0.1.
    public init(_ text: some StringProtocol) throws(IPParseError) {
        let text = String(text)
        var bytes = [UInt8](repeating: 0, count: 16)
        // C would stop reading at a NUL, so nothing that has one reaches it.
        let isCString = !text.utf8.contains(0)
        if isCString, inet_pton(AF_INET, text, &bytes) == 1 {
            self.init(high: 0, low: Self.mappedPrefix | bytes[..<4].reduce(0) { $0 << 8 | UInt64($1) })
            return
        }
        guard isCString, inet_pton(AF_INET6, text, &bytes) == 1, let address = IPAddress(bytes: bytes) else {
            throw IPParseError("\"\(text)\" is not an IP address; expected one like 10.0.0.1 or fd00::1")
        }
        if address.isIPv4 { throw IPParseError("\"\(text)\" is an IPv4 address as IPv6; write \(address)") }
        self = address
    }

    /// Reads the text form from bytes, as strictly; nil for anything else. Dotted IPv4 without a detour.
    public init?(ascii text: UnsafeRawBufferPointer) {
        guard text.contains(UInt8(ascii: ".")), !text.contains(UInt8(ascii: ":")) else {
            try? self.init(String(decoding: text, as: UTF8.self))
            return
        }
        var address: UInt64 = 0
        var (part, digits, parts): (UInt64, Int, Int) = (0, 0, 1)
        for byte in text {
            if byte == UInt8(ascii: ".") {
                guard digits > 0, parts < 4 else { return nil }
                address = address << 8 | part
                (part, digits, parts) = (0, 0, parts + 1)
            } else {
                // No leading zeros, nothing above 255.
                guard byte >= 0x30, byte <= 0x39, digits == 0 || part > 0, part * 10 + UInt64(byte & 15) <= 255 else {
                    return nil
                }
                part = part * 10 + UInt64(byte & 15)
                digits += 1
            }
        }
        guard digits > 0, parts == 4 else { return nil }
        self.init(high: 0, low: Self.mappedPrefix | address << 8 | part)
    }

    /// Whether this is an IPv4 address.
    public var isIPv4: Bool { high == 0 && low >> 32 == Self.mappedPrefix >> 32 }

    /// Whether it is valid on its own link only: fe80::/10 or 169.254.0.0/16.
    public var isLinkLocal: Bool {
        isIPv4 ? low & 0xffff_0000 == 0xa9fe_0000 : high >> 54 == 0xfe80 >> 6
    }

    /// All 16 bytes, network byte order.
    public var bytes: [UInt8] {
        (0..<16).map { UInt8(truncatingIfNeeded: ($0 < 8 ? high : low) >> (56 - 8 * UInt64($0 & 7))) }
    }

    /// The 4 or 16 bytes that stand in a packet of its family, network byte order.
    public var packetBytes: [UInt8] { isIPv4 ? Array(bytes[12...]) : bytes }

    static let mappedPrefix: UInt64 = 0xffff_0000_0000
}

/// Why a text is no address or prefix.
public struct IPParseError: Error, Sendable, CustomStringConvertible {
    /// For people.
    public let description: String

    init(_ description: String) {
        self.description = description
    }
}

extension IPAddress: CustomStringConvertible {
    /// Dotted IPv4, or IPv6 as in RFC 5952.
    public var description: String {
        if isIPv4 { return "\(low >> 24 & 255).\(low >> 16 & 255).\(low >> 8 & 255).\(low & 255)" }
        let groups = stride(from: 0, to: 16, by: 2).map { UInt16(bytes[$0]) << 8 | UInt16(bytes[$0 + 1]) }
        func text(_ groups: ArraySlice<UInt16>) -> String {
            groups.map { String($0, radix: 16) }.joined(separator: ":")
        }
        guard let zeros = Self.longestZeroRun(groups) else { return text(groups[...]) }
        return "\(text(groups[..<zeros.lowerBound]))::\(text(groups[zeros.upperBound...]))"
    }

    /// The first of the longest runs of two and more groups that are 0 (RFC 5952 section 4.2).
    private static func longestZeroRun(_ groups: [UInt16]) -> Range<Int>? {
        var best: Range<Int>?
        var start = 0
        while start < groups.count {
            var end = start
            while end < groups.count, groups[end] == 0 { end += 1 }
            if end - start >= 2, end - start > best?.count ?? 0 { best = start..<end }
            start = max(end, start + 1)
        }
        return best
    }
}

extension IPAddress: Comparable {
    /// Numeric; all IPv4 addresses stand together.
    public static func < (left: IPAddress, right: IPAddress) -> Bool {
        (left.high, left.low) < (right.high, right.low)
    }
}

extension IPAddress: Codable {
    /// Reads the text form.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        do {
            self = try IPAddress(container.decode(String.self))
        } catch let error as IPParseError {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: error.description)
        }
    }

    /// Writes the text form.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

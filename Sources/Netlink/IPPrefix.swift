/// An address with a prefix length, such as 10.0.0.0/8. The length counts the 16-byte form's bits: 96 more for IPv4.
public struct IPPrefix: Hashable, Sendable {
    /// The first address, with all bits right of the prefix 0.
    public let address: IPAddress
    /// 0 to 128.
    public let length: UInt8

    /// Takes the 16-byte form's length; nil when it is over 128, or when a bit right of the prefix is 1.
    public init?(address: IPAddress, length: UInt8) {
        guard length <= 128, Self.first(address, length) == address else { return nil }
        self.address = address
        self.length = length
    }

    /// The network that an address is in. Takes the 16-byte form's length; nil when it is over 128.
    public init?(containing address: IPAddress, length: UInt8) {
        guard length <= 128 else { return nil }
        self.address = Self.first(address, length)
        self.length = length
    }

    /// Reads the text form, such as 10.0.0.0/8 or fd00::/8. Bits right of the prefix must be 0: a set one is a typing error
    /// more often than not.
    public init(_ text: some StringProtocol) throws(IPParseError) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2 else {
            throw IPParseError("\"\(text)\" is not an IP prefix; expected one like 10.0.0.0/8 or fd00::/8")
        }
        let address = try IPAddress(parts[0])
        let most = address.isIPv4 ? 32 : 128
        guard let bits = Self.decimal(parts[1]), bits <= most else {
            throw IPParseError("\"\(text)\" has no valid prefix length; expected 0 to \(most) after the slash")
        }
        let length = UInt8(bits + 128 - most)
        let first = Self.first(address, length)
        guard first == address else {
            throw IPParseError("\"\(text)\" has bits set right of its prefix; did you mean \(first)/\(bits)?")
        }
        self.address = address
        self.length = length
    }

    /// Whether an address lies in this prefix. IPv4 and IPv6 never mix: 0.0.0.0/0 is ::ffff:0:0/96.
    public func contains(_ other: IPAddress) -> Bool {
        Self.first(other, length) == address
    }

    /// Digits only, no leading zero.
    private static func decimal(_ text: some StringProtocol) -> Int? {
        guard (1...3).contains(text.utf8.count), text.utf8.allSatisfy({ (48...57).contains($0) }) else { return nil }
        if text.utf8.count > 1, text.utf8.first == 48 { return nil }
        return Int(text)
    }

    private static func first(_ address: IPAddress, _ length: UInt8) -> IPAddress {
        func mask(_ bits: Int) -> UInt64 { bits <= 0 ? 0 : bits >= 64 ? .max : .max << UInt64(64 - bits) }
        return IPAddress(high: address.high & mask(Int(length)), low: address.low & mask(Int(length) - 64))
    }
}

extension IPPrefix: CustomStringConvertible {
    /// As people write it: 10.0.0.0/8.
    public var description: String {
        "\(address)/\(address.isIPv4 && length >= 96 ? length - 96 : length)"
    }
}

extension IPPrefix: Codable {
    /// Reads the text form.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        do {
            self = try IPPrefix(container.decode(String.self))
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

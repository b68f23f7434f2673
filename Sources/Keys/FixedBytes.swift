/// Sixteen bytes that name something. People and files see them as 32 hexadecimal digits.
public protocol SixteenBytes: Hashable, Sendable, Codable, CustomStringConvertible {
    /// 16 bytes.
    var bytes: [UInt8] { get }

    /// Returns nil unless there are exactly 16 bytes.
    init?(bytes: [UInt8])
}

extension SixteenBytes {
    /// Reads 32 hexadecimal digits of either case; returns nil for anything else.
    public init?(hex: some StringProtocol) {
        guard let bytes = [UInt8](hex: hex) else { return nil }
        self.init(bytes: bytes)
    }

    /// 32 lower-case hexadecimal digits.
    public var description: String { bytes.hex }

    /// Reads 32 hexadecimal digits.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        guard let value = Self(hex: text) else {
            throw DecodingError.dataCorruptedError(
                in: container, debugDescription: "\"\(text)\" is not 16 bytes; expected 32 hexadecimal digits")
        }
        self = value
    }

    /// Writes 32 hexadecimal digits.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }

    /// Sixteen bytes of the operating system's random number generator.
    static func randomBytes() -> [UInt8] {
        var generator = SystemRandomNumberGenerator()
        return (0..<16).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
    }
}

/// Sixteen random bytes that a node draws whenever its counters or windows start afresh. Part of every key's derivation.
public struct Incarnation: SixteenBytes {
    /// 16 bytes, in the order that the derivation takes them.
    public let bytes: [UInt8]

    /// Returns nil unless there are exactly 16 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == 16 else { return nil }
        self.bytes = bytes
    }

    private init(drawn bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// Draws a new one.
    public static func random() -> Incarnation { Incarnation(drawn: randomBytes()) }
}

/// Sixteen random bytes that name a cluster. The salt of every key's derivation: the same DEK in two clusters makes different keys.
public struct ClusterID: SixteenBytes {
    /// 16 bytes, in the order that the derivation takes them.
    public let bytes: [UInt8]

    /// Returns nil unless there are exactly 16 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == 16 else { return nil }
        self.bytes = bytes
    }

    private init(drawn bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// Draws a new one.
    public static func random() -> ClusterID { ClusterID(drawn: randomBytes()) }
}

/// The 16-byte fingerprint of a key. Not secret: it tells keys apart without showing them.
public struct KeyID: SixteenBytes {
    /// 16 bytes.
    public let bytes: [UInt8]

    /// Returns nil unless there are exactly 16 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == 16 else { return nil }
        self.bytes = bytes
    }
}

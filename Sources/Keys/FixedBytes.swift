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
}

/// Sixteen bytes in place, not in an array somewhere: a large cluster has tens of thousands of them.
struct SixteenByteWords: Hashable, Sendable {
    private let high: UInt64
    private let low: UInt64

    init?(_ bytes: [UInt8]) {
        guard bytes.count == 16 else { return nil }
        (high, low) = bytes.withUnsafeBytes { bytes in
            (
                UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)),
                UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
            )
        }
    }

    private init(high: UInt64, low: UInt64) {
        (self.high, self.low) = (high, low)
    }

    /// Drawn from the operating system's random number generator.
    static func random() -> SixteenByteWords {
        var generator = SystemRandomNumberGenerator()
        return SixteenByteWords(high: generator.next(), low: generator.next())
    }

    var bytes: [UInt8] {
        [UInt8](unsafeUninitializedCapacity: 16) { buffer, count in
            let target = UnsafeMutableRawBufferPointer(buffer)
            target.storeBytes(of: high.bigEndian, as: UInt64.self)
            target.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
            count = 16
        }
    }
}

/// Sixteen random bytes that a node draws whenever its counters or windows start afresh. Part of every key's derivation.
public struct Incarnation: SixteenBytes {
    private let words: SixteenByteWords

    /// 16 bytes, in the order that the derivation takes them.
    public var bytes: [UInt8] { words.bytes }

    /// Returns nil unless there are exactly 16 bytes.
    public init?(bytes: [UInt8]) {
        guard let words = SixteenByteWords(bytes) else { return nil }
        self.words = words
    }

    private init(drawn words: SixteenByteWords) {
        self.words = words
    }

    /// Draws a new one.
    public static func random() -> Incarnation { Incarnation(drawn: .random()) }
}

/// Sixteen random bytes that name a cluster. The salt of every key's derivation: the same DEK in two clusters makes different keys.
public struct ClusterID: SixteenBytes {
    private let words: SixteenByteWords

    /// 16 bytes, in the order that the derivation takes them.
    public var bytes: [UInt8] { words.bytes }

    /// Returns nil unless there are exactly 16 bytes.
    public init?(bytes: [UInt8]) {
        guard let words = SixteenByteWords(bytes) else { return nil }
        self.words = words
    }

    private init(drawn words: SixteenByteWords) {
        self.words = words
    }

    /// Draws a new one.
    public static func random() -> ClusterID { ClusterID(drawn: .random()) }
}

/// The 16-byte fingerprint of a key. Not secret: it tells keys apart without showing them.
public struct KeyID: SixteenBytes {
    private let words: SixteenByteWords

    /// 16 bytes.
    public var bytes: [UInt8] { words.bytes }

    /// Returns nil unless there are exactly 16 bytes.
    public init?(bytes: [UInt8]) {
        guard let words = SixteenByteWords(bytes) else { return nil }
        self.words = words
    }
}

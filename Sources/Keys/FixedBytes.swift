/// Sixteen random bytes that a node draws whenever its counters or windows start afresh. Part of every key's derivation.
public struct Incarnation: Hashable, Sendable {
    /// 16 bytes, in the order that the derivation takes them.
    public let bytes: [UInt8]

    /// Returns nil unless there are exactly 16 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == 16 else { return nil }
        self.bytes = bytes
    }
}

/// The 16-byte fingerprint of a key. Not secret: it tells keys apart without showing them.
public struct KeyID: Hashable, Sendable {
    /// 16 bytes.
    public let bytes: [UInt8]

    /// Returns nil unless there are exactly 16 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == 16 else { return nil }
        self.bytes = bytes
    }
}

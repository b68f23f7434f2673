/// An IP address of either family, kept as the 16 bytes that the kernel half uses: IPv6 as it is, IPv4 as ::ffff:a.b.c.d.
/// Network byte order.
public struct IPAddress: Hashable, Sendable {
    /// High and low 8 bytes, as big-endian numbers.
    let high: UInt64, low: UInt64

    init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }
}

/// An address with a prefix length, such as 10.0.0.0/8. The length counts the 16-byte form's bits: 96 more for IPv4.
public struct IPPrefix: Hashable, Sendable {
    /// The first address, with all bits right of the prefix 0.
    public let address: IPAddress
    /// 0 to 128.
    public let length: UInt8
}

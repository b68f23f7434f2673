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

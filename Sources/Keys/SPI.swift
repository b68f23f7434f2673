/// The security parameter index: four bytes in every encrypted packet that tell the receiver which key it needs.
///
/// docs/wire-format.md, "Key, SPI, nonce": parity of the epoch (1 bit), a byte of the derivation less its top bit (7 bits), and the
/// sender's node id (24 bits).
public enum SPI {
    /// Puts an SPI together. Host byte order; it is big-endian on the wire.
    public static func make(epoch: Epoch, derived: UInt8, sender: NodeID) -> UInt32 {
        (epoch & 1) << 31 | UInt32(derived & 0x7f) << 24 | (sender & 0xff_ffff)
    }

    /// The sender's node id in an SPI of host byte order.
    public static func sender(of spi: UInt32) -> NodeID { spi & 0xff_ffff }

    /// The parity (epoch & 1) in an SPI of host byte order.
    public static func parity(of spi: UInt32) -> UInt32 { spi >> 31 }
}

/// What makes a nonce unique under its key: who sent (lane) and the how-manieth packet of the lane it is (counter).
public struct IV: Sendable, Hashable {
    /// The last counter of a lane; sending stops there.
    public static let lastCounter: UInt64 = (1 << 48) - 1

    /// Which sending CPU.
    public var lane: UInt16
    /// 1 to `lastCounter`.
    public var counter: UInt64

    /// Returns nil when the counter is 0 or does not fit into 48 bits.
    public init?(lane: UInt16, counter: UInt64) {
        guard counter >= 1, counter <= Self.lastCounter else { return nil }
        self.lane = lane
        self.counter = counter
    }

    /// 8 bytes as on the wire: lane 16 bits, counter 48 bits, big-endian.
    public var bytes: [UInt8] {
        (UInt64(lane) << 48 | counter).bigEndianBytes
    }

    /// The 12-byte nonce of AES-GCM: SPI, then IV.
    public func nonce(spi: UInt32) -> [UInt8] {
        spi.bigEndianBytes + bytes
    }
}

extension FixedWidthInteger {
    /// Most significant byte first.
    var bigEndianBytes: [UInt8] {
        stride(from: Self.bitWidth - 8, through: 0, by: -8).map { UInt8(truncatingIfNeeded: self >> $0) }
    }
}

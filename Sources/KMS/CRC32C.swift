/// CRC-32C (Castagnoli), as Google Cloud KMS checks every field with it.
enum CRC32C {
    private static let table: [UInt32] = (0..<256).map { byte in
        (0..<8).reduce(UInt32(byte)) { crc, _ in crc & 1 == 1 ? crc >> 1 ^ 0x82f6_3b78 : crc >> 1 }
    }

    /// Of bytes that are no secret.
    static func checksum(_ bytes: some Sequence<UInt8>) -> UInt32 {
        ~bytes.reduce(~0) { crc, byte in crc >> 8 ^ table[Int((crc ^ UInt32(byte)) & 0xff)] }
    }

    /// Of a secret: bit by bit, because a table would be indexed by it.
    static func checksum(secret bytes: UnsafeRawBufferPointer) -> UInt32 {
        ~bytes.reduce(~0) { crc, byte in
            (0..<8).reduce(crc ^ UInt32(byte)) { crc, _ in crc >> 1 ^ (0x82f6_3b78 & (0 &- (crc & 1))) }
        }
    }
}

/// What a wrapped DEK is bound to. A blob that was made for one context does not unwrap for another.
public struct KeyContext: Sendable, Hashable {
    /// 16 bytes.
    public let clusterID: [UInt8]
    /// From 1.
    public let epoch: UInt32
    /// What the DEK is for: 1 to 32 of a-z, 0-9 and '-'.
    public let purpose: String

    /// The purpose of DEKs that packets' keys are derived from.
    public static let traffic = "traffic"

    /// Returns nil unless the cluster id has 16 bytes, the epoch is at least 1 and the purpose is well-formed.
    public init?(clusterID: [UInt8], epoch: UInt32, purpose: String = KeyContext.traffic) {
        guard clusterID.count == 16, epoch >= 1, (1...32).contains(purpose.utf8.count),
            purpose.utf8.allSatisfy({ (0x61...0x7a).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2d })
        else { return nil }
        self.clusterID = clusterID
        self.epoch = epoch
        self.purpose = purpose
    }

    /// The context as bytes: AAD (local, Google, OpenBao) and HKDF info (Azure). Every field has a fixed place or its length
    /// before it, so that no two contexts have the same bytes.
    ///
    ///     "xdp-encryptor/1 dek" 19 | cluster id 16 | epoch 4, big-endian | length of purpose 1 | purpose
    public var canonicalBytes: [UInt8] {
        var bytes = Array("xdp-encryptor/1 dek".utf8)
        bytes += clusterID
        bytes += bigEndian(epoch)
        bytes.append(UInt8(purpose.utf8.count))
        bytes += purpose.utf8
        return bytes
    }

    /// The context as AWS takes it: visible in CloudTrail, and usable in conditions of key policies.
    public var encryptionContext: [String: String] {
        [
            "xdp-encryptor/cluster": hex(clusterID), "xdp-encryptor/epoch": String(epoch),
            "xdp-encryptor/purpose": purpose,
        ]
    }
}

extension KeyContext: CustomStringConvertible {
    /// For messages.
    public var description: String { "cluster \(hex(clusterID)), epoch \(epoch), purpose \(purpose)" }
}

internal import Crypto
public import Secrets

/// A node as the derivation sees it.
public struct NodeIdentity: Sendable, Hashable {
    /// The node's number, 1 to 2^24 - 1.
    public var id: NodeID
    /// Changes whenever the node's counters or windows start afresh.
    public var incarnation: Incarnation

    /// Makes an identity of its parts.
    public init(id: NodeID, incarnation: Incarnation) {
        self.id = id
        self.incarnation = incarnation
    }
}

/// Everything but the DEK that goes into a traffic key: two that are equal make the same key.
public struct KeyContext: Sendable, Hashable {
    /// The salt.
    public var cluster: ClusterID
    /// Whose DEK it is.
    public var epoch: Epoch
    /// The node that encrypts.
    public var sender: NodeIdentity
    /// The node that decrypts.
    public var receiver: NodeIdentity

    /// Makes a context of its parts.
    public init(cluster: ClusterID, epoch: Epoch, sender: NodeIdentity, receiver: NodeIdentity) {
        self.cluster = cluster
        self.epoch = epoch
        self.sender = sender
        self.receiver = receiver
    }

    /// 44 bytes: what follows the label in HKDF's info.
    var encoded: [UInt8] {
        epoch.bigEndianBytes + sender.id.bigEndianBytes + receiver.id.bigEndianBytes + sender.incarnation.bytes
            + receiver.incarnation.bytes
    }
}

/// A failed derivation.
public struct KeyError: Error, Sendable, CustomStringConvertible {
    /// What happened and what was expected; never a secret.
    public let description: String
}

/// The key for one direction between two nodes in one epoch: docs/wire-format.md, "Key, SPI, nonce".
public struct TrafficKey: Sendable {
    /// How many bytes a DEK has, and a traffic key too.
    public static let byteCount = 32

    /// Host byte order.
    public let spi: UInt32
    /// The key's fingerprint.
    public let keyID: KeyID
    /// 32 bytes, AES-256-GCM.
    public let key: SecretBytes

    /// Derives the traffic key of a context from a DEK of 32 bytes. Throws when the DEK has another length, or a node id is 0 or
    /// does not fit into 24 bits.
    public static func derive(dek: SecretBytes, context: KeyContext) throws(KeyError) -> TrafficKey {
        let out = try expand(dek: dek, context: context)
        return out.withUnsafeBytes { bytes in
            let key = UnsafeRawBufferPointer(rebasing: bytes.prefix(byteCount))
            return TrafficKey(
                spi: SPI.make(epoch: context.epoch, derived: bytes[byteCount], sender: context.sender.id),
                keyID: fingerprint(of: key), key: SecretBytes(copying: key))
        }
    }

    /// SPI and fingerprint of the key that `derive` makes of the same input, without keeping the key.
    public static func names(dek: SecretBytes, context: KeyContext) throws(KeyError) -> TrafficKeyNames {
        let out = try expand(dek: dek, context: context)
        return out.withUnsafeBytes { bytes in
            TrafficKeyNames(
                spi: SPI.make(epoch: context.epoch, derived: bytes[byteCount], sender: context.sender.id),
                keyID: fingerprint(of: UnsafeRawBufferPointer(rebasing: bytes.prefix(byteCount))))
        }
    }

    /// Half of HMAC-SHA256 under the key: docs/wire-format.md, "Keys". Never on the wire; it only tells whether the key in the
    /// kernel is the one that is wanted.
    private static func fingerprint(of key: UnsafeRawBufferPointer) -> KeyID {
        let code = HMAC<SHA256>.authenticationCode(
            for: Array("xdp-encryptor/1 key id".utf8), using: SymmetricKey(data: key))
        guard let id = KeyID(bytes: Array(code.prefix(16))) else { preconditionFailure("SHA-256 has 32 bytes") }
        return id
    }

    /// 33 bytes: the key and what the SPI takes. `SymmetricKey` zeroes its bytes when it is released.
    private static func expand(dek: SecretBytes, context: KeyContext) throws(KeyError) -> SymmetricKey {
        guard dek.count == byteCount else {
            throw KeyError(description: "the DEK of epoch \(context.epoch) has \(dek.count) bytes; expected \(byteCount)")
        }
        for node in [context.sender, context.receiver] where !nodeIDs.contains(node.id) {
            throw KeyError(description: "node id \(node.id) is not in \(nodeIDs.lowerBound) to \(nodeIDs.upperBound)")
        }
        return HKDF<SHA256>.deriveKey(
            inputKeyMaterial: dek.withUnsafeBytes { SymmetricKey(data: $0) }, salt: context.cluster.bytes,
            info: Array("xdp-encryptor/1 traffic".utf8) + context.encoded, outputByteCount: byteCount + 1)
    }
}

/// What tells a traffic key from others without showing it.
public struct TrafficKeyNames: Sendable, Hashable {
    /// Host byte order.
    public let spi: UInt32
    /// The key's fingerprint.
    public let keyID: KeyID
}

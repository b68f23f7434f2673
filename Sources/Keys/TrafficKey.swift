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
public struct TrafficContext: Sendable, Hashable {
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
    public static func derive(dek: SecretBytes, context: TrafficContext) throws(KeyError) -> TrafficKey {
        let out = try expand(.traffic, dek: dek, context: context)
        let keyID = try fingerprint(dek: dek, context: context)
        return out.withUnsafeBytes { bytes in
            TrafficKey(
                spi: SPI.make(epoch: context.epoch, derived: bytes[byteCount], sender: context.sender.id),
                keyID: keyID,
                key: SecretBytes(copying: UnsafeRawBufferPointer(rebasing: bytes.prefix(byteCount))))
        }
    }

    /// The fingerprint of the key that `derive` makes of the same input: docs/wire-format.md, "Keys".
    ///
    /// It is never on the wire and no peer needs to agree on it: it only tells a node whether the key in the kernel is the one
    /// that is wanted. HKDF's outputs under two labels are independent, so it says nothing about the key.
    public static func fingerprint(dek: SecretBytes, context: TrafficContext) throws(KeyError) -> KeyID {
        let out = try expand(.keyID, dek: dek, context: context)
        guard let id = KeyID(bytes: out.withUnsafeBytes { Array($0) }) else {
            preconditionFailure("HKDF makes as many bytes as it is asked for")
        }
        return id
    }

    /// What HKDF is asked for: the first part of `info`.
    private enum Label: String {
        case traffic = "xdp-encryptor/1 traffic"
        case keyID = "xdp-encryptor/1 key id"

        /// 33: the key and what the SPI takes.
        var outputByteCount: Int { self == .traffic ? byteCount + 1 : 16 }
    }

    /// `SymmetricKey` zeroes its bytes when it is released.
    private static func expand(
        _ label: Label, dek: SecretBytes, context: TrafficContext
    ) throws(KeyError) -> SymmetricKey {
        guard dek.count == byteCount else {
            throw KeyError(
                description: "the DEK of epoch \(context.epoch) has \(dek.count) bytes; expected \(byteCount)")
        }
        for node in [context.sender, context.receiver] where !nodeIDs.contains(node.id) {
            throw KeyError(description: "node id \(node.id) is not in \(nodeIDs.lowerBound) to \(nodeIDs.upperBound)")
        }
        return HKDF<SHA256>.deriveKey(
            inputKeyMaterial: dek.withUnsafeBytes { SymmetricKey(data: $0) }, salt: context.cluster.bytes,
            info: Array(label.rawValue.utf8) + context.encoded, outputByteCount: label.outputByteCount)
    }
}

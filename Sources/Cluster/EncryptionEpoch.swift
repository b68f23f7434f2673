public import Keys

/// A data key and its time: `epochs/<number>.json`. Written once, by who opens the epoch; the DEK is wrapped, never in clear.
public struct EncryptionEpoch: Sendable, Hashable, Codable {
    /// From 1. Consecutive: two epochs that are live at a time must differ in parity.
    public var number: Epoch
    /// The wrapped DEK with who can unwrap it, base64.
    public var wrappedDEK: Base64
    /// Who wrapped it: local, aws, gcp, azure, openbao. For people; the authority is inside of `wrappedDEK`.
    public var provider: String
    /// The KEK, as the provider names it. For people.
    public var kekID: String
    /// The KEK's version, as the provider names it. For people.
    public var kekVersion: String
    /// Not used before.
    public var notBefore: Timestamp
    /// Its keys are removed then, whatever else happens.
    public var notAfter: Timestamp
    /// Until then senders wait for all nodes to hold the keys.
    public var acknowledgeBy: Timestamp

    /// Makes an epoch.
    public init(
        number: Epoch, wrappedDEK: Base64, provider: String, kekID: String, kekVersion: String, notBefore: Timestamp,
        notAfter: Timestamp, acknowledgeBy: Timestamp
    ) {
        self.number = number
        self.wrappedDEK = wrappedDEK
        self.provider = provider
        self.kekID = kekID
        self.kekVersion = kekVersion
        self.notBefore = notBefore
        self.notAfter = notAfter
        self.acknowledgeBy = acknowledgeBy
    }
}

extension EncryptionEpoch: Checked {
    /// Throws for the first value that cannot be.
    public func check() throws(InvalidValue) {
        guard number >= 1 else { throw InvalidValue("number", "0 means \"none\"; expected a number from 1") }
        guard !wrappedDEK.bytes.isEmpty else {
            throw InvalidValue("wrappedDEK", "is empty; expected a wrapped DEK in base64")
        }
        guard notAfter > notBefore else {
            throw InvalidValue("notAfter", "\(notAfter) is not later than notBefore, \(notBefore)")
        }
    }
}

/// Bytes that files hold as base64 (RFC 4648 section 4, with padding).
public struct Base64: Sendable, Hashable, Codable {
    /// The bytes.
    public var bytes: [UInt8]

    /// Wraps bytes.
    public init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// Reads base64.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard let bytes = Self.decode(try container.decode(String.self)) else {
            throw DecodingError.dataCorruptedError(
                in: container, debugDescription: "is not base64; expected A-Z a-z 0-9 + / and padding")
        }
        self.bytes = bytes
    }

    /// Writes base64.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(Self.encode(bytes))
    }
}

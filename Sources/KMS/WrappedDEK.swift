/// A DEK as it may be stored anywhere: wrapped by a KEK, with the names of who can unwrap it before it.
///
///     version 1 (= 1) | provider 1 | length 2 | KEK id | length 2 | KEK version | length 2 | wrapped bytes
///
/// Lengths are big-endian; id and version are printable ASCII. Nothing may follow. The names are labels, not authority:
/// a node unwraps with the KEK of its own configuration only, and refuses a blob that names another.
public struct WrappedDEK: Sendable, Hashable {
    /// Who wrapped it.
    public let provider: KMSProvider
    /// The KEK, as the provider names it. 1 to 512 bytes.
    public let kekID: String
    /// The KEK's version, as the provider names it. 1 to 256 bytes.
    public let kekVersion: String
    /// What the provider gave us. 1 to 6,144 bytes.
    public let wrapped: [UInt8]

    private static let formatVersion: UInt8 = 1
    private static let maximumID = 512
    private static let maximumVersion = 256
    private static let maximumWrapped = 6144

    /// Throws `garbage` when a part is empty, too long or not printable: it came from the provider.
    public init(provider: KMSProvider, kekID: String, kekVersion: String, wrapped: [UInt8]) throws(KMSError) {
        if let problem = Self.problem(id: Array(kekID.utf8), version: Array(kekVersion.utf8), wrapped: wrapped) {
            throw KMSError(.garbage, provider, "the KMS answered with \(problem)")
        }
        self.provider = provider
        self.kekID = kekID
        self.kekVersion = kekVersion
        self.wrapped = wrapped
    }

    /// Decodes a stored blob; `expected` is only named in the error.
    public init(decoding bytes: some Collection<UInt8>, expected: KMSProvider) throws(KMSError) {
        func malformed(_ why: String) -> KMSError {
            KMSError(.malformedBlob, expected, "the wrapped DEK is malformed (\(why)); restore it, or open a new epoch")
        }
        var rest = bytes[...]
        func take(_ count: Int, _ what: String) throws(KMSError) -> [UInt8] {
            guard rest.count >= count else { throw malformed("it ends within the \(what)") }
            defer { rest = rest.dropFirst(count) }
            return Array(rest.prefix(count))
        }
        func field(_ what: String) throws(KMSError) -> [UInt8] {
            let length = try take(2, "length of the \(what)")
            return try take(Int(length[0]) << 8 | Int(length[1]), what)
        }
        let head = try take(2, "header")
        guard head[0] == Self.formatVersion else {
            throw malformed("format version \(head[0]); this program knows version \(Self.formatVersion)")
        }
        guard let provider = KMSProvider(code: head[1]) else { throw malformed("unknown provider \(head[1])") }
        let id = try field("KEK id")
        let version = try field("KEK version")
        wrapped = try field("wrapped bytes")
        guard rest.isEmpty else { throw malformed("\(rest.count) bytes follow its end") }
        if let problem = Self.problem(id: id, version: version, wrapped: wrapped) { throw malformed(problem) }
        self.provider = provider
        kekID = String(decoding: id, as: UTF8.self)
        kekVersion = String(decoding: version, as: UTF8.self)
    }

    /// The bytes to store.
    public var encoded: [UInt8] {
        var bytes = [Self.formatVersion, provider.code]
        for field in [Array(kekID.utf8), Array(kekVersion.utf8), wrapped] {
            bytes += [UInt8(field.count >> 8), UInt8(field.count & 0xff)]
            bytes += field
        }
        return bytes
    }

    private static func problem(id: [UInt8], version: [UInt8], wrapped: [UInt8]) -> String? {
        func isPrintable(_ bytes: [UInt8]) -> Bool { bytes.allSatisfy { (0x21...0x7e).contains($0) } }
        guard (1...maximumID).contains(id.count), isPrintable(id) else {
            return "a KEK id that is empty, too long or not ASCII"
        }
        guard (1...maximumVersion).contains(version.count), isPrintable(version) else {
            return "a KEK version that is empty, too long or not ASCII"
        }
        guard (1...maximumWrapped).contains(wrapped.count) else { return "\(wrapped.count) wrapped bytes" }
        return nil
    }
}

extension KeyManagementService {
    /// Refuses a blob of another provider or KEK before anybody is asked about it.
    func requireOurs(_ blob: WrappedDEK) throws(KMSError) {
        guard blob.provider == provider else {
            throw KMSError(
                .wrongKEK, provider,
                "the DEK was wrapped by provider \"\(blob.provider.rawValue)\", and KMS_PROVIDER is \"\(provider.rawValue)\"; configure the provider that wrapped it, or open a new epoch"
            )
        }
        guard blob.kekID == kekID else {
            throw KMSError(
                .wrongKEK, provider,
                "the DEK was wrapped with KEK \"\(printable(blob.kekID))\", and \"\(kekID)\" is configured; correct the configuration, or open a new epoch"
            )
        }
    }

    /// The DEK has the one size that it can have.
    func requireDEKSize(_ count: Int) throws(KMSError) {
        guard count == DEK.size else {
            throw KMSError(
                .notAuthentic, provider, "unwrapping gave \(count) bytes instead of \(DEK.size): this is no DEK of ours"
            )
        }
    }
}

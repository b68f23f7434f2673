internal import CSys
internal import Crypto
internal import FoundationEssentials
public import Secrets

/// Provider `local`: KEKs in a file on this machine, for one machine, tests, and clusters without a KMS.
///
/// The file holds one KEK a line, 64 hexadecimal digits each. The first wraps; all of them unwrap. To rotate, put a new line
/// before the others, on every node; remove an old one when its epochs are gone. The file is read again for every call, so a
/// rotation needs no restart and no KEK stays in memory.
public struct LocalKMS: KeyManagementService {
    /// Where the KEKs are.
    public let kekFile: String

    /// Names the file; it is opened when it is needed.
    public init(kekFile: String) {
        self.kekFile = kekFile
    }

    /// `local`.
    public var provider: KMSProvider { .local }
    /// `file`: the path may differ from node to node, and the version tells KEKs apart.
    public var kekID: String { "file" }

    /// Draws a DEK and wraps it with AES-256-GCM. Wrapped bytes: nonce 12 (random) | ciphertext 32 | tag 16; AAD is the
    /// context's canonical bytes.
    public func generateDEK(for context: KeyContext) async throws(KMSError) -> WrappedDEK { try sealed(for: context) }

    func sealed(for context: KeyContext) throws(KMSError) -> WrappedDEK {
        let kek = try KEKFile.read(kekFile).current
        defer { overwriteResidue() }
        let dek = SecretBytes(random: DEK.size)
        let wrapped: [UInt8]
        do {
            let box = try dek.withUnsafeBytes { plaintext in
                try AES.GCM.seal(plaintext, using: kek.key, authenticating: context.canonicalBytes)
            }
            wrapped = Array(box.nonce) + box.ciphertext + box.tag
        } catch {
            throw KMSError(.misconfigured, .local, "wrapping failed: \(error)")
        }
        return try WrappedDEK(provider: .local, kekID: kekID, kekVersion: kek.version, wrapped: wrapped)
    }

    /// Opens what `generateDEK` sealed.
    public func unwrap(_ blob: WrappedDEK, for context: KeyContext) async throws(KMSError) -> SecretBytes {
        try opened(blob, for: context)
    }

    func opened(_ blob: WrappedDEK, for context: KeyContext) throws(KMSError) -> SecretBytes {
        try requireOurs(blob)
        let file = try KEKFile.read(kekFile)
        guard let kek = file.keks.first(where: { $0.version == blob.kekVersion }) else {
            throw KMSError(
                .wrongKEK, .local,
                "the DEK was wrapped with KEK \(printable(blob.kekVersion)), and \(kekFile) holds \(file.keks.map(\.version).joined(separator: ", ")); use the cluster's KEK file, or open a new epoch"
            )
        }
        guard blob.wrapped.count == 12 + DEK.size + 16 else {
            throw KMSError(
                .malformedBlob, .local, "\(blob.wrapped.count) wrapped bytes instead of \(12 + DEK.size + 16)")
        }
        defer { overwriteResidue() }
        var plaintext: Data
        do {
            let box = try AES.GCM.SealedBox(combined: blob.wrapped)
            plaintext = try AES.GCM.open(box, using: kek.key, authenticating: context.canonicalBytes)
        } catch {
            throw KMSError(
                .notAuthentic, .local,
                "the wrapped DEK was changed, or made for another context than \(context); restore it, or open a new epoch"
            )
        }
        defer { plaintext.withUnsafeMutableBytes { wipe($0) } }
        return plaintext.withUnsafeBytes { SecretBytes(copying: $0) }
    }

    /// AES-GCM of swift-crypto frees its key schedule, whose first half is the key itself, without zeroing it. The next one gets the
    /// same piece of the heap: it is made here, of a key of zeros. And what functions have left on the stack goes. (A test searches the
    /// memory of a running daemon for KEKs.)
    private func overwriteResidue() {
        let zeros = SymmetricKey(data: [UInt8](repeating: 0, count: DEK.size))
        _ = try? AES.GCM.seal([UInt8](), using: zeros)
        csys_scrub_stack()
    }

    /// The fingerprint of the file's first KEK.
    public func currentKEKVersion() async throws(KMSError) -> String {
        try KEKFile.read(kekFile).current.version
    }

    /// The file can be read and is in order.
    public func checkHealth() async throws(KMSError) {
        _ = try KEKFile.read(kekFile)
    }
}

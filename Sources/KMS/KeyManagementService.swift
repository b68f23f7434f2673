public import Keys
public import Secrets

/// Who holds the KEK, and what can be asked of it. Five providers implement it: `LocalKMS`, `AWSKMS`, `GoogleKMS`,
/// `AzureKeyVault` and `TransitKMS` (OpenBao and Vault).
///
/// Calls may be made from any task at any time. They retry nothing: `DEKLifecycle` decides when to ask again.
public protocol KeyManagementService: Sendable {
    /// Which provider this is.
    var provider: KMSProvider { get }
    /// The KEK that new DEKs are wrapped with, as the provider names it.
    var kekID: String { get }

    /// Makes a new DEK, wrapped and bound to the context. Where the provider can, the plaintext never leaves it; elsewhere it
    /// exists in secret memory for the time of the call.
    ///
    /// Needs the permission of the one who makes epochs, not of the nodes.
    func generateDEK(for context: KeyContext) async throws(KMSError) -> WrappedDEK

    /// The DEK of 32 bytes inside of a blob that was made for exactly this context.
    ///
    /// Refuses blobs of another provider or KEK than the configured one (`wrongKEK`), and blobs that were made for another
    /// context or were changed (`notAuthentic`).
    func unwrap(_ blob: WrappedDEK, for context: KeyContext) async throws(KMSError) -> SecretBytes

    /// The version of the KEK that the provider would wrap with now. A change of it asks for a new epoch. Opaque: compare for
    /// equality only.
    func currentKEKVersion() async throws(KMSError) -> String

    /// Returns when the provider answers, knows us, and has the KEK in a state in which it can unwrap. Costs one cheap call.
    func checkHealth() async throws(KMSError)
}

/// The providers, as `KMS_PROVIDER` names them.
public enum KMSProvider: String, Sendable, Hashable, Choice {
    /// A KEK in a file.
    case local
    /// AWS Key Management Service.
    case aws
    /// Google Cloud KMS.
    case gcp
    /// Azure Key Vault and Managed HSM.
    case azure
    /// OpenBao's, and Vault's, Transit secrets engine.
    case openbao

    /// Its number in a wrapped blob.
    var code: UInt8 {
        switch self {
        case .local: 1
        case .aws: 2
        case .gcp: 3
        case .azure: 4
        case .openbao: 5
        }
    }

    init?(code: UInt8) {
        guard let match = Self.allCases.first(where: { $0.code == code }) else { return nil }
        self = match
    }
}

/// Counts of bytes that every part agrees on.
public enum DEK {
    /// A DEK has 32 bytes.
    public static let size = 32
}

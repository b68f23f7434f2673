public import CloudIdentity
internal import Crypto
internal import FoundationEssentials
public import Keys
public import Secrets
internal import Synchronization

/// Provider `azure`: Azure Key Vault (RSA keys) and Managed HSM (RSA or AES keys).
///
/// Key Vault wraps without associated data. So what it wraps is a random seed; HKDF-SHA256 with the context as info makes the DEK of it
/// and a commitment, which is stored beside the wrapped seed. A blob under another context gives another commitment and is refused.
///
///     wrapped bytes = commitment 32 | wrapped seed
///     DEK 32 | commitment 32 = HKDF-SHA256(ikm = seed 32, salt = "", info = canonical bytes of the context)
///
/// With an RSA key anybody who has the public half can wrap a seed of his own. Who may write epochs is therefore a matter of the
/// cluster's access control; on Managed HSM, A256KW does not have this limit.
/// Nodes need `keys/unwrapKey`; whoever makes epochs needs `keys/wrapKey` and `keys/get`.
public final class AzureKeyVault: KeyManagementService {
    /// How the vault wraps.
    public enum Algorithm: String, Sendable, Hashable, Choice {
        /// RSA keys.
        case rsaOAEP256 = "RSA-OAEP-256"
        /// AES keys of Managed HSM.
        case a256KW = "A256KW"
    }

    /// Makes the source of tokens once the vault has said for which resource.
    public typealias TokenSourceFactory =
        @Sendable (_ resource: String) throws(IdentityError) -> any CredentialSource<BearerToken>

    /// `azure`.
    public var provider: KMSProvider { .azure }
    /// `https://VAULT/keys/NAME`.
    public let kekID: String

    private static let apiVersion = "7.4"
    private static let commitmentSize = 32

    private let vault: HTTPEndpoint
    private let keyName: String
    private let algorithm: Algorithm
    private let allowedResource: String?
    private let channel: KMSChannel
    private let time: TimeSource
    private let makeSource: TokenSourceFactory
    private let cache = Mutex<CredentialCache<BearerToken>?>(nil)

    /// - Parameters:
    ///   - vault: `https://NAME.vault.azure.net`, or a Managed HSM.
    ///   - allowedResource: The resource that tokens may be asked for, where the vault's host is not below it (private names);
    ///     nil to accept only a resource whose host is a parent of the vault's.
    ///   - makeSource: Makes the source of tokens for a resource.
    public init(
        vault: HTTPEndpoint, keyName: String, algorithm: Algorithm, allowedResource: String?, http: any HTTPService,
        time: TimeSource = .system, timeout: Duration = .seconds(5), makeSource: @escaping TokenSourceFactory
    ) throws(KMSError) {
        guard (1...127).contains(keyName.utf8.count), keyName.utf8.allSatisfy(Self.isNameByte) else {
            throw KMSError(
                .misconfigured, .azure,
                "kms.azure.key is \"\(printable(keyName))\"; expected the name of a key: letters, digits and '-'")
        }
        guard vault.basePath.isEmpty else {
            throw KMSError(.misconfigured, .azure, "kms.azure.vault has a path; expected https://NAME.vault.azure.net")
        }
        self.vault = vault
        self.keyName = keyName
        self.algorithm = algorithm
        self.allowedResource = allowedResource
        self.time = time
        self.makeSource = makeSource
        kekID = "\(vault.origin)/keys/\(keyName)"
        channel = KMSChannel(provider: .azure, http: http, timeout: timeout, time: time)
    }

    /// Draws a seed and has it wrapped by the newest version.
    public func generateDEK(for context: KeyContext) async throws(KMSError) -> WrappedDEK {
        let version = try await currentKEKVersion()
        let seed = SecretBytes(random: 32)
        let (_, commitment) = derive(seed, context)
        let answer = try await call("POST", "/keys/\(keyName)/\(version)/wrapkey", operation(.base64(seed, .url)))
        guard let wrapped = answer["value"]?.bytes(.url),
            answer["kid"]?.string.flatMap({ versionName(of: $0) }) == version
        else {
            throw KMSError(.garbage, .azure, "wrapKey answered without a value of our key")
        }
        return try WrappedDEK(
            provider: .azure, kekID: kekID, kekVersion: version,
            wrapped: commitment.withUnsafeBytes { Array($0) } + wrapped)
    }

    /// Has the seed unwrapped by the version that wrapped it, and derives the DEK of it.
    public func unwrap(_ blob: WrappedDEK, for context: KeyContext) async throws(KMSError) -> SecretBytes {
        try requireOurs(blob)
        guard (1...64).contains(blob.kekVersion.utf8.count), blob.kekVersion.utf8.allSatisfy(Self.isNameByte),
            blob.wrapped.count > Self.commitmentSize
        else {
            throw KMSError(
                .malformedBlob, .azure, "the wrapped DEK names no version of a key, or is too short; open a new epoch")
        }
        let stored = blob.wrapped.prefix(Self.commitmentSize).withUnsafeBytes { SecretBytes(copying: $0) }
        let answer = try await call(
            "POST", "/keys/\(keyName)/\(blob.kekVersion)/unwrapkey",
            operation(.base64(Array(blob.wrapped.dropFirst(Self.commitmentSize)), .url)))
        guard let seed = answer["value"]?.secretBytes(.url),
            answer["kid"]?.string.flatMap({ versionName(of: $0) }) == blob.kekVersion
        else { throw KMSError(.garbage, .azure, "unwrapKey answered without a value of our key") }
        try requireDEKSize(seed.count)
        let (dek, commitment) = derive(seed, context)
        guard commitment == stored else {
            throw KMSError(
                .notAuthentic, .azure,
                "the wrapped DEK was changed, or made for another context than \(context); restore it, or open a new epoch"
            )
        }
        return dek
    }

    /// The newest version's name.
    public func currentKEKVersion() async throws(KMSError) -> String {
        let key = try await newestVersion()
        guard let version = key["key"]?["kid"]?.string.flatMap({ versionName(of: $0) }) else {
            throw KMSError(.garbage, .azure, "the vault described another key than asked")
        }
        return version
    }

    /// The newest version is enabled.
    public func checkHealth() async throws(KMSError) {
        _ = try await newestVersion()
    }

    private func newestVersion() async throws(KMSError) -> JSONDocument.Value {
        let answer = try await call("GET", "/keys/\(keyName)", nil)
        guard answer["attributes"]?["enabled"]?.bool != false else {
            throw KMSError(.disabled, .azure, "key \(kekID) is disabled; enable it, or open an epoch under another")
        }
        return answer
    }

    private func operation(_ value: JSONWriter) -> JSONWriter {
        .object([("alg", .string(algorithm.rawValue)), ("value", value)])
    }

    private func derive(_ seed: SecretBytes, _ context: KeyContext) -> (dek: SecretBytes, commitment: SecretBytes) {
        let output = HKDF<SHA256>.deriveKey(
            inputKeyMaterial: seed.withUnsafeBytes { SymmetricKey(data: $0) }, info: context.canonicalBytes,
            outputByteCount: DEK.size + Self.commitmentSize)
        return output.withUnsafeBytes { bytes in
            (
                SecretBytes(copying: UnsafeRawBufferPointer(rebasing: bytes[..<DEK.size])),
                SecretBytes(copying: UnsafeRawBufferPointer(rebasing: bytes[DEK.size...]))
            )
        }
    }

    /// The version in `https://VAULT/keys/NAME/VERSION`, if it is a version of our key.
    private func versionName(of kid: String) -> String? {
        guard kid.hasPrefix(kekID + "/") else { return nil }
        let version = kid.dropFirst(kekID.count + 1)
        return !version.isEmpty && version.utf8.allSatisfy(Self.isNameByte) ? String(version) : nil
    }

    private static func isNameByte(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x61...0x7a).contains(byte | 0x20) || byte == 0x2d
    }

    // MARK: Calls

    private func call(_ method: String, _ path: String, _ body: JSONWriter?) async throws(KMSError)
        -> JSONDocument.Value
    {
        let tokens = try await tokenCache()
        return try await channel.withFreshCredential(tokens) { (token) throws(KMSError) in
            let answer = try await channel.send(request(method, path, body, token: token))
            guard answer.status == 200 else {
                let error = refusal(answer)
                guard error.kind == .keyNotFound else { throw error }
                throw await deletion(token) ?? error
            }
            return try channel.json(answer)
        }
    }

    /// A deleted key is "not found" like one that never was; the vault's list of deleted keys tells them apart.
    private func deletion(_ token: BearerToken) async -> KMSError? {
        guard let answer = try? await channel.send(request("GET", "/deletedkeys/\(keyName)", nil, token: token)),
            answer.status == 200
        else { return nil }
        return KMSError(
            .pendingDeletion, .azure,
            "key \(kekID) has been deleted and waits to be purged; recover it, or move to another key now")
    }

    private func request(_ method: String, _ path: String, _ body: JSONWriter?, token: BearerToken?) -> HTTPCall {
        var call = HTTPCall(method, vault, "\(path)?api-version=\(Self.apiVersion)")
        if let token { call.headers.append((name: "Authorization", value: "Bearer \(token.headerValue)")) }
        if let body {
            call.headers.append((name: "Content-Type", value: "application/json"))
            call.body = body.bytes()
        }
        return call
    }

    /// A vault says in its answer to a request without a token for which resource it wants one. It could be lying: tokens are
    /// asked for only if the vault's own host lies below that resource's.
    private func tokenCache() async throws(KMSError) -> CredentialCache<BearerToken> {
        if let held = cache.withLock({ $0 }) { return held }
        let answer = try await channel.send(request("GET", "/keys/\(keyName)", nil, token: nil))
        guard answer.status == 401 else {
            if answer.status >= 400 { throw refusal(answer) }
            throw KMSError(.garbage, .azure, "\(vault.authority) answers without asking who we are: it is no key vault")
        }
        let resource = try checkedResource(answer.headers["www-authenticate"] ?? "")
        let source: any CredentialSource<BearerToken>
        do {
            source = try makeSource(resource)
        } catch {
            throw KMSError(.misconfigured, .azure, error.message)
        }
        return cache.withLock { held in
            if let held { return held }
            let new = CredentialCache(source, time: time)
            held = new
            return new
        }
    }

    private func checkedResource(_ challenge: String) throws(KMSError) -> String {
        guard challenge.lowercased().hasPrefix("bearer "),
            var resource = Self.parameter("resource", of: challenge) ?? Self.parameter("scope", of: challenge)
        else { throw KMSError(.garbage, .azure, "\(vault.authority) asks for a token without saying for what") }
        if resource.hasSuffix("/.default") { resource = String(resource.dropLast(9)) }
        if resource == allowedResource { return resource }
        guard let endpoint = try? HTTPEndpoint(resource), endpoint.isTLS, endpoint.basePath.isEmpty,
            vault.host == endpoint.host || vault.host.hasSuffix("." + endpoint.host), endpoint.host.contains(".")
        else {
            throw KMSError(
                .denied, .azure,
                "\(vault.authority) asks for a token for \(printable(resource)), which is not its own domain; if this is right, say so in kms.azure.resource"
            )
        }
        return resource
    }

    /// `name="value"` of a challenge.
    static func parameter(_ name: String, of challenge: String) -> String? {
        for part in challenge.dropFirst(7).split(separator: ",") {
            let sides = part.split(separator: "=", maxSplits: 1)
            guard sides.count == 2, sides[0].drop(while: { $0 == " " }) == name else { continue }
            let value = sides[1].drop { $0 == " " || $0 == "\"" }
            return String(value.prefix { $0 != "\"" && $0 != " " })
        }
        return nil
    }

    private func refusal(_ answer: HTTPAnswer) -> KMSError {
        let json = (try? JSONDocument(answer.body).value)?["error"]
        let code = json?["code"]?.string ?? ""
        let inner = json?["innererror"]?["code"]?.string ?? ""
        let said = printable(json?["message"]?.string ?? "")
        func error(_ kind: KMSError.Kind, _ advice: String) -> KMSError {
            let codes = inner.isEmpty ? code : "\(code)/\(inner)"
            return KMSError(
                kind, .azure, "\(printable(codes)): \(said)\(said.isEmpty || said.hasSuffix(".") ? "" : ".") \(advice)")
        }
        switch (code, inner) {
        case (_, "KeyDisabled"), ("KeyDisabled", _):
            return error(.disabled, "Enable the key, or open an epoch under another.")
        case (_, "ObjectIsDeletedButRecoverable"), (_, "ObjectIsBeingDeleted"), ("ObjectIsDeletedButRecoverable", _),
            ("ObjectIsBeingDeleted", _):
            return error(.pendingDeletion, "Recover the key, or move to another now.")
        // "Public network access is disabled", ForbiddenByConnection, is not about the key.
        case ("Forbidden", "") where said.lowercased().contains("disabled key"):
            return error(.disabled, "Enable the key, or open an epoch under another.")
        case ("Forbidden", _):
            return error(.denied, "Check the vault's access policy or role assignments, and its firewall.")
        case ("KeyNotFound", _), ("NotFound", _):
            return error(.keyNotFound, "Check kms.azure.vault and kms.azure.key; if the key was deleted, recover it.")
        case ("Unauthorized", _):
            return said.contains("AKV10022") || said.contains("audience")
                ? error(.denied, "The token is for another resource; check kms.azure.resource.")
                : error(.expiredToken, "Check where this node's token comes from.")
        case ("BadParameter", _):
            return error(
                .notAuthentic,
                "The wrapped DEK was changed, or belongs to another key; restore it, or open a new epoch.")
        case ("Throttled", _): return error(.throttled(retryAfter: answer.retryAfter), "Asked again later.")
        default: return channel.error(answer, code.isEmpty ? "" : "\(code): \(said)")
        }
    }
}

public import CloudIdentity
public import Secrets

/// Provider `openbao`: the Transit secrets engine of OpenBao, and of HashiCorp Vault.
///
/// The DEK is made and wrapped by the server, whose answer (`datakey/wrapped`) has no plaintext in it; the context is the
/// associated data. The key must be of an AEAD type (`aes256-gcm96`, the default). Nodes need `update` on
/// `MOUNT/decrypt/KEY`; whoever makes epochs needs `update` on `MOUNT/datakey/wrapped/KEY` and `read` on `MOUNT/keys/KEY`.
public struct TransitKMS: KeyManagementService {
    /// `openbao`.
    public var provider: KMSProvider { .openbao }
    /// `NAMESPACE/MOUNT/KEY`; the server's address may change.
    public let kekID: String

    private let endpoint: HTTPEndpoint
    private let namespace: String?
    private let mount: String
    private let key: String
    private let tokens: CredentialCache<BearerToken>
    private let channel: KMSChannel

    /// - Parameters:
    ///   - endpoint: The server.
    ///   - namespace: nil for none.
    ///   - mount: Where Transit is mounted, such as "transit".
    ///   - key: The key's name.
    public init(
        endpoint: HTTPEndpoint, namespace: String?, mount: String, key: String,
        tokens: any CredentialSource<BearerToken>,
        http: any HTTPService, time: TimeSource = .system, timeout: Duration = .seconds(5)
    ) throws(KMSError) {
        for (name, value) in [("mount", mount), ("key", key)] {
            guard (1...128).contains(value.utf8.count), value.utf8.allSatisfy(Self.isNameByte), !value.contains("..")
            else {
                throw KMSError(
                    .misconfigured, .openbao,
                    "kms.openbao.\(name) is \"\(printable(value))\"; expected letters, digits and - _ .")
            }
        }
        if let namespace {
            guard (1...128).contains(namespace.utf8.count),
                namespace.utf8.allSatisfy({ Self.isNameByte($0) || $0 == 0x2f })
            else {
                throw KMSError(
                    .misconfigured, .openbao, "kms.openbao.namespace is \"\(printable(namespace))\"; expected a path")
            }
        }
        self.endpoint = endpoint
        self.namespace = namespace
        self.mount = mount
        self.key = key
        kekID = (namespace.map { $0 + "/" } ?? "") + "\(mount)/\(key)"
        self.tokens = CredentialCache(tokens, time: time)
        channel = KMSChannel(provider: .openbao, http: http, timeout: timeout, time: time)
    }

    /// datakey/wrapped: the DEK's plaintext stays with the server.
    public func generateDEK(for context: KeyContext) async throws(KMSError) -> WrappedDEK {
        let answer = try await call(
            "POST", "\(mount)/datakey/wrapped/\(key)",
            .object([("bits", .integer(DEK.size * 8)), ("associated_data", .base64(context.canonicalBytes))]))
        guard let ciphertext = answer["data"]?["ciphertext"]?.string, let version = version(of: ciphertext) else {
            throw KMSError(.garbage, .openbao, "datakey answered without a ciphertext")
        }
        return try WrappedDEK(provider: .openbao, kekID: kekID, kekVersion: version, wrapped: Array(ciphertext.utf8))
    }

    /// decrypt, with the context as associated data.
    public func unwrap(_ blob: WrappedDEK, for context: KeyContext) async throws(KMSError) -> SecretBytes {
        try requireOurs(blob)
        let ciphertext = String(decoding: blob.wrapped, as: UTF8.self)
        guard blob.wrapped.allSatisfy({ (0x21...0x7e).contains($0) }), version(of: ciphertext) == blob.kekVersion else {
            throw KMSError(
                .malformedBlob, .openbao, "the wrapped DEK is no ciphertext of Transit; restore it, or open a new epoch"
            )
        }
        let answer = try await call(
            "POST", "\(mount)/decrypt/\(key)",
            .object([("ciphertext", .string(ciphertext)), ("associated_data", .base64(context.canonicalBytes))]))
        guard let dek = answer["data"]?["plaintext"]?.secretBytes(.standard) else {
            throw KMSError(.garbage, .openbao, "decrypt answered without a plaintext")
        }
        try requireDEKSize(dek.count)
        return dek
    }

    /// The key's latest version.
    public func currentKEKVersion() async throws(KMSError) -> String {
        let description = try await describe()
        guard let version = description["latest_version"]?.integer, version > 0 else {
            throw KMSError(.garbage, .openbao, "the key is described without a version")
        }
        return "v\(version)"
    }

    /// The key is there and can decrypt.
    public func checkHealth() async throws(KMSError) {
        _ = try await describe()
    }

    private func describe() async throws(KMSError) -> JSONDocument.Value {
        let answer = try await call("GET", "\(mount)/keys/\(key)", nil)
        guard let data = answer["data"], data["name"]?.string == key else {
            throw KMSError(.garbage, .openbao, "the server described another key than asked")
        }
        guard data["supports_decryption"]?.bool == true, data["derived"]?.bool != true else {
            throw KMSError(
                .misconfigured, .openbao,
                "key \(kekID) is of type \(printable(data["type"]?.string ?? "unknown")) or derived; expected aes256-gcm96, not derived"
            )
        }
        if data["soft_deleted"]?.bool == true {
            throw KMSError(
                .pendingDeletion, .openbao, "key \(kekID) is soft-deleted; restore it, or move to another key now")
        }
        return data
    }

    /// `v3` of `vault:v3:...`.
    private func version(of ciphertext: String) -> String? {
        let parts = ciphertext.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 3, !parts[0].isEmpty, parts[1].first == "v", parts[1].count > 1, !parts[2].isEmpty,
            parts[1].dropFirst().utf8.allSatisfy({ (0x30...0x39).contains($0) })
        else { return nil }
        return String(parts[1])
    }

    private static func isNameByte(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x61...0x7a).contains(byte | 0x20) || byte == 0x2d || byte == 0x2e
            || byte == 0x5f
    }

    // MARK: Calls

    private func call(_ method: String, _ path: String, _ body: JSONWriter?) async throws(KMSError)
        -> JSONDocument.Value
    {
        var refused: BearerToken?
        return try await channel.withFreshCredential(tokens) { (token) throws(KMSError) in
            let answer = try await channel.send(request(method, path, body, token))
            guard answer.status == 200 else {
                let error = await refusal(answer, token)
                guard error.kind == .expiredToken else { throw error }
                // Of a moment ago, and refused like the one before: it may not even look at itself, as without the default policy.
                if let refused, refused.value != token.value {
                    throw KMSError(.denied, .openbao, "a new token is refused, too. Check the policy for \(kekID).")
                }
                refused = token
                throw error
            }
            return try channel.json(answer)
        }
    }

    private func request(_ method: String, _ path: String, _ body: JSONWriter?, _ token: BearerToken) -> HTTPCall {
        var call = HTTPCall(method, endpoint, "/v1/\(path)")
        call.headers = [(name: "X-Vault-Token", value: token.headerValue), (name: "X-Vault-Request", value: "true")]
        if let namespace { call.headers.append((name: "X-Vault-Namespace", value: namespace)) }
        if let body {
            call.headers.append((name: "Content-Type", value: "application/json"))
            call.body = body.bytes()
        }
        return call
    }

    private func refusal(_ answer: HTTPAnswer, _ token: BearerToken) async -> KMSError {
        let errors = (try? JSONDocument(answer.body).value)?["errors"]?.array ?? []
        let said = printable(errors.compactMap(\.string).joined(separator: "; "))
        func error(_ kind: KMSError.Kind, _ advice: String) -> KMSError {
            KMSError(kind, .openbao, "\(said.isEmpty ? "status \(answer.status)" : said). \(advice)")
        }
        switch answer.status {
        case 403:
            // The same words for a policy that forbids and for a token that is no longer: the token itself knows.
            if let look = try? await channel.send(request("GET", "auth/token/lookup-self", nil, token)),
                look.status == 403
            {
                return error(
                    .expiredToken, "The token has expired or was revoked; check where this node's token comes from.")
            }
            return error(.denied, "Check the policy for \(kekID).")
        case 400, 404, 405:
            if said.contains("message authentication failed") || said.contains("invalid ciphertext")
                || said.contains("invalid key")
            {
                return error(
                    .notAuthentic,
                    "The wrapped DEK was changed, or made for another cluster or epoch; restore it, or open a new epoch."
                )
            }
            if said.contains("too old") || said.contains("disallowed by policy") {
                return error(
                    .disabled, "The key's min_decryption_version is above this DEK's version; open a new epoch.")
            }
            if said.contains("soft deleted") || said.contains("soft-deleted") {
                return error(.pendingDeletion, "Restore the key, or move to another key now.")
            }
            if said.contains("encryption key not found") || answer.status == 404 {
                return error(.keyNotFound, "Check kms.openbao.mount and kms.openbao.key.")
            }
            return error(.garbage, "The server did not understand the request.")
        case 412, 472, 473, 503:
            // Sealed, standby or starting: no Retry-After, unless a proxy adds one.
            return answer.retryAfter == nil
                ? error(.serverFault, "Asked again later.")
                : error(.throttled(retryAfter: answer.retryAfter), "Asked again later.")
        default: return channel.error(answer, said)
        }
    }
}

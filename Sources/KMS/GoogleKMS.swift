public import CloudIdentity
public import Secrets

/// Provider `gcp`: Google Cloud KMS, over its REST interface.
///
/// Google cannot make a wrapped key without showing it: the DEK is drawn here, in secret memory, encrypted, and forgotten.
/// Nodes need `cloudkms.cryptoKeyVersions.useToDecrypt`; whoever makes epochs needs `useToEncrypt` and `cloudkms.cryptoKeys.get`.
public struct GoogleKMS: KeyManagementService {
    /// `gcp`.
    public var provider: KMSProvider { .gcp }
    /// The key's resource name.
    public let kekID: String

    private let endpoint: HTTPEndpoint
    private let tokens: CredentialCache<BearerToken>
    private let channel: KMSChannel

    /// - Parameters:
    ///   - key: `projects/P/locations/L/keyRings/R/cryptoKeys/K`.
    ///   - endpoint: nil for cloudkms.googleapis.com.
    public init(
        key: String, endpoint: HTTPEndpoint?, tokens: any CredentialSource<BearerToken>, http: any HTTPService,
        time: TimeSource = .system, timeout: Duration = .seconds(5)
    ) throws(KMSError) {
        let parts = key.split(separator: "/", omittingEmptySubsequences: false)
        let names = [(0, "projects"), (2, "locations"), (4, "keyRings"), (6, "cryptoKeys")]
        let isGood =
            parts.count == 8 && names.allSatisfy { parts[$0.0] == $0.1 }
            && [1, 3, 5, 7].allSatisfy { index in
                !parts[index].isEmpty
                    && parts[index].utf8.allSatisfy {
                        (0x30...0x39).contains($0) || (0x61...0x7a).contains($0 | 0x20) || $0 == 0x2d || $0 == 0x5f
                            || $0 == 0x2e
                    } && parts[index] != "." && parts[index] != ".."
            }
        guard isGood else {
            throw KMSError(
                .misconfigured, .gcp,
                "kms.gcp.key is \"\(printable(key))\"; expected projects/P/locations/L/keyRings/R/cryptoKeys/K")
        }
        kekID = key
        self.endpoint = endpoint ?? .https("cloudkms.googleapis.com")
        self.tokens = CredentialCache(tokens, time: time)
        channel = KMSChannel(provider: .gcp, http: http, timeout: timeout, time: time)
    }

    /// Draws a DEK and has it encrypted; checksums both ways.
    public func generateDEK(for context: KeyContext) async throws(KMSError) -> WrappedDEK {
        let dek = SecretBytes(random: DEK.size)
        let aad = context.canonicalBytes
        let answer = try await call(
            "POST", ":encrypt",
            .object([
                ("plaintext", .base64(dek)), ("additionalAuthenticatedData", .base64(aad)),
                ("plaintextCrc32c", .string(String(dek.withUnsafeBytes { CRC32C.checksum(secret: $0) }))),
                ("additionalAuthenticatedDataCrc32c", .string(String(CRC32C.checksum(aad)))),
            ]))
        guard answer["verifiedPlaintextCrc32c"]?.bool == true,
            answer["verifiedAdditionalAuthenticatedDataCrc32c"]?.bool == true
        else {
            throw KMSError(.garbage, .gcp, "encrypt did not verify our checksums: the request was changed on its way")
        }
        guard let wrapped = answer["ciphertext"]?.bytes(.standard), let name = answer["name"]?.string,
            let version = versionNumber(of: name)
        else { throw KMSError(.garbage, .gcp, "encrypt answered without a ciphertext of our key") }
        guard answer["ciphertextCrc32c"]?.integer == Int64(CRC32C.checksum(wrapped)) else {
            throw KMSError(
                .garbage, .gcp, "the ciphertext does not fit its checksum: the answer was changed on its way")
        }
        return try WrappedDEK(provider: .gcp, kekID: kekID, kekVersion: version, wrapped: wrapped)
    }

    /// Has it decrypted under the context; checksums both ways.
    public func unwrap(_ blob: WrappedDEK, for context: KeyContext) async throws(KMSError) -> SecretBytes {
        try requireOurs(blob)
        let aad = context.canonicalBytes
        let answer = try await call(
            "POST", ":decrypt",
            .object([
                ("ciphertext", .base64(blob.wrapped)), ("additionalAuthenticatedData", .base64(aad)),
                ("ciphertextCrc32c", .string(String(CRC32C.checksum(blob.wrapped)))),
                ("additionalAuthenticatedDataCrc32c", .string(String(CRC32C.checksum(aad)))),
            ]))
        guard let dek = answer["plaintext"]?.secretBytes(.standard) else {
            throw KMSError(.garbage, .gcp, "decrypt answered without a plaintext")
        }
        guard answer["plaintextCrc32c"]?.integer == Int64(dek.withUnsafeBytes { CRC32C.checksum(secret: $0) }) else {
            throw KMSError(.garbage, .gcp, "the plaintext does not fit its checksum: the answer was changed on its way")
        }
        try requireDEKSize(dek.count)
        return dek
    }

    /// The number of the primary version.
    public func currentKEKVersion() async throws(KMSError) -> String {
        let primary = try await primaryVersion()
        guard let version = primary["name"]?.string.flatMap({ versionNumber(of: $0) }) else {
            throw KMSError(.garbage, .gcp, "the key has a primary version without a name")
        }
        return version
    }

    /// The primary version is enabled.
    public func checkHealth() async throws(KMSError) {
        _ = try await primaryVersion()
    }

    private func primaryVersion() async throws(KMSError) -> JSONDocument.Value {
        let answer = try await call("GET", "", nil)
        guard answer["name"]?.string == kekID else {
            throw KMSError(.garbage, .gcp, "the KMS described another key than asked")
        }
        guard let primary = answer["primary"], let state = primary["state"]?.string else {
            throw KMSError(.disabled, .gcp, "key \(kekID) has no primary version; make one, or enable it")
        }
        guard state == "ENABLED" else {
            throw stateError(state, "the primary version of \(kekID) is \(printable(state))")
        }
        return primary
    }

    private func versionNumber(of name: String) -> String? {
        let prefix = kekID + "/cryptoKeyVersions/"
        guard name.hasPrefix(prefix) else { return nil }
        let number = name.dropFirst(prefix.count)
        return !number.isEmpty && number.utf8.allSatisfy { (0x30...0x39).contains($0) } ? String(number) : nil
    }

    private func call(_ method: String, _ suffix: String, _ body: JSONWriter?) async throws(KMSError)
        -> JSONDocument.Value
    {
        try await channel.withFreshCredential(tokens) { (token) throws(KMSError) in
            var call = HTTPCall(method, endpoint, "/v1/\(kekID)\(suffix)")
            call.headers = [(name: "Authorization", value: "Bearer \(token.headerValue)")]
            if let body {
                call.headers.append((name: "Content-Type", value: "application/json"))
                call.body = body.bytes()
            }
            let answer = try await channel.send(call)
            guard answer.status == 200 else { throw refusal(answer) }
            return try channel.json(answer)
        }
    }

    private func refusal(_ answer: HTTPAnswer) -> KMSError {
        let json = (try? JSONDocument(answer.body).value)?["error"]
        let status = json?["status"]?.string ?? ""
        let said = printable(json?["message"]?.string ?? "")
        func error(_ kind: KMSError.Kind, _ advice: String) -> KMSError {
            KMSError(
                kind, .gcp, "\(printable(status)): \(said)\(said.isEmpty || said.hasSuffix(".") ? "" : ".") \(advice)")
        }
        switch status {
        case "PERMISSION_DENIED": return error(.denied, "Check the IAM policy of \(kekID).")
        case "NOT_FOUND": return error(.keyNotFound, "Check kms.gcp.key.")
        case "UNAUTHENTICATED": return error(.expiredToken, "Check where this node's token comes from.")
        case "FAILED_PRECONDITION": return stateError(said, "\(printable(status)): \(said)")
        case "INVALID_ARGUMENT":
            if said.contains("checksum") || said.contains("crc32c") {
                return error(.garbage, "The request was changed on its way.")
            }
            return error(
                .notAuthentic,
                "The wrapped DEK was changed, or made for another cluster or epoch; restore it, or open a new epoch.")
        case "RESOURCE_EXHAUSTED":
            return error(.throttled(retryAfter: answer.retryAfter ?? retryDelay(json)), "Asked again later.")
        case "INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN", "ABORTED":
            return answer.retryAfter != nil
                ? error(.throttled(retryAfter: answer.retryAfter), "Asked again later.")
                : error(.serverFault, "Asked again later.")
        default: return channel.error(answer, status.isEmpty ? "" : "\(status): \(said)")
        }
    }

    private func stateError(_ state: String, _ said: String) -> KMSError {
        if state.contains("DESTROY") {
            return KMSError(.pendingDeletion, .gcp, "\(said); restore the version, or move to another key now")
        }
        return KMSError(.disabled, .gcp, "\(said); enable the version, or open an epoch under another")
    }

    /// google.rpc.RetryInfo: "3s" or "3.5s".
    private func retryDelay(_ error: JSONDocument.Value?) -> Duration? {
        for detail in error?["details"]?.array ?? [] {
            guard let text = detail["retryDelay"]?.string, text.hasSuffix("s"), let seconds = Double(text.dropLast()),
                (0...3600).contains(seconds)
            else { continue }
            return .milliseconds(Int(seconds * 1000))
        }
        return nil
    }
}

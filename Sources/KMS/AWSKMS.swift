public import CloudIdentity
public import Secrets

/// Provider `aws`: AWS Key Management Service, over its JSON 1.1 protocol.
///
/// Nodes need `kms:Decrypt` on the key, best with a condition on `kms:EncryptionContext:xdp-encryptor/cluster`; whoever makes
/// epochs needs `kms:GenerateDataKeyWithoutPlaintext`, `kms:DescribeKey` and `kms:ListKeyRotations`, and never sees a DEK.
public struct AWSKMS: KeyManagementService {
    /// `aws`.
    public var provider: KMSProvider { .aws }
    /// The key's ARN.
    public let kekID: String

    private let endpoint: HTTPEndpoint
    private let signer: SigV4
    private let credentials: CredentialCache<AWSCredentials>
    private let channel: KMSChannel
    private let time: TimeSource

    /// - Parameters:
    ///   - keyARN: `arn:aws:kms:REGION:ACCOUNT:key/ID`. An alias could be pointed at another key; it is refused.
    ///   - endpoint: nil for the region's.
    public init(
        keyARN: String, endpoint: HTTPEndpoint?, credentials: any CredentialSource<AWSCredentials>,
        http: any HTTPService,
        time: TimeSource = .system, timeout: Duration = .seconds(5)
    ) throws(KMSError) {
        let arn = try AWSKeyARN(keyARN)
        kekID = keyARN
        signer = SigV4(region: arn.region, service: "kms")
        self.endpoint = if let endpoint { endpoint } else { try arn.endpoint(service: "kms") }
        self.credentials = CredentialCache(credentials, time: time)
        channel = KMSChannel(provider: .aws, http: http, timeout: timeout, time: time)
        self.time = time
    }

    /// GenerateDataKeyWithoutPlaintext: the DEK's plaintext stays with AWS.
    public func generateDEK(for context: KeyContext) async throws(KMSError) -> WrappedDEK {
        let version = try await currentKEKVersion()
        let answer = try await call(
            "GenerateDataKeyWithoutPlaintext",
            [("KeyId", .string(kekID)), ("KeySpec", .string("AES_256")), ("EncryptionContext", encoded(context))])
        guard let wrapped = answer["CiphertextBlob"]?.bytes(.standard), answer["KeyId"]?.string == kekID else {
            throw KMSError(.garbage, .aws, "GenerateDataKeyWithoutPlaintext answered without a blob of our key")
        }
        return try WrappedDEK(provider: .aws, kekID: kekID, kekVersion: version, wrapped: wrapped)
    }

    /// Decrypt, for this key only and under the context.
    public func unwrap(_ blob: WrappedDEK, for context: KeyContext) async throws(KMSError) -> SecretBytes {
        try requireOurs(blob)
        let answer = try await call(
            "Decrypt",
            [
                ("CiphertextBlob", .base64(blob.wrapped)), ("EncryptionContext", encoded(context)),
                ("KeyId", .string(kekID)),
                ("EncryptionAlgorithm", .string("SYMMETRIC_DEFAULT")),
            ])
        guard let dek = answer["Plaintext"]?.secretBytes(.standard), answer["KeyId"]?.string == kekID else {
            throw KMSError(.garbage, .aws, "Decrypt answered without a plaintext of our key")
        }
        try requireDEKSize(dek.count)
        return dek
    }

    /// The key material's id where AWS says it (since 2025), else the number and date of rotations so far.
    public func currentKEKVersion() async throws(KMSError) -> String {
        let description = try await describe()
        if let material = description["CurrentKeyMaterialId"]?.string, !material.isEmpty { return material }
        var count = 0
        var last = "0"
        var marker: String?
        for _ in 0..<20 {
            var members: [(String, JSONWriter)] = [("KeyId", .string(kekID)), ("Limit", .integer(100))]
            if let marker { members.append(("Marker", .string(marker))) }
            let page = try await call("ListKeyRotations", members)
            guard let rotations = page["Rotations"]?.array else {
                throw KMSError(.garbage, .aws, "ListKeyRotations answered without a list")
            }
            count += rotations.count
            for rotation in rotations {
                if let date = rotation["RotationDate"]?.numberText, (Double(date) ?? 0) > (Double(last) ?? 0) {
                    last = date
                }
            }
            guard page["Truncated"]?.bool == true, let next = page["NextMarker"]?.string else {
                return "rotation-\(count)@\(last)"
            }
            marker = next
        }
        throw KMSError(.garbage, .aws, "ListKeyRotations answers with no end")
    }

    /// DescribeKey: the key is enabled.
    public func checkHealth() async throws(KMSError) {
        _ = try await describe()
    }

    private func describe() async throws(KMSError) -> JSONDocument.Value {
        let answer = try await call("DescribeKey", [("KeyId", .string(kekID))])
        guard let metadata = answer["KeyMetadata"], let state = metadata["KeyState"]?.string else {
            throw KMSError(.garbage, .aws, "DescribeKey answered without a state")
        }
        switch state {
        case "Enabled", "Updating": return metadata
        case "Disabled":
            throw KMSError(.disabled, .aws, "key \(kekID) is disabled; enable it, or open an epoch under another")
        case "PendingDeletion", "PendingReplicaDeletion":
            throw KMSError(
                .pendingDeletion, .aws,
                "key \(kekID) is scheduled for deletion; cancel that, or move to another key now")
        default: throw KMSError(.disabled, .aws, "key \(kekID) is in state \(printable(state)) and cannot be used")
        }
    }

    private func encoded(_ context: KeyContext) -> JSONWriter {
        .object(context.encryptionContext.sorted { $0.key < $1.key }.map { ($0.key, JSONWriter.string($0.value)) })
    }

    private func call(_ action: String, _ members: [(String, JSONWriter)]) async throws(KMSError) -> JSONDocument.Value
    {
        let body = JSONWriter.object(members).bytes()
        return try await channel.withFreshCredential(credentials) { (credentials) throws(KMSError) in
            var call = HTTPCall("POST", endpoint, "/")
            call.headers = [
                (name: "Content-Type", value: "application/x-amz-json-1.1"),
                (name: "X-Amz-Target", value: "TrentService.\(action)"),
            ]
            call.body = body
            signer.sign(&call, with: credentials, at: UTCTime(unixSeconds: time.unixSeconds()))
            let answer = try await channel.send(call)
            guard answer.status == 200 else { throw refusal(answer, action) }
            return try channel.json(answer)
        }
    }

    private func refusal(_ answer: HTTPAnswer, _ action: String) -> KMSError {
        let json = try? JSONDocument(answer.body).value
        let type = json?["__type"]?.string ?? answer.headers["x-amzn-errortype"] ?? ""
        // "com.amazonaws.kms#DisabledException", "DisabledException:http://..."
        let code = type.split(separator: "#").last.map(String.init)?.split(separator: ":").first.map(String.init) ?? ""
        let said = printable(json?["message"]?.string ?? json?["Message"]?.string ?? "")
        func error(_ kind: KMSError.Kind, _ advice: String) -> KMSError {
            KMSError(
                kind, .aws,
                "\(action): \(printable(code)): \(said)\(said.isEmpty || said.hasSuffix(".") ? "" : ".") \(advice)")
        }
        switch code {
        case "AccessDeniedException":
            return error(.denied, "Check the key policy of \(kekID) and this node's role.")
        case "DisabledException": return error(.disabled, "Enable the key, or open an epoch under another.")
        case "KMSInvalidStateException":
            return said.lowercased().contains("pending") && said.lowercased().contains("delet")
                ? error(.pendingDeletion, "Cancel the deletion, or move to another key now.")
                : error(.disabled, "Look at the key's state.")
        case "NotFoundException": return error(.keyNotFound, "Check kms.aws.key.")
        case "InvalidCiphertextException":
            return error(
                .notAuthentic,
                "The wrapped DEK was changed, or made for another cluster or epoch; restore it, or open a new epoch.")
        case "IncorrectKeyException": return error(.wrongKEK, "The wrapped DEK belongs to another key.")
        case "ThrottlingException", "TooManyRequestsException", "LimitExceededException", "RequestLimitExceeded":
            return error(.throttled(retryAfter: answer.retryAfter), "Asked again later.")
        case "ExpiredTokenException", "UnrecognizedClientException", "InvalidClientTokenId", "RequestExpired":
            return error(.expiredToken, "Check where this node's credentials come from.")
        case "InvalidSignatureException", "SignatureDoesNotMatch", "RequestTimeTooSkewed":
            if said.contains("Signature expired") || said.contains("not yet current") || code == "RequestTimeTooSkewed"
            {
                return error(.clockSkew, "Correct this machine's clock.")
            }
            return error(.expiredToken, "The secret key does not fit the key id.")
        case "KMSInternalException", "DependencyTimeoutException", "KeyUnavailableException", "InternalFailure",
            "ServiceUnavailable":
            return error(.serverFault, "Asked again later.")
        default: return channel.error(answer, code.isEmpty ? "" : "\(code): \(said)")
        }
    }
}

/// `arn:PARTITION:kms:REGION:ACCOUNT:key/ID`, in parts.
struct AWSKeyARN {
    let partition: String
    let region: String

    init(_ text: String) throws(KMSError) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        func isWord(_ part: Substring, _ more: String = "-") -> Bool {
            !part.isEmpty
                && part.utf8.allSatisfy {
                    (0x30...0x39).contains($0) || (0x61...0x7a).contains($0 | 0x20) || more.utf8.contains($0)
                }
        }
        guard parts.count == 6, parts[0] == "arn", parts[2] == "kms", isWord(parts[1]), isWord(parts[3]),
            isWord(parts[4]),
            parts[5].hasPrefix("key/"), isWord(parts[5].dropFirst(4))
        else {
            throw KMSError(
                .misconfigured, .aws,
                "kms.aws.key is \"\(printable(text))\"; expected the ARN of a key, arn:aws:kms:REGION:ACCOUNT:key/ID (no alias: it could be pointed at another key)"
            )
        }
        partition = String(parts[1])
        region = String(parts[3])
    }

    /// The regional endpoint of a service.
    func endpoint(service: String) throws(KMSError) -> HTTPEndpoint {
        let domain = partition == "aws-cn" ? "amazonaws.com.cn" : "amazonaws.com"
        do {
            return try HTTPEndpoint("https://\(service).\(region).\(domain)")
        } catch {
            throw KMSError(.misconfigured, .aws, "the region of kms.aws.key makes no endpoint: \(error.message)")
        }
    }
}

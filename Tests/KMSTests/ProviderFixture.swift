import CloudIdentity

@testable import KMS

/// A provider as it answers when all is well, and when it is not: the errors are written as the providers' documentation, the
/// official SDKs' tests and (OpenBao) the real server have them.
struct ProviderFixture: Sendable {
    let provider: KMSProvider
    /// The configuration against a server.
    let configuration: @Sendable (_ base: String, _ folder: TemporaryFolder) -> KMSConfiguration
    let environment: [String: String]
    /// Answers of identity services, and of the KMS to anything but `unwrap`.
    let preliminary: @Sendable (ScriptedServer.Request) -> ScriptedServer.Reaction?
    /// The answer to `unwrap`, as it should be.
    let good: @Sendable (ScriptedServer.Request) -> ScriptedServer.Reaction
    /// By the name of the fault.
    let faults: [String: @Sendable (ScriptedServer.Request) -> ScriptedServer.Reaction]
    let blob: @Sendable (_ base: String) throws -> WrappedDEK

    /// The DEK that `good` gives: a text, so that it can be looked for.
    static let canary = "CANARY-DEK-0123456789-abcdefghij"
    static let tokenCanary = "CANARYTOKEN.abcdefghijklmnop.0123456789"
    static let dek = Base64.standard.encode(canary.utf8)
    static let later = "2099-01-01T00:00:00Z"

    static let all: [ProviderFixture] = [aws, gcp, azure, openbao]

    private static func error(
        _ status: Int, _ body: String, _ headers: [String: String] = [:]
    ) -> @Sendable (ScriptedServer.Request) -> ScriptedServer.Reaction {
        { _ in .answer(status, headers: headers, body: body) }
    }

    // MARK: AWS

    static let awsKey = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"

    private static func awsError(_ code: String, _ message: String, status: Int = 400, headers: [String: String] = [:])
        -> @Sendable (ScriptedServer.Request) -> ScriptedServer.Reaction
    {
        error(status, #"{"__type":"\#(code)","message":"\#(message)"}"#, headers)
    }

    static let aws = ProviderFixture(
        provider: .aws,
        configuration: { base, folder in
            var configuration = KMSConfiguration(provider: .aws)
            configuration.timeoutSeconds = 1
            folder.write("token", tokenCanary + "\n", mode: 0o600)
            configuration.aws = .init(
                key: awsKey, endpoint: base,
                identity: .init(
                    source: .webIdentity, roleARN: "arn:aws:iam::111122223333:role/node",
                    tokenFile: folder.path("token"),
                    endpoint: base + "/sts"))
            return configuration
        },
        environment: [:],
        preliminary: { request in
            guard request.target.hasPrefix("/sts/") else { return nil }
            guard request.body.contains("WebIdentityToken=\(tokenCanary)") else {
                return .answer(
                    400, body: "<ErrorResponse><Error><Code>InvalidIdentityToken</Code></Error></ErrorResponse>")
            }
            return .answer(
                200,
                body:
                    "<R><Credentials><AccessKeyId>ASIAX</AccessKeyId><SecretAccessKey>\(tokenCanary)</SecretAccessKey><SessionToken>\(tokenCanary)</SessionToken><Expiration>\(later)</Expiration></Credentials></R>"
            )
        },
        good: { _ in .json(#"{"KeyId":"\#(awsKey)","Plaintext":"\#(dek)","EncryptionAlgorithm":"SYMMETRIC_DEFAULT"}"#)
        },
        faults: [
            "500": awsError(
                "KMSInternalException", "The request was rejected because an internal exception occurred.", status: 500),
            "throttled": awsError("ThrottlingException", "Rate exceeded", headers: ["Retry-After": "7"]),
            "denied": awsError(
                "AccessDeniedException",
                "User: arn:aws:sts::1:assumed-role/node/x is not authorized to perform: kms:Decrypt"),
            "disabled": awsError("DisabledException", "\(awsKey) is disabled."),
            "pending deletion": awsError("KMSInvalidStateException", "\(awsKey) is pending deletion."),
            "wrong context": awsError("InvalidCiphertextException", ""),
            "tampered blob": awsError("InvalidCiphertextException", ""),
            "expired token": awsError("ExpiredTokenException", "The security token included in the request is expired"),
            "clock skew": awsError(
                "InvalidSignatureException", "Signature expired: 20260101T000000Z is now earlier than 20260101T010000Z"),
        ],
        blob: { _ in
            try WrappedDEK(provider: .aws, kekID: awsKey, kekVersion: "1", wrapped: Array(repeating: 7, count: 184))
        })

    // MARK: Google

    static let googleKey = "projects/p/locations/eu/keyRings/r/cryptoKeys/k"

    private static func googleError(_ code: Int, _ status: String, _ message: String, _ headers: [String: String] = [:])
        -> @Sendable (ScriptedServer.Request) -> ScriptedServer.Reaction
    {
        error(code, #"{"error":{"code":\#(code),"message":"\#(message)","status":"\#(status)"}}"#, headers)
    }

    static let gcp = ProviderFixture(
        provider: .gcp,
        configuration: { base, folder in
            var configuration = KMSConfiguration(provider: .gcp)
            configuration.timeoutSeconds = 1
            folder.write("token", tokenCanary + "\n", mode: 0o600)
            configuration.gcp = .init(
                key: googleKey, endpoint: base,
                identity: .init(
                    source: .federation,
                    audience: "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/a/providers/b",
                    tokenFile: folder.path("token"), serviceAccount: "node@p.iam.gserviceaccount.com",
                    stsEndpoint: base + "/sts",
                    iamEndpoint: base + "/iam"))
            return configuration
        },
        environment: [:],
        preliminary: { request in
            if request.target == "/sts/v1/token" {
                guard request.body.contains("subject_token=\(tokenCanary)") else {
                    return .answer(400, body: #"{"error":"invalid_grant","error_description":"no"}"#)
                }
                return .json(#"{"access_token":"\#(tokenCanary)","expires_in":3599,"token_type":"Bearer"}"#)
            }
            guard request.target.hasPrefix("/iam/") else { return nil }
            guard request.headers["authorization"] == "Bearer \(tokenCanary)" else { return .answer(401, body: "{}") }
            return .json(#"{"accessToken":"\#(tokenCanary)2","expireTime":"\#(later)"}"#)
        },
        good: { request in
            guard request.headers["authorization"] == "Bearer \(tokenCanary)2" else { return .answer(401, body: "{}") }
            return .json(
                #"{"plaintext":"\#(dek)","plaintextCrc32c":"\#(CRC32C.checksum(canary.utf8))","usedPrimary":true}"#)
        },
        faults: [
            "500": googleError(500, "INTERNAL", "Internal error encountered."),
            "throttled": googleError(429, "RESOURCE_EXHAUSTED", "Quota exceeded", ["Retry-After": "7"]),
            "denied": googleError(
                403, "PERMISSION_DENIED", "Permission 'cloudkms.cryptoKeyVersions.useToDecrypt' denied"),
            "disabled": googleError(
                400, "FAILED_PRECONDITION",
                "\(googleKey)/cryptoKeyVersions/1 is not enabled, current state is: DISABLED."),
            "pending deletion": googleError(
                400, "FAILED_PRECONDITION",
                "\(googleKey)/cryptoKeyVersions/1 is not enabled, current state is: DESTROY_SCHEDULED."),
            "wrong context": googleError(
                400, "INVALID_ARGUMENT", "Decryption failed: verify that 'name' refers to the correct CryptoKey."),
            "tampered blob": googleError(
                400, "INVALID_ARGUMENT", "Decryption failed: verify that 'name' refers to the correct CryptoKey."),
            "expired token": googleError(401, "UNAUTHENTICATED", "Request had invalid authentication credentials."),
            "clock skew": error(
                401, #"{"error":{"code":401,"message":"x","status":"UNAUTHENTICATED"}}"#,
                ["Date": "Thu, 01 Jan 2099 00:00:00 GMT"]),
        ],
        blob: { _ in
            try WrappedDEK(provider: .gcp, kekID: googleKey, kekVersion: "1", wrapped: Array(repeating: 7, count: 113))
        })

    // MARK: Azure

    private static func azureError(
        _ status: Int, _ code: String, _ message: String, _ inner: String = "", _ headers: [String: String] = [:]
    )
        -> @Sendable (ScriptedServer.Request) -> ScriptedServer.Reaction
    {
        let innerError = inner.isEmpty ? "" : #","innererror":{"code":"\#(inner)"}"#
        return error(status, #"{"error":{"code":"\#(code)","message":"\#(message)"\#(innerError)}}"#, headers)
    }

    static let azure = ProviderFixture(
        provider: .azure,
        configuration: { base, folder in
            var configuration = KMSConfiguration(provider: .azure)
            configuration.timeoutSeconds = 1
            folder.write("token", tokenCanary + "\n", mode: 0o600)
            configuration.azure = .init(
                vault: base, key: "kek", resource: "https://vault.azure.net",
                identity: .init(
                    source: .workloadIdentity, clientID: "c", tenantID: "11111111-1111-1111-1111-111111111111",
                    tokenFile: folder.path("token"), endpoint: base + "/entra"))
            return configuration
        },
        environment: [:],
        preliminary: { request in
            if request.target.hasPrefix("/entra/") {
                guard request.body.contains("client_assertion=\(tokenCanary)") else {
                    return .answer(401, body: #"{"error":"invalid_client","error_description":"AADSTS700211"}"#)
                }
                return .json(#"{"access_token":"\#(tokenCanary)2","expires_in":3599,"token_type":"Bearer"}"#)
            }
            guard request.headers["authorization"] == nil else { return nil }
            return .answer(
                401,
                headers: [
                    "WWW-Authenticate":
                        #"Bearer authorization="https://login.microsoftonline.com/t", resource="https://vault.azure.net""#
                ], body: #"{"error":{"code":"Unauthorized","message":"AKV10000"}}"#)
        },
        good: { request in
            let version = request.target.split(separator: "/")[2]
            return .json(
                #"{"kid":"http://\#(request.headers["host"] ?? "")/keys/kek/\#(version)","value":"\#(Base64.url.encode(canary.utf8))"}"#
            )
        },
        faults: [
            "500": azureError(500, "InternalError", "An internal error occurred"),
            "throttled": azureError(
                429, "Throttled", "Request was not processed because too many requests were received", "",
                ["Retry-After": "7"]),
            "denied": azureError(
                403, "Forbidden", "The user, group or application does not have keys unwrapKey permission",
                "AccessDenied"),
            "disabled": azureError(
                403, "Forbidden", "Operation unwrapKey is not allowed on a disabled key.", "KeyDisabled"),
            "pending deletion": azureError(
                409, "Conflict", "Key kek is currently in a deleted but recoverable state",
                "ObjectIsDeletedButRecoverable"),
            // Key Vault knows no context: the answer is good, and the commitment is another one.
            "wrong context": { request in
                let version = request.target.split(separator: "/")[2]
                return .json(
                    #"{"kid":"http://\#(request.headers["host"] ?? "")/keys/kek/\#(version)","value":"\#(Base64.url.encode(String(repeating: "z", count: 32).utf8))"}"#
                )
            },
            "tampered blob": azureError(400, "BadParameter", "The parameter is incorrect."),
            "expired token": azureError(401, "Unauthorized", "AKV10015: Token has expired."),
            "clock skew": error(
                401, #"{"error":{"code":"Unauthorized","message":"x"}}"#, ["Date": "Thu, 01 Jan 2099 00:00:00 GMT"]),
        ],
        blob: { base in
            let commitment = azureCommitment(seed: canary, context: testContext(epoch: 1))
            return try WrappedDEK(
                provider: .azure, kekID: base + "/keys/kek", kekVersion: "v1",
                wrapped: commitment + Array(repeating: 7, count: 256))
        })

    // MARK: OpenBao

    private static func baoError(_ status: Int, _ message: String, _ headers: [String: String] = [:])
        -> @Sendable (ScriptedServer.Request) -> ScriptedServer.Reaction
    {
        error(status, #"{"errors":["\#(message)"]}"#, headers)
    }

    static let openbao = ProviderFixture(
        provider: .openbao,
        configuration: { base, folder in
            var configuration = KMSConfiguration(provider: .openbao)
            configuration.timeoutSeconds = 1
            folder.write("token", tokenCanary + "\n", mode: 0o600)
            configuration.openbao = .init(
                address: base, key: "kek",
                identity: .init(source: .kubernetes, tokenFile: folder.path("token"), role: "node"))
            return configuration
        },
        environment: [:],
        preliminary: { request in
            if request.target == "/v1/auth/kubernetes/login" {
                guard request.body == #"{"role":"node","jwt":"\#(tokenCanary)"}"# else {
                    return .answer(400, body: "{}")
                }
                return .json(#"{"auth":{"client_token":"\#(tokenCanary)2","lease_duration":3600}}"#)
            }
            return request.target == "/v1/auth/token/lookup-self" ? .json(#"{"data":{}}"#) : nil
        },
        good: { _ in .json(#"{"data":{"plaintext":"\#(dek)"}}"#) },
        faults: [
            "500": baoError(500, "1 error occurred:"),
            "throttled": baoError(429, "request path quota exceeded", ["Retry-After": "7"]),
            "denied": baoError(403, #"1 error occurred:\n\t* permission denied\n\n"#),
            "disabled": baoError(400, "ciphertext or signature version is disallowed by policy (too old)"),
            "pending deletion": baoError(400, "unable to use a soft deleted key"),
            "wrong context": baoError(400, "cipher: message authentication failed"),
            "tampered blob": baoError(400, "invalid ciphertext: could not decode base64"),
            "expired token": baoError(403, "permission denied"),
            "clock skew": error(403, #"{"errors":["permission denied"]}"#, ["Date": "Thu, 01 Jan 2099 00:00:00 GMT"]),
        ],
        blob: { _ in
            try WrappedDEK(
                provider: .openbao, kekID: "transit/kek", kekVersion: "v1", wrapped: Array("vault:v1:QUJD".utf8))
        })
}

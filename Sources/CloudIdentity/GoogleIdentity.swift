internal import Secrets

/// The service account of the instance, or of the pod on GKE, from the metadata server.
public struct GoogleMetadataToken: CredentialSource {
    private let http: any HTTPService
    private let endpoint: HTTPEndpoint

    /// - Parameter endpoint: nil for metadata.google.internal.
    public init(http: any HTTPService, endpoint: HTTPEndpoint? = nil) {
        self.http = http
        self.endpoint = endpoint ?? .linkLocal("metadata.google.internal")
    }

    /// A token of the default service account.
    public func fetch() async throws(IdentityError) -> BearerToken {
        let who = "the metadata server at \(endpoint.authority)"
        var call = HTTPCall(
            "GET", endpoint, "/computeMetadata/v1/instance/service-accounts/default/token", timeout: .seconds(3))
        call.headers = [(name: "Metadata-Flavor", value: "Google")]
        let answer = try await deliver(call, http)
        guard answer.headers["metadata-flavor"] == "Google" else {
            throw IdentityError(.garbage, "\(who) is not Google's: its answer lacks Metadata-Flavor")
        }
        guard answer.status == 200 else { throw IdentityError(status: answer.status, answer, who: who) }
        return try oauthToken(answer, who: who)
    }
}

/// Workload identity federation: a projected service-account token for a Google token, at Google's STS; then perhaps the token of
/// a service account that we may impersonate.
public struct GoogleFederatedToken: CredentialSource {
    private let http: any HTTPService
    private let time: TimeSource
    private let tokenFile: TokenFile
    private let audience: String
    private let sts: HTTPEndpoint
    private let impersonated: String?
    private let iam: HTTPEndpoint

    static let scope = "https://www.googleapis.com/auth/cloudkms"

    /// - Parameters:
    ///   - audience: `//iam.googleapis.com/projects/N/locations/global/workloadIdentityPools/POOL/providers/PROVIDER`.
    ///   - impersonated: E-mail address of a service account; nil for none.
    ///   - sts: nil for sts.googleapis.com.
    ///   - iam: nil for iamcredentials.googleapis.com.
    public init(
        http: any HTTPService, time: TimeSource, tokenFile: TokenFile, audience: String, impersonated: String?,
        sts: HTTPEndpoint? = nil, iam: HTTPEndpoint? = nil
    ) {
        self.http = http
        self.time = time
        self.tokenFile = tokenFile
        self.audience = audience
        self.impersonated = impersonated
        self.sts = sts ?? .https("sts.googleapis.com")
        self.iam = iam ?? .https("iamcredentials.googleapis.com")
    }

    /// Exchanges the token file's content of now.
    public func fetch() async throws(IdentityError) -> BearerToken {
        let who = "Google's STS at \(sts.authority)"
        var call = HTTPCall("POST", sts, "/v1/token")
        call.headers = [(name: "Content-Type", value: "application/x-www-form-urlencoded")]
        call.body = FormBody.encode([
            ("grant_type", .text("urn:ietf:params:oauth:grant-type:token-exchange")), ("audience", .text(audience)),
            // Impersonation needs the wide scope; the impersonated token gets the narrow one.
            ("scope", .text(impersonated == nil ? Self.scope : "https://www.googleapis.com/auth/cloud-platform")),
            ("requested_token_type", .text("urn:ietf:params:oauth:token-type:access_token")),
            ("subject_token_type", .text("urn:ietf:params:oauth:token-type:jwt")),
            ("subject_token", .secret(try tokenFile.read())),
        ])
        let answer = try await deliver(call, http)
        guard answer.status == 200 else { throw oauthRefusal(answer, who: who, file: tokenFile) }
        let federated = try oauthToken(answer, who: who)
        guard let impersonated else { return federated }
        return try await impersonate(impersonated, with: federated)
    }

    private func impersonate(_ account: String, with token: BearerToken) async throws(IdentityError) -> BearerToken {
        let who = "Google's IAM at \(iam.authority)"
        var call = HTTPCall("POST", iam, "/v1/projects/-/serviceAccounts/\(account):generateAccessToken")
        call.headers = [
            (name: "Authorization", value: "Bearer \(token.headerValue)"),
            (name: "Content-Type", value: "application/json"),
        ]
        call.body =
            JSONWriter.object([("scope", .array([.string(Self.scope)])), ("lifetime", .string("3600s"))]).bytes()
        let answer = try await deliver(call, http)
        guard answer.status == 200 else {
            let error = IdentityError(status: answer.status, answer, who: who)
            guard error.kind == .denied else { throw error }
            throw IdentityError(
                .denied, "\(error.message); grant roles/iam.workloadIdentityUser on \(account) to this identity")
        }
        guard let json = try? JSONDocument(answer.body).value, let value = json["accessToken"]?.secret,
            let end = json["expireTime"]?.string.flatMap({ UTCTime(rfc3339: $0) })
        else { throw IdentityError(.garbage, "\(who) answered without a token") }
        let left = end.unixSeconds - time.unixSeconds()
        guard left > 0 else {
            throw IdentityError(
                .clockSkew, "\(who) gave a token that has expired by our clock; correct this machine's clock")
        }
        return try BearerToken(checked: value, lifetime: .seconds(left), who: who)
    }
}

/// The answer of an OAuth token service.
func oauthToken(_ answer: HTTPAnswer, who: String) throws(IdentityError) -> BearerToken {
    guard let json = try? JSONDocument(answer.body).value, let value = json["access_token"]?.secret,
        let seconds = json["expires_in"]?.integer, seconds > 0
    else { throw IdentityError(.garbage, "\(who) answered without a token") }
    return try BearerToken(checked: value, lifetime: .seconds(min(seconds, 86400)), who: who)
}

/// What an OAuth token service says when it gives no token.
func oauthRefusal(_ answer: HTTPAnswer, who: String, file: TokenFile) -> IdentityError {
    let json = try? JSONDocument(answer.body).value
    guard (400...403).contains(answer.status), let code = json?["error"]?.string else {
        return IdentityError(status: answer.status, answer, who: who)
    }
    let said = "\(who) says \(showable(code)): \(showable(json?["error_description"]?.string ?? ""))"
    if said.contains("expired") || said.contains("AADSTS700024") {
        return IdentityError(
            .expired, "\(said); the kubelet should have renewed \(file.path), check that it is a projected volume")
    }
    return IdentityError(.denied, said)
}

extension BearerToken {
    /// Refuses what could break out of a header.
    init(checked value: SecretBytes, lifetime: Duration?, who: String) throws(IdentityError) {
        guard value.count > 0, value.withUnsafeBytes({ $0.allSatisfy { (0x21...0x7e).contains($0) } }) else {
            throw IdentityError(.garbage, "\(who) answered with something that is no token")
        }
        self.init(value: value, lifetime: lifetime)
    }
}

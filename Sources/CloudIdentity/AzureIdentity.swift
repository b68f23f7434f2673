internal import Secrets

/// A managed identity of the virtual machine, from IMDS.
public struct AzureManagedIdentityToken: CredentialSource {
    private let http: any HTTPService
    private let endpoint: HTTPEndpoint
    private let clientID: String?
    private let resource: String

    /// - Parameters:
    ///   - clientID: Which of several user-assigned identities; nil for the only one.
    ///   - resource: Such as https://vault.azure.net.
    ///   - endpoint: nil for the link-local address that all machines have.
    public init(http: any HTTPService, clientID: String?, resource: String, endpoint: HTTPEndpoint? = nil) {
        self.http = http
        self.clientID = clientID
        self.resource = resource
        self.endpoint = endpoint ?? .linkLocal("169.254.169.254")
    }

    /// A token for the resource.
    public func fetch() async throws(IdentityError) -> BearerToken {
        let who = "the instance metadata service at \(endpoint.authority)"
        func encoded(_ text: String) -> String { String(decoding: PercentEncoding.encode(text.utf8), as: UTF8.self) }
        var target = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=\(encoded(resource))"
        if let clientID { target += "&client_id=\(encoded(clientID))" }
        var call = HTTPCall("GET", endpoint, target, timeout: .seconds(3))
        call.headers = [(name: "Metadata", value: "true")]
        let answer = try await deliver(call, http)
        guard answer.status == 200 else {
            // IMDS says 400 "Identity not found" where no identity is assigned.
            if answer.status == 400 {
                throw IdentityError(
                    .unavailable,
                    "\(who) has no identity for us; assign a managed identity to this machine: \(showable(answer.text))"
                )
            }
            throw IdentityError(status: answer.status, answer, who: who)
        }
        return try oauthToken(answer, who: who)
    }
}

/// Workload identity: a projected service-account token as client assertion, at Entra ID.
public struct AzureWorkloadIdentityToken: CredentialSource {
    private let http: any HTTPService
    private let authority: HTTPEndpoint
    private let tenantID: String
    private let clientID: String
    private let tokenFile: TokenFile
    private let resource: String

    /// - Parameters:
    ///   - authority: nil for login.microsoftonline.com.
    ///   - tenantID: A GUID.
    ///   - clientID: Of the application or user-assigned identity with the federated credential.
    ///   - resource: Such as https://vault.azure.net.
    public init(
        http: any HTTPService, authority: HTTPEndpoint? = nil, tenantID: String, clientID: String, tokenFile: TokenFile,
        resource: String
    ) throws(IdentityError) {
        guard (1...64).contains(tenantID.utf8.count),
            tenantID.utf8.allSatisfy({
                (0x30...0x39).contains($0) || (0x61...0x7a).contains($0 | 0x20) || $0 == 0x2d || $0 == 0x2e
            })
        else { throw IdentityError(.misconfigured, "\"\(showable(tenantID))\" is no tenant id") }
        self.http = http
        self.authority = authority ?? .https("login.microsoftonline.com")
        self.tenantID = tenantID
        self.clientID = clientID
        self.tokenFile = tokenFile
        self.resource = resource
    }

    /// Shows the token file's content of now.
    public func fetch() async throws(IdentityError) -> BearerToken {
        let who = "Entra ID at \(authority.authority)"
        var call = HTTPCall("POST", authority, "/\(tenantID)/oauth2/v2.0/token")
        call.headers = [(name: "Content-Type", value: "application/x-www-form-urlencoded")]
        call.body = FormBody.encode([
            ("grant_type", .text("client_credentials")), ("client_id", .text(clientID)),
            ("scope", .text(resource + "/.default")),
            ("client_assertion_type", .text("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")),
            ("client_assertion", .secret(try tokenFile.read())),
        ])
        let answer = try await deliver(call, http)
        guard answer.status == 200 else { throw oauthRefusal(answer, who: who, file: tokenFile) }
        return try oauthToken(answer, who: who)
    }
}

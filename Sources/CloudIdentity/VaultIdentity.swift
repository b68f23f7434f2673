internal import Secrets

/// A token that something else keeps fresh in a file, such as an agent's sink.
public struct VaultTokenFile: CredentialSource {
    private let file: TokenFile

    /// Names the file.
    public init(_ file: TokenFile) {
        self.file = file
    }

    /// Read again every minute.
    public func fetch() async throws(IdentityError) -> BearerToken {
        BearerToken(value: try file.read(), lifetime: .seconds(60))
    }
}

/// Kubernetes and JWT authentication: a projected service-account token for a Vault token.
public struct VaultLogin: CredentialSource {
    private let http: any HTTPService
    private let endpoint: HTTPEndpoint
    private let namespace: String?
    private let mount: String
    private let role: String
    private let tokenFile: TokenFile

    /// - Parameter mount: Where the method is mounted below auth/, such as "kubernetes" or "jwt".
    public init(
        http: any HTTPService, endpoint: HTTPEndpoint, namespace: String?, mount: String, role: String,
        tokenFile: TokenFile
    ) {
        self.http = http
        self.endpoint = endpoint
        self.namespace = namespace
        self.mount = mount
        self.role = role
        self.tokenFile = tokenFile
    }

    /// Logs in with the token file's content of now.
    public func fetch() async throws(IdentityError) -> BearerToken {
        let who = "the login at \(endpoint.authority)/v1/auth/\(mount)"
        var call = HTTPCall("POST", endpoint, "/v1/auth/\(mount)/login")
        call.headers = [(name: "Content-Type", value: "application/json"), (name: "X-Vault-Request", value: "true")]
        if let namespace { call.headers.append((name: "X-Vault-Namespace", value: namespace)) }
        call.body = JSONWriter.object([("role", .string(role)), ("jwt", .secret(try tokenFile.read()))]).bytes()
        let answer = try await deliver(call, http)
        guard answer.status == 200 else {
            let json = try? JSONDocument(answer.body).value
            let said = showable((json?["errors"]?.array ?? []).compactMap(\.string).joined(separator: "; "))
            if said.contains("expired") {
                throw IdentityError(
                    .expired, "\(who) says: \(said); check that \(tokenFile.path) is a projected volume")
            }
            if (400...403).contains(answer.status) {
                throw IdentityError(.denied, "\(who) refuses role \"\(showable(role))\": \(said)")
            }
            throw IdentityError(status: answer.status, answer, who: who)
        }
        guard let auth = try? JSONDocument(answer.body).value["auth"], let value = auth["client_token"]?.secret,
            let seconds = auth["lease_duration"]?.integer, seconds >= 0
        else { throw IdentityError(.garbage, "\(who) answered without a token") }
        return try BearerToken(checked: value, lifetime: seconds == 0 ? nil : .seconds(seconds), who: who)
    }
}

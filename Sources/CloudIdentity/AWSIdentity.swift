public import Secrets

/// What signs requests to AWS.
public struct AWSCredentials: ExpiringCredential {
    /// No secret.
    public let accessKeyID: String
    /// The signing key is derived from it.
    public let secretAccessKey: SecretBytes
    /// With temporary credentials.
    public let sessionToken: SecretBytes?
    /// From when they were fetched.
    public let lifetime: Duration?

    /// Makes credentials.
    public init(accessKeyID: String, secretAccessKey: SecretBytes, sessionToken: SecretBytes?, lifetime: Duration?) {
        self.accessKeyID = accessKeyID
        self.secretAccessKey = secretAccessKey
        self.sessionToken = sessionToken
        self.lifetime = lifetime
    }
}

/// AWS credentials from the process's environment: for development.
public struct AWSEnvironmentCredentials: CredentialSource {
    private let environment: [String: String]

    /// Takes the environment to look in.
    public init(environment: [String: String]) {
        self.environment = environment
    }

    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, if it is there, `AWS_SESSION_TOKEN`.
    public func fetch() async throws(IdentityError) -> AWSCredentials {
        guard let id = environment["AWS_ACCESS_KEY_ID"], !id.isEmpty, let secret = environment["AWS_SECRET_ACCESS_KEY"],
            !secret.isEmpty
        else {
            throw IdentityError(
                .unavailable, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both in the environment")
        }
        return AWSCredentials(
            accessKeyID: id, secretAccessKey: SecretBytes(copyingText: secret),
            sessionToken: environment["AWS_SESSION_TOKEN"].flatMap { $0.isEmpty ? nil : SecretBytes(copyingText: $0) },
            lifetime: nil)
    }
}

/// IRSA: a projected service-account token for a role's credentials, at STS.
public struct AWSWebIdentityCredentials: CredentialSource {
    private let http: any HTTPService
    private let time: TimeSource
    private let endpoint: HTTPEndpoint
    private let roleARN: String
    private let tokenFile: TokenFile
    private let sessionName: String

    /// - Parameter endpoint: STS of the region.
    public init(
        http: any HTTPService, time: TimeSource, endpoint: HTTPEndpoint, roleARN: String, tokenFile: TokenFile,
        sessionName: String
    ) {
        self.http = http
        self.time = time
        self.endpoint = endpoint
        self.roleARN = roleARN
        self.tokenFile = tokenFile
        self.sessionName = sessionName
    }

    /// AssumeRoleWithWebIdentity.
    public func fetch() async throws(IdentityError) -> AWSCredentials {
        var call = HTTPCall("POST", endpoint, "/")
        call.headers = [(name: "Content-Type", value: "application/x-www-form-urlencoded")]
        call.body = FormBody.encode([
            ("Action", .text("AssumeRoleWithWebIdentity")), ("Version", .text("2011-06-15")),
            ("RoleArn", .text(roleARN)),
            ("RoleSessionName", .text(sessionName)), ("WebIdentityToken", .secret(try tokenFile.read())),
        ])
        let answer = try await deliver(call, http)
        let xml = XMLElements(answer.body)
        guard answer.status == 200 else { throw refusal(answer, code: xml.text("Code"), message: xml.text("Message")) }
        guard let id = xml.text("AccessKeyId"), let secret = xml.secret("SecretAccessKey"),
            let token = xml.secret("SessionToken"),
            let end = xml.text("Expiration").flatMap({ UTCTime(rfc3339: $0) })
        else { throw IdentityError(.garbage, "STS at \(endpoint.authority) answered without credentials") }
        return try temporary(
            id: id, secret: secret, token: token, end: end, time: time, who: "STS at \(endpoint.authority)")
    }

    private func refusal(_ answer: HTTPAnswer, code: String?, message: String?) -> IdentityError {
        let said = "STS says \(showable(code ?? "status \(answer.status)")): \(showable(message ?? ""))"
        // STS asks the cluster's OIDC provider for its keys. When it cannot reach that, nobody has refused us.
        let isCutOff = message?.contains("retrieve verification key") == true
        switch code {
        case "IDPCommunicationError", "IDPCommunicationErrorException": return IdentityError(.unreachable, said)
        case "InvalidIdentityToken" where isCutOff: return IdentityError(.unreachable, said)
        case "ExpiredTokenException", "ExpiredToken":
            return IdentityError(
                .expired,
                "\(said); the kubelet should have renewed \(tokenFile.path), check that it is a projected volume")
        case "InvalidIdentityToken", "IDPRejectedClaim":
            return IdentityError(
                .denied, "\(said); check the OIDC provider and the token's audience (sts.amazonaws.com)")
        case "AccessDenied": return IdentityError(.denied, "\(said); check the trust policy of \(roleARN)")
        case "Throttling", "ThrottlingException", "RequestLimitExceeded":
            return IdentityError(.throttled(retryAfter: answer.retryAfter), said)
        case "RequestExpired": return IdentityError(.clockSkew, "\(said); correct this machine's clock")
        case .some where answer.status < 500: return IdentityError(.denied, said)
        default: return IdentityError(status: answer.status, answer, who: "STS at \(endpoint.authority)")
        }
    }
}

/// EKS Pod Identity and ECS: credentials from an agent on the node.
public struct AWSContainerCredentials: CredentialSource {
    private let http: any HTTPService
    private let time: TimeSource
    private let endpoint: HTTPEndpoint
    private let target: String
    private let authorization: TokenFile?

    /// - Parameters:
    ///   - endpoint: Must be https, loopback, or one of the agents' link-local addresses: the token is sent nowhere else.
    ///   - target: Path of the credentials.
    ///   - authorization: What to show, `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`; nil on ECS, which needs none.
    public init(
        http: any HTTPService, time: TimeSource, endpoint: HTTPEndpoint, target: String, authorization: TokenFile?
    ) throws(IdentityError) {
        let agents: Set<String> = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23", "localhost", "::1"]
        guard endpoint.isTLS || agents.contains(endpoint.host) || endpoint.host.hasPrefix("127.") else {
            throw IdentityError(
                .misconfigured,
                "container credentials endpoint \(endpoint.authority) is neither https, nor loopback, nor an agent of ECS or EKS"
            )
        }
        self.http = http
        self.time = time
        self.endpoint = endpoint
        self.target = target
        self.authorization = authorization
    }

    /// Asks the agent.
    public func fetch() async throws(IdentityError) -> AWSCredentials {
        var call = HTTPCall("GET", endpoint, target, timeout: .seconds(3))
        if let authorization {
            let token = try authorization.read()
            call.headers.append(
                (name: "Authorization", value: token.withUnsafeBytes { String(decoding: $0, as: UTF8.self) }))
        }
        let who = "the container credentials agent at \(endpoint.authority)"
        let answer = try await deliver(call, http)
        guard answer.status == 200 else { throw IdentityError(status: answer.status, answer, who: who) }
        return try credentials(fromJSON: answer, time: time, who: who)
    }
}

/// The role of the instance, from IMDSv2. Version 1, which any request forged through a proxy could use, is never asked.
public struct AWSInstanceCredentials: CredentialSource {
    private let http: any HTTPService
    private let time: TimeSource
    private let endpoint: HTTPEndpoint

    /// - Parameter endpoint: nil for the link-local address that all instances have.
    public init(http: any HTTPService, time: TimeSource, endpoint: HTTPEndpoint? = nil) {
        self.http = http
        self.time = time
        self.endpoint = endpoint ?? .linkLocal("169.254.169.254")
    }

    /// A session token first, then the role's name, then its credentials.
    public func fetch() async throws(IdentityError) -> AWSCredentials {
        let who = "the instance metadata service at \(endpoint.authority)"
        var session = HTTPCall("PUT", endpoint, "/latest/api/token", timeout: .seconds(2))
        session.headers = [(name: "X-aws-ec2-metadata-token-ttl-seconds", value: "300")]
        let token = try await deliver(session, http)
        guard token.status == 200 else {
            if token.status == 403 { throw IdentityError(.unavailable, "\(who) is turned off for this instance") }
            throw IdentityError(status: token.status, token, who: who)
        }
        guard token.body.count > 0, token.body.withUnsafeBytes({ $0.allSatisfy { (0x21...0x7e).contains($0) } }) else {
            throw IdentityError(.garbage, "\(who) answered without a session token")
        }
        let header = (
            name: "X-aws-ec2-metadata-token", value: token.body.withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
        )
        let folder = "/latest/meta-data/iam/security-credentials/"
        var roles = HTTPCall("GET", endpoint, folder, timeout: .seconds(2))
        roles.headers = [header]
        let names = try await deliver(roles, http)
        guard names.status == 200 else {
            if names.status == 404 {
                throw IdentityError(.unavailable, "this instance has no role; attach an instance profile")
            }
            throw IdentityError(status: names.status, names, who: who)
        }
        guard let role = names.text.split(whereSeparator: \.isNewline).first.map(String.init),
            role.utf8.allSatisfy({ (0x21...0x7e).contains($0) && $0 != 0x2f && $0 != 0x3f && $0 != 0x23 && $0 != 0x25 })
        else { throw IdentityError(.garbage, "\(who) answered without a role's name") }
        var call = HTTPCall("GET", endpoint, folder + role, timeout: .seconds(2))
        call.headers = [header]
        let answer = try await deliver(call, http)
        guard answer.status == 200 else { throw IdentityError(status: answer.status, answer, who: who) }
        return try credentials(fromJSON: answer, time: time, who: who)
    }
}

/// The JSON that IMDS and the container agents share.
private func credentials(fromJSON answer: HTTPAnswer, time: TimeSource, who: String) throws(IdentityError)
    -> AWSCredentials
{
    guard let json = try? JSONDocument(answer.body).value else {
        throw IdentityError(.garbage, "\(who) did not answer in JSON")
    }
    if let code = json["Code"]?.string, code != "Success" {
        throw IdentityError(
            .unavailable, "\(who) has no credentials: \(showable(code)) \(showable(json["Message"]?.string ?? ""))")
    }
    guard let id = json["AccessKeyId"]?.string, let secret = json["SecretAccessKey"]?.secret,
        let token = json["Token"]?.secret,
        let end = json["Expiration"]?.string.flatMap({ UTCTime(rfc3339: $0) })
    else { throw IdentityError(.garbage, "\(who) answered without credentials") }
    return try temporary(id: id, secret: secret, token: token, end: end, time: time, who: who)
}

private func temporary(
    id: String, secret: SecretBytes, token: SecretBytes, end: UTCTime, time: TimeSource, who: String
) throws(IdentityError) -> AWSCredentials {
    let left = end.unixSeconds - time.unixSeconds()
    guard left > 0 else {
        throw IdentityError(
            .clockSkew, "\(who) gave credentials that have expired by our clock; correct this machine's clock")
    }
    guard token.withUnsafeBytes({ $0.allSatisfy { (0x21...0x7e).contains($0) } }),
        id.utf8.allSatisfy({ (0x21...0x7e).contains($0) })
    else { throw IdentityError(.garbage, "\(who) gave credentials with characters that no header can hold") }
    return AWSCredentials(accessKeyID: id, secretAccessKey: secret, sessionToken: token, lifetime: .seconds(left))
}

/// Sends, and turns a fault into the identity's error.
func deliver(_ call: HTTPCall, _ http: any HTTPService) async throws(IdentityError) -> HTTPAnswer {
    do {
        return try await http.send(call)
    } catch {
        throw IdentityError(error)
    }
}

extension SecretBytes {
    /// A copy of text that came from where we cannot zero it, such as the environment.
    public convenience init(copyingText text: String) {
        var bytes = Array(text.utf8)
        self.init(zeroing: &bytes)
    }
}

/// The content of an XML answer's elements by name: enough for STS, whose answers never nest what we read.
struct XMLElements {
    private let text: SecretBytes

    init(_ text: SecretBytes) {
        self.text = text
    }

    func text(_ name: String) -> String? {
        range(name).map { range in text.withUnsafeBytes { String(decoding: $0[range], as: UTF8.self) } }
    }

    /// Keys and tokens of AWS hold no character that XML would escape.
    func secret(_ name: String) -> SecretBytes? {
        range(name).map { range in
            text.withUnsafeBytes { SecretBytes(copying: UnsafeRawBufferPointer(rebasing: $0[range])) }
        }
    }

    /// Between the first `<name>` and the `</name>` after it; nil when there is markup between.
    private func range(_ name: String) -> Range<Int>? {
        text.withUnsafeBytes { bytes in
            guard let start = Self.find(Array("<\(name)>".utf8), in: bytes, from: 0),
                let end = Self.find(Array("</\(name)>".utf8), in: bytes, from: start + name.utf8.count + 2)
            else { return nil }
            let range = start + name.utf8.count + 2..<end
            return bytes[range].contains { $0 == 0x3c || $0 == 0x26 } ? nil : range
        }
    }

    private static func find(_ pattern: [UInt8], in bytes: UnsafeRawBufferPointer, from: Int) -> Int? {
        guard from + pattern.count <= bytes.count else { return nil }
        return (from...bytes.count - pattern.count).first { start in
            pattern.indices.allSatisfy { bytes[start + $0] == pattern[$0] }
        }
    }
}

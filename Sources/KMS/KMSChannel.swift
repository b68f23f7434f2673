internal import CloudIdentity
internal import Secrets

/// What the providers that speak HTTP share: sending, and turning faults of below into the errors of this module.
struct KMSChannel: Sendable {
    let provider: KMSProvider
    let http: any HTTPService
    let timeout: Duration
    let time: TimeSource

    /// Whatever the KMS answers. A redirect is an error: credentials go where the configuration says and nowhere else.
    func send(_ call: HTTPCall) async throws(KMSError) -> HTTPAnswer {
        var call = call
        call.timeout = timeout
        let answer: HTTPAnswer
        do {
            answer = try await http.send(call)
        } catch {
            throw KMSError(Self.kind(error.kind), provider, error.message)
        }
        guard !(300...399).contains(answer.status) else {
            throw KMSError(
                .garbage, provider, "\(call.endpoint.authority) redirects, and credentials are never sent elsewhere")
        }
        try requireSameTime(answer, call.endpoint)
        return answer
    }

    /// A refusal by somebody whose clock differs from ours by more than tokens and signatures allow is about the clock.
    private func requireSameTime(_ answer: HTTPAnswer, _ endpoint: HTTPEndpoint) throws(KMSError) {
        guard answer.status == 401 || answer.status == 403, let date = answer.headers["date"],
            let theirs = UTCTime(httpDate: date)?.unixSeconds
        else { return }
        let ahead = theirs - time.unixSeconds()
        guard abs(ahead) > 300 else { return }
        throw KMSError(
            .clockSkew, provider,
            "\(endpoint.authority) refuses us (status \(answer.status)), and its clock is \(abs(ahead)) s \(ahead > 0 ? "ahead of" : "behind") ours; correct this machine's clock"
        )
    }

    /// The body of an answer as JSON.
    func json(_ answer: HTTPAnswer) throws(KMSError) -> JSONDocument.Value {
        do {
            return try JSONDocument(answer.body).value
        } catch {
            throw KMSError(
                .garbage, provider,
                "the KMS answered with status \(answer.status) and something that is no JSON (\(error.message))")
        }
    }

    /// The error of a status whose body said nothing that we know.
    func error(_ answer: HTTPAnswer, _ said: String) -> KMSError {
        let said = said.isEmpty ? "status \(answer.status)" : "status \(answer.status), \(printable(said))"
        switch answer.status {
        case 429: return KMSError(.throttled(retryAfter: answer.retryAfter), provider, "the KMS throttles us: \(said)")
        case 503 where answer.retryAfter != nil:
            return KMSError(.throttled(retryAfter: answer.retryAfter), provider, "the KMS asks for patience: \(said)")
        case 500...599: return KMSError(.serverFault, provider, "the KMS has a problem of its own: \(said)")
        case 401: return KMSError(.expiredToken, provider, "the KMS does not accept our token: \(said)")
        case 403: return KMSError(.denied, provider, "the KMS refuses: \(said)")
        case 404: return KMSError(.keyNotFound, provider, "the KMS knows no such key: \(said)")
        default: return KMSError(.garbage, provider, "the KMS answered with \(said)")
        }
    }

    /// Credentials, with the identity's error as ours.
    func credential<Credential>(_ cache: CredentialCache<Credential>) async throws(KMSError) -> Credential {
        do {
            return try await cache.credential()
        } catch {
            throw KMSError(Self.kind(error.kind), provider, "no credentials: \(error.message)")
        }
    }

    /// Runs a call with credentials; when they turn out to have expired, once more with new ones.
    func withFreshCredential<Credential, Result>(
        _ cache: CredentialCache<Credential>, _ body: (Credential) async throws(KMSError) -> Result
    ) async throws(KMSError) -> Result {
        do {
            return try await body(try await credential(cache))
        } catch  where error.kind == .expiredToken {
            await cache.invalidate()
            return try await body(try await credential(cache))
        }
    }

    private static func kind(_ kind: HTTPFault.Kind) -> KMSError.Kind {
        switch kind {
        case .unreachable, .timeout: .unreachable
        case .untrusted: .untrusted
        case .tooLarge: .tooLarge
        case .garbage: .garbage
        }
    }

    private static func kind(_ kind: IdentityError.Kind) -> KMSError.Kind {
        switch kind {
        case .unreachable: .unreachable
        case .throttled(let retryAfter): .throttled(retryAfter: retryAfter)
        case .denied: .denied
        case .expired: .expiredToken
        case .unavailable: .identityUnavailable
        case .clockSkew: .clockSkew
        case .garbage: .garbage
        case .tooLarge: .tooLarge
        case .untrusted: .untrusted
        case .misconfigured: .misconfigured
        }
    }
}

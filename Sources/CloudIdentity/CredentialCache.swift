public import Secrets

/// Credentials with an end.
public protocol ExpiringCredential: Sendable {
    /// How long they are good for, counted from when they were fetched; nil for credentials without an end.
    var lifetime: Duration? { get }
}

/// An OAuth or Vault token.
public struct BearerToken: ExpiringCredential {
    /// The token.
    public let value: SecretBytes
    /// From when it was fetched.
    public let lifetime: Duration?

    /// Makes a token.
    public init(value: SecretBytes, lifetime: Duration?) {
        self.value = value
        self.lifetime = lifetime
    }

    /// As a header takes it. The copy that this makes, and AsyncHTTPClient's, are not zeroed.
    public var headerValue: String { value.withUnsafeBytes { String(decoding: $0, as: UTF8.self) } }
}

/// Where credentials come from. Asked by a `CredentialCache`, one call at a time.
public protocol CredentialSource<Credential>: Sendable {
    /// What comes.
    associatedtype Credential: ExpiringCredential
    /// Fetches new credentials. Reads its token files again every time.
    func fetch() async throws(IdentityError) -> Credential
}

/// Keeps credentials until shortly before their end, and fetches new ones once for however many callers wait.
///
/// When the renewal fails while the old credentials are still good, they are used; the source is asked again after a while.
public actor CredentialCache<Credential: ExpiringCredential> {
    private struct Held {
        var credential: Credential
        /// When new ones should be fetched, and when these end; nil: never.
        var renewAt: Duration?
        var end: Duration?
    }
    private let source: any CredentialSource<Credential>
    private let time: TimeSource
    private var held: Held?
    private var fetching: Task<Result<Credential, IdentityError>, Never>?
    private var generation = 0

    /// Starts empty.
    public init(_ source: any CredentialSource<Credential>, time: TimeSource) {
        self.source = source
        self.time = time
    }

    /// Good credentials.
    public func credential() async throws(IdentityError) -> Credential {
        let now = time.monotonic()
        if let held, held.renewAt.map({ now < $0 }) ?? true { return held.credential }
        do {
            return try await fetch()
        } catch {
            guard let held, let end = held.end, time.monotonic() < end else { throw error }
            self.held?.renewAt = min(end, time.monotonic() + .seconds(15))
            return held.credential
        }
    }

    /// Says that the other side refused the credentials as expired: the next caller gets new ones.
    public func invalidate() {
        held = nil
        generation += 1
    }

    private func fetch() async throws(IdentityError) -> Credential {
        if let fetching { return try await fetching.value.get() }
        let started = time.monotonic()
        let generation = generation
        let task = Task { [source] () -> Result<Credential, IdentityError> in
            do throws(IdentityError) {
                return .success(try await source.fetch())
            } catch {
                return .failure(error)
            }
        }
        fetching = task
        let result = await task.value
        fetching = nil
        let credential = try result.get()
        if generation == self.generation {
            let lifetime = credential.lifetime
            // A tenth of the lifetime before its end, but never more than five minutes, and for each node at another moment, so
            // that nodes which started together do not ask together.
            let margin = lifetime.map { min($0 / 10, .seconds(300)) * Double.random(in: 1...1.5) }
            held = Held(
                credential: credential, renewAt: lifetime.flatMap { l in margin.map { started + l - $0 } },
                end: lifetime.map { started + $0 })
        }
        return credential
    }
}

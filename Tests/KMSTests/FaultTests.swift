import CloudIdentity
import Secrets
import Synchronization
import Testing

@testable import KMS

/// Faults that look like others.
@Suite(.timeLimit(.minutes(1))) struct FaultTests {
    private func unwrapError(
        _ fixture: ProviderFixture, _ script: @escaping @Sendable (ScriptedServer.Request) -> ScriptedServer.Reaction?
    ) async throws -> KMSError {
        let folder = TemporaryFolder()
        let server = try await ScriptedServer { request in
            script(request) ?? fixture.preliminary(request) ?? fixture.good(request)
        }
        let kms = try fixture.configuration(server.base, folder).makeService(environment: fixture.environment)
        let blob = try fixture.blob(server.base)
        var error: KMSError?
        do {
            _ = try await kms.unwrap(blob, for: testContext(epoch: 1))
        } catch let thrown {
            error = thrown
        }
        await server.stop()
        return try #require(error)
    }

    @Test func aVaultBehindItsFirewallIsNoDisabledKey() async throws {
        let message =
            "Public network access is disabled and request is not from a trusted service nor via an approved private link."
        for inner in [#","innererror":{"code":"ForbiddenByConnection"}"#, ""] {
            let error = try await unwrapError(.azure) { request in
                request.target.contains("unwrapkey") && request.headers["authorization"] != nil
                    ? .answer(403, body: #"{"error":{"code":"Forbidden","message":"\#(message)"\#(inner)}}"#) : nil
            }
            #expect(error.kind == .denied, "\(error)")
        }
    }

    /// STS has to ask the cluster's OIDC provider.
    @Test(arguments: [
        ("IDPCommunicationError", "The identity provider could not be reached", KMSError.Kind.unreachable),
        ("InvalidIdentityToken", "Couldn't retrieve verification key from your identity provider", .unreachable),
        ("InvalidIdentityToken", "No OpenIDConnect provider found in your account", .denied),
    ])
    func stsWithoutItsProvider(_ code: String, _ message: String, _ kind: KMSError.Kind) async throws {
        let error = try await unwrapError(.aws) { request in
            request.target.hasPrefix("/sts/")
                ? .answer(
                    400,
                    body:
                        "<ErrorResponse><Error><Code>\(code)</Code><Message>\(message)</Message></Error></ErrorResponse>"
                )
                : nil
        }
        #expect(error.kind == kind, "\(error)")
    }

    /// Tokens without Vault's default policy may not look at themselves: that tells no expired one from one that may not decrypt.
    @Test func aNewTokenThatIsRefusedIsDenied() async throws {
        let logins = Mutex(0)
        let error = try await unwrapError(.openbao) { request in
            if request.target.hasSuffix("/login") {
                let number = logins.withLock {
                    $0 += 1
                    return $0
                }
                return .json(#"{"auth":{"client_token":"s.\#(number)","lease_duration":3600}}"#)
            }
            return .answer(403, body: #"{"errors":["permission denied"]}"#)
        }
        #expect(error.kind == .denied, "\(error)")
        #expect(logins.withLock { $0 } == 2)
    }

    /// A token in an answer that is not what it should be.
    @Test(arguments: ProviderFixture.all.map(\.provider), [201, 203, 206])
    func unusualSuccessesTellNoToken(_ provider: KMSProvider, _ status: Int) async throws {
        let fixture = try #require(ProviderFixture.all.first { $0.provider == provider })
        let error = try await unwrapError(fixture) { request in
            guard case .answer(200, let headers, let body) = fixture.preliminary(request), body.contains("CANARY")
            else {
                return nil
            }
            return .answer(status, headers: headers, body: body)
        }
        #expect(error.kind == .garbage)
        #expect(!error.description.contains("CANARY"), "\(error)")
    }

    /// The head is there at once, the rest comes byte by byte, for as long as somebody listens.
    @Test func anAnswerThatNeverEnds() async throws {
        let server = try await ScriptedServer { _ in .drip("HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n") }
        let http = try AsyncHTTPService()
        let call = HTTPCall("GET", try HTTPEndpoint(server.base), "/", timeout: .seconds(1))
        let begin = ContinuousClock.now
        do {
            _ = try await http.send(call)
            Issue.record("answered")
        } catch {
            #expect(error.kind == .timeout, "\(error)")
        }
        #expect(ContinuousClock.now - begin < .seconds(10))
        await server.stop()
    }

    /// `timeoutSeconds` may be up to 60.
    @Test func aSlowAnswerInTime() async throws {
        let server = try await ScriptedServer { _ in
            .late(.seconds(11), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        }
        let call = HTTPCall("GET", try HTTPEndpoint(server.base), "/", timeout: .seconds(40))
        #expect(try await AsyncHTTPService().send(call).text == "{}")
        await server.stop()
    }

    /// As a load balancer with nobody behind it does.
    @Test func aHandshakeThatIsBrokenOffIsAnOutage() async throws {
        let server = try await ScriptedServer(hangsUp: true) { _ in .close }
        let call = HTTPCall("GET", try HTTPEndpoint("https://127.0.0.1:\(server.port)"), "/")
        do {
            _ = try await AsyncHTTPService().send(call)
            Issue.record("answered")
        } catch {
            #expect(error.kind == .unreachable, "\(error)")
        }
        await server.stop()
    }

    @Test func aForeignBlobSaysNothingOfTheKMS() {
        var life = DEKLifecycle(now: .zero)
        life.want([1, 2], now: .zero)
        let outage = KMSError(.unreachable, .aws, "no answer")
        var now = Duration.seconds(1)
        while life.status(now: now).circuit == .closed {
            for epoch in life.step(now: now).unwrap { life.failed(epoch, outage, now: now) }
            now += .seconds(1)
        }
        life.failed(2, KMSError(.wrongKEK, .aws, "of another"), now: now)
        #expect(life.status(now: now).circuit != .closed)
        life.failed(2, KMSError(.notAuthentic, .aws, "the KMS says so"), now: now)
        #expect(life.status(now: now).circuit == .closed)
    }

    /// What is in use although its object is not there.
    @Test func heldEpochsKeepTheirLeases() {
        var life = DEKLifecycle(now: .zero, adopted: [1: .seconds(100), 2: .seconds(100), 3: .seconds(100)])
        life.want([2], held: [1, 2], now: .zero)
        #expect(life.isUsable(1, now: .zero) && !life.isUsable(3, now: .zero))
        life.want([2], now: .zero)
        #expect(!life.isUsable(1, now: .zero))
        // There is nothing to ask for, again and again: that takes no retries from others.
        var gate = KMSGate(policy: .init(budget: 2), now: .zero)
        gate.failed(KMSError(.unreachable, .aws, "no answer"), now: .zero, random: 0.5)
        for second in 1...10 {
            #expect(gate.permission(now: .seconds(second)) == .go)
            gate.notAsked()
        }
    }

    /// A blob is replaced while the KMS is being asked about the old one.
    @Test func aReplacedBlobIsAskedForAtOnce() async throws {
        let kms = TwoBlobs()
        let keeper = DEKKeeper(kms: kms)
        let run = Task { await keeper.run() }
        func epoch(_ wrapped: UInt8) throws -> DEKKeeper.Epoch {
            .init(
                context: testContext(epoch: 1),
                blob: try WrappedDEK(provider: .local, kekID: "file", kekVersion: "1", wrapped: [wrapped]))
        }
        await keeper.want([try epoch(1)])
        while kms.calls.withLock({ $0 }) == 0 { try await Task.sleep(for: .milliseconds(5)) }
        await keeper.want([try epoch(2)])
        kms.isReplaced.withLock { $0 = true }
        let begin = ContinuousClock.now
        while await keeper.dek(1) == nil, ContinuousClock.now - begin < .seconds(12) {
            try await Task.sleep(for: .milliseconds(20))
        }
        #expect(await keeper.dek(1) != nil)
        run.cancel()
    }

    /// Answers about the first blob only when it has been replaced: it is a bad one.
    private final class TwoBlobs: KeyManagementService {
        let provider = KMSProvider.local
        let kekID = "file"
        let calls = Mutex(0)
        let isReplaced = Mutex(false)

        func unwrap(_ blob: WrappedDEK, for context: KeyContext) async throws(KMSError) -> SecretBytes {
            calls.withLock { $0 += 1 }
            while !isReplaced.withLock({ $0 }) { try? await Task.sleep(for: .milliseconds(5)) }
            if blob.wrapped == [1] { throw KMSError(.notAuthentic, .local, "changed") }
            return SecretBytes(random: 32)
        }
        func generateDEK(for context: KeyContext) async throws(KMSError) -> WrappedDEK {
            throw KMSError(.misconfigured, .local, "not here")
        }
        func currentKEKVersion() async throws(KMSError) -> String { "1" }
        func checkHealth() async throws(KMSError) {}
    }
}

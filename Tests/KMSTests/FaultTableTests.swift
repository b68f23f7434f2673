import CloudIdentity
import Crypto
import Secrets
import Synchronization
import Testing

@testable import KMS

/// The commitment that provider `azure` stores beside the wrapped seed.
func azureCommitment(seed: String, context: KeyContext) -> [UInt8] {
    let output = HKDF<SHA256>.deriveKey(
        inputKeyMaterial: SymmetricKey(data: Array(seed.utf8)), info: context.canonicalBytes, outputByteCount: 64)
    return output.withUnsafeBytes { Array($0[32...]) }
}

/// Every provider under every fault, over real connections: what error it becomes, what status says, whether traffic goes on; and
/// after the TTL, and after recovery.
@Suite struct FaultTableTests {
    struct Row: Sendable {
        var provider: String
        var fault: String
        var error: KMSError
        var status: KMSStatus
        var course: String
    }

    /// What becomes of traffic after a failed renewal, played through on the lifecycle: until the lease ends, then, after a success.
    static func course(_ lifecycle: DEKLifecycle, leaseEnd end: Duration) -> String {
        var lifecycle = lifecycle
        var parts = [lifecycle.isUsable(1, now: end - .seconds(1)) ? "goes on until the TTL" : "STOPS BEFORE THE TTL"]
        let closes = lifecycle.step(now: end).expired == [1] && !lifecycle.isUsable(1, now: end)
        parts.append(
            closes && lifecycle.status(now: end).severity == .failedClosed ? "then stops" : "GOES ON AFTER THE TTL")
        lifecycle.unwrapped(1, askedAt: end + .seconds(60), now: end + .seconds(61))
        let recovers =
            lifecycle.isUsable(1, now: end + .seconds(62))
            && lifecycle.status(now: end + .seconds(62)).state == .healthy
        parts.append(recovers ? "then recovers" : "STAYS STOPPED")
        return parts.joined(separator: ", ")
    }

    static let expectedCourse = "goes on until the TTL, then stops, then recovers"

    static let expected: [String: Set<KMSStatus.State>] = [
        "down": [.outage], "500": [.outage], "throttled": [.throttled], "slow": [.outage], "denied": [.denied],
        "disabled": [.disabled], "pending deletion": [.pendingDeletion], "wrong context": [.badBlob],
        "tampered blob": [.badBlob],
        "expired token": [.noIdentity], "clock skew": [.clockSkew], "garbage": [.garbage], "not HTTP": [.garbage],
        "huge": [.garbage],
        "redirect": [.garbage], "cut off": [.outage],
    ]

    @Test(arguments: ProviderFixture.all.map(\.provider))
    func table(_ provider: KMSProvider) async throws {
        let fixture = try #require(ProviderFixture.all.first { $0.provider == provider })
        var rows: [Row] = []
        try await withThrowingTaskGroup(of: Row.self) { group in
            for fault in Self.expected.keys.sorted() {
                group.addTask { try await Self.row(fixture, fault) }
            }
            for try await row in group { rows.append(row) }
        }
        for row in rows.sorted(by: { $0.fault < $1.fault }) {
            #expect(Self.expected[row.fault]?.contains(row.status.state) == true, "\(row.fault): \(row.error)")
            #expect(row.status.isServing, "the lease lasts whatever the KMS says")
            #expect(row.status.severity > .fine)
            #expect(row.course == Self.expectedCourse)
            #expect(!row.status.sentence.contains("CANARY") && !row.error.description.contains("CANARY"))
            #expect(!row.status.sentence.contains(ProviderFixture.dek))
            if row.fault == "throttled" { #expect(row.error.kind == .throttled(retryAfter: .seconds(7))) }
            print(
                "FAULT", row.provider.padded(8), row.fault.padded(17), row.status.state.rawValue.padded(17),
                (row.status.severity == .critical ? "critical" : "warning").padded(9),
                row.course, "|",
                row.status.sentence)
        }
    }

    private static func row(_ fixture: ProviderFixture, _ fault: String) async throws -> Row {
        let folder = TemporaryFolder()
        let broken = Mutex(false)
        let server = try await ScriptedServer { request in
            if let reaction = fixture.preliminary(request) {
                // Whose token has expired is told so when it asks about itself.
                if broken.withLock({ $0 }) && fault == "expired token" && request.target.hasSuffix("lookup-self") {
                    return .answer(403, body: #"{"errors":["permission denied"]}"#)
                }
                return reaction
            }
            guard broken.withLock({ $0 }) else { return fixture.good(request) }
            switch fault {
            case "slow": return .stall
            case "garbage": return .answer(200, body: "<html>\u{1b}[31mCaptive portal</html>")
            case "not HTTP": return .raw("SSH-2.0-OpenSSH_9.2\r\n\r\n")
            case "huge": return .answer(200, body: "{\"x\":\"" + String(repeating: "x", count: 1 << 20) + "\"}")
            case "redirect": return .answer(307, headers: ["Location": "http://127.0.0.1:1/elsewhere"], body: "")
            case "cut off": return .raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{")
            case "down": return .close
            default: return fixture.faults[fault]?(request) ?? .close
            }
        }
        let kms = try fixture.configuration(server.base, folder).makeService(environment: fixture.environment)
        let blob = try fixture.blob(server.base)
        let context = testContext(epoch: 1)

        // A lease, as a node has it.
        var lifecycle = DEKLifecycle(now: .zero)
        lifecycle.want([1], now: .zero)
        #expect(lifecycle.step(now: .zero).unwrap == [1])
        _ = try await kms.unwrap(blob, for: context)
        lifecycle.unwrapped(1, askedAt: .zero, now: .zero)

        // The fault, when it comes to renew.
        broken.withLock { $0 = true }
        if fault == "down" { await server.stop() }
        let renewal = Duration.seconds(14 * 3600)
        #expect(lifecycle.step(now: renewal).unwrap == [1])
        var error: KMSError?
        do {
            _ = try await kms.unwrap(blob, for: context)
        } catch let thrown {
            error = thrown
        }
        let failure = try #require(error, "\(fixture.provider) \(fault): nothing was thrown")
        lifecycle.failed(1, failure, now: renewal)
        let row = Row(
            provider: fixture.provider.rawValue, fault: fault, error: failure, status: lifecycle.status(now: renewal),
            course: course(lifecycle, leaseEnd: .seconds(86400)))

        await server.stop()
        return row
    }

    /// What `local` can have of these.
    @Test func localTable() async throws {
        let folder = TemporaryFolder()
        let path = folder.path("kek")
        try LocalKMS.createKEKFile(at: path)
        let kms = LocalKMS(kekFile: path)
        let context = testContext(epoch: 1)
        let blob = try await kms.generateDEK(for: context)
        var wrapped = blob.wrapped
        wrapped[20] ^= 1
        let tampered = try WrappedDEK(provider: .local, kekID: "file", kekVersion: blob.kekVersion, wrapped: wrapped)
        let cases: [(String, WrappedDEK, KeyContext, KMSStatus.State, () -> Void)] = [
            ("wrong context", blob, testContext(epoch: 2), .badBlob, {}),
            ("tampered blob", tampered, context, .badBlob, {}),
            ("mode 0644", blob, context, .misconfigured, { folder.write("kek", "", mode: 0o644) }),
            ("garbage", blob, context, .misconfigured, { folder.write("kek", "garbage", mode: 0o600) }),
            (
                "another KEK", blob, context, .badBlob,
                { folder.write("kek", String(repeating: "a", count: 64), mode: 0o600) }
            ),
        ]
        for (fault, blob, context, state, prepare) in cases {
            prepare()
            var lifecycle = DEKLifecycle(now: .zero)
            lifecycle.want([1], now: .zero)
            lifecycle.unwrapped(1, askedAt: .zero, now: .zero)
            do {
                _ = try await kms.unwrap(blob, for: context)
                Issue.record("\(fault): nothing was thrown")
            } catch {
                lifecycle.failed(1, error, now: .seconds(43200))
            }
            let status = lifecycle.status(now: .seconds(43200))
            #expect(status.state == state)
            let course = Self.course(lifecycle, leaseEnd: .seconds(86400))
            #expect(course == Self.expectedCourse)
            print(
                "FAULT", "local   ", fault.padded(17), status.state.rawValue.padded(17), "warning  ",
                course, "|", status.sentence)
        }
    }
}

extension String {
    func padded(_ width: Int) -> String { self + String(repeating: " ", count: max(0, width - count)) }
}

import CloudIdentity
import FoundationEssentials
import Glibc
import Secrets
import Testing

@testable import KMS

/// Against servers: moto made strict, the stand-ins that the official SDKs accept, and the real OpenBao. `make test-kms` starts them.
@Suite(.enabled(if: getenv("KMS_SERVERS") != nil, "make test-kms starts the servers and sets KMS_SERVERS"), .serialized)
struct ServerTests {
    struct Servers: Decodable {
        struct Case: Decodable, CustomTestStringConvertible {
            var name: String
            var provider: KMSProvider
            var kms: KMSConfiguration
            var environment: [String: String]
            var primary: Bool?
            var refusal: String?
            var testDescription: String { name }
        }
        var control: String
        var cases: [Case]

        static let shared: Servers? = getenv("KMS_SERVERS").flatMap { readText(String(cString: $0)) }.flatMap {
            try? JSONDecoder().decode(Servers.self, from: Data($0.utf8))
        }
    }

    private func control(_ provider: KMSProvider, _ action: String) async throws {
        let endpoint = try HTTPEndpoint(try #require(Servers.shared).control)
        let answer = try await AsyncHTTPService().send(
            HTTPCall("POST", endpoint, "/\(provider.rawValue)/\(action)", timeout: .seconds(20)))
        try #require(answer.status == 200, "\(action): \(answer.text)")
    }

    @Test func areDescribed() throws {
        #expect(try #require(Servers.shared).cases.count == 20)
    }

    @Test(arguments: Servers.shared?.cases.filter { $0.refusal == nil } ?? [])
    func everyIdentityOfEveryProvider(_ server: Servers.Case) async throws {
        let kms = try server.kms.makeService(environment: server.environment)
        let context = testContext(epoch: 1)
        try await kms.checkHealth()
        let blob = try await kms.generateDEK(for: context)
        #expect(blob.provider == server.provider && blob.kekID == kms.kekID)
        #expect(try await kms.currentKEKVersion() == blob.kekVersion)
        let stored = try WrappedDEK(decoding: blob.encoded, expected: server.provider)
        let dek = try await kms.unwrap(stored, for: context)
        #expect(dek.count == 32)
        #expect(try await kms.unwrap(stored, for: context) == dek)
        #expect(try await kms.unwrap(kms.generateDEK(for: context), for: context) != dek)
        for other in [
            testContext(epoch: 2), testContext(cluster: 2, epoch: 1), testContext(epoch: 1, purpose: "other"),
        ] {
            await expectKMSError(.notAuthentic) { _ = try await kms.unwrap(blob, for: other) }
        }
        var wrapped = blob.wrapped
        wrapped[wrapped.count - 6] = wrapped[wrapped.count - 6] == 0x41 ? 0x42 : 0x41
        let tampered = try WrappedDEK(
            provider: blob.provider, kekID: blob.kekID, kekVersion: blob.kekVersion, wrapped: wrapped)
        await expectKMSError(.notAuthentic) { _ = try await kms.unwrap(tampered, for: context) }
        print("SERVER", server.name, "ok")
    }

    @Test(arguments: Servers.shared?.cases.filter { $0.primary == true } ?? [])
    func whatHappensToKeys(_ server: Servers.Case) async throws {
        let kms = try server.kms.makeService(environment: server.environment)
        let context = testContext(epoch: 1)
        let old = try await kms.generateDEK(for: context)
        let dek = try await kms.unwrap(old, for: context)

        // A rotation of the KEK: old blobs unwrap as before, new ones carry the new version.
        try await control(server.provider, "rotate")
        let version = try await kms.currentKEKVersion()
        #expect(version != old.kekVersion)
        #expect(try await kms.unwrap(old, for: context) == dek)
        let new = try await kms.generateDEK(for: context)
        #expect(new.kekVersion == version)

        // Tokens that were good a moment ago.
        try await control(server.provider, "revoke")
        #expect(try await kms.unwrap(old, for: context) == dek)

        try await control(server.provider, "disable")
        await expectKMSError(.disabled) { _ = try await kms.unwrap(new, for: context) }
        try await control(server.provider, "enable")
        #expect(try await kms.unwrap(old, for: context) == dek)

        try await control(server.provider, "delete")
        await expectKMSError(.pendingDeletion) { _ = try await kms.unwrap(new, for: context) }
        await expectKMSError(.pendingDeletion) { try await kms.checkHealth() }
        try await control(server.provider, "restore")
        #expect(try await kms.unwrap(old, for: context) == dek)
        print("SERVER", server.name, "rotation, revoked tokens, disabled and deleted keys ok")
    }

    @Test(arguments: Servers.shared?.cases.filter { $0.refusal != nil } ?? [])
    func refusals(_ server: Servers.Case) async throws {
        let kms = try server.kms.makeService(environment: server.environment)
        do {
            try await kms.checkHealth()
            Issue.record("\(server.name): not refused")
        } catch {
            #expect(error.kind.label == server.refusal, "\(server.name): \(error)")
            print("SERVER", server.name, "refused:", error)
        }
    }

    /// A clock that is wrong by an hour.
    @Test func clockSkew() async throws {
        let server = try #require(Servers.shared?.cases.first { $0.provider == .aws && $0.primary == true })
        let late = TimeSource(
            monotonic: TimeSource.system.monotonic, unixSeconds: { TimeSource.system.unixSeconds() - 3600 })
        let kms = try server.kms.makeService(environment: server.environment, time: late)
        await expectKMSError(.clockSkew, containing: "clock") { try await kms.checkHealth() }
    }

    /// A CA that is not ours.
    @Test func certificatesAreVerified() async throws {
        var server = try #require(Servers.shared?.cases.first { $0.provider == .azure && $0.primary == true })
        server.kms.caFile = nil
        let kms = try server.kms.makeService(environment: server.environment)
        await expectKMSError(.untrusted, containing: "caFile") { try await kms.checkHealth() }
    }
}

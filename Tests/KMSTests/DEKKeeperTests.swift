import CloudIdentity
import Secrets
import Synchronization
import Testing

@testable import KMS

/// A KMS that answers what a test says.
final class ScriptedKMS: KeyManagementService {
    let provider = KMSProvider.local
    let kekID = "file"
    let calls = Mutex(0)
    private let answer: Mutex<@Sendable () throws(KMSError) -> SecretBytes>

    init(_ answer: @escaping @Sendable () throws(KMSError) -> SecretBytes) { self.answer = Mutex(answer) }

    func set(_ new: @escaping @Sendable () throws(KMSError) -> SecretBytes) { answer.withLock { $0 = new } }

    func generateDEK(for context: KeyContext) async throws(KMSError) -> WrappedDEK {
        throw KMSError(.misconfigured, .local, "not here")
    }
    func unwrap(_ blob: WrappedDEK, for context: KeyContext) async throws(KMSError) -> SecretBytes {
        calls.withLock { $0 += 1 }
        let answer = answer.withLock { $0 }
        return try answer()
    }
    func currentKEKVersion() async throws(KMSError) -> String { "1" }
    func checkHealth() async throws(KMSError) {}
}

@Suite(.timeLimit(.minutes(1))) struct DEKKeeperTests {
    private func epoch(_ number: UInt32) throws -> DEKKeeper.Epoch {
        .init(
            context: testContext(epoch: number),
            blob: try WrappedDEK(provider: .local, kekID: "file", kekVersion: "1", wrapped: [1]))
    }

    @Test func fetchesHoldsAndForgets() async throws {
        let kms = ScriptedKMS { () throws(KMSError) in SecretBytes(random: 32) }
        let keeper = DEKKeeper(kms: kms)
        let run = Task { await keeper.run() }
        await keeper.want([try epoch(1)])
        for await _ in keeper.changes where await keeper.dek(1) != nil { break }
        #expect(await keeper.isUsable(1))
        #expect(await keeper.status.state == .healthy)
        await keeper.want([try epoch(1), try epoch(2)])
        for await _ in keeper.changes where await keeper.dek(2) != nil { break }
        await keeper.want([try epoch(2)])
        #expect(await keeper.dek(1) == nil)
        #expect(await keeper.dek(2) != nil)
        run.cancel()
        await run.value
        #expect(await keeper.dek(2) == nil, "nothing is kept after the end")
    }

    /// A lease of a second, with a KMS that goes away and comes back.
    @Test func endsTheLeaseByItself() async throws {
        let kms = ScriptedKMS { () throws(KMSError) in SecretBytes(random: 32) }
        var policy = DEKLifecycle.Policy(ttl: .seconds(1))
        policy.gate = .init(base: .milliseconds(20), cap: .milliseconds(50), budget: 1000)
        let keeper = DEKKeeper(kms: kms, policy: policy)
        let run = Task { await keeper.run() }
        await keeper.want([try epoch(1)])
        for await _ in keeper.changes where await keeper.dek(1) != nil { break }
        kms.set { () throws(KMSError) in throw KMSError(.unreachable, .local, "gone") }
        for await _ in keeper.changes {
            if await !keeper.isUsable(1) { break }
        }
        #expect(await keeper.dek(1) == nil)
        // The state follows when the KMS has been asked again.
        #expect(await eventually { await keeper.status.severity == .failedClosed })
        kms.set { () throws(KMSError) in SecretBytes(random: 32) }
        for await _ in keeper.changes where await keeper.dek(1) != nil { break }
        #expect(await eventually { await keeper.status.state == .healthy })
        run.cancel()
    }

    /// Whether something comes true within half a minute, which is for slow machines.
    private func eventually(_ condition: () async -> Bool) async -> Bool {
        for _ in 0..<1500 {
            if await condition() { return true }
            try? await Task.sleep(for: .milliseconds(20))
        }
        return false
    }

    @Test func adoptsWhatTheKernelHolds() async throws {
        let kms = ScriptedKMS { () throws(KMSError) in throw KMSError(.unreachable, .local, "gone") }
        let keeper = DEKKeeper(kms: kms, adopted: [3: nil])
        let run = Task { await keeper.run() }
        await keeper.want([try epoch(3)])
        for await _ in keeper.changes { break }
        #expect(await keeper.isUsable(3))
        #expect(await keeper.dek(3) == nil)
        #expect(await keeper.status.state == .outage)
        #expect(await keeper.status.isServing)
        run.cancel()
    }
}

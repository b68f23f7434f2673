import Cluster
import Datapath
import Glibc
import Keys
import Logging
import Secrets
import Testing

@testable import Agent
@testable import KMS

@Suite(.timeLimit(.minutes(1))) struct LeaseTests {
    /// A KMS that is not there.
    private struct AbsentKMS: KeyManagementService {
        let provider = KMSProvider.local
        let kekID = "file"
        private var error: KMSError { KMSError(.unreachable, .local, "no answer") }
        func generateDEK(for context: KeyContext) async throws(KMSError) -> WrappedDEK { throw error }
        func unwrap(_ blob: WrappedDEK, for context: KeyContext) async throws(KMSError) -> SecretBytes { throw error }
        func currentKEKVersion() async throws(KMSError) -> String { throw error }
        func checkHealth() async throws(KMSError) { throw error }
    }

    /// The kernel holds keys of epoch 1, whose object no longer says so.
    @Test(
        "Keys go when their lease ends, also when the epoch's object cannot be read or is not yet due",
        arguments: [
            "{",
            #"{"number": 1, "wrappedDEK": "AA==", "provider": "local", "kekID": "file", "kekVersion": "1", "#
                + #""notBefore": "2098-01-01T00:00:00.000Z", "notAfter": "2099-01-01T00:00:00.000Z", "#
                + #""acknowledgeBy": "2098-01-02T00:00:00.000Z"}"#,
        ])
    func leasesEnd(_ object: String) async throws {
        var template = Array("/tmp/xdp-encryptor-lease-XXXXXX".utf8CString)
        let root = String(cString: try #require(mkdtemp(&template)))
        defer {
            for name in [
                "epochs/1.json", "nodes/a.json", "nodes/b.json", "epochs", "nodes", "endpoints", "run/leases.json",
                "run/node.json",
                "run/status.json", "run", "cluster.json",
            ] where unlink("\(root)/\(name)") != 0 { rmdir("\(root)/\(name)") }
            rmdir(root)
        }
        for folder in ["epochs", "nodes", "endpoints"] { mkdir("\(root)/\(folder)", 0o700) }
        let cluster = "{\"id\": \"\(String(repeating: "ab", count: 16))\", \"strictCIDRs\": []}"
        try AtomicFile.write(Array(cluster.utf8), to: "\(root)/cluster.json")
        try AtomicFile.write(Array(object.utf8), to: "\(root)/epochs/1.json")
        // Nothing is known of the other node either: its keys stay.
        try AtomicFile.write(Array("{".utf8), to: "\(root)/nodes/b.json")
        let directory = try RuntimeDirectory(path: "\(root)/run")
        var now = timespec()
        clock_gettime(CLOCK_BOOTTIME, &now)
        try directory.write([
            DEKLifecycle.Lease(epoch: 1, endMilliseconds: Int64(now.tv_sec) * 1000 + 3000)
        ])

        let datapath = FakeDatapath(nodeID: 1)
        let key = try #require(KeyID(bytes: [UInt8](repeating: 7, count: 16)))
        datapath.with { inner in
            for direction in [Direction.send, .receive] {
                inner.state.associations[AssociationID(slot: 1, direction: direction, epoch: 1)] = AssociationInfo(
                    epoch: 1, peerNodeID: 2, spi: 2, keyID: key, engine: .ecb)
            }
        }
        let agent = Agent(
            configuration: AgentConfiguration(
                node: "a", nodeID: 1, clusterDirectory: root, kms: .local(kekFile: "\(root)/kek")),
            directory: root, node: "a", nodeID: 1, datapath: datapath, kms: AbsentKMS(), directory: directory,
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        let run = Task { try await agent.run() }
        defer { run.cancel() }
        try await Task.sleep(for: .milliseconds(1500))
        #expect(datapath.now.associations.count == 2, "the lease is not over")
        var left = 1000
        while !datapath.now.associations.isEmpty, left > 0 {
            try await Task.sleep(for: .milliseconds(20))
            left -= 1
        }
        #expect(datapath.now.associations.isEmpty)
    }
}

import Cluster
import Glibc
import KMS
import Keys
import Synchronization
import Testing

@testable import Agent

@Suite(.timeLimit(.minutes(1))) struct EpochWriterTests {
    private func write(_ path: String, _ text: String) throws {
        let fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        try #require(fd >= 0)
        defer { close(fd) }
        try #require(Glibc.write(fd, text, text.utf8.count) == text.utf8.count)
    }

    @Test("Makes the first epoch, leaves it alone, and answers a rotation of the KEK with the next")
    func rotation() async throws {
        var template = Array("/tmp/xdp-encryptor-writer-XXXXXX".utf8CString)
        let root = String(cString: try #require(mkdtemp(&template)))
        defer {
            for name in ["epochs/1.json", "epochs/2.json", "epochs", "nodes", "endpoints", "cluster.json", "kek"] {
                if unlink("\(root)/\(name)") != 0 { rmdir("\(root)/\(name)") }
            }
            rmdir(root)
        }
        for folder in ["epochs", "nodes", "endpoints"] { mkdir("\(root)/\(folder)", 0o700) }
        try write("\(root)/cluster.json", "{\"id\": \"\(String(repeating: "ab", count: 16))\", \"strictCIDRs\": []}")
        let (old, new) = (String(repeating: "1", count: 64), String(repeating: "2", count: 64))
        try write("\(root)/kek", old)

        let said = Mutex<[String]>([])
        let writer = EpochWriter(
            directory: root, kms: LocalKMS(kekFile: "\(root)/kek"), pollInterval: .milliseconds(100)
        ) { line in said.withLock { $0.append(line) } }
        let run = Task { try await writer.run() }
        defer { run.cancel() }

        func epochs() -> [EncryptionEpoch] {
            var reader = DirectoryReader(path: root)
            return reader.scan().epochs.values.sorted { $0.number < $1.number }
        }
        while epochs().isEmpty { try await Task.sleep(for: .milliseconds(20)) }
        try await Task.sleep(for: .milliseconds(500))
        #expect(epochs().map(\.number) == [1], "\(said.withLock { $0 })")

        try write("\(root)/kek", "\(new)\n\(old)\n")
        while epochs().count < 2 { try await Task.sleep(for: .milliseconds(20)) }
        try await Task.sleep(for: .milliseconds(500))
        let made = epochs()
        #expect(made.map(\.number) == [1, 2], "\(said.withLock { $0 })")
        #expect(made[0].kekVersion != made[1].kekVersion)
        #expect(said.withLock { $0 }.contains { $0.contains("the KEK was rotated") })

        // Somebody has the file open and has not written it yet.
        try write("\(root)/kek", "")
        while !said.withLock({ $0.last?.contains("must hold one KEK a line") ?? false }) {
            try await Task.sleep(for: .milliseconds(20))
        }
        try write("\(root)/kek", "\(new)\n\(old)\n")
        while !said.withLock({ $0.last?.contains("the KEK's version is") ?? false }) {
            try await Task.sleep(for: .milliseconds(20))
        }
    }
}

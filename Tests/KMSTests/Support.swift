import Glibc
import Testing

@testable import KMS

/// A context of a cluster whose id repeats one byte.
func testContext(cluster: UInt8 = 1, epoch: UInt32, purpose: String = KeyContext.traffic) -> KeyContext {
    guard let context = KeyContext(clusterID: Array(repeating: cluster, count: 16), epoch: epoch, purpose: purpose)
    else {
        fatalError("no context")
    }
    return context
}

/// Expects a typed error of a kind, with a text in its message.
func expectKMSError(
    _ kind: KMSError.Kind, containing text: String = "", sourceLocation: SourceLocation = #_sourceLocation,
    _ body: () async throws -> Void
) async {
    do {
        try await body()
        Issue.record("nothing was thrown; expected \(kind)", sourceLocation: sourceLocation)
    } catch let error as KMSError {
        #expect(error.kind == kind, "\(error)", sourceLocation: sourceLocation)
        #expect(text.isEmpty || error.message.contains(text), "\(error)", sourceLocation: sourceLocation)
    } catch {
        Issue.record("not a KMSError: \(error)", sourceLocation: sourceLocation)
    }
}

/// A folder that goes away with the test.
final class TemporaryFolder: Sendable {
    let root: String

    init() {
        var template = Array("/tmp/xdp-encryptor-kms-XXXXXX".utf8CString)
        guard let path = mkdtemp(&template) else { fatalError("no temporary folder") }
        root = String(cString: path)
    }

    deinit {
        let root = root
        for name in names(root) {
            unlink("\(root)/\(name)")
            rmdir("\(root)/\(name)")
        }
        rmdir(root)
    }

    func path(_ name: String) -> String { "\(root)/\(name)" }

    func write(_ name: String, _ content: String, mode: mode_t) {
        let fd = open(path(name), O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        defer { close(fd) }
        var bytes = Array(content.utf8)
        #expect(Glibc.write(fd, &bytes, bytes.count) == bytes.count)
        fchmod(fd, mode)
    }

    private func names(_ path: String) -> [String] {
        guard let folder = opendir(path) else { return [] }
        defer { closedir(folder) }
        var names: [String] = []
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names
    }
}

internal import Secrets
internal import Synchronization

/// The bearer token of requests. A file is read again every minute: what Kubernetes mounts there changes every hour or so.
final class TokenSource: Sendable {
    private struct Held {
        var token: SecretBytes
        var readAt: Duration
    }
    private let path: String
    private let clock: KubernetesClock
    private let held = Mutex<Held?>(nil)
    private static let lifetime = Duration.seconds(60)

    init(path: String, clock: KubernetesClock) {
        self.path = path
        self.clock = clock
    }

    /// The token, not older than a minute.
    ///
    /// - Parameter fresh: read the file in any case: the server did not accept what we had.
    func token(fresh: Bool = false) throws(KubernetesError) -> SecretBytes {
        let now = clock.now()
        let last = held.withLock { $0 }
        if let last, !fresh, now - last.readAt < Self.lifetime { return last.token }
        do throws(KubernetesError) {
            let token = try Self.read(path)
            held.withLock { $0 = Held(token: token, readAt: now) }
            return token
        } catch {
            // A file that is gone for a moment must not stop what the token at hand still allows.
            if let last { return last.token }
            throw error
        }
    }

    private static func read(_ path: String) throws(KubernetesError) -> SecretBytes {
        var bytes = try FileReading.read(path, what: "token file", limit: 64 * 1024)
        defer { wipe(&bytes) }
        return try check(&bytes, "token file \(path)")
    }

    /// What goes into a header must not end it.
    static func check(_ bytes: inout [UInt8], _ what: String) throws(KubernetesError) -> SecretBytes {
        while let last = bytes.last, last <= 0x20 { bytes.removeLast() }
        guard !bytes.isEmpty else { throw KubernetesError(.configuration, "\(what) is empty") }
        guard bytes.allSatisfy({ (0x21...0x7e).contains($0) }) else {
            throw KubernetesError(.configuration, "\(what) holds something else than one line of ASCII")
        }
        return bytes.withUnsafeBytes { SecretBytes(copying: $0) }
    }
}

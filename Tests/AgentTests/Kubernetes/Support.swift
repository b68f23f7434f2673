import Cluster
import FoundationEssentials
import Glibc
import Keys
import Kubernetes
import Netlink

@testable import Agent

func unlinkFile(_ path: String) { unlink(path) }

extension Data {
    func write(toFile path: String) throws { try AtomicFile.write(Array(self), to: path) }
}

/// A folder that goes away.
func withFolder<R>(_ body: (String) async throws -> R) async throws -> R {
    let path = "/tmp/xe-agent-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    mkdir(path, 0o700)
    defer {
        let files = try? FileManager.default.subpathsOfDirectory(atPath: path)
        for file in (files ?? []).sorted().reversed() { remove("\(path)/\(file)") }
        rmdir(path)
    }
    return try await body(path)
}

/// What blocks must not take a thread of the pool: there are as many as processors, and other tests need them.
func onThread<R: Sendable>(_ body: @escaping @Sendable () throws -> R) async throws -> R {
    try await withCheckedThrowingContinuation { continuation in
        let error = startThread { continuation.resume(with: Result { try body() }) }
        if error != 0 { continuation.resume(throwing: FileError("start a thread for", "a test", errno: error)) }
    }
}

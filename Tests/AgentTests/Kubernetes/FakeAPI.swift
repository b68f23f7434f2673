import Cluster
import FoundationEssentials
import Kubernetes
import Synchronization

@testable import Agent

/// An API server of one EncryptionNode and some pods, with faults on demand.
final class FakeAPI: KubernetesAPI {
    struct Inner {
        var node: EncryptionNodeObject?
        var pods: [ObjectKey: ObjectMeta] = [:]
        var version = 1
        var writes = 0
        var gets = 0
        /// Errors of the next writes; nil: it works.
        var writeErrors: [KubernetesError?] = []
        /// Of every get.
        var getError: KubernetesError?
        /// The write is taken, and its answer lost.
        var losesAnswers = false
    }
    private let inner = Mutex(Inner())
    func with<R: Sendable>(_ body: (inout Inner) -> R) -> R { inner.withLock { body(&$0) } }

    init(node: EncryptionNodeObject? = nil) {
        inner.withLock { $0.node = node }
        touch()
    }

    /// Somebody changes the object.
    func touch(_ body: @Sendable (inout EncryptionNodeObject) -> Void = { _ in }) {
        with { inner in
            inner.version += 1
            guard var node = inner.node else { return }
            body(&node)
            node.metadata.resourceVersion = "\(inner.version)"
            inner.node = node
        }
    }

    var seen: StatusPublisher.Seen? {
        with { $0.node.map { .init(spec: $0.spec, status: $0.status, resourceVersion: $0.metadata.resourceVersion) } }
    }

    func get<O: KubernetesObject>(_ type: O.Type, _ key: ObjectKey) async throws(KubernetesError) -> O {
        let (error, node, pod) = with { inner in
            inner.gets += 1
            return (inner.getError, inner.node, inner.pods[key])
        }
        if let error { throw error }
        if let node = node as? O { return node }
        if let pod, let record = PodRecord(metadata: pod) as? O { return record }
        throw KubernetesError(.notFound, "\(key) not found", status: 404)
    }

    func replaceStatus<O: KubernetesObject>(_ object: O) async throws(KubernetesError) -> O {
        guard let new = object as? EncryptionNodeObject else { throw KubernetesError(.other, "not here") }
        let outcome: Result<EncryptionNodeObject, KubernetesError> = with { inner in
            if !inner.writeErrors.isEmpty, let error = inner.writeErrors.removeFirst() { return .failure(error) }
            guard var node = inner.node else { return .failure(KubernetesError(.notFound, "gone", status: 404)) }
            guard new.metadata.resourceVersion == node.metadata.resourceVersion else {
                return .failure(KubernetesError(.conflict, "changed", status: 409))
            }
            inner.version += 1
            inner.writes += 1
            node.status = new.status
            node.metadata.resourceVersion = "\(inner.version)"
            inner.node = node
            return inner.losesAnswers ? .failure(KubernetesError(.timeout, "lost")) : .success(node)
        }
        switch outcome {
        case .success(let node): if let node = node as? O { return node } else { throw KubernetesError(.other, "") }
        case .failure(let error): throw error
        }
    }

    func list<O: KubernetesObject>(
        _ type: O.Type, namespace: String?, options: ListOptions
    ) async throws(KubernetesError) -> ObjectList<O> { throw KubernetesError(.other, "not here") }
    func watch<O: KubernetesObject>(
        _ type: O.Type, namespace: String?, options: WatchOptions, onEvent: (WatchEvent<O>) async throws -> Void
    ) async throws(KubernetesError) { throw KubernetesError(.other, "not here") }
    func create<O: KubernetesObject>(_ object: O) async throws(KubernetesError) -> O {
        throw KubernetesError(.other, "not here")
    }
    func replace<O: KubernetesObject>(_ object: O) async throws(KubernetesError) -> O {
        throw KubernetesError(.other, "not here")
    }
    func mergePatch<O: KubernetesObject>(
        _ type: O.Type, _ key: ObjectKey, subresource: String?, body: [UInt8]
    ) async throws(KubernetesError) -> O { throw KubernetesError(.other, "not here") }
    func apply<O: KubernetesObject>(
        _ object: O, subresource: String?, fieldManager: String, force: Bool
    ) async throws(KubernetesError) -> O { throw KubernetesError(.other, "not here") }
    func delete<O: KubernetesObject>(
        _ type: O.Type, _ key: ObjectKey, preconditionUID: String?
    ) async throws(KubernetesError) { throw KubernetesError(.other, "not here") }
    func servedVersions(group: String, plural: String) async throws(KubernetesError) -> [String] { [] }
}

/// Time that passes when somebody waits for it, and not otherwise.
final class FakeTime: Sendable {
    private let inner = Mutex<(now: Duration, waiters: [(Duration, CheckedContinuation<Void, Never>)])>(
        (.seconds(1000), []))

    var now: Duration { inner.withLock { $0.now } }

    /// Lets time pass; whoever's time has come goes on.
    func advance(_ duration: Duration) async {
        let due = inner.withLock { inner in
            inner.now += duration
            let now = inner.now
            let due = inner.waiters.filter { $0.0 <= now }
            inner.waiters.removeAll { $0.0 <= now }
            return due
        }
        for waiter in due { waiter.1.resume() }
        await settle()
    }

    /// Gives tasks the time to run up to their next wait.
    func settle() async {
        for _ in 0..<10 { try? await Task.sleep(for: .milliseconds(4)) }
    }

    var clock: KubernetesClock {
        KubernetesClock(
            now: { self.now },
            sleep: { duration in
                await withCheckedContinuation { continuation in
                    self.inner.withLock { $0.waiters.append(($0.now + duration, continuation)) }
                }
            }, wallMicroseconds: { 0 }, random: { 0.5 })
    }
}

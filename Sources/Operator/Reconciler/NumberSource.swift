internal import Cluster
internal import Keys
internal import Kubernetes
internal import Logging
internal import Synchronization

/// Numbers for new nodes, from the high-water mark in the cluster's ConfigMap: raised by compare-and-swap before the first number is used,
/// so that two leaders never give one twice. Numbers that are left over when a leader ends are lost; there are enough.
final class NumberSource: Sendable {
    private let block = Mutex<Range<NodeID>>(0..<0)

    /// The next number; nil when there is no ConfigMap yet, or when somebody else has just changed it.
    func next(_ session: LeaderSession) async throws(KubernetesError) -> NodeID? {
        if let number = take() { return number }
        let key = ObjectKey(namespace: session.namespace, name: ClusterConfigMap.name)
        do throws(KubernetesError) {
            var map = try await session.api.get(ClusterConfigMap.self, key)
            let mark = map.data?[ClusterConfigMap.nextNodeIDKey]
            let count = max(1, min(1000, await session.hub.newNodes))
            guard let (first, next) = NodeNumbers.allocate(mark: mark, used: await session.hub.nodeIDs, count: count)
            else {
                throw KubernetesError(.other, "there are no more numbers for nodes: \(nodeIDs.upperBound) were given")
            }
            if let mark, NodeID(mark) == nil {
                session.logger.error(
                    "the mark of numbers is no number; going on above all that are in use",
                    metadata: ["key": "\(ClusterConfigMap.nextNodeIDKey)", "value": "\(mark)"])
            }
            map.data = map.data ?? [:]
            map.data?[ClusterConfigMap.nextNodeIDKey] = "\(next)"
            guard session.mayWrite else { return nil }
            _ = try await session.api.replace(map)
            block.withLock { $0 = first..<next }
            return take()
        } catch {
            if error.code == .conflict || error.code == .notFound { return nil }
            throw error
        }
    }

    private func take() -> NodeID? {
        block.withLock { block in
            guard let number = block.first else { return nil }
            block = block.dropFirst()
            return number
        }
    }
}

/// Since when nodes are gone.
final class GoneNodes: Sendable {
    private let times = Mutex<[String: Duration]>([:])

    func since(_ name: String, _ now: Duration) -> Duration {
        times.withLock { times in
            if let time = times[name] { return time }
            times[name] = now
            return now
        }
    }

    func forget(_ name: String) {
        times.withLock { $0[name] = nil }
    }
}

public import Cluster
internal import Synchronization

/// What has been read at one moment.
public struct Reading: Sendable, Hashable {
    /// The cluster's objects.
    public var snapshot: Snapshot
    /// Kubernetes: the number of the last write of slices that is in it. 0 in a cluster directory, which acknowledges pair by pair.
    public var sequence: Int64

    /// Kubernetes: the number of the last write that other nodes wait to hear is in force here.
    public var due: Int64

    /// Makes a reading.
    public init(_ snapshot: Snapshot, sequence: Int64 = 0, due: Int64 = 0) {
        self.snapshot = snapshot
        self.sequence = sequence
        self.due = due
    }
}

/// Where the cluster's objects come from, and where our node's object goes: a directory, or Kubernetes.
public protocol ClusterSource: Sendable {
    /// Watches until the task is cancelled: calls back soon, and then whenever something has changed.
    func run(_ onReading: @escaping @Sendable (Reading) -> Void) async throws

    /// Publishes our node's object; `reading` is what its acknowledgements are about. Must not block.
    func publish(_ node: EncryptionNode, _ reading: Reading) throws

    /// Told after every reconciliation.
    func reconciled(_ report: Reconciler.Report, _ reading: Reading, published: EncryptionNode?)

    /// What people call an endpoint of ours; nil: nothing else than we do.
    func label(_ endpoint: String) -> String?

    /// A problem with its object called as people call it.
    func describe(_ problem: Problem) -> Problem
}

/// A cluster directory.
struct DirectoryClusterSource: ClusterSource {
    let path: String
    let node: String

    func run(_ onReading: @escaping @Sendable (Reading) -> Void) async throws {
        let source = try DirectorySource(path: path) { onReading(Reading($0)) }
        defer { source.stop() }
        // Until the task is cancelled.
        let (forever, end) = AsyncStream.makeStream(of: Void.self)
        for await _ in forever {}
        end.finish()
    }

    func publish(_ node: EncryptionNode, _ reading: Reading) throws {
        try DirectoryWriter(path: path).write(node, name: self.node)
    }

    func reconciled(_ report: Reconciler.Report, _ reading: Reading, published: EncryptionNode?) {}

    func label(_ endpoint: String) -> String? { nil }

    func describe(_ problem: Problem) -> Problem { problem }
}

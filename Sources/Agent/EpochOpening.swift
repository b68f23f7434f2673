public import Cluster
public import KMS
internal import Keys

/// Makes the next epoch of a cluster directory.
public struct EpochOpening: Sendable {
    private let directory: String
    private let kms: any KeyManagementService

    /// Why no epoch was made. For people.
    public struct Refusal: Error, Sendable, CustomStringConvertible {
        /// What stands in the way and what to do.
        public let description: String
        /// Two epochs are live: waiting helps.
        public let isTemporary: Bool
    }

    /// `kms` makes and wraps the DEK.
    public init(directory: String, kms: any KeyManagementService) {
        self.directory = directory
        self.kms = kms
    }

    /// Makes the epoch after the newest one. Refuses as long as two are live: a third one would only wait, and its time would run.
    public func open(_ snapshot: Snapshot, now: Timestamp = .now()) async throws -> EncryptionEpoch {
        guard let cluster = snapshot.cluster else {
            throw Refusal(description: Self.text(snapshot, .cluster, directory), isTemporary: false)
        }
        guard snapshot.isComplete(.epochs) else {
            throw Refusal(description: Self.text(snapshot, .epochs, directory), isTemporary: false)
        }
        let decision = EpochDecision.decide(
            cluster: cluster, epochs: snapshot.epochs, nodes: Array(snapshot.nodes.values), now: now)
        guard decision.live.count < 2 else {
            throw Refusal(
                description:
                    "epochs \(decision.live[0]) and \(decision.live[1]) are both live; wait until \(decision.live[0]) has ended",
                isTemporary: true)
        }
        // A first epoch that no node has installed yet is live alone; a second one beside it would be of no use, but does no harm.
        let newest = snapshot.epochs.keys.max() ?? 0
        guard newest < .max else {
            throw Refusal(description: "epoch \(newest) was the last that there can be", isTemporary: false)
        }
        guard let context = KeyContext(clusterID: cluster.id.bytes, epoch: newest + 1) else {
            throw Refusal(description: "the cluster's id is not 16 bytes", isTemporary: false)
        }
        let blob = try await kms.generateDEK(for: context)
        let epoch = EncryptionEpoch(
            number: newest + 1, wrappedDEK: Base64(blob.encoded), provider: blob.provider.rawValue, kekID: blob.kekID,
            kekVersion: blob.kekVersion, notBefore: now, notAfter: now.adding(seconds: cluster.epochLifetime),
            acknowledgeBy: now.adding(seconds: cluster.acknowledgeWithin))
        try DirectoryWriter(path: directory).create(epoch)
        return epoch
    }

    private static func text(_ snapshot: Snapshot, _ kind: ObjectKind, _ directory: String) -> String {
        let prefix = kind.folder ?? "cluster.json"
        let problems = snapshot.problems.filter { $0.severity == .error && $0.object.hasPrefix(prefix) }.sorted()
        return problems.isEmpty
            ? "\(directory) cannot be read" : problems.map { "\(directory)/\($0)" }.joined(separator: "; ")
    }
}

internal import Cluster
internal import FoundationEssentials
internal import Keys

/// What the daemon keeps until the next boot when it works with Kubernetes: `kubernetes.json` of the runtime directory.
struct KubernetesMemory: Sendable, Codable, Equatable {
    /// Our node's number.
    var nodeID: NodeID
    /// What was said last in the status, and of which incarnation.
    var incarnation: Incarnation?
    var appliedThrough: Int64 = 0
    var notApplied: [String] = []
    /// As they were read last: their ends must be kept also when the API server cannot be asked.
    var epochs: [EncryptionEpoch] = []

    static func read(_ directory: RuntimeDirectory) -> KubernetesMemory? {
        guard let bytes = try? AtomicFile.read("\(directory.path)/kubernetes.json") else { return nil }
        return try? JSONDecoder().decode(Self.self, from: Data(bytes))
    }

    func write(_ directory: RuntimeDirectory) throws {
        try AtomicFile.write(ObjectCoding.encode(self), to: "\(directory.path)/kubernetes.json")
    }
}

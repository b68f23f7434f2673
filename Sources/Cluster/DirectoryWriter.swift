/// Writes objects into a cluster directory, each atomically.
public struct DirectoryWriter: Sendable {
    /// The directory.
    public let path: String

    /// Writes into a directory; nothing is touched before the first write.
    public init(path: String) {
        self.path = path
    }

    /// Publishes a node object. Only that node may.
    public func write(_ node: EncryptionNode, name: String) throws(FileError) {
        try AtomicFile.write(encode(node), to: "\(path)/nodes/\(name).json")
    }

    /// Adds or replaces an endpoint.
    public func write(_ endpoint: EncryptedEndpoint, name: String) throws(FileError) {
        try AtomicFile.write(encode(endpoint), to: "\(path)/endpoints/\(name).json")
    }

    /// Adds an epoch. An error (EEXIST) when there is one of that number: a DEK belongs to one epoch for good.
    public func create(_ epoch: EncryptionEpoch) throws(FileError) {
        try AtomicFile.create(encode(epoch), at: "\(path)/epochs/\(epoch.number).json")
    }

    /// Makes the cluster's object. An error (EEXIST) when there is one.
    public func create(_ cluster: Cluster) throws(FileError) {
        try AtomicFile.create(encode(cluster), at: "\(path)/cluster.json")
    }

    private func encode(_ object: some Encodable) throws(FileError) -> [UInt8] {
        do {
            return try ObjectCoding.encode(object)
        } catch {
            throw FileError("cannot encode an object: \(error)")
        }
    }
}

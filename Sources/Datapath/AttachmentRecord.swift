internal import BPF
internal import FoundationEssentials
internal import Netlink

/// What was changed in a pod, so that it can be put back: written before each change, so that it is complete whenever this process
/// is killed. A JSON file for each pod.
struct AttachmentRecord: Codable, Equatable {
    /// A route whose MTU metric was changed.
    struct ChangedRoute: Codable, Equatable {
        var route: Route.Identity
        /// Bytes; nil when it had none.
        var previous: UInt32?
        /// What we set.
        var applied: UInt32
    }

    var pod: PodInterface
    /// Tells whether a namespace at the same path is still the same.
    var namespace: NetworkNamespace.Identity
    var podIndex: Int32
    var hostIndex: Int32
    /// Names of features that were on and that we turned off.
    var features: [String] = []
    var routes: [ChangedRoute] = []
}

/// The folder of records.
struct RecordFolder: Sendable {
    let path: String

    private func file(_ pod: String) -> String { "\(path)/\(pod).json" }

    /// Names of pods that have a record.
    func pods() throws(DatapathError) -> [String] {
        try Files.list(path).filter { $0.hasSuffix(".json") }.map { String($0.dropLast(5)) }
    }

    /// A pod's record; nil when there is none, or when it cannot be read: then there is nothing to put back.
    func read(_ pod: String) throws(DatapathError) -> AttachmentRecord? {
        guard let bytes = try Files.read(file(pod)) else { return nil }
        return try? JSONDecoder().decode(AttachmentRecord.self, from: Data(bytes))
    }

    func write(_ record: AttachmentRecord) throws(DatapathError) {
        try Files.makeFolder(path)
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        guard let data = try? encoder.encode(record) else {
            throw DatapathError(.failed, "the record of pod \(record.pod.name) cannot be written as JSON")
        }
        try Files.write([UInt8](data), to: file(record.pod.name))
    }

    func remove(_ pod: String) throws(DatapathError) {
        try Files.remove(file(pod))
        try Files.remove(file(pod) + ".new")
    }
}

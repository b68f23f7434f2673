internal import Cluster

/// The pods of this node that are protected, one namespace/name a line: what the CNI plugin goes by while keymgr does not answer.
public enum ProtectedPods {
    /// Its name in the runtime directory.
    public static let file = "protected-pods"

    /// Reads the file; nil when there is none, or it cannot be read.
    public static func read(_ path: String) -> Set<String>? {
        guard let bytes = try? AtomicFile.read(path) else { return nil }
        return Set(String(decoding: bytes, as: UTF8.self).split(separator: "\n").map(String.init))
    }
}

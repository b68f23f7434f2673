internal import Datapath
internal import Glibc

/// Lists the network namespaces of a node: named ones in folders such as /var/run/netns, and those of processes where a folder is a
/// procfs. One of several paths to the same namespace counts: the one in use, else the first root's.
struct NamespaceList: Sendable {
    /// Folders of named namespaces, or a procfs.
    let roots: [String]

    /// Paths by namespace; the namespace that we are in is not among them. `inUse` are paths that are to be kept if they still lead
    /// to the same namespace: another path to it would look like another pod.
    func paths(inUse: [NamespaceIdentity: String] = [:]) -> [NamespaceIdentity: String] {
        var found: [NamespaceIdentity: String] = [:]
        let own = NamespaceIdentity.own()
        for root in roots {
            for path in Self.paths(in: root) {
                guard let identity = NamespaceIdentity(path: path), identity != own, found[identity] == nil else {
                    continue
                }
                found[identity] = path
            }
        }
        for (identity, path) in inUse where found[identity] != path && NamespaceIdentity(path: path) == identity {
            found[identity] = path
        }
        return found
    }

    /// Whether a folder is a procfs, ours or the host's mounted elsewhere.
    static func isProcesses(_ root: String) -> Bool { access("\(root)/self/ns", F_OK) == 0 }

    private static func paths(in root: String) -> [String] {
        let names = list(root)
        guard isProcesses(root) else { return names.sorted().map { "\(root)/\($0)" } }
        // The lowest number is the oldest process, mostly: a pod's pause process, which lives as long as the pod.
        return names.compactMap { Int32($0) }.sorted().map { "\(root)/\($0)/ns/net" }
    }

    private static func list(_ path: String) -> [String] {
        guard let directory = opendir(path) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if !name.hasPrefix(".") { names.append(name) }
        }
        return names
    }
}

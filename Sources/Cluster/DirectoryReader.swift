internal import Glibc
internal import Keys

/// Reads a cluster directory, again and again, and keeps the last good version of every object.
///
/// A file that is half written, garbage or gone with its folder does not take away what it said before: the object keeps its last
/// good version and the problem is reported. Only a file that was removed from a folder that can be listed is an object that has
/// ended.
public struct DirectoryReader {
    private let path: String
    private var files: [String: File] = [:]

    /// A file as it was last seen.
    private struct File {
        var signature: Signature
        var object: Object?
        var problems: Set<Problem> = []
    }
    private enum Object {
        case cluster(Cluster)
        case node(EncryptionNode)
        case endpoint(EncryptedEndpoint)
        case epoch(EncryptionEpoch)
    }
    /// Changes when the file does; nothing is read while it stays.
    private struct Signature: Equatable {
        var device: UInt, inode: UInt
        var size: Int
        var modified: Int, modifiedNanoseconds: Int
        var changed: Int, changedNanoseconds: Int

        /// Of a file that is not there.
        static let none = Signature(
            device: 0, inode: 0, size: -1, modified: 0, modifiedNanoseconds: 0, changed: 0, changedNanoseconds: 0)
    }

    /// Reads the directory at a path; nothing happens before `scan`.
    public init(path: String) {
        self.path = path
    }

    /// Reads what has changed since the last time.
    public mutating func scan() -> Snapshot {
        var snapshot = Snapshot()
        scanCluster(into: &snapshot)
        scanFolder(.nodes, into: &snapshot)
        scanFolder(.endpoints, into: &snapshot)
        scanFolder(.epochs, into: &snapshot)
        for file in files.values { snapshot.problems.formUnion(file.problems) }
        return snapshot
    }

    private mutating func scanCluster(into snapshot: inout Snapshot) {
        let relative = "cluster.json"
        if let signature = Self.signature("\(path)/\(relative)") {
            refresh(relative, .cluster, name: "cluster", signature)
        } else {
            // Never an ended object: without it nothing else in the directory can be trusted to be all there is.
            let problem = Problem(
                .error, relative,
                "cannot be opened: \(errorText(errno)); expected the cluster's id and strict CIDRs (make it with `xdp-encryptor keys init`)"
            )
            files[relative] = File(signature: .none, object: files[relative]?.object, problems: [problem])
        }
        if case .cluster(let cluster) = files[relative]?.object { snapshot.cluster = cluster }
        if snapshot.cluster == nil || files[relative]?.signature == Signature.none {
            snapshot.incomplete.insert(.cluster)
        }
    }

    private mutating func scanFolder(_ kind: ObjectKind, into snapshot: inout Snapshot) {
        let prefix = "\(kind.rawValue)/"
        files[prefix] = nil
        if let names = Self.list("\(path)/\(kind.rawValue)") {
            var present: Set<String> = []
            for file in names where file.hasSuffix(".json") && !file.hasPrefix(".") {
                guard let signature = Self.signature("\(path)/\(prefix)\(file)") else {
                    // Removed since it was listed, or not to be examined just now: only the first is an end.
                    if errno != ENOENT { present.insert(prefix + file) }
                    continue
                }
                present.insert(prefix + file)
                refresh(prefix + file, kind, name: String(file.dropLast(5)), signature)
            }
            for gone in files.keys where gone.hasPrefix(prefix) && !present.contains(gone) { files[gone] = nil }
        } else {
            let problem = Problem(
                .error, prefix, "cannot be listed: \(errorText(errno)); what was read from it before stays in force")
            files[prefix] = File(signature: .none, problems: [problem])
        }
        for (key, file) in files where key.hasPrefix(prefix) {
            switch file.object {
            case .node(let node): snapshot.nodes[Self.name(key)] = node
            case .endpoint(let endpoint): snapshot.endpoints[Self.name(key)] = endpoint
            case .epoch(let epoch): snapshot.epochs[epoch.number] = epoch
            case .cluster, nil: snapshot.incomplete.insert(kind)
            }
        }
    }

    private static func name(_ relative: String) -> String {
        let file = relative.split(separator: "/").last ?? ""
        return String(file.dropLast(5))
    }

    private mutating func refresh(_ relative: String, _ kind: ObjectKind, name: String, _ signature: Signature) {
        if let known = files[relative], known.signature == signature { return }
        var file = files[relative] ?? File(signature: signature)
        file.signature = signature
        file.problems = []
        do throws(ReadProblem) {
            let (object, unknownKeys) = try Self.read("\(path)/\(relative)", kind, name: name)
            file.object = object
            if !unknownKeys.isEmpty {
                let keys = unknownKeys.joined(separator: ", ")
                file.problems.insert(Problem(.warning, relative, "unknown keys are ignored: \(keys)"))
            }
        } catch {
            let consequence =
                file.object == nil ? "it is ignored until it is right" : "its last good version stays in force"
            file.problems.insert(Problem(.error, relative, "\(error.description); \(consequence)"))
        }
        files[relative] = file
    }

    private struct ReadProblem: Error {
        var description: String
    }

    private static func read(
        _ path: String, _ kind: ObjectKind, name: String
    ) throws(ReadProblem) -> (Object, unknownKeys: [String]) {
        func decode<T: Checked>(_ type: T.Type) throws(ReadProblem) -> (T, [String]) {
            do {
                return try ObjectCoding.decode(type, from: AtomicFile.read(path))
            } catch let error as ObjectCoding.Problem {
                throw ReadProblem(description: error.description)
            } catch {
                throw ReadProblem(description: "\(error)")
            }
        }
        if kind != .cluster, !isName(name) {
            throw ReadProblem(
                description: "\"\(name)\" is no name; expected 1 to 100 letters, digits, '-', '.' and '_' before .json")
        }
        switch kind {
        case .cluster:
            let (cluster, unknown) = try decode(Cluster.self)
            return (.cluster(cluster), unknown)
        case .nodes:
            let (node, unknown) = try decode(EncryptionNode.self)
            return (.node(node), unknown)
        case .endpoints:
            let (endpoint, unknown) = try decode(EncryptedEndpoint.self)
            return (.endpoint(endpoint), unknown)
        case .epochs:
            let (epoch, unknown) = try decode(EncryptionEpoch.self)
            guard String(epoch.number) == name else {
                throw ReadProblem(description: "number: \(epoch.number) is not the file's name; expected \(name)")
            }
            return (.epoch(epoch), unknown)
        }
    }

    private static func signature(_ path: String) -> Signature? {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        return Signature(
            device: UInt(status.st_dev), inode: UInt(status.st_ino), size: Int(status.st_size),
            modified: status.st_mtim.tv_sec, modifiedNanoseconds: status.st_mtim.tv_nsec,
            changed: status.st_ctim.tv_sec, changedNanoseconds: status.st_ctim.tv_nsec)
    }

    private static func list(_ path: String) -> [String]? {
        guard let directory = opendir(path) else { return nil }
        defer { closedir(directory) }
        var names: [String] = []
        while true {
            errno = 0
            guard let entry = readdir(directory) else { return errno == 0 ? names : nil }
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            names.append(name)
        }
    }
}

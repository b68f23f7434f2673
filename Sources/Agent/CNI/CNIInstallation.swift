public import Cluster
internal import FoundationEssentials
internal import Glibc

/// Puts the plugin where container runtimes look for it: the program into the folder of plugins, and an entry at the end of the network
/// configuration that is in force. Everything else in that file stays as it is written. May be repeated.
public struct CNIInstallation: Sendable {
    /// The plugin's type: the name of its program.
    public static let type = "xdp-encryptor-cni"

    private let programs: String
    private let configurations: String

    /// - Parameters:
    ///   - programs: such as /opt/cni/bin.
    ///   - configurations: such as /etc/cni/net.d.
    public init(programs: String, configurations: String) {
        self.programs = programs
        self.configurations = configurations
    }

    /// What can be said in the entry; nil: the default holds.
    public struct Options: Sendable, Hashable, Codable {
        /// The daemon's socket.
        public var socket: String?
        /// `refuse-protected`, `refuse-all` or `allow`.
        public var onDaemonAbsent: String?
        /// `allow` or `refuse`.
        public var unknownPods: String?

        /// All defaults.
        public init() {}
    }

    private struct Entry: Codable {
        var type: String
        var capabilities: [String: Bool]?
        var socket: String?
        var onDaemonAbsent: String?
        var unknownPods: String?
    }
    private struct List: Codable {
        struct Plugin: Codable { var type: String? }
        var cniVersion: String?
        var plugins: [Plugin]
    }

    /// Installs program and entry; returns what was done, for people.
    public func install(program: String, _ options: Options = Options()) throws(FileError) -> [String] {
        var done: [String] = []
        let bytes = try AtomicFile.read(program, limit: 256 << 20)
        let target = "\(programs)/\(Self.type)"
        if (try? AtomicFile.read(target, limit: 256 << 20)) != bytes {
            try AtomicFile.write(bytes, to: target, mode: 0o755)
            done.append("wrote \(target)")
        }
        let path = try configuration()
        let entry = try encode(
            Entry(
                type: Self.type, capabilities: ["io.kubernetes.cri.pod-annotations": true], socket: options.socket,
                onDaemonAbsent: options.onDaemonAbsent, unknownPods: options.unknownPods))
        if try edit(path, { others in others + [entry[...]] }) { done.append("added the plugin to \(path)") }
        return done
    }

    /// Removes entries of all configurations, then the program.
    public func uninstall() throws(FileError) -> [String] {
        var done: [String] = []
        for path in try configurationPaths() {
            // Not ours to repair.
            guard let changed = try? edit(path, { $0 }), changed else { continue }
            done.append("removed the plugin from \(path)")
        }
        let target = "\(programs)/\(Self.type)"
        if unlink(target) == 0 {
            done.append("removed \(target)")
        } else if errno != ENOENT {
            throw FileError("remove", target, errno: errno)
        }
        return done
    }

    /// The configuration in force: runtimes take the first by name.
    private func configuration() throws(FileError) -> String {
        guard let path = try configurationPaths().first else {
            throw FileError(
                "there is no network configuration (*.conflist) in \(configurations): install the cluster's network first"
            )
        }
        return path
    }

    private func configurationPaths() throws(FileError) -> [String] {
        guard let directory = opendir(configurations) else { throw FileError("list", configurations, errno: errno) }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name.hasSuffix(".conflist"), !name.hasPrefix(".") { names.append(name) }
        }
        return names.sorted().map { "\(configurations)/\($0)" }
    }

    /// Makes the list of plugins what `body` makes of the others. Returns whether the file was changed.
    private func edit(
        _ path: String, _ body: ([ArraySlice<UInt8>]) -> [ArraySlice<UInt8>]
    ) throws(FileError) -> Bool {
        let text = try AtomicFile.read(path)
        guard let list = try? JSONDecoder().decode(List.self, from: Data(text)),
            let plugins = rawMember("plugins", of: text), let elements = rawElements(of: Array(plugins)),
            elements.count == list.plugins.count
        else { throw FileError("\(path) is no list of CNI plugins") }
        let others = zip(elements, list.plugins).filter { $0.1.type != Self.type }.map(\.0)
        let wanted = body(others)
        if wanted.map({ Array($0) }) == elements.map({ Array($0) }) { return false }
        let joined = Array(wanted.joined(separator: [UInt8(ascii: ","), UInt8(ascii: "\n")]))
        let array = [UInt8(ascii: "[")] + joined + [UInt8(ascii: "]")]
        let changed = Array(text[..<plugins.startIndex]) + array + Array(text[plugins.endIndex...])
        var status = stat()
        let mode = stat(path, &status) == 0 ? UInt32(status.st_mode & 0o777) : 0o644
        try AtomicFile.write(changed, to: path, mode: mode)
        return true
    }

    private func encode(_ entry: Entry) throws(FileError) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(entry) else { throw FileError("cannot encode the plugin's entry") }
        return Array(data)
    }
}

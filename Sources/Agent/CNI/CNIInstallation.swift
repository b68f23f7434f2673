public import Cluster
internal import FoundationEssentials
internal import Glibc

/// Puts the plugin where container runtimes look for it: the program into the folder of plugins, and an entry at the end of the network
/// configuration that is in force. Everything else in that file stays as it is written. May be repeated.
///
/// Whoever owns that file (the network's own agent) writes it anew when it restarts or is upgraded, without the entry: so it has to be
/// looked after.
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

    private var target: String { "\(programs)/\(Self.type)" }

    /// Installs program and entry; returns what was done, for people. The program comes first: a chain never names what is not there.
    public func install(program: String, _ options: Options = Options()) throws(FileError) -> [String] {
        var done: [String] = []
        let path = try configuration()
        let changed = try CNIList(path).adding(try entry(options))
        if try ProgramFile.replace(target, with: program) { done.append("wrote \(target)") }
        if let changed {
            try write(changed, to: path)
            done.append("added the plugin to \(path)")
        }
        return done
    }

    /// Whether `install` would have nothing to do.
    public func isInstalled(program: String, _ options: Options = Options()) throws(FileError) -> Bool {
        guard try ProgramFile.isSame(program, target) else { return false }
        return try CNIList(configuration()).adding(try entry(options)) == nil
    }

    /// Removes entries of all configurations, then the program, unless it is kept: runtimes that stop a pod with the plugins that it
    /// was started with (CRI-O) need it until those pods have gone.
    public func uninstall(keepsProgram: Bool = false) throws(FileError) -> [String] {
        var done: [String] = []
        for path in try configurationPaths() {
            // Not ours to repair.
            guard let list = try? CNIList(path), let changed = list.removing() else { continue }
            try write(changed, to: path)
            done.append("removed the plugin from \(path)")
        }
        if keepsProgram { return done }
        if unlink(target) == 0 {
            done.append("removed \(target)")
        } else if errno != ENOENT {
            throw FileError("remove", target, errno: errno)
        }
        return done
    }

    /// Returns when something has changed in the folder of configurations, or after ten seconds; at once when the installation is not
    /// as it should be by now.
    public func waitForChange(program: String, _ options: Options = Options()) {
        let inotify = inotify_init1(Int32(IN_CLOEXEC) | Int32(IN_NONBLOCK))
        defer { if inotify >= 0 { close(inotify) } }
        let mask = UInt32(IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE)
        guard inotify >= 0, inotify_add_watch(inotify, configurations, mask) >= 0 else {
            sleep(1)
            return
        }
        // What has changed before the watch began brings no event.
        if let isInstalled = try? isInstalled(program: program, options), !isInstalled { return }
        var descriptor = pollfd(fd: inotify, events: Int16(POLLIN), revents: 0)
        _ = poll(&descriptor, 1, 10_000)
        // Writers write several times in a row.
        usleep(20_000)
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

    /// Everything that runtimes look at, in their order.
    private func configurationPaths() throws(FileError) -> [String] {
        guard let directory = opendir(configurations) else { throw FileError("list", configurations, errno: errno) }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            let isConfiguration = [".conflist", ".conf", ".json"].contains { name.hasSuffix($0) }
            if isConfiguration, !name.hasPrefix(".") { names.append(name) }
        }
        return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }.map { "\(configurations)/\($0)" }
    }

    /// Writes where a link leads, not over the link; keeps the mode.
    private func write(_ text: [UInt8], to path: String) throws(FileError) {
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
        guard realpath(path, &buffer) != nil else { throw FileError("follow", path, errno: errno) }
        let real = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        var status = stat()
        let mode = stat(real, &status) == 0 ? UInt32(status.st_mode & 0o777) : 0o644
        try AtomicFile.write(text, to: real, mode: mode)
    }

    private func entry(_ options: Options) throws(FileError) -> [UInt8] {
        struct Entry: Encodable {
            var type = CNIInstallation.type
            var capabilities = ["io.kubernetes.cri.pod-annotations": true]
            var socket: String?
            var onDaemonAbsent: String?
            var unknownPods: String?
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let entry = Entry(
            socket: options.socket, onDaemonAbsent: options.onDaemonAbsent, unknownPods: options.unknownPods)
        guard let data = try? encoder.encode(entry) else { throw FileError("cannot encode the plugin's entry") }
        return Array(data)
    }
}

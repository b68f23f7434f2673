public import Cluster
internal import Glibc

/// Puts the CNI plugin on a node and into the chain of its network, and takes it out again.
///
/// Container runtimes use the first network configuration of their folder, by name. Whoever owns that file (the network's own agent)
/// writes it again when it restarts or is upgraded, without our plugin: so it has to be looked after.
public struct CNIInstaller: Sendable {
    /// What the plugin is told, beside its name.
    public struct Settings: Sendable, Hashable {
        /// While keymgr does not answer: refuse-protected, refuse-all, or allow.
        public var onDaemonAbsent: String
        /// Of pods of which nothing is known: allow or refuse.
        public var unknownPods: String

        /// Makes settings.
        public init(onDaemonAbsent: String, unknownPods: String) {
            self.onDaemonAbsent = onDaemonAbsent
            self.unknownPods = unknownPods
        }

        var members: [String: JSONTree] {
            [
                "capabilities": .object(["io.kubernetes.cri.pod-annotations": .flag(true)]),
                "onDaemonAbsent": .text(onDaemonAbsent), "unknownPods": .text(unknownPods),
            ]
        }
    }

    /// Where the runtime looks for plugins.
    public let programs: String
    /// Where the runtime looks for networks.
    public let networks: String
    private let program: String
    private let settings: Settings

    /// - Parameter program: File to install as the plugin.
    public init(program: String, programs: String, networks: String, settings: Settings) {
        self.program = program
        self.programs = programs
        self.networks = networks
        self.settings = settings
    }

    private var plugin: String { "\(programs)/\(CNIChain.pluginType)" }

    /// Makes it so. Returns a sentence for each thing that was done: none when all was as it should be. The program comes first: a
    /// chain must never name what is not there.
    public func install() throws(FileError) -> [String] {
        var done: [String] = []
        let path = try network()
        let chained = try chained(path)
        if try !isSame(program, plugin) {
            try copy(program, to: plugin)
            done.append("put the plugin at \(plugin)")
        }
        if let chained {
            try replace(path, with: chained)
            done.append("put the plugin into the chain of \(path)")
        }
        return done
    }

    /// Whether `install` would have nothing to do.
    public func isInstalled() throws(FileError) -> Bool {
        let path = try network()
        guard try isSame(program, plugin) else { return false }
        return try chained(path) == nil
    }

    /// Takes the plugin out of every chain. The program stays unless `removesProgram`: runtimes that call the plugins of the time when
    /// a pod was started (CRI-O) could not stop that pod without it.
    public func uninstall(removesProgram: Bool) throws(FileError) -> [String] {
        var done: [String] = []
        for name in try names() {
            let path = "\(networks)/\(name)"
            guard let text = try? AtomicFile.read(path), let chain = try? CNIChain(text), let without = chain.removing()
            else { continue }
            try replace(path, with: without)
            done.append("took the plugin out of the chain of \(path)")
        }
        if removesProgram {
            if unlink(plugin) == 0 {
                done.append("removed \(plugin)")
            } else if errno != ENOENT {
                throw FileError("remove", plugin, errno: errno)
            }
        }
        return done
    }

    /// Waits until something has changed in the networks' folder, or ten seconds have passed.
    public func waitForChange() {
        let inotify = inotify_init1(Int32(IN_CLOEXEC) | Int32(IN_NONBLOCK))
        defer { if inotify >= 0 { close(inotify) } }
        let mask = UInt32(IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE)
        guard inotify >= 0, inotify_add_watch(inotify, networks, mask) >= 0 else {
            sleep(1)
            return
        }
        // What changed between the last look and now is seen at once.
        if let isInstalled = try? isInstalled(), !isInstalled { return }
        var descriptor = pollfd(fd: inotify, events: Int16(POLLIN), revents: 0)
        _ = poll(&descriptor, 1, 10_000)
        // Writers write several times in a row.
        usleep(20_000)
    }

    // MARK: parts

    /// The network that runtimes use.
    private func network() throws(FileError) -> String {
        guard let name = try names().first else {
            throw FileError(
                "there is no network configuration in \(networks) yet: the plugin is chained to the cluster's own network plugin, which must be installed first"
            )
        }
        return "\(networks)/\(name)"
    }

    /// Names that runtimes look at, in their order.
    private func names() throws(FileError) -> [String] {
        guard let folder = opendir(networks) else { throw FileError("list", networks, errno: errno) }
        defer { closedir(folder) }
        var names: [String] = []
        while let entry = readdir(folder) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            let isNetwork = [".conf", ".conflist", ".json"].contains { name.hasSuffix($0) }
            if isNetwork, !name.hasPrefix(".") { names.append(name) }
        }
        return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    }

    /// The file with our plugin; nil when it is in there.
    private func chained(_ path: String) throws(FileError) -> [UInt8]? {
        let text = try AtomicFile.read(path)
        do throws(FileError) {
            return try CNIChain(text).adding(settings.members)
        } catch {
            throw FileError("\(path) \(error)")
        }
    }

    /// Writes what a link leads to, not over the link; keeps the mode.
    private func replace(_ path: String, with text: [UInt8]) throws(FileError) {
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
        guard realpath(path, &buffer) != nil else { throw FileError("follow", path, errno: errno) }
        let real = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        var status = stat()
        guard stat(real, &status) == 0 else { throw FileError("examine", real, errno: errno) }
        try AtomicFile.write(text, to: real, mode: status.st_mode & 0o777)
    }

    private func isSame(_ left: String, _ right: String) throws(FileError) -> Bool {
        let first = open(left, O_RDONLY | O_CLOEXEC)
        guard first >= 0 else { throw FileError("open", left, errno: errno) }
        defer { close(first) }
        let second = open(right, O_RDONLY | O_CLOEXEC)
        guard second >= 0 else { return false }
        defer { close(second) }
        var ofFirst = stat()
        var ofSecond = stat()
        guard fstat(first, &ofFirst) == 0, fstat(second, &ofSecond) == 0, ofFirst.st_size == ofSecond.st_size,
            ofSecond.st_mode & 0o111 == 0o111
        else { return false }
        var a = [UInt8](repeating: 0, count: 1 << 16)
        var b = a
        while true {
            let got = read(first, &a, a.count)
            guard got > 0 else { return got == 0 }
            guard pread(second, &b, got, lseek(first, 0, SEEK_CUR) - off_t(got)) == got, a[..<got] == b[..<got] else {
                return false
            }
        }
    }

    /// As a whole or not at all: a runtime may start it at any moment.
    private func copy(_ from: String, to path: String) throws(FileError) {
        let source = open(from, O_RDONLY | O_CLOEXEC)
        guard source >= 0 else { throw FileError("open", from, errno: errno) }
        defer { close(source) }
        let temporary = "\(programs)/.\(CNIChain.pluginType).new"
        unlink(temporary)
        let target = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o755)
        guard target >= 0 else { throw FileError("make", temporary, errno: errno) }
        do throws(FileError) {
            defer { close(target) }
            var buffer = [UInt8](repeating: 0, count: 1 << 16)
            while true {
                let got = read(source, &buffer, buffer.count)
                if got < 0, errno == EINTR { continue }
                guard got >= 0 else { throw FileError("read", from, errno: errno) }
                if got == 0 { break }
                guard write(target, buffer, got) == got else { throw FileError("write", temporary, errno: errno) }
            }
            guard fchmod(target, 0o755) == 0, fsync(target) == 0 else {
                throw FileError("write", temporary, errno: errno)
            }
        } catch {
            unlink(temporary)
            throw error
        }
        guard rename(temporary, path) == 0 else {
            let error = FileError("replace", path, errno: errno)
            unlink(temporary)
            throw error
        }
    }
}

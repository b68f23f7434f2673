internal import BPF
internal import CSys
internal import Glibc

/// The root of the node's cgroup v2 hierarchy, held open.
struct CgroupRoot: ~Copyable {
    let path: String
    let fd: Int32

    /// Opens it; nil: where it is mounted. A folder that is not the root is refused: programs that are attached there would miss the sockets
    /// of pods.
    init(path: String?) throws(DatapathError) {
        let path = if let path { path } else { try Self.find() }
        let hint =
            "; expected the node's cgroup v2 hierarchy. A container needs the node's own, mounted from there, and its path in socketLoadBalancing.cgroup"
        let fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard fd >= 0 else {
            throw DatapathError(.failed, "open cgroup \(path): \(BPFError.text(of: errno)) (errno \(errno))\(hint)")
        }
        // The root is the only cgroup without a type (Documentation/admin-guide/cgroup-v2.rst).
        let isCgroup = csys_is_cgroup2(fd)
        guard isCgroup, !Files.exists("\(path)/cgroup.type") else {
            close(fd)
            throw DatapathError(
                .failed,
                isCgroup
                    ? "\(path) is a cgroup below the root of its hierarchy\(hint)"
                    : "\(path) is no cgroup v2 file system\(hint)")
        }
        self.path = path
        self.fd = fd
    }

    deinit {
        close(fd)
    }

    /// Where a cgroup v2 file system is mounted, by /proc/self/mountinfo (proc(5)): /sys/fs/cgroup if it is one, otherwise the first.
    static func find(mounts: String) -> String? {
        var found: [String] = []
        for line in mounts.split(separator: "\n") {
            let halves = line.split(separator: " - ", maxSplits: 1)
            guard halves.count == 2, halves[1].hasPrefix("cgroup2 ") else { continue }
            let fields = halves[0].split(separator: " ")
            // Fields 4 and 5: what of the file system is mounted, and where. A part of it is not the root.
            if fields.count >= 5, fields[3] == "/" { found.append(String(fields[4])) }
        }
        return found.first { $0 == "/sys/fs/cgroup" } ?? found.first
    }

    /// The same for this process.
    static func find() throws(DatapathError) -> String {
        let mounts = try Files.read("/proc/self/mountinfo") ?? []
        guard let path = find(mounts: String(decoding: mounts, as: UTF8.self)) else {
            throw DatapathError(
                .failed,
                "no cgroup v2 file system is mounted, so sockets cannot be balanced; mount one ('mount -t cgroup2 none /sys/fs/cgroup'), or turn socketLoadBalancing off"
            )
        }
        return path
    }
}

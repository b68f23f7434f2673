internal import Glibc

/// A network namespace of the lab, and the programs in it.
public struct Namespace: Sendable, Hashable {
    /// As `ip netns` knows it.
    public let name: String

    /// Where it is mounted.
    public var path: String { "/run/netns/" + name }

    /// A command line that runs `command` inside. nsenter replaces itself, so that the process id is the command's own.
    public func entering(_ command: [String]) -> [String] {
        ["nsenter", "--net=" + path, "--"] + command
    }

    /// Kills what runs inside and removes it. Nothing happens when it is not there.
    func remove() {
        for pid in processes { kill(pid, SIGKILL) }
        let deadline = Deadline.seconds(5)
        while !processes.isEmpty && !deadline.hasPassed { usleep(2000) }
        umount2(path, Int32(MNT_DETACH))
        unlink(path)
    }

    /// Ids of the processes whose network namespace this is: only ours, as only the lab knows its name.
    var processes: [Int32] {
        var own = stat()
        guard stat(path, &own) == 0, let directory = opendir("/proc") else { return [] }
        defer { closedir(directory) }
        var result: [Int32] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            var theirs = stat()
            guard let pid = Int32(name), stat("/proc/\(pid)/ns/net", &theirs) == 0 else { continue }
            if theirs.st_ino == own.st_ino && theirs.st_dev == own.st_dev { result.append(pid) }
        }
        return result
    }
}

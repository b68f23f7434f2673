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

    /// Removes it. Nothing happens when it is not there.
    func remove() {
        umount2(path, Int32(MNT_DETACH))
        unlink(path)
    }
}

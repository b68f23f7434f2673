internal import CSys
internal import Glibc

/// The file system that pins live on.
public enum BPFFileSystem {
    /// Where systemd mounts it.
    public static let standardPath = "/sys/fs/bpf"

    /// Whether a path (or the nearest folder above it that exists) is on a BPF file system.
    public static func contains(_ path: String) -> Bool {
        var path = path
        while true {
            switch csys_is_bpf_file_system(path) {
            case 1: return true
            case 0: return false
            default:
                // Not there: ask the folder above.
                guard errno == ENOENT, let slash = path.lastIndex(of: "/") else { return false }
                path = slash == path.startIndex ? "/" : String(path[..<slash])
            }
        }
    }

    /// Mounts a BPF file system at a folder, unless there is one already. Needs CAP_SYS_ADMIN.
    ///
    /// For tests and demonstrations on machines without systemd. A daemon must not do this: inside of a container's mount
    /// namespace its pins would end with the container, and encryption with them.
    public static func mount(at path: String = standardPath) throws(BPFError) {
        if csys_is_bpf_file_system(path) == 1 { return }
        try checkCall(Glibc.mount("bpf", path, "bpf", 0, "mode=0700"), "mount a BPF file system at \(path)")
    }
}

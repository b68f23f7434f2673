internal import CLibBPF
internal import Glibc

/// The running kernel's own description of its functions and types (BTF).
public struct KernelTypes: ~Copyable {
    private let raw: OpaquePointer

    /// Reads /sys/kernel/btf/vmlinux; some 10 MB, while the value lives.
    public init() throws(BPFError) {
        let (read, log) = LibbpfLog.collect { (btf__load_vmlinux_btf(), errno) }
        guard let types = read.0 else {
            throw BPFError(operation: "read the kernel's types (/sys/kernel/btf/vmlinux)", errno: read.1, log: log)
        }
        raw = types
    }

    deinit {
        btf__free(raw)
    }

    /// Whether the kernel proper (not a module) has a function of this name that BPF knows of.
    public borrowing func hasFunction(_ name: String) -> Bool {
        btf__find_by_name_kind(raw, name, 12 /* BTF_KIND_FUNC: imported twice, so ambiguous by name */) > 0
    }
}

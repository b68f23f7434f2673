internal import BPFObjects
internal import CLibBPF
internal import Glibc

/// An opened or loaded BPF object; closing it drops every map and program fd.
public struct BPFObject: ~Copyable {
    let raw: OpaquePointer

    /// Opens the object embedded by the build plug-in.


    init(embedded e: bpf_embedded_object) throws(BPFError) {
        var opts = bpf_object_open_opts()
        opts.sz = MemoryLayout<bpf_object_open_opts>.size
        opts.object_name = e.name
        guard let obj = bpf_object__open_mem(e.data, e.size, &opts) else {
            throw BPFError(operation: "open \(String(cString: e.name))", errno: errno)
        }
        raw = obj
    }

    deinit { bpf_object__close(raw) }

    public borrowing func load() throws(BPFError) {
        _ = try BPFError.check(bpf_object__load(raw), "load object")
    }

    public borrowing func map(_ name: String) throws(BPFError) -> BPFMap {
        guard let m = bpf_object__find_map_by_name(raw, name) else {
            throw BPFError(operation: "find map \(name)", errno: ENOENT)
        }
        return BPFMap(raw: m, fd: bpf_map__fd(m))
    }

    public borrowing func program(_ name: String) throws(BPFError) -> BPFProgram {
        guard let p = bpf_object__find_program_by_name(raw, name) else {
            throw BPFError(operation: "find program \(name)", errno: ENOENT)
        }
        return BPFProgram(raw: p, fd: bpf_program__fd(p))
    }

    /// Rewrites a field of `.rodata` between open and load.
    public borrowing func withReadOnlyData<R>(_ body: (UnsafeMutableRawBufferPointer) -> R) throws(BPFError) -> R {
        guard let m = bpf_object__find_map_by_name(raw, ".rodata") else {
            throw BPFError(operation: "find .rodata", errno: ENOENT)
        }
        var n = 0
        guard let p = bpf_map__initial_value(m, &n) else { throw BPFError(operation: ".rodata", errno: EINVAL) }
        return body(UnsafeMutableRawBufferPointer(start: UnsafeMutableRawPointer(mutating: p), count: n))
    }
}

/// A map of a live `BPFObject`; it must not outlive it.
public struct BPFMap {
    let raw: OpaquePointer
    public let fd: Int32

    public func pin(at path: String) throws(BPFError) { _ = try BPFError.check(bpf_map__pin(raw, path), "pin map \(path)") }
    public func unpin(at path: String) throws(BPFError) { _ = try BPFError.check(bpf_map__unpin(raw, path), "unpin map \(path)") }

    public func lookup<K: BitwiseCopyable, V: BitwiseCopyable>(_ key: K, as: V.Type = V.self) throws(BPFError) -> V? {
        try withUnsafeTemporaryAllocation(of: V.self, capacity: 1) { out throws(BPFError) -> V? in
            var key = key
            let rc = bpf_map_lookup_elem(fd, &key, out.baseAddress!)
            if rc == -ENOENT { return nil }
            _ = try BPFError.check(rc, "map lookup")
            return out[0]
        }
    }

    public func lookupPerCPU(_ key: UInt32) throws(BPFError) -> [UInt64] {
        var key = key
        var out = [UInt64](repeating: 0, count: Int(libbpf_num_possible_cpus()))
        _ = try BPFError.check(bpf_map_lookup_elem(fd, &key, &out), "percpu lookup")
        return out
    }

    public func update<K: BitwiseCopyable, V: BitwiseCopyable>(_ key: K, _ value: V) throws(BPFError) {
        var key = key, value = value
        _ = try BPFError.check(bpf_map_update_elem(fd, &key, &value, UInt64(BPF_ANY)), "map update")
    }
}

public struct BPFProgram {
    let raw: OpaquePointer
    public let fd: Int32

    /// Runs a `SEC("syscall")` program with `context` as its read-write argument.
    @discardableResult
    public func run<C: BitwiseCopyable>(context: inout C) throws(BPFError) -> UInt32 {
        var opts = bpf_test_run_opts()
        opts.sz = MemoryLayout<bpf_test_run_opts>.size
        let rc = withUnsafeMutableBytes(of: &context) { bytes -> Int32 in
            opts.ctx_in = UnsafeRawPointer(bytes.baseAddress!)
            opts.ctx_size_in = UInt32(bytes.count)
            return bpf_prog_test_run_opts(fd, &opts)
        }
        _ = try BPFError.check(rc, "run program")
        return opts.retval
    }

    public func attachXDP(ifindex: Int32) throws(BPFError) -> BPFLink {
        guard let l = bpf_program__attach_xdp(raw, ifindex) else {
            throw BPFError(operation: "attach xdp to \(ifindex)", errno: errno)
        }
        return BPFLink(raw: l)
    }
}

/// An attached program. Dropping it detaches, unless it was pinned.
public struct BPFLink: ~Copyable {
    let raw: OpaquePointer
    public var fd: Int32 { bpf_link__fd(raw) }
    public borrowing func pin(at path: String) throws(BPFError) { _ = try BPFError.check(bpf_link__pin(raw, path), "pin link \(path)") }
    public borrowing func unpin() throws(BPFError) { _ = try BPFError.check(bpf_link__unpin(raw), "unpin link") }
    public static func open(pinned path: String) throws(BPFError) -> BPFLink {
        guard let l = bpf_link__open(path) else { throw BPFError(operation: "open link \(path)", errno: errno) }
        return BPFLink(raw: l)
    }
    /// Swaps the program atomically.
    public borrowing func update(to program: BPFProgram) throws(BPFError) {
        _ = try BPFError.check(bpf_link__update_program(raw, program.raw), "update link")
    }
    deinit { bpf_link__destroy(raw) }
}

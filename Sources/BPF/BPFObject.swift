internal import BPFObjects
internal import CLibBPF
internal import Glibc

/// A compiled BPF object (ELF), before it is opened.
public struct BPFObjectCode: Sendable {
    /// Its name, for messages.
    public let name: String
    /// The ELF file. Lives as long as the process.
    nonisolated(unsafe) public let bytes: UnsafeRawBufferPointer

    /// The datapath, compiled from bpf/encryptor.bpf.c and embedded in this binary.
    public static let encryptor = BPFObjectCode(bpf_embedded_encryptor)
    /// Socket load balancing, compiled from bpf/socketlb.bpf.c and embedded in this binary.
    public static let socketLB = BPFObjectCode(bpf_embedded_socketlb)

    init(_ embedded: bpf_embedded_object) {
        name = String(cString: embedded.name)
        bytes = UnsafeRawBufferPointer(start: embedded.data, count: embedded.size)
    }
}

/// An opened BPF object. First it is configured, then loaded; maps and programs taken from it own descriptors of their own and
/// may outlive it.
///
/// Needs CAP_BPF, and CAP_NET_ADMIN for networking programs.
public struct BPFObject: ~Copyable {
    /// Of the code, for messages.
    public let name: String
    let raw: OpaquePointer

    /// Opens an object that is embedded in this binary.
    public init(_ code: BPFObjectCode) throws(BPFError) {
        var options = bpf_object_open_opts()
        options.sz = MemoryLayout<bpf_object_open_opts>.size
        let (opened, log) = code.name.withCString { name in
            LibbpfLog.collect {
                options.object_name = name
                let object = bpf_object__open_mem(code.bytes.baseAddress, code.bytes.count, &options)
                return (object, errno)
            }
        }
        guard let object = opened.0 else {
            throw BPFError(operation: "open BPF object \(code.name)", errno: opened.1, log: log)
        }
        name = code.name
        raw = object
        typeNewSections()
    }

    /// Opens an object file.
    public init(path: String) throws(BPFError) {
        let (opened, log) = LibbpfLog.collect { (bpf_object__open_file(path, nil), errno) }
        guard let object = opened.0 else {
            throw BPFError(operation: "open BPF object \(path)", errno: opened.1, log: log)
        }
        name = path
        raw = object
        typeNewSections()
    }

    deinit {
        bpf_object__close(raw)
    }

    /// Sections that libbpf 1.1 does not know yet: their programs get their type here.
    private borrowing func typeNewSections() {
        var program = bpf_object__next_program(raw, nil)
        while let current = program {
            if let section = bpf_program__section_name(current), String(cString: section).hasPrefix("tcx/") {
                bpf_program__set_type(current, BPF_PROG_TYPE_SCHED_CLS)
            }
            program = bpf_object__next_program(raw, current)
        }
    }
}

// MARK: - Before loading

extension BPFObject {
    /// Rewrites `.rodata`, the constants that the verifier sees. `body` gets the section's bytes.
    public borrowing func withReadOnlyData<R>(
        _ body: (UnsafeMutableRawBufferPointer) -> R
    ) throws(BPFError) -> R {
        var map = bpf_object__next_map(raw, nil)
        while let current = map {
            var count = 0
            if let name = bpf_map__name(current), String(cString: name).hasSuffix(".rodata"),
                let bytes = bpf_map__initial_value(current, &count)
            {
                return body(
                    UnsafeMutableRawBufferPointer(start: UnsafeMutableRawPointer(mutating: bytes), count: count))
            }
            map = bpf_object__next_map(raw, current)
        }
        throw BPFError(operation: "find .rodata of \(name)", errno: ENOENT)
    }

    /// Sets how many entries a map will hold.
    public borrowing func setMaxEntries(_ count: UInt32, map: String) throws(BPFError) {
        try check(bpf_map__set_max_entries(rawMap(map), count), "set the capacity of map \(map) to \(count)")
    }

    /// Sets the size of a map's values, in bytes; for maps that the source gives sizes instead of types.
    public borrowing func setValueSize(_ size: UInt32, map: String) throws(BPFError) {
        try check(bpf_map__set_value_size(rawMap(map), size), "set the value size of map \(map) to \(size)")
    }

    /// Makes the programs use a map that exists already. Its type and sizes must be those of the object's map.
    public borrowing func reuse(_ existing: borrowing BPFMap, as map: String) throws(BPFError) {
        let ours = try rawMap(map)
        let shape = existing.shape
        guard shape.type == bpf_map__type(ours).rawValue, shape.keySize == bpf_map__key_size(ours),
            shape.valueSize == bpf_map__value_size(ours)
        else {
            throw BPFError(operation: "reuse map \(map): its key or value has another layout", errno: EINVAL)
        }
        try check(bpf_map__reuse_fd(ours, existing.fd), "reuse map \(map)")
    }

    /// Whether a program is loaded with the object; all are, unless told otherwise.
    public borrowing func setAutoload(_ load: Bool, program: String) throws(BPFError) {
        try check(bpf_program__set_autoload(rawProgram(program), load), "set autoload of program \(program)")
    }

    /// Names of the maps that the source declares, in its order.
    public var mapNames: [String] {
        var names: [String] = []
        var map = bpf_object__next_map(raw, nil)
        while let current = map {
            if !bpf_map__is_internal(current), let name = bpf_map__name(current) { names.append(String(cString: name)) }
            map = bpf_object__next_map(raw, current)
        }
        return names
    }

    /// Names of the programs, in the source's order.
    public var programNames: [String] {
        var names: [String] = []
        var program = bpf_object__next_program(raw, nil)
        while let current = program {
            if let name = bpf_program__name(current) { names.append(String(cString: name)) }
            program = bpf_object__next_program(raw, current)
        }
        return names
    }
}

// MARK: - Loading, and what there is then

extension BPFObject {
    /// Creates the maps and loads the programs. The error holds the verifier's log.
    public borrowing func load() throws(BPFError) {
        let (result, log) = LibbpfLog.collect { bpf_object__load(raw) }
        if result < 0 { throw BPFError(operation: "load BPF object \(name)", errno: -result, log: log) }
    }

    /// A map of the loaded object.
    public borrowing func map(_ name: String) throws(BPFError) -> BPFMap {
        let fd = FileDescriptorNumber(bpf_map__fd(try rawMap(name)))
        return try BPFMap(try fd.duplicate("open map \(name)"), "map \(name)")
    }

    /// A program of the loaded object.
    public borrowing func program(_ name: String) throws(BPFError) -> BPFProgram {
        let fd = FileDescriptorNumber(bpf_program__fd(try rawProgram(name)))
        return BPFProgram(try fd.duplicate("open program \(name)"), name: name)
    }

    private borrowing func rawMap(_ name: String) throws(BPFError) -> OpaquePointer {
        guard let map = bpf_object__find_map_by_name(raw, name) else {
            throw BPFError(operation: "find map \(name) in \(self.name)", errno: ENOENT)
        }
        return map
    }

    private borrowing func rawProgram(_ name: String) throws(BPFError) -> OpaquePointer {
        guard let program = bpf_object__find_program_by_name(raw, name) else {
            throw BPFError(operation: "find program \(name) in \(self.name)", errno: ENOENT)
        }
        return program
    }
}

/// A descriptor that libbpf owns; negative before the object is loaded.
private struct FileDescriptorNumber {
    let raw: Int32
    init(_ raw: Int32) { self.raw = raw }

    func duplicate(_ operation: String) throws(BPFError) -> FileDescriptor {
        if raw < 0 { throw BPFError(operation: "\(operation): not loaded", errno: EBADF) }
        return try FileDescriptor(duplicating: raw, operation)
    }
}

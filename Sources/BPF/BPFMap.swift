internal import CLibBPF
internal import Glibc

/// A BPF map. Owns a descriptor; the map lives while a descriptor, a program or a pin holds it.
///
/// Keys and values are C structs (or integers) whose size must be the map's: anything else is an error, not an overrun.
public struct BPFMap: ~Copyable, Sendable {
    /// What the kernel says that the map is.
    public struct Shape: Sendable, Hashable {
        /// `enum bpf_map_type`.
        public let type: UInt32
        /// Bytes.
        public let keySize: UInt32
        /// Bytes; of one CPU's value where the map is per-CPU.
        public let valueSize: UInt32
        /// How many entries fit.
        public let maxEntries: UInt32
        /// BPF_F_* it was made with.
        public let flags: UInt32
        /// The kernel's number of the map.
        public let id: UInt32
        /// As in the source, cut to 15 characters.
        public let name: String
    }

    /// Type and sizes.
    public let shape: Shape
    private let descriptor: FileDescriptor
    private let label: String

    init(_ descriptor: consuming FileDescriptor, _ label: String) throws(BPFError) {
        shape = try Self.shape(of: descriptor.raw, label)
        self.label = label
        self.descriptor = descriptor
    }

    /// Opens a pinned map.
    public init(pinned path: String) throws(BPFError) {
        let fd = try check(bpf_obj_get(path), "open pinned map \(path)")
        try self.init(FileDescriptor(owning: fd), "map \(path)")
    }

    /// The descriptor, for system calls that this type does not wrap. Valid while the map value lives.
    public var fd: Int32 { descriptor.raw }

    /// Pins the map to a path on a BPF file system; the path must be free.
    public borrowing func pin(at path: String) throws(BPFError) {
        try check(bpf_obj_pin(fd, path), "pin \(label) at \(path)")
    }

    private static func shape(of fd: Int32, _ label: String) throws(BPFError) -> Shape {
        var info = bpf_map_info()
        var length = UInt32(MemoryLayout<bpf_map_info>.size)
        try check(bpf_obj_get_info_by_fd(fd, &info, &length), "read what \(label) is")
        let name = withUnsafeBytes(of: info.name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        return Shape(
            type: info.type, keySize: info.key_size, valueSize: info.value_size, maxEntries: info.max_entries,
            flags: info.map_flags, id: info.id, name: name)
    }
}

// MARK: - One entry

extension BPFMap {
    /// Which entries an update may write.
    public enum UpdateMode: UInt64, Sendable {
        /// Makes a new entry or replaces one.
        case any = 0
        /// Makes a new entry; EEXIST when there is one.
        case create = 1
        /// Replaces an entry; ENOENT when there is none.
        case replace = 2
    }

    /// The value of a key, or nil when there is none. `locked` reads a value that has a `bpf_spin_lock` under that lock.
    public borrowing func lookup<K: BitwiseCopyable, V: BitwiseCopyable>(
        _ key: K, as type: V.Type = V.self, locked: Bool = false
    ) throws(BPFError) -> V? {
        try expect(key: K.self, value: V.self)
        var key = key
        return try withUnsafeTemporaryAllocation(of: V.self, capacity: 1) { (value) throws(BPFError) -> V? in
            let result = bpf_map_lookup_elem_flags(fd, &key, value.baseAddress, locked ? BPFMap.lockFlag : 0)
            if result == -ENOENT { return nil }
            try check(result, "look up in \(label)")
            return value[0]
        }
    }

    /// The values of all CPUs that can ever be there, by CPU number, or nil when there is no such key.
    public borrowing func lookupPerCPU<K: BitwiseCopyable, V: BitwiseCopyable>(
        _ key: K, as type: V.Type = V.self
    ) throws(BPFError) -> [V]? {
        try expect(key: K.self, value: V.self)
        guard let bytes = try lookupPerCPU(key) else { return nil }
        // The kernel rounds each CPU's value up to 8 bytes.
        let stride = (MemoryLayout<V>.size + 7) & ~7
        return bytes.withUnsafeBytes { bytes in
            (0..<bytes.count / stride).map { bytes.loadUnaligned(fromByteOffset: $0 * stride, as: V.self) }
        }
    }

    /// The values of all CPUs that can ever be there, one after the other, each filled up to a multiple of 8 bytes; nil when there is no such
    /// entry.
    public borrowing func lookupPerCPU<K: BitwiseCopyable>(_ key: K) throws(BPFError) -> [UInt8]? {
        try expect(key: K.self)
        var key = key
        var bytes = [UInt8](repeating: 0, count: ((Int(shape.valueSize) + 7) & ~7) * (try BPFMap.possibleCPUs()))
        let result = bpf_map_lookup_elem(fd, &key, &bytes)
        if result == -ENOENT { return nil }
        try check(result, "look up in \(label)")
        return bytes
    }

    /// Writes an entry. `locked` writes a value that has a `bpf_spin_lock` under that lock.
    public borrowing func update<K: BitwiseCopyable, V: BitwiseCopyable>(
        _ key: K, _ value: V, mode: UpdateMode = .any, locked: Bool = false
    ) throws(BPFError) {
        try expect(key: K.self, value: V.self)
        var key = key
        var value = value
        let flags = mode.rawValue | (locked ? BPFMap.lockFlag : 0)
        try check(bpf_map_update_elem(fd, &key, &value, flags), "update \(label)")
    }

    /// Writes the values of all CPUs that can ever be there, by CPU number.
    public borrowing func updatePerCPU<K: BitwiseCopyable, V: BitwiseCopyable>(
        _ key: K, _ values: [V]
    ) throws(BPFError) {
        try expect(key: K.self, value: V.self)
        var key = key
        let cpus = try BPFMap.possibleCPUs()
        precondition(values.count == cpus, "one value for each of \(cpus) CPUs")
        let stride = (MemoryLayout<V>.size + 7) & ~7
        try withUnsafeTemporaryAllocation(byteCount: stride * cpus, alignment: 16) { (bytes) throws(BPFError) in
            bytes.initializeMemory(as: UInt8.self, repeating: 0)
            for cpu in 0..<cpus { bytes.storeBytes(of: values[cpu], toByteOffset: cpu * stride, as: V.self) }
            try check(bpf_map_update_elem(fd, &key, bytes.baseAddress, 0), "update \(label)")
        }
    }

    /// Sets the values of all CPUs to zero bytes.
    public borrowing func clearPerCPU<K: BitwiseCopyable>(_ key: K) throws(BPFError) {
        try expect(key: K.self)
        var key = key
        let stride = (Int(shape.valueSize) + 7) & ~7
        let zeros = [UInt8](repeating: 0, count: stride * (try BPFMap.possibleCPUs()))
        try check(bpf_map_update_elem(fd, &key, zeros, 0), "clear an entry of \(label)")
    }

    /// Removes an entry; false when there was none.
    @discardableResult
    public borrowing func delete<K: BitwiseCopyable>(_ key: K) throws(BPFError) -> Bool {
        try expect(key: K.self)
        var key = key
        let result = bpf_map_delete_elem(fd, &key)
        if result == -ENOENT { return false }
        try check(result, "delete from \(label)")
        return true
    }

    /// How many CPUs the kernel counts with: the length of a per-CPU value.
    public static func possibleCPUs() throws(BPFError) -> Int {
        Int(try check(libbpf_num_possible_cpus(), "count CPUs"))
    }

    private static var lockFlag: UInt64 { UInt64(BPF_F_LOCK) }

    private borrowing func expect<K>(key: K.Type) throws(BPFError) {
        guard MemoryLayout<K>.size == Int(shape.keySize) else {
            throw BPFError(
                operation: "use \(label): its keys have \(shape.keySize) bytes, not \(MemoryLayout<K>.size)",
                errno: EINVAL)
        }
    }

    private borrowing func expect<K, V>(key: K.Type, value: V.Type) throws(BPFError) {
        try expect(key: K.self)
        guard MemoryLayout<V>.size == Int(shape.valueSize) else {
            throw BPFError(
                operation: "use \(label): its values have \(shape.valueSize) bytes, not \(MemoryLayout<V>.size)",
                errno: EINVAL)
        }
    }
}

// MARK: - All entries

extension BPFMap {
    /// All keys, one system call each. Entries that come or go meanwhile may be missed; each key is returned once.
    public borrowing func keys<K: BitwiseCopyable>(as type: K.Type = K.self) throws(BPFError) -> [K] {
        try expect(key: K.self)
        var keys: [K] = []
        // Deleting a key during the walk makes the kernel start again at the first: no more steps than entries fit.
        let limit = Int(shape.maxEntries)
        try withUnsafeTemporaryAllocation(of: K.self, capacity: 1) { (next) throws(BPFError) in
            var result = bpf_map_get_next_key(fd, nil, next.baseAddress)
            while result == 0, keys.count < limit {
                var key = next[0]
                keys.append(key)
                result = bpf_map_get_next_key(fd, &key, next.baseAddress)
            }
            if result != -ENOENT { try check(result, "walk \(label)") }
        }
        return keys
    }

    /// All entries of an array or a hash map that is not per-CPU, a few thousand a system call. Entries that come or go meanwhile
    /// may be missed.
    public borrowing func entries<K: BitwiseCopyable, V: BitwiseCopyable>(
        keys keyType: K.Type = K.self, values valueType: V.Type = V.self
    ) throws(BPFError) -> [(key: K, value: V)] {
        var entries: [(key: K, value: V)] = []
        try forEach(keys: keyType, values: valueType) { entries.append(($0, $1)) }
        return entries
    }

    /// The same, one entry after the other, without a copy of them all.
    public borrowing func forEach<K: BitwiseCopyable, V: BitwiseCopyable>(
        keys keyType: K.Type = K.self, values valueType: V.Type = V.self, _ body: (K, V) -> Void
    ) throws(BPFError) {
        try expect(key: K.self, value: V.self)
        // The kernel's position: a bucket's number or a key, so as large as the larger of them.
        var position: [UInt8]?
        var capacity = min(max(Int(shape.maxEntries), 1), 4096)
        while true {
            var next = [UInt8](repeating: 0, count: max(Int(shape.keySize), 8))
            let result = readBatch(after: position, next: &next, capacity: capacity, body)
            switch result {
            case 0: position = next
            case -ENOENT: return
            case -ENOSPC: capacity *= 2  // one bucket holds more than our buffer
            default: try check(result, "read \(label)")
            }
        }
    }

    private borrowing func readBatch<K: BitwiseCopyable, V: BitwiseCopyable>(
        after position: [UInt8]?, next: inout [UInt8], capacity: Int, _ body: (K, V) -> Void
    ) -> Int32 {
        var start = position ?? []
        var count = UInt32(capacity)
        let fd = self.fd
        return withUnsafeTemporaryAllocation(of: K.self, capacity: capacity) { keys in
            withUnsafeTemporaryAllocation(of: V.self, capacity: capacity) { values in
                let keyBytes = keys.baseAddress
                let valueBytes = values.baseAddress
                let result = start.withUnsafeMutableBytes { start in
                    bpf_map_lookup_batch(
                        fd, position == nil ? nil : start.baseAddress, &next, keyBytes, valueBytes, &count, nil)
                }
                if result == 0 || result == -ENOENT {
                    for index in 0..<Int(count) { body(keys[index], values[index]) }
                }
                return result
            }
        }
    }

    /// Removes every entry of a hash map or a trie.
    public borrowing func removeAll<K: BitwiseCopyable>(keys keyType: K.Type) throws(BPFError) {
        for key in try keys(as: K.self) { try delete(key) }
    }
}

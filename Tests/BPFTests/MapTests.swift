import Glibc
import Testing

@testable import BPF

@Suite(.enabled(if: isRoot, needsRoot))
struct MapTests {
    let folder = TemporaryFolder()

    private func load() throws -> BPFObject {
        let path = try compile(
            """
            struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 10000); __type(key, int); __type(value, long); } table SEC(".maps");
            struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 5000); __type(key, int); __type(value, int); } list SEC(".maps");
            struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 4); __type(key, int); __type(value, int); } counts SEC(".maps");
            struct locked { struct bpf_spin_lock lock; int value; };
            struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, int); __type(value, struct locked); } guarded SEC(".maps");
            struct cidr { unsigned int bits; unsigned char address[16]; };
            struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(map_flags, BPF_F_NO_PREALLOC); __uint(max_entries, 16);
                __type(key, struct cidr); __type(value, int); } trie SEC(".maps");
            struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");
            SEC("xdp") int count(struct xdp_md *c) {
                int key = 1; int *n = bpf_map_lookup_elem(&counts, &key);
                if (n) (*n)++;
                long *e = bpf_ringbuf_reserve(&events, 8, 0);
                if (e) { *e = c->data_end - c->data; bpf_ringbuf_submit(e, 0); }
                return 2;
            }
            """, in: folder)
        let object = try BPFObject(path: path)
        try object.load()
        return object
    }

    @Test func hash() throws {
        let table = try load().map("table")
        #expect(try table.lookup(Int32(1), as: UInt64.self) == nil)
        try table.update(Int32(1), UInt64(10))
        #expect(try table.lookup(Int32(1), as: UInt64.self) == 10)
        #expect(throws: BPFError.self) { try table.update(Int32(1), UInt64(11), mode: .create) }
        #expect(throws: BPFError.self) { try table.update(Int32(2), UInt64(11), mode: .replace) }
        #expect(try table.delete(Int32(1)))
        #expect(try !table.delete(Int32(1)))
    }

    @Test func wrongSizesAreRefused() throws {
        let table = try load().map("table")
        #expect(throws: BPFError.self) { try table.update(UInt64(1), UInt64(1)) }
        #expect(throws: BPFError.self) { try table.update(UInt32(1), UInt32(1)) }
        #expect(throws: BPFError.self) { _ = try table.lookup(UInt32(1), as: UInt8.self) }
        #expect(throws: BPFError.self) { _ = try table.entries(keys: UInt32.self, values: UInt32.self) }
    }

    @Test(arguments: [0, 1, 4096, 9000]) func entriesAreComplete(count: Int) throws {
        let table = try load().map("table")
        for index in 0..<count { try table.update(Int32(index), UInt64(index) * 3) }
        let entries = try table.entries(keys: Int32.self, values: UInt64.self)
        #expect(entries.count == count)
        #expect(Set(entries.map(\.key)).count == count)
        #expect(entries.allSatisfy { $0.value == UInt64($0.key) * 3 })
        #expect(try table.keys(as: Int32.self).count == count)
        try table.removeAll(keys: Int32.self)
        #expect(try table.keys(as: Int32.self).isEmpty)
    }

    @Test func arraysHaveAllEntries() throws {
        let list = try load().map("list")
        try list.update(UInt32(4999), UInt32(7))
        let entries = try list.entries(keys: UInt32.self, values: UInt32.self)
        #expect(entries.count == 5000)
        #expect(entries.last?.key == 4999)
        #expect(entries.last?.value == 7)
    }

    @Test func perCPUValuesAndEvents() async throws {
        let object = try load()
        let ring = try RingBuffer<UInt64>(object.map("events"))
        let program = try object.program("count")
        for size in 60..<70 { _ = try program.run(packet: [UInt8](repeating: 0, count: size)) }
        let counts = try #require(try object.map("counts").lookupPerCPU(UInt32(1), as: UInt32.self))
        #expect(counts.reduce(0, +) == 10)
        #expect(counts.count == (try BPFMap.possibleCPUs()))
        var sizes: [UInt64] = []
        for await size in ring.records {
            sizes.append(size)
            if sizes.count == 10 { break }
        }
        #expect(sizes == Array(60..<70))
    }

    @Test func lockedValues() throws {
        struct Locked: BitwiseCopyable {
            var lock: UInt32 = 0
            var value: UInt32
        }
        let guarded = try load().map("guarded")
        try guarded.update(UInt32(1), Locked(value: 5))
        try guarded.update(UInt32(1), Locked(value: 6), locked: true)
        #expect(try guarded.lookup(UInt32(1), as: Locked.self, locked: true)?.value == 6)
    }

    @Test func trie() throws {
        struct Key: BitwiseCopyable {
            var bits: UInt32
            var address: (UInt64, UInt64) = (0, 0)
        }
        let trie = try load().map("trie")
        // 20 bytes in C; Swift would pad to 24, so this struct must be refused.
        #expect(throws: BPFError.self) { try trie.update(Key(bits: 8), UInt32(1)) }
        #expect(trie.shape.keySize == 20)
    }

    @Test func pinsAndReuse() throws {
        try BPFFileSystem.mount()
        let pins = TemporaryFolder(in: "/sys/fs/bpf")
        #expect(BPFFileSystem.contains("\(pins.path)/not/there"))
        #expect(!BPFFileSystem.contains("/tmp"))
        let path = "\(pins.path)/table"
        do {
            let table = try load().map("table")
            try table.update(Int32(1), UInt64(99))
            try table.pin(at: path)
            #expect(throws: BPFError.self) { try table.pin(at: path) }
        }
        let table = try BPFMap(pinned: path)
        #expect(try table.lookup(Int32(1), as: UInt64.self) == 99)
        #expect(throws: BPFError.self) { _ = try BPFMap(pinned: "\(pins.path)/none") }

        let source = try compile(
            """
            struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 10000); __type(key, int); __type(value, long); } table SEC(".maps");
            SEC("xdp") int p(struct xdp_md *c) { int k = 1; long *v = bpf_map_lookup_elem(&table, &k); return v ? *v : 0; }
            """, in: folder, name: "other")
        let other = try BPFObject(path: source)
        try other.reuse(table, as: "table")
        try other.load()
        #expect(try other.program("p").run(packet: [UInt8](repeating: 0, count: 64)).action == 99)
    }
}

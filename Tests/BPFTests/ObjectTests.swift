import Glibc
import Testing

@testable import BPF

@Suite(.enabled(if: isRoot, needsRoot))
struct ObjectTests {
    let folder = TemporaryFolder()

    @Test func configuresReadOnlyDataAndCapacity() throws {
        let path = try compile(
            """
            const volatile int answer = 1;
            struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1); __type(key, int); __type(value, long); } table SEC(".maps");
            SEC("xdp") int judge(struct xdp_md *c) { int k = 0; bpf_map_lookup_elem(&table, &k); return answer; }
            """, in: folder)
        let object = try BPFObject(path: path)
        try object.withReadOnlyData { $0.storeBytes(of: Int32(2), as: Int32.self) }
        try object.setMaxEntries(77, map: "table")
        #expect(object.mapNames == ["table"])
        #expect(object.programNames == ["judge"])
        try object.load()
        #expect(try object.map("table").shape.maxEntries == 77)
        let run = try object.program("judge").run(packet: [UInt8](repeating: 0, count: 64))
        #expect(run.action == 2)
        let info = try object.program("judge").info()
        #expect(info.name == "judge")
        #expect(info.verifiedInstructions > 0)
        #expect(info.nativeSize > 0)
    }

    @Test func errorHoldsTheVerifiersReason() throws {
        let path = try compile(
            "SEC(\"xdp\") int bad(struct xdp_md *c) { return *(char *)(long)c->data; }", in: folder)
        let object = try BPFObject(path: path)
        do {
            try object.load()
            Issue.record("a program without a bounds check was loaded")
        } catch {
            #expect(error.errno == EACCES)
            #expect(error.description.contains("invalid access to packet"))
            #expect(!error.description.contains("processed"))
            #expect(error.log.contains("BEGIN PROG LOAD LOG"))
        }
    }

    @Test func missingKernelFunctionIsNamed() throws {
        let path = try compile(
            "extern void bpf_no_such_function(void) __ksym;\nSEC(\"xdp\") int p(struct xdp_md *c) { bpf_no_such_function(); return 2; }",
            in: folder)
        let object = try BPFObject(path: path)
        do {
            try object.load()
            Issue.record("a program that calls a function that does not exist was loaded")
        } catch {
            #expect(error.description.contains("bpf_no_such_function"))
        }
    }

    @Test func garbageIsNoObject() throws {
        let path = "\(folder.path)/garbage"
        command("cp", "/etc/hostname", path)
        #expect(throws: BPFError.self) { _ = try BPFObject(path: path) }
        #expect(throws: BPFError.self) { _ = try BPFObject(path: "\(folder.path)/nothing") }
    }

    @Test func namesThatAreNotThere() throws {
        let path = try compile("SEC(\"xdp\") int p(struct xdp_md *c) { return 2; }", in: folder)
        let object = try BPFObject(path: path)
        #expect(throws: BPFError.self) { _ = try object.map("none") }
        #expect(throws: BPFError.self) { _ = try object.program("none") }
        // Not loaded yet.
        #expect(throws: BPFError.self) { _ = try object.program("p") }
    }

    @Test func packetRunsSeeMetadataAndResize() throws {
        let path = try compile(
            """
            SEC("xdp") int p(struct xdp_md *c) {
                unsigned int *m = (void *)(long)c->data_meta;
                if ((void *)(m + 1) > (void *)(long)c->data) return 0;
                if (*m != 0xfeedface) return 1;
                if (bpf_xdp_adjust_head(c, -28)) return 0;
                return 3;
            }
            """, in: folder)
        let object = try BPFObject(path: path)
        try object.load()
        let program = try object.program("p")
        let packet = (0..<100).map { UInt8($0) }
        let run = try program.run(packet: packet, metadata: [0xce, 0xfa, 0xed, 0xfe])
        #expect(run.action == 3)
        #expect(run.packet.count == 128)
        #expect(Array(run.packet.dropFirst(28)) == packet)
        #expect(try program.run(packet: packet).action == 0)
        // Too short for an Ethernet header.
        #expect(throws: BPFError.self) { _ = try program.run(packet: [1, 2, 3]) }
    }

    @Test func syscallProgramWritesItsContext() throws {
        let path = try compile(
            "struct args { unsigned long a, b; };\nSEC(\"syscall\") int p(struct args *x) { x->b = x->a * 2; return 7; }",
            in: folder)
        let object = try BPFObject(path: path)
        try object.load()
        var context: (UInt64, UInt64) = (21, 0)
        let result = try object.program("p").run(context: &context)
        #expect(result == 7)
        #expect(context.1 == 42)
    }

    @Test func kernelTypesKnowTheCipher() throws {
        let types = try KernelTypes()
        let hasCipher = types.hasFunction("bpf_crypto_encrypt")
        let hasArticlesHelper = types.hasFunction("bpf_aes_gcm_encrypt")
        #expect(hasCipher)
        #expect(!hasArticlesHelper)
    }
}

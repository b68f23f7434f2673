internal import CLibBPF
internal import Glibc

/// A loaded BPF program. Owns a descriptor; the program lives while a descriptor, a link or a pin holds it.
public struct BPFProgram: ~Copyable, Sendable {
    /// As in the source, for messages.
    public let name: String
    private let descriptor: FileDescriptor

    init(_ descriptor: consuming FileDescriptor, name: String) {
        self.name = name
        self.descriptor = descriptor
    }

    /// Opens a pinned program.
    public init(pinned path: String) throws(BPFError) {
        let fd = try check(bpf_obj_get(path), "open pinned program \(path)")
        descriptor = FileDescriptor(owning: fd)
        name = path.split(separator: "/").last.map(String.init) ?? path
    }

    /// The descriptor, for system calls that this type does not wrap. Valid while the program value lives.
    public var fd: Int32 { descriptor.raw }

    /// Pins the program to a path on a BPF file system; the path must be free.
    public borrowing func pin(at path: String) throws(BPFError) {
        try check(bpf_obj_pin(fd, path), "pin program \(name) at \(path)")
    }

    /// What the kernel says of a program.
    public struct Info: Sendable, Hashable {
        /// The kernel's number of the program.
        public let id: UInt32
        /// Cut to 15 characters.
        public let name: String
        /// Hash of the instructions, 8 bytes.
        public let tag: UInt64
        /// How many instructions the verifier went through.
        public let verifiedInstructions: UInt32
        /// Bytes of native code; 0 without the JIT compiler.
        public let nativeSize: UInt32
    }

    /// What the kernel says of this program.
    public borrowing func info() throws(BPFError) -> Info {
        var info = bpf_prog_info()
        var length = UInt32(MemoryLayout<bpf_prog_info>.size)
        try check(bpf_obj_get_info_by_fd(fd, &info, &length), "read what program \(name) is")
        let name = withUnsafeBytes(of: info.name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        return Info(
            id: info.id, name: name, tag: withUnsafeBytes(of: info.tag) { $0.loadUnaligned(as: UInt64.self) },
            verifiedInstructions: info.verified_insns, nativeSize: info.jited_prog_len)
    }
}

// MARK: - Running without a device

extension BPFProgram {
    /// What a test run of a packet program gave.
    public struct PacketRun: Sendable {
        /// What the program returned, such as XDP_PASS (2).
        public let action: UInt32
        /// The packet afterwards.
        public let packet: [UInt8]
        /// XDP metadata in front of it afterwards; empty unless the run was given metadata or a device. Without them it is part
        /// of `packet`.
        public let metadata: [UInt8]
        /// Of one run, averaged, in nanoseconds.
        public let nanoseconds: UInt32
    }

    /// Runs an XDP or tc program on a packet.
    ///
    /// The program sees a packet of a device: `interfaceIndex` (XDP only), or of the kernel's loopback. Packets of more than a page
    /// less 576 bytes arrive in fragments, which XDP programs must have asked for (`xdp.frags`). XDP programs need at least 14
    /// bytes.
    ///
    /// - Parameters:
    ///   - packet: from the Ethernet header on.
    ///   - metadata: bytes of XDP metadata in front of the packet, a multiple of 4 up to 252; XDP only.
    ///   - room: how many bytes longer than `packet` the result may be.
    ///   - repeating: how often to run; every run starts with the result of the one before.
    public borrowing func run(
        packet: [UInt8], metadata: [UInt8] = [], room: Int = 512, interfaceIndex: UInt32? = nil, repeating: Int32 = 1
    ) throws(BPFError) -> PacketRun {
        let input = metadata + packet
        var output = [UInt8](repeating: 0, count: input.count + room)
        var context = xdp_md()
        context.data = UInt32(metadata.count)
        context.data_end = UInt32(input.count)
        context.ingress_ifindex = interfaceIndex ?? 0
        var options = bpf_test_run_opts()
        options.sz = MemoryLayout<bpf_test_run_opts>.size
        options.repeat = repeating
        let usesContext = interfaceIndex != nil || !metadata.isEmpty
        let fd = self.fd
        let result = input.withUnsafeBytes { input in
            output.withUnsafeMutableBytes { output in
                withUnsafeMutableBytes(of: &context) { context in
                    options.data_in = input.baseAddress
                    options.data_size_in = UInt32(input.count)
                    options.data_out = output.baseAddress
                    options.data_size_out = UInt32(output.count)
                    if usesContext {
                        options.ctx_in = UnsafeRawPointer(context.baseAddress)
                        options.ctx_size_in = UInt32(context.count)
                        options.ctx_out = context.baseAddress
                        options.ctx_size_out = UInt32(context.count)
                    }
                    return bpf_prog_test_run_opts(fd, &options)
                }
            }
        }
        try check(result, "run program \(name) on a packet of \(packet.count) bytes")
        output.removeLast(max(0, output.count - Int(options.data_size_out)))
        var left: [UInt8] = []
        if usesContext {
            left = Array(output.prefix(Int(context.data)))
            output.removeFirst(left.count)
        }
        return PacketRun(action: options.retval, packet: output, metadata: left, nanoseconds: options.duration)
    }

    /// Runs a tc program on a packet, from the Ethernet header on, that came into this namespace by the device with number
    /// `arrivingFrom` (`ingress_ifindex`; 0: by none).
    public borrowing func run(packet: [UInt8], arrivingFrom device: UInt32, repeating: Int32 = 1) throws(BPFError)
        -> PacketRun
    {
        var output = [UInt8](repeating: 0, count: packet.count + 512)
        var context = __sk_buff()
        context.ingress_ifindex = device
        var options = bpf_test_run_opts()
        options.sz = MemoryLayout<bpf_test_run_opts>.size
        options.repeat = repeating
        let fd = self.fd
        let result = packet.withUnsafeBytes { input in
            output.withUnsafeMutableBytes { output in
                withUnsafeMutableBytes(of: &context) { context in
                    options.data_in = input.baseAddress
                    options.data_size_in = UInt32(input.count)
                    options.data_out = output.baseAddress
                    options.data_size_out = UInt32(output.count)
                    options.ctx_in = UnsafeRawPointer(context.baseAddress)
                    options.ctx_size_in = UInt32(context.count)
                    return bpf_prog_test_run_opts(fd, &options)
                }
            }
        }
        try check(result, "run program \(name) on a packet of \(packet.count) bytes")
        output.removeLast(max(0, output.count - Int(options.data_size_out)))
        return PacketRun(action: options.retval, packet: output, metadata: [], nanoseconds: options.duration)
    }

    /// Runs a `SEC("syscall")` program. Its context is read and written in place; the result is what the program returned.
    @discardableResult
    public borrowing func run<Context: BitwiseCopyable>(context: inout Context) throws(BPFError) -> UInt32 {
        var options = bpf_test_run_opts()
        options.sz = MemoryLayout<bpf_test_run_opts>.size
        let fd = self.fd
        let result = withUnsafeMutableBytes(of: &context) { bytes in
            options.ctx_in = UnsafeRawPointer(bytes.baseAddress)
            options.ctx_size_in = UInt32(bytes.count)
            return bpf_prog_test_run_opts(fd, &options)
        }
        try check(result, "run program \(name)")
        return options.retval
    }
}

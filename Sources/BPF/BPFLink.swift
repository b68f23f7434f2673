internal import CLibBPF
internal import CSys
internal import Glibc

/// An attached program. Owns a descriptor; the program stays attached while a descriptor or a pin holds the link, and nobody can
/// detach it with `ip` or `tc`.
public struct BPFLink: ~Copyable, Sendable {
    private let descriptor: FileDescriptor
    private let label: String

    private init(_ descriptor: consuming FileDescriptor, _ label: String) {
        self.descriptor = descriptor
        self.label = label
    }

    /// Opens a pinned link.
    public init(pinned path: String) throws(BPFError) {
        let fd = try check(bpf_obj_get(path), "open pinned link \(path)")
        self.init(FileDescriptor(owning: fd), "link \(path)")
    }

    /// The descriptor, for system calls that this type does not wrap. Valid while the link value lives.
    public var fd: Int32 { descriptor.raw }
}

// MARK: - Attaching

extension BPFLink {
    /// Where in a device's path an XDP program runs.
    public enum XDPMode: Sendable {
        /// In the driver: no copy, and the head room that programs count on. Refused where the driver has no XDP.
        case native
        /// After the packet became an sk_buff: slow; works on every device.
        case generic
    }

    /// Attaches an XDP program to a device of the calling thread's network namespace. One program a device. Linux 5.9.
    public static func attachXDP(
        _ program: borrowing BPFProgram, interfaceIndex: Int32, mode: XDPMode = .native
    ) throws(BPFError) -> BPFLink {
        var options = bpf_link_create_opts()
        options.sz = MemoryLayout<bpf_link_create_opts>.size
        options.flags = UInt32(mode == .native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE)
        let label = "XDP program \(program.name) at interface \(interfaceIndex)"
        let (fd, log) = LibbpfLog.collect { bpf_link_create(program.fd, interfaceIndex, BPF_XDP, &options) }
        if fd < 0 { throw BPFError(operation: "attach \(label)", errno: -fd, log: log) }
        return BPFLink(FileDescriptor(owning: fd), label)
    }

    /// Which side of a device's tc layer.
    public enum TrafficControlHook: Sendable {
        /// What the device receives.
        case ingress
        /// What leaves through the device.
        case egress
    }

    /// Attaches a sched_cls program to a device of the calling thread's network namespace, before all other tcx programs there.
    /// Linux 6.6.
    public static func attachTCX(
        _ program: borrowing BPFProgram, interfaceIndex: Int32, hook: TrafficControlHook = .ingress
    ) throws(BPFError) -> BPFLink {
        var request = csys_tcx_link_create()
        request.program_fd = UInt32(bitPattern: program.fd)
        request.interface_index = UInt32(bitPattern: interfaceIndex)
        request.attach_type = hook == .ingress ? UInt32(CSYS_BPF_TCX_INGRESS) : UInt32(CSYS_BPF_TCX_EGRESS)
        request.flags = UInt32(CSYS_BPF_F_BEFORE)  // with no relative program: before all
        let label = "tcx program \(program.name) at interface \(interfaceIndex)"
        let fd = try checkCall(
            csys_bpf(Int32(BPF_LINK_CREATE.rawValue), &request, MemoryLayout<csys_tcx_link_create>.size),
            "attach \(label)")
        return BPFLink(FileDescriptor(owning: fd), label)
    }
}

// MARK: - Sockets

extension BPFLink {
    /// What a socket of a cgroup does when a program runs. Linux 4.17 to 5.8.
    public enum CgroupHook: String, Sendable, CaseIterable {
        /// connect(2), TCP and UDP.
        case connect4, connect6
        /// sendmsg(2) with an address, UDP.
        case sendmsg4, sendmsg6
        /// recvmsg(2), UDP: whom a datagram is from.
        case recvmsg4, recvmsg6
        /// getpeername(2).
        case getpeername4, getpeername6

        var type: bpf_attach_type {
            switch self {
            case .connect4: BPF_CGROUP_INET4_CONNECT
            case .connect6: BPF_CGROUP_INET6_CONNECT
            case .sendmsg4: BPF_CGROUP_UDP4_SENDMSG
            case .sendmsg6: BPF_CGROUP_UDP6_SENDMSG
            case .recvmsg4: BPF_CGROUP_UDP4_RECVMSG
            case .recvmsg6: BPF_CGROUP_UDP6_RECVMSG
            case .getpeername4: BPF_CGROUP_INET4_GETPEERNAME
            case .getpeername6: BPF_CGROUP_INET6_GETPEERNAME
            }
        }
    }

    /// Attaches a program to the sockets of a cgroup and of those below it, beside other programs. `cgroup` is an open folder of a cgroup2
    /// file system. Linux 5.7.
    public static func attachCgroup(
        _ program: borrowing BPFProgram, cgroup: Int32, hook: CgroupHook
    ) throws(BPFError) -> BPFLink {
        let label = "program \(program.name) at \(hook.rawValue) of the cgroup"
        let fd = try check(bpf_link_create(program.fd, cgroup, hook.type, nil), "attach \(label)")
        return BPFLink(FileDescriptor(owning: fd), label)
    }
}

// MARK: - Using a link

extension BPFLink {
    /// What a link holds and where.
    public struct Info: Sendable, Hashable {
        /// The kernel's number of the link.
        public let id: UInt32
        /// The kernel's number of the program that it holds now.
        public let programID: UInt32
        /// Of the device, in its own namespace. 0: the device is gone, and the link holds nothing any more.
        public let interfaceIndex: Int32
    }

    /// What the link holds and where.
    public borrowing func info() throws(BPFError) -> Info {
        var info = bpf_link_info()
        var length = UInt32(MemoryLayout<bpf_link_info>.size)
        try check(bpf_obj_get_info_by_fd(fd, &info, &length), "read what \(label) is")
        // The device's index stands first in the details of an XDP link and of a tcx link.
        return Info(id: info.id, programID: info.prog_id, interfaceIndex: Int32(bitPattern: info.xdp.ifindex))
    }

    /// Swaps the program atomically: every packet sees the old one or the new one.
    public borrowing func update(to program: borrowing BPFProgram) throws(BPFError) {
        try check(bpf_link_update(fd, program.fd, nil), "put program \(program.name) into \(label)")
    }

    /// Takes the program off the device now, whoever else holds the link.
    public borrowing func detach() throws(BPFError) {
        try check(bpf_link_detach(fd), "detach \(label)")
    }

    /// Pins the link to a path on a BPF file system; the path must be free.
    public borrowing func pin(at path: String) throws(BPFError) {
        try check(bpf_obj_pin(fd, path), "pin \(label) at \(path)")
    }
}

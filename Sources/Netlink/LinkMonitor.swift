internal import CSys
internal import Glibc

/// Tells when devices or addresses of the network namespace in which it is opened appear, change or go. It says that something
/// happened, not what: who wants to know looks.
public final class LinkMonitor: Sendable {
    private let fd: Int32

    /// Subscribes in the calling thread's network namespace.
    public init() throws(NetlinkError) {
        let operation = "subscribe to changes of interfaces"
        let type = Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        fd = socket(AF_NETLINK, type, NETLINK_ROUTE)
        guard fd >= 0 else { throw NetlinkError(operation, errno: errno) }
        var address = sockaddr_nl()
        address.nl_family = sa_family_t(AF_NETLINK)
        for group in [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR] {
            address.nl_groups |= 1 << (group.rawValue - 1)
        }
        let bound = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(fd, $0, socklen_t(MemoryLayout<sockaddr_nl>.size))
            }
        }
        guard bound == 0 else {
            let error = errno
            close(fd)
            throw NetlinkError(operation, errno: error)
        }
    }

    deinit { close(fd) }

    /// For poll(2): readable when something happened. Valid while this value lives.
    public var descriptor: Int32 { fd }

    /// Takes what has arrived and throws it away. Messages that were lost (ENOBUFS) have done their work, too.
    public func drain() {
        var buffer = [UInt8](repeating: 0, count: 1 << 15)
        for _ in 0..<1000 where recv(fd, &buffer, buffer.count, 0) < 0 && errno != ENOBUFS && errno != EINTR { return }
    }
}

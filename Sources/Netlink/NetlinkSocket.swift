internal import CSys
internal import Glibc

/// Sends a request and returns the payloads that answer it. Tests answer with bytes of their own.
protocol NetlinkTransport {
    /// - Parameters:
    ///   - type: message type, RTM_* or a generic family's number.
    ///   - flags: NLM_F_* beside REQUEST and ACK.
    ///   - operation: for the error.
    mutating func exchange(
        type: UInt16, flags: Int32, payload: [UInt8], operation: String
    ) throws(NetlinkError) -> [ArraySlice<UInt8>]
}

/// A netlink socket. It belongs to the network namespace of the thread that opened it, wherever it is used later.
final class NetlinkSocket: NetlinkTransport {
    let fd: Int32
    private var sequence: UInt32 = 0

    /// - Parameter family: NETLINK_ROUTE or NETLINK_GENERIC.
    init(family: Int32) throws(NetlinkError) {
        fd = socket(AF_NETLINK, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), family)
        guard fd >= 0 else { throw NetlinkError("open a netlink socket", errno: errno) }
        var on: Int32 = 1
        let size = socklen_t(MemoryLayout<Int32>.size)
        // Both are refinements: an error's text, and filters that hold. Without them everything still works.
        setsockopt(fd, Self.SOL_NETLINK, NETLINK_EXT_ACK, &on, size)
        setsockopt(fd, Self.SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, size)
        // The kernel answers at once; this only turns a hang into an error.
        var patience = timeval(tv_sec: 10, tv_usec: 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit {
        close(fd)
    }

    func exchange(
        type: UInt16, flags: Int32, payload: [UInt8], operation: String
    ) throws(NetlinkError) -> [ArraySlice<UInt8>] {
        // A dump that something changed under is asked for again; the last answer is taken as it is.
        for _ in 0..<4 {
            if let answer = try attempt(type: type, flags: flags, payload: payload, operation: operation, final: false)
            {
                return answer
            }
        }
        return try attempt(type: type, flags: flags, payload: payload, operation: operation, final: true) ?? []
    }

    /// Returns nil when a dump was interrupted by a change, unless `final`.
    private func attempt(
        type: UInt16, flags: Int32, payload: [UInt8], operation: String, final: Bool
    ) throws(NetlinkError) -> [ArraySlice<UInt8>]? {
        sequence += 1
        var request = Payload()
        request.append(
            nlmsghdr(
                nlmsg_len: UInt32(MemoryLayout<nlmsghdr>.size + payload.count), nlmsg_type: type,
                nlmsg_flags: UInt16(NLM_F_REQUEST | NLM_F_ACK | flags), nlmsg_seq: sequence, nlmsg_pid: 0))
        let bytes = request.bytes + payload
        guard send(fd, bytes, bytes.count, 0) == bytes.count else { throw NetlinkError(operation, errno: errno) }

        var replies = ReplyReader(sequence: sequence)
        var buffer = [UInt8](repeating: 0, count: 1 << 17)
        while !replies.isComplete {
            let (count, sender) = receive(&buffer)
            if count < 0 {
                if errno == EINTR { continue }
                throw NetlinkError(operation, errno: errno)
            }
            // In a pod's namespace its processes may send to us, too: only the kernel, which is 0, answers.
            if sender != 0 { continue }
            guard count <= buffer.count else { throw NetlinkError(operation, errno: EMSGSIZE) }
            try replies.read(buffer[..<count], operation: operation)
        }
        return replies.wasInterrupted && !final ? nil : replies.payloads
    }

    /// A datagram's length, also if it did not fit, and who sent it.
    private func receive(_ buffer: inout [UInt8]) -> (count: Int, sender: UInt32) {
        var address = sockaddr_nl()
        var size = socklen_t(MemoryLayout<sockaddr_nl>.size)
        let count = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                recvfrom(fd, &buffer, buffer.count, Int32(MSG_TRUNC), $0, &size)
            }
        }
        return (count, address.nl_pid)
    }

    private static let SOL_NETLINK: Int32 = 270
}

/// Takes datagrams apart until the request's answer is complete. Pure, so that tests can feed it bytes.
struct ReplyReader {
    let sequence: UInt32
    private(set) var payloads: [ArraySlice<UInt8>] = []
    private(set) var isComplete = false
    private(set) var wasInterrupted = false

    init(sequence: UInt32) {
        self.sequence = sequence
    }

    /// Reads one datagram, which may hold several messages.
    mutating func read(_ datagram: ArraySlice<UInt8>, operation: String) throws(NetlinkError) {
        var rest = datagram
        let headerSize = MemoryLayout<nlmsghdr>.size
        while rest.count >= headerSize, !isComplete {
            let header = rest.withUnsafeBytes { $0.loadUnaligned(as: nlmsghdr.self) }
            let length = Int(header.nlmsg_len)
            guard length >= headerSize, length <= rest.count else {
                throw NetlinkError("\(operation): the answer is malformed", errno: EBADMSG)
            }
            let body = rest[(rest.startIndex + headerSize)..<(rest.startIndex + length)]
            rest = rest.dropFirst((length + 3) & ~3)
            guard header.nlmsg_seq == sequence else { continue }
            if header.nlmsg_flags & UInt16(NLM_F_DUMP_INTR) != 0 { wasInterrupted = true }
            switch Int32(header.nlmsg_type) {
            case NLMSG_DONE:
                try Self.checkEnd(body, flags: header.nlmsg_flags, operation: operation)
                isComplete = true
            case NLMSG_ERROR:
                try Self.refuse(body, flags: header.nlmsg_flags, operation: operation)
                isComplete = true
            default: payloads.append(ArraySlice(Array(body)))
            }
        }
    }

    /// A dump that failed on its way ends like one that did not, but for a number: what came before it is not all.
    private static func checkEnd(_ body: ArraySlice<UInt8>, flags: UInt16, operation: String) throws(NetlinkError) {
        guard body.count >= 4 else { return }
        let code = body.withUnsafeBytes { $0.loadUnaligned(as: Int32.self) }
        guard code < 0 else { return }
        throw NetlinkError(operation, errno: 0 &- code, reason: reason(body.dropFirst(4), flags: flags))
    }

    private static func reason(_ attributes: ArraySlice<UInt8>, flags: UInt16) -> String? {
        guard flags & UInt16(NLM_F_ACK_TLVS) != 0 else { return nil }
        return Attribute.list(attributes).first { $0.type == UInt16(NLMSGERR_ATTR_MSG.rawValue) }?.text
    }

    /// Throws what an error message says; returns when it is an acknowledgement.
    private static func refuse(_ body: ArraySlice<UInt8>, flags: UInt16, operation: String) throws(NetlinkError) {
        guard body.count >= 20 else { throw NetlinkError("\(operation): the answer is malformed", errno: EBADMSG) }
        let (code, length) = body.withUnsafeBytes {
            ($0.loadUnaligned(as: Int32.self), Int($0.loadUnaligned(fromByteOffset: 4, as: UInt32.self)))
        }
        if code == 0 { return }
        // The request follows, whole or (capped) its header alone; then attributes.
        let request = flags & UInt16(NLM_F_CAPPED) != 0 ? MemoryLayout<nlmsghdr>.size : length
        let attributes = body.dropFirst(4 + (request + 3) & ~3)
        throw NetlinkError(operation, errno: 0 &- code, reason: reason(attributes, flags: flags))
    }
}

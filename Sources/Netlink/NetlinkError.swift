internal import CSys

/// The kernel refused a netlink request, or the socket failed.
public struct NetlinkError: Error, Sendable, CustomStringConvertible {
    /// What was tried, such as "set MTU of route 10.0.0.0/8".
    public let operation: String
    /// Positive, as in errno(3).
    public let errno: Int32
    /// The kernel's own words (NETLINK_EXT_ACK), when it had some.
    public let reason: String?

    init(_ operation: String, errno: Int32, reason: String? = nil) {
        self.operation = operation
        self.errno = errno
        self.reason = reason
    }

    /// For people.
    public var description: String {
        let text = csys_error_text(errno).map { String(cString: $0) } ?? "unknown error"
        let tail = reason.map { ": \($0)" } ?? ""
        return "\(operation): \(text) (errno \(errno))\(tail)"
    }
}

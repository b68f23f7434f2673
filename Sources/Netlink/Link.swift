internal import CSys

/// A network device.
public struct Link: Sendable, Hashable {
    /// Its number in its namespace.
    public var index: Int32
    /// Such as eth0.
    public var name: String
    /// Bytes.
    public var mtu: UInt32
    /// The driver's kind, such as "veth" or "netkit"; nil for hardware.
    public var kind: String?
    /// Index of the device at the other end (veth) or below, in its own namespace; nil when there is none.
    public var peerIndex: Int32?
    /// Our number for the namespace that the peer is in; nil when it is in ours.
    public var peerNamespaceID: Int32?
    /// Index of the bridge or other device that it is a port of; nil when it is none.
    public var masterIndex: Int32?
    /// Administratively up.
    public var isUp: Bool

    /// Reads the payload of an RTM_NEWLINK message; nil when it is cut off.
    init?(payload: ArraySlice<UInt8>) {
        guard payload.count >= MemoryLayout<ifinfomsg>.size else { return nil }
        let header = payload.withUnsafeBytes { $0.loadUnaligned(as: ifinfomsg.self) }
        index = header.ifi_index
        isUp = header.ifi_flags & 1 != 0  // IFF_UP
        name = ""
        mtu = 0
        for attribute in Attribute.list(payload.dropFirst(MemoryLayout<ifinfomsg>.size)) {
            switch Int(attribute.type) {
            case IFLA_IFNAME: name = attribute.text
            case IFLA_MTU: mtu = attribute.number() ?? 0
            case IFLA_LINK: peerIndex = attribute.number()
            case IFLA_MASTER: masterIndex = attribute.number()
            case IFLA_LINK_NETNSID: peerNamespaceID = attribute.number()
            case IFLA_LINKINFO: kind = attribute.nested.first { Int($0.type) == IFLA_INFO_KIND }?.text
            default: break
            }
        }
    }
}

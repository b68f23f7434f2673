internal import CSys
internal import Glibc

/// Devices, addresses and routes (rtnetlink) of the network namespace in which it is opened.
public struct RouteSocket {
    private var transport: any NetlinkTransport

    /// Opens a socket in the calling thread's network namespace.
    public init() throws(NetlinkError) {
        transport = try NetlinkSocket(family: NETLINK_ROUTE)
    }

    init(transport: any NetlinkTransport) {
        self.transport = transport
    }

    /// A device by number, or nil when there is none.
    public mutating func link(index: Int32) throws(NetlinkError) -> Link? {
        try link(index: index, name: nil, operation: "read interface \(index)")
    }

    /// A device by name, or nil when there is none.
    public mutating func link(name: String) throws(NetlinkError) -> Link? {
        guard (1..<Int(IFNAMSIZ)).contains(name.utf8.count) else { return nil }
        return try link(index: 0, name: name, operation: "read interface \(name)")
    }

    private mutating func link(index: Int32, name: String?, operation: String) throws(NetlinkError) -> Link? {
        var payload = Payload()
        var header = ifinfomsg()
        header.ifi_index = index
        payload.append(header)
        if let name { payload.attribute(Int32(IFLA_IFNAME), text: name) }
        do {
            let answer = try transport.exchange(
                type: UInt16(RTM_GETLINK), flags: 0, payload: payload.bytes, operation: operation)
            return answer.compactMap { Link(payload: $0) }.first
        } catch  where error.errno == ENODEV {
            return nil
        }
    }

    /// All devices.
    public mutating func links() throws(NetlinkError) -> [Link] {
        var payload = Payload()
        payload.append(ifinfomsg())
        return try transport.exchange(
            type: UInt16(RTM_GETLINK), flags: NLM_F_DUMP, payload: payload.bytes, operation: "list interfaces"
        ).compactMap { Link(payload: $0) }
    }

    /// This namespace's number for another one, by a descriptor of that; nil when it has none.
    public mutating func namespaceID(descriptor: Int32) throws(NetlinkError) -> Int32? {
        var payload = Payload()
        payload.append(rtgenmsg(rtgen_family: UInt8(AF_UNSPEC)))
        payload.attribute(Int32(NETNSA_FD), UInt32(bitPattern: descriptor))
        let answer = try transport.exchange(
            type: UInt16(RTM_GETNSID), flags: 0, payload: payload.bytes, operation: "read a namespace's number")
        guard let first = answer.first else { return nil }
        let id: Int32? = Attribute.list(first.dropFirst(4)).first { Int($0.type) == NETNSA_NSID }?.number()
        return id == -1 ? nil : id
    }

    /// An address of a device.
    public struct Address: Sendable, Hashable {
        /// The address itself.
        public var address: IPAddress
        /// As people count: 0 to 32 for IPv4, 0 to 128 for IPv6.
        public var prefixLength: UInt8
        /// Its device.
        public var interfaceIndex: Int32
    }

    /// All addresses of all devices.
    public mutating func addresses() throws(NetlinkError) -> [Address] {
        var payload = Payload()
        payload.append(ifaddrmsg())
        return try transport.exchange(
            type: UInt16(RTM_GETADDR), flags: NLM_F_DUMP, payload: payload.bytes, operation: "list addresses"
        ).compactMap { Self.address($0) }
    }

    /// All addresses of a device.
    public mutating func addresses(interfaceIndex: Int32) throws(NetlinkError) -> [Address] {
        try addresses().filter { $0.interfaceIndex == interfaceIndex }
    }

    private static func address(_ payload: ArraySlice<UInt8>) -> Address? {
        let headerSize = MemoryLayout<ifaddrmsg>.size
        guard payload.count >= headerSize else { return nil }
        let header = payload.withUnsafeBytes { $0.loadUnaligned(as: ifaddrmsg.self) }
        let attributes = Attribute.list(payload.dropFirst(headerSize))
        // IFA_LOCAL is ours, IFA_ADDRESS the other end's on point-to-point devices.
        let own = attributes.first { Int($0.type) == IFA_LOCAL } ?? attributes.first { Int($0.type) == IFA_ADDRESS }
        guard let own, let address = IPAddress(bytes: Array(own.value)) else { return nil }
        return Address(
            address: address, prefixLength: header.ifa_prefixlen, interfaceIndex: Int32(bitPattern: header.ifa_index))
    }

    /// All routes of both families and all tables, cached ones aside.
    public mutating func routes() throws(NetlinkError) -> [Route] {
        var routes: [Route] = []
        for family in [AF_INET, AF_INET6] {
            var payload = Payload()
            var header = rtmsg()
            header.rtm_family = UInt8(family)
            payload.append(header)
            routes += try transport.exchange(
                type: UInt16(RTM_GETROUTE), flags: NLM_F_DUMP, payload: payload.bytes, operation: "list routes"
            ).compactMap { Route(payload: $0) }
        }
        return routes
    }

    /// Gives a route another MTU metric, or none, and leaves everything else of it as it is.
    public mutating func setMTU(_ mtu: UInt32?, of route: Route) throws(NetlinkError) {
        _ = try transport.exchange(
            type: UInt16(RTM_NEWROUTE), flags: NLM_F_REPLACE, payload: route.replacement(mtu: mtu),
            operation: "set the MTU of route \(route.identity)")
    }
}

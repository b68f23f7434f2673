internal import CSys
internal import Glibc

/// A route, with everything that the kernel said of it, so that it can be put back with nothing but its MTU changed.
public struct Route: Sendable {
    /// What tells a route from others, and what people read of it.
    public struct Identity: Sendable, Hashable, Codable, CustomStringConvertible {
        /// AF_INET or AF_INET6.
        public var family: UInt8
        /// Routing table, 254 is main.
        public var table: UInt32
        /// Such as 10.0.0.0/8; 0.0.0.0/0 and ::/0 are default routes.
        public var destination: IPPrefix
        /// Metric; lower ones win.
        public var priority: UInt32
        /// Type of service (IPv4).
        public var tos: UInt8
        /// Number of the device that it leads to; nil when several next hops share it.
        public var interfaceIndex: Int32?
        /// Next hop, when there is one.
        public var gateway: IPAddress?

        /// As `ip route` writes it, roughly.
        public var description: String {
            var text = "\(destination)"
            if let gateway { text += " via \(gateway)" }
            if let interfaceIndex { text += " dev \(interfaceIndex)" }
            if priority != 0 { text += " metric \(priority)" }
            return text + (table == 254 ? "" : " table \(table)")
        }
    }

    /// What tells it from others.
    public let identity: Identity
    /// Devices that it leads to.
    public let interfaceIndices: Set<Int32>
    /// MTU metric in bytes; nil when it has none.
    public let mtu: UInt32?
    /// RTN_*: 1 is unicast.
    let type: UInt8
    private let header: rtmsg
    private let attributes: [Attribute]

    /// Reads the payload of an RTM_NEWROUTE message; nil when it is cut off or of another family.
    init?(payload: ArraySlice<UInt8>) {
        let headerSize = MemoryLayout<rtmsg>.size
        guard payload.count >= headerSize else { return nil }
        let header = payload.withUnsafeBytes { $0.loadUnaligned(as: rtmsg.self) }
        let attributes = Attribute.list(payload.dropFirst(headerSize))
        self.header = header
        self.attributes = attributes
        type = header.rtm_type
        func first(_ type: rtattr_type_t) -> Attribute? { attributes.first { $0.type == UInt16(type.rawValue) } }

        let isIPv4 = Int32(header.rtm_family) == AF_INET
        guard isIPv4 || Int32(header.rtm_family) == AF_INET6 else { return nil }
        let addressBytes = first(RTA_DST).map { Array($0.value) } ?? [UInt8](repeating: 0, count: isIPv4 ? 4 : 16)
        guard let address = IPAddress(bytes: addressBytes),
            let length = UInt8(exactly: Int(header.rtm_dst_len) + (isIPv4 ? 96 : 0)),
            let destination = IPPrefix(address: address, length: length)
        else { return nil }

        let device: Int32? = first(RTA_OIF)?.number()
        let hops = first(RTA_MULTIPATH).map { Self.nextHopDevices($0.value) } ?? []
        interfaceIndices = Set(hops + (device.map { [$0] } ?? []))
        mtu = first(RTA_METRICS)?.nested.first { $0.type == UInt16(RTAX_MTU) }?.number()
        identity = Identity(
            family: header.rtm_family, table: first(RTA_TABLE)?.number() ?? UInt32(header.rtm_table),
            destination: destination, priority: first(RTA_PRIORITY)?.number() ?? 0, tos: header.rtm_tos,
            interfaceIndex: device, gateway: first(RTA_GATEWAY).flatMap { IPAddress(bytes: Array($0.value)) })
    }

    /// Whether packets to other hosts take it: not broadcast, local, unreachable, or a cached exception.
    public var isUnicast: Bool {
        type == UInt8(RTN_UNICAST) && header.rtm_flags & UInt32(RTM_F_CLONED) == 0
            && identity.table != UInt32(RT_TABLE_LOCAL.rawValue)
    }

    /// Whether it leads to other networks: through a next hop, or to everywhere.
    public var leadsOut: Bool {
        if identity.destination.length == (Int32(identity.family) == AF_INET ? 96 : 0) { return true }
        return attributes.contains { attribute in
            switch rtattr_type_t(UInt32(attribute.type)) {
            case RTA_GATEWAY, RTA_VIA: true
            case RTA_MULTIPATH: Self.nextHopsLead(attribute.value)
            default: false
            }
        }
    }

    /// The payload of a request that replaces this route with itself and another MTU metric; nil takes the metric away.
    func replacement(mtu: UInt32?) -> [UInt8] {
        var header = header
        // The rest of the flags are the kernel's observations.
        header.rtm_flags &= UInt32(RTNH_F_ONLINK | RTNH_F_PERVASIVE)
        var payload = Payload()
        payload.append(header)
        let usesNextHopObject = attributes.contains { $0.type == UInt16(RTA_NH_ID.rawValue) }
        for attribute in attributes {
            switch rtattr_type_t(UInt32(attribute.type)) {
            case RTA_METRICS: break
            case RTA_CACHEINFO: Self.expiry(attribute).map { payload.attribute(Int32(RTA_EXPIRES.rawValue), $0) }
            // A next-hop object is shown with its content, but set by its number alone.
            case RTA_OIF where usesNextHopObject, RTA_GATEWAY where usesNextHopObject, RTA_VIA where usesNextHopObject,
                RTA_MULTIPATH where usesNextHopObject:
                break
            default: payload.append(attribute)
            }
        }
        let metrics = self.metrics(mtu: mtu)
        // Without metrics in the request the kernel takes another route's of the same next-hop object: the present one's.
        if !metrics.isEmpty || usesNextHopObject {
            payload.nested(Int32(RTA_METRICS.rawValue)) { nested in metrics.forEach { nested.append($0) } }
        }
        return payload.bytes
    }

    /// All metrics, with this MTU.
    private func metrics(mtu: UInt32?) -> [Attribute] {
        var metrics = attributes.first { $0.type == UInt16(RTA_METRICS.rawValue) }?.nested ?? []
        metrics.removeAll { $0.type == UInt16(RTAX_MTU) }
        if let mtu {
            let value = withUnsafeBytes(of: mtu) { Array($0)[...] }
            metrics.append(Attribute(type: UInt16(RTAX_MTU), value: value))
        } else {
            // The lock of a metric that is not there would pin the device's MTU: it goes too.
            for index in metrics.indices where metrics[index].type == UInt16(RTAX_LOCK) {
                let lock: UInt32 = (metrics[index].number() ?? 0) & ~(1 << UInt32(RTAX_MTU))
                metrics[index].value = withUnsafeBytes(of: lock) { Array($0)[...] }
            }
        }
        return metrics
    }

    /// Seconds that the route has left (router advertisements), or nil when it stays.
    private static func expiry(_ cacheInfo: Attribute) -> UInt32? {
        guard cacheInfo.value.count >= 12 else { return nil }
        let ticks = cacheInfo.value.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 8, as: Int32.self) }
        return ticks > 0 ? max(1, UInt32(ticks) / 100) : nil  // USER_HZ is 100 everywhere
    }

    private static func nextHopDevices(_ bytes: ArraySlice<UInt8>) -> [Int32] {
        var devices: [Int32] = []
        eachNextHop(bytes) { hop, _ in devices.append(hop.rtnh_ifindex) }
        return devices
    }

    private static func nextHopsLead(_ bytes: ArraySlice<UInt8>) -> Bool {
        var isFound = false
        eachNextHop(bytes) { _, attributes in
            let types = attributes.map { UInt32($0.type) }
            if types.contains(RTA_GATEWAY.rawValue) || types.contains(RTA_VIA.rawValue) { isFound = true }
        }
        return isFound
    }

    private static func eachNextHop(_ bytes: ArraySlice<UInt8>, _ body: (rtnexthop, [Attribute]) -> Void) {
        let headerSize = MemoryLayout<rtnexthop>.size
        var rest = bytes
        while rest.count >= headerSize {
            let hop = rest.withUnsafeBytes { $0.loadUnaligned(as: rtnexthop.self) }
            guard hop.rtnh_len >= headerSize, Int(hop.rtnh_len) <= rest.count else { break }
            body(hop, Attribute.list(rest.prefix(Int(hop.rtnh_len)).dropFirst(headerSize)))
            rest = rest.dropFirst((Int(hop.rtnh_len) + 3) & ~3)
        }
    }
}

internal import CSys
internal import Glibc

/// What one offload or other feature of a device is set to.
public struct DeviceFeature: Sendable, Hashable {
    /// In force.
    public var isActive: Bool
    /// Asked for; in force as soon as what it depends on is.
    public var isWanted: Bool
    /// Can be changed at all.
    public var isChangeable: Bool
}

/// Features of devices (ethtool netlink) of the network namespace in which it is opened.
public struct EthtoolSocket {
    private var transport: any NetlinkTransport
    private let family: UInt16

    /// Opens a socket in the calling thread's network namespace.
    public init() throws(NetlinkError) {
        try self.init(transport: NetlinkSocket(family: NETLINK_GENERIC))
    }

    init(transport: any NetlinkTransport) throws(NetlinkError) {
        self.transport = transport
        var payload = Payload()
        payload.append(genlmsghdr(cmd: UInt8(CTRL_CMD_GETFAMILY), version: 1, reserved: 0))
        payload.attribute(Int32(CTRL_ATTR_FAMILY_NAME), text: "ethtool")
        let answer = try self.transport.exchange(
            type: UInt16(GENL_ID_CTRL), flags: 0, payload: payload.bytes, operation: "find the ethtool family")
        let attributes = answer.first.map { Attribute.list($0.dropFirst(4)) } ?? []
        guard let id: UInt16 = attributes.first(where: { Int($0.type) == CTRL_ATTR_FAMILY_ID })?.number() else {
            throw NetlinkError("find the ethtool family", errno: ENOENT)
        }
        family = id
    }

    /// All features of a device by their ethtool names, such as "tx-checksum-ip-generic".
    public mutating func features(interfaceIndex: Int32) throws(NetlinkError) -> [String: DeviceFeature] {
        var payload = Payload()
        payload.append(genlmsghdr(cmd: UInt8(ETHTOOL_MSG_FEATURES_GET), version: 1, reserved: 0))
        payload.nested(Int32(ETHTOOL_A_FEATURES_HEADER)) {
            $0.attribute(Int32(ETHTOOL_A_HEADER_DEV_INDEX), UInt32(bitPattern: interfaceIndex))
        }
        let answer = try transport.exchange(
            type: family, flags: 0, payload: payload.bytes,
            operation: "read the features of interface \(interfaceIndex)")
        return answer.first.map { Self.features($0) } ?? [:]
    }

    static func features(_ payload: ArraySlice<UInt8>) -> [String: DeviceFeature] {
        var sets: [Int: [String: Bool]] = [:]
        for attribute in Attribute.list(payload.dropFirst(MemoryLayout<genlmsghdr>.size)) {
            sets[Int(attribute.type)] = bits(attribute)
        }
        func has(_ set: Int, _ name: String) -> Bool { sets[set]?[name] ?? false }
        var features: [String: DeviceFeature] = [:]
        for name in Set(sets.values.flatMap(\.keys)) {
            features[name] = DeviceFeature(
                isActive: has(ETHTOOL_A_FEATURES_ACTIVE, name), isWanted: has(ETHTOOL_A_FEATURES_WANTED, name),
                isChangeable: has(ETHTOOL_A_FEATURES_HW, name) && !has(ETHTOOL_A_FEATURES_NOCHANGE, name))
        }
        return features
    }

    /// The named bits of a bit set. In one without a mask each bit that is listed is set.
    private static func bits(_ set: Attribute) -> [String: Bool] {
        let parts = set.nested
        let isList = parts.contains { Int($0.type) == ETHTOOL_A_BITSET_NOMASK }
        var bits: [String: Bool] = [:]
        for bit in parts.first(where: { Int($0.type) == ETHTOOL_A_BITSET_BITS })?.nested ?? [] {
            let fields = bit.nested
            guard let name = fields.first(where: { Int($0.type) == ETHTOOL_A_BITSET_BIT_NAME })?.text else { continue }
            bits[name] = isList || fields.contains { Int($0.type) == ETHTOOL_A_BITSET_BIT_VALUE }
        }
        return bits
    }

    /// Turns features on or off by name; others stay.
    public mutating func setFeatures(_ features: [String: Bool], interfaceIndex: Int32) throws(NetlinkError) {
        if features.isEmpty { return }
        var payload = Payload()
        payload.append(genlmsghdr(cmd: UInt8(ETHTOOL_MSG_FEATURES_SET), version: 1, reserved: 0))
        payload.nested(Int32(ETHTOOL_A_FEATURES_HEADER)) {
            $0.attribute(Int32(ETHTOOL_A_HEADER_DEV_INDEX), UInt32(bitPattern: interfaceIndex))
        }
        payload.nested(Int32(ETHTOOL_A_FEATURES_WANTED)) { wanted in
            wanted.nested(Int32(ETHTOOL_A_BITSET_BITS)) { bits in
                for (name, isOn) in features.sorted(by: { $0.key < $1.key }) {
                    bits.nested(Int32(ETHTOOL_A_BITSET_BITS_BIT)) { bit in
                        bit.attribute(Int32(ETHTOOL_A_BITSET_BIT_NAME), text: name)
                        if isOn { bit.flag(Int32(ETHTOOL_A_BITSET_BIT_VALUE)) }
                    }
                }
            }
        }
        _ = try transport.exchange(
            type: family, flags: 0, payload: payload.bytes, operation: "set features of interface \(interfaceIndex)")
    }
}

import Crypto
import Netlink

/// Frames made by hand, and an implementation of the wire format of its own: swift-crypto's GCM and the words of
/// docs/wire-format.md, nothing of the kernel half.
enum Frames {
    enum L4: String, CaseIterable, Sendable {
        case tcp, tcpWithOptions, udp, echo

        func number(_ family: Family) -> UInt8 {
            switch self {
            case .tcp, .tcpWithOptions: 6
            case .udp: 17
            case .echo: family == .ipv4 ? 1 : 58
            }
        }

        var headerLength: Int {
            switch self {
            case .tcp: 20
            case .tcpWithOptions: 32
            case .udp, .echo: 8
            }
        }

        /// Where the checksum stands in the header.
        var checksumOffset: Int {
            switch self {
            case .tcp, .tcpWithOptions: 16
            case .udp: 6
            case .echo: 2
            }
        }
    }

    enum Family: String, CaseIterable, Sendable {
        case ipv4, ipv6

        var headerLength: Int { self == .ipv4 ? 20 : 40 }
        var addressOffset: Int { self == .ipv4 ? 12 : 8 }
        var addressLength: Int { self == .ipv4 ? 4 : 16 }
        var etherType: [UInt8] { self == .ipv4 ? [0x08, 0x00] : [0x86, 0xdd] }
        /// The pods' addresses in these tests, by node.
        func pod(_ node: Int) -> IPAddress {
            let text = self == .ipv4 ? "10.9.\(node).2" : "fd00:9:\(node)::2"
            guard let address = try? IPAddress(text) else { fatalError(text) }
            return address
        }
        /// 4 or 16 bytes.
        func bytes(_ address: IPAddress) -> [UInt8] { Array(address.bytes.suffix(addressLength)) }
    }

    static let etherLength = 14

    static func payload(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ 7) } }

    /// A frame with right lengths and checksums.
    static func plain(
        _ l4: L4, _ family: Family, payload: [UInt8], from source: IPAddress, to destination: IPAddress, vlans: Int = 0,
        timeToLive: UInt8 = 64
    ) -> [UInt8] {
        let length = l4.headerLength + payload.count
        var header: [UInt8]
        switch l4 {
        case .tcp, .tcpWithOptions:
            header = [
                0x9c, 0x40, 0x1f, 0x90, 1, 2, 3, 4, 5, 6, 7, 8, UInt8(l4.headerLength / 4) << 4, 0x18, 1, 0xf6, 0, 0, 0,
                0,
            ]
            if l4 == .tcpWithOptions { header += [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8] }
        case .udp: header = [0x9c, 0x40, 0x14, 0xe9] + big(length) + [0, 0]
        case .echo: header = [family == .ipv4 ? 8 : 128, 0, 0, 0, 0x12, 0x34, 0, 1]
        }
        var frame: [UInt8] = [2, 0, 0, 0, 0, 11, 2, 0, 0, 0, 0, 10]
        for tag in 0..<vlans {
            frame += [tag == 0 && vlans == 2 ? 0x88 : 0x81, tag == 0 && vlans == 2 ? 0xa8 : 0, 0, 5]
        }
        frame += family.etherType
        switch family {
        case .ipv4:
            frame += [0x45, 0] + big(20 + length) + [0, 1, 0x40, 0, timeToLive, l4.number(family), 0, 0]
        case .ipv6:
            frame += [0x60, 0, 0, 0] + big(length) + [l4.number(family), timeToLive]
        }
        frame += family.bytes(source) + family.bytes(destination) + header + payload
        return withChecksums(frame, l4, family, vlans: vlans)
    }

    /// Sets both checksums.
    static func withChecksums(_ frame: [UInt8], _ l4: L4, _ family: Family, vlans: Int = 0) -> [UInt8] {
        var frame = frame
        let ip = etherLength + 4 * vlans
        let transport = ip + family.headerLength
        if family == .ipv4 {
            frame[ip + 10] = 0
            frame[ip + 11] = 0
            frame.replaceSubrange(ip + 10..<ip + 12, with: big(Int(~sum(frame[ip..<ip + 20]))))
        }
        let field = transport + l4.checksumOffset
        frame[field] = 0
        frame[field + 1] = 0
        var covered = Array(frame[transport...])
        if !(l4 == .echo && family == .ipv4) {
            let addresses = ip + family.addressOffset
            covered += frame[addresses..<addresses + 2 * family.addressLength]
            if (frame.count - transport) % 2 == 1 { covered.insert(0, at: frame.count - transport) }
            covered += big(frame.count - transport) + [0, l4.number(family)]
        }
        var checksum = ~sum(covered[...])
        if l4 == .udp, checksum == 0 { checksum = 0xffff }
        frame.replaceSubrange(field..<field + 2, with: big(Int(checksum)))
        return frame
    }

    /// What the wire format makes of a plain frame: the inline framing.
    static func sealed(
        _ frame: [UInt8], _ l4: L4, _ family: Family, key: [UInt8], spi: UInt32, lane: UInt16 = 0, counter: UInt64,
        vlans: Int = 0
    ) -> [UInt8] {
        let ip = etherLength + 4 * vlans
        let transport = ip + family.headerLength
        let text = transport + l4.headerLength
        let iv = big64(UInt64(lane) << 48 | counter)
        let spiBytes = big32(spi)
        var header = Array(frame[transport..<text])
        header[l4.checksumOffset] = 0
        header[l4.checksumOffset + 1] = 0
        if l4 == .udp {
            header[4] = 0
            header[5] = 0
        }
        let addresses = ip + family.addressOffset
        let aad =
            Array(frame[addresses..<addresses + 2 * family.addressLength])
            + [l4.number(family), family == .ipv4 ? 4 : 6] + big(l4.headerLength) + header
        guard let nonce = try? AES.GCM.Nonce(data: spiBytes + iv),
            let box = try? AES.GCM.seal(
                frame[text...], using: SymmetricKey(data: key), nonce: nonce, authenticating: aad)
        else { fatalError("cannot seal") }
        var wire = frame[..<text] + spiBytes + iv + box.tag + box.ciphertext
        let l4Length = wire.count - transport
        let lengthField = family == .ipv4 ? ip + 2 : ip + 4
        wire.replaceSubrange(
            lengthField..<lengthField + 2, with: big(family == .ipv4 ? 20 + l4Length : l4Length))
        if l4 == .udp { wire.replaceSubrange(transport + 4..<transport + 6, with: big(l4Length)) }
        return withChecksums(Array(wire), l4, family, vlans: vlans)
    }

    /// The same with the tunnel framing: for an inner IP packet as it is, right or not, between `source` and `destination`.
    ///
    /// - Parameters:
    ///   - ecn: What the network has made of the ECN field; as the inner packet's when nil.
    static func tunnelled(
        _ inner: [UInt8], _ family: Family, from source: IPAddress, to destination: IPAddress, key: [UInt8],
        spi: UInt32,
        lane: UInt16 = 0, counter: UInt64, ecn: UInt8? = nil
    ) -> [UInt8] {
        let iv = big64(UInt64(lane) << 48 | counter)
        let psp = [family == .ipv4 ? 4 : 41, 1, 0, 5] + big32(spi) + iv
        guard let nonce = try? AES.GCM.Nonce(data: big32(spi) + iv),
            let box = try? AES.GCM.seal(inner, using: SymmetricKey(data: key), nonce: nonce, authenticating: psp)
        else { fatalError("cannot seal") }
        let length = 8 + 16 + inner.count + 16
        var header: [UInt8]
        switch family {
        case .ipv4:
            let service = ecn.map { inner[1] & 0xfc | $0 } ?? inner[1]
            header =
                [0x45, service] + big(20 + length) + [0, 0, 0x40, 0, inner[8], 17, 0, 0] + family.bytes(source)
                + family.bytes(destination)
            header.replaceSubrange(10..<12, with: big(Int(~sum(header[...]))))
        case .ipv6:
            header =
                [0x60 | inner[0] & 0x0f] + inner[1..<4] + big(length) + [17, inner[7]] + family.bytes(source)
                + family.bytes(destination)
            if let ecn { header[1] = header[1] & 0xcf | ecn << 4 }
        }
        let ethernet = [2, 0, 0, 0, 0, 11, 2, 0, 0, 0, 0, 10] + family.etherType
        let udp = [0x80, 1, 3, 0xe8] + big(length) + [0, 0]
        return ethernet + header + udp + psp + box.ciphertext + box.tag
    }

    /// An IP packet of a protocol that the inline framing cannot carry (SCTP's number), without a frame.
    static func other(
        _ family: Family, payload: [UInt8], from source: IPAddress, to destination: IPAddress, ecn: UInt8 = 0,
        timeToLive: UInt8 = 64
    ) -> [UInt8] {
        var header: [UInt8]
        switch family {
        case .ipv4:
            header = [0x45, ecn] + big(20 + payload.count) + [0, 1, 0x40, 0, timeToLive, 132, 0, 0]
        case .ipv6:
            header = [0x60, ecn << 4, 0, 0] + big(payload.count) + [132, timeToLive]
        }
        header += family.bytes(source) + family.bytes(destination)
        if family == .ipv4 { header.replaceSubrange(10..<12, with: big(Int(~sum(header[...])))) }
        return header + payload
    }

    /// Sets the checksum of an IPv4 header without options.
    static func withHeaderChecksum(_ frame: [UInt8]) -> [UInt8] {
        var frame = frame
        frame.replaceSubrange(etherLength + 10..<etherLength + 12, with: [0, 0])
        let checksum = ~sum(frame[etherLength..<etherLength + 20])
        frame.replaceSubrange(etherLength + 10..<etherLength + 12, with: big(Int(checksum)))
        return frame
    }

    private static func sum(_ bytes: ArraySlice<UInt8>) -> UInt16 {
        var total: UInt32 = 0
        var high = true
        for byte in bytes {
            total += high ? UInt32(byte) << 8 : UInt32(byte)
            high.toggle()
        }
        while total > 0xffff { total = total & 0xffff + total >> 16 }
        return UInt16(total)
    }

    static func big(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 255), UInt8(value & 255)] }
    static func big32(_ value: UInt32) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }
    static func big64(_ value: UInt64) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }
}

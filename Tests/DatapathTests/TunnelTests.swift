import Netlink
import Testing

@testable import Datapath

/// What the inline framing cannot carry, and what hides its headers. Bytes are compared in `VectorTests`.
@Suite(.serialized, .enabled(if: isRoot, needsRoot))
struct TunnelTests {
    let nodes: Nodes

    init() throws { nodes = try Nodes() }

    private func packet(_ family: Frames.Family, _ count: Int, ecn: UInt8 = 0) -> [UInt8] {
        Frames.other(family, payload: Frames.payload(count), from: family.pod(1), to: family.pod(2), ecn: ecn)
    }

    private func frame(_ packet: [UInt8], _ family: Frames.Family) -> [UInt8] {
        [2, 0, 0, 0, 0, 11, 2, 0, 0, 0, 0, 10] + family.etherType + packet
    }

    private func wire(
        _ inner: [UInt8], _ family: Frames.Family, from source: IPAddress? = nil, to destination: IPAddress? = nil,
        counter: UInt64, ecn: UInt8? = nil
    ) -> [UInt8] {
        Frames.tunnelled(
            inner, family, from: source ?? family.pod(1), to: destination ?? family.pod(2), key: nodes.key,
            spi: Nodes.spi, counter: counter, ecn: ecn)
    }

    @Test(arguments: Frames.Family.allCases, [KernelProgram.encrypt, .encryptTC])
    func everySizeThereAndBack(family: Frames.Family, program: KernelProgram) throws {
        let sizes =
            program == .encrypt
            ? Array(0...300) + Array(stride(from: 301, to: 1400, by: 13)) + [1400] : [0, 1, 17, 1400]
        for size in sizes {
            let plain = frame(packet(family, size), family)
            let sent = try nodes.sender.judge(plain, with: program)
            try #require(sent.verdict == .encrypted, "\(size) bytes")
            try #require(sent.frame.count == plain.count + (family == .ipv4 ? 60 : 80))
            for receiver in [KernelProgram.decrypt, .guard] {
                let received = try nodes.receiver.judge(sent.frame, with: receiver)
                guard receiver == .decrypt else {
                    try #require(received.verdict == .dropReplay, "\(size) bytes")
                    continue
                }
                try #require(received.verdict == .decrypted, "\(size) bytes")
                try #require(Array(received.frame.suffix(plain.count)) == plain, "\(size) bytes")
            }
        }
    }

    @Test(arguments: [2000, 5000, 8900], Frames.Family.allCases)
    func jumboFrames(size: Int, family: Frames.Family) throws {
        let plain = frame(packet(family, size), family)
        let sent = try nodes.sender.judge(plain, with: .encrypt)
        try #require(sent.verdict == .encrypted)
        let received = try nodes.receiver.judge(sent.frame, with: .decrypt)
        try #require(received.verdict == .decrypted)
        let isSame = Array(received.frame.suffix(plain.count)) == plain
        #expect(isSame)
    }

    /// Either endpoint's wish is enough.
    @Test(arguments: Frames.Family.allCases, [true, false])
    func hiddenHeaders(family: Frames.Family, isSource: Bool) throws {
        try nodes.sender.setEndpoint(
            family.pod(1), EndpointEntry(place: .local(since: 1, until: 0), strict: true, hidden: isSource))
        try nodes.sender.setEndpoint(
            family.pod(2), EndpointEntry(place: .remote(slot: 1), strict: true, hidden: !isSource))
        for l4 in Frames.L4.allCases {
            let plain = nodes.plain(l4, family, 64)
            let sent = try nodes.sender.judge(plain, with: .encrypt)
            #expect(sent.verdict == .encrypted)
            #expect(sent.frame.count == plain.count + (family == .ipv4 ? 60 : 80))
            // Nothing of its own header is left: a protocol of its own, ports, sequence numbers.
            let header = plain[Frames.etherLength + family.headerLength..<Frames.etherLength + family.headerLength + 8]
            #expect(sent.frame[Frames.etherLength + (family == .ipv4 ? 9 : 6)] == 17)
            let isSeen = sent.frame.indices.dropLast(7).contains { sent.frame[$0..<$0 + 8].elementsEqual(header) }
            #expect(!isSeen)
            let received = try nodes.receiver.judge(sent.frame, with: .decrypt)
            #expect(received.verdict == .decrypted)
            #expect(Array(received.frame.suffix(plain.count)) == plain)
        }
        // What is wrong is still refused, not hidden.
        var damaged = nodes.plain(.udp, family, 64)
        damaged[Frames.etherLength + family.headerLength + 5] ^= 1
        #expect(try nodes.sender.judge(damaged, with: .encrypt).verdict == .dropMalformed)
    }

    /// One sequence of IVs for both framings: no nonce twice.
    @Test func framingsShareTheCounter() throws {
        try onCPU(0) {
            for round in 0..<4 {
                let plain = round % 2 == 0 ? nodes.plain(.udp, .ipv4, 20) : frame(packet(.ipv4, 20), .ipv4)
                let sent = try nodes.sender.judge(plain, with: .encrypt).frame
                // Behind outer IP and UDP header, and in the PSP header behind the first 8 bytes: the SPI, or 4 bytes of it.
                let iv = Frames.etherLength + 28 + (round % 2 == 0 ? 4 : 8)
                #expect(Array(sent[iv..<iv + 8]) == Frames.big64(UInt64(round + 1)), "\(round)")
            }
        }
    }

    @Test func replaysAcrossFramings() throws {
        #expect(try nodes.receiver.judge(nodes.wire(.udp, .ipv4, 20, counter: 7), with: .decrypt).verdict == .decrypted)
        #expect(
            try nodes.receiver.judge(wire(packet(.ipv4, 20), .ipv4, counter: 7), with: .decrypt).verdict == .dropReplay)
        #expect(
            try nodes.receiver.judge(wire(packet(.ipv4, 20), .ipv4, counter: 9_000), with: .decrypt).verdict
                == .decrypted)
        #expect(try nodes.receiver.judge(nodes.wire(.udp, .ipv4, 20, counter: 8), with: .decrypt).verdict == .dropStale)
        #expect(
            try nodes.receiver.judge(wire(packet(.ipv4, 20), .ipv4, counter: 0), with: .decrypt).verdict
                == .dropMalformed)
    }

    /// Every bit of a wire packet, flipped: it is dropped, unless the bit is the network's to change.
    @Test(arguments: Frames.Family.allCases)
    func everyFlippedBitIsRefused(family: Frames.Family) throws {
        let ip = Frames.etherLength
        let udp = ip + family.headerLength
        let good = wire(packet(family, 37), family, counter: 5000)
        for byte in 0..<good.count {
            for bit in 0..<8 {
                var frame = good
                frame[byte] ^= 1 << UInt8(bit)
                let judged = try nodes.receiver.judge(frame, with: .decrypt)
                let verdict = try #require(judged.verdict)
                let place: Comment = "byte \(byte) bit \(bit): \(verdict.name)"
                let isNetworks =
                    byte < 12 || byte == udp || byte == udp + 1 || byte == udp + 6 || byte == udp + 7
                    || family == .ipv6 && (byte == ip && bit < 4 || (ip + 1...ip + 3).contains(byte) || byte == ip + 7)
                if isNetworks {
                    #expect([.decrypted, .dropReplay].contains(verdict), place)
                } else if (ip + family.addressOffset..<ip + family.addressOffset + family.addressLength).contains(byte)
                {
                    #expect([.passUnprotected, .dropCleartext, .dropSpoofed, .dropChecksum].contains(verdict), place)
                } else {
                    #expect(verdict != .decrypted, place)
                    #expect(verdict.outcome == .dropped || verdict == .passEtherType || verdict == .passControl, place)
                    #expect(judged.frame.suffix(frame.count) == frame[...], place)
                }
                // IV, ciphertext and tag.
                if byte >= udp + 16 { #expect([.dropAuth, .dropReplay, .dropStale].contains(verdict), place) }
            }
        }
    }

    /// Authentic, but not what it came in.
    @Test(arguments: Frames.Family.allCases)
    func innerPacketsThatDoNotFit(family: Frames.Family) throws {
        let good = packet(family, 40)
        var counter: UInt64 = 100
        func verdict(_ inner: [UInt8], from source: IPAddress? = nil, to destination: IPAddress? = nil) throws
            -> Verdict?
        {
            counter += 1
            let frame = wire(inner, family, from: source, to: destination, counter: counter)
            let judged = try nodes.receiver.judge(frame, with: .decrypt)
            if judged.verdict != .decrypted { #expect(judged.frame == frame) }
            // It was authentic: its IV is used up.
            #expect(try nodes.receiver.judge(frame, with: .decrypt).verdict == .dropReplay)
            return judged.verdict
        }
        func patched(_ at: Int, _ value: UInt8) -> [UInt8] {
            var inner = good
            inner[at] = value
            return inner
        }
        #expect(try verdict(good) == .decrypted)
        // Its own addresses: somebody else's on that node, or on this one.
        let other = family == .ipv4 ? "10.9.1.77" : "fd00:9:1::77"
        try nodes.receiver.setEndpoint(IPAddress(other), EndpointEntry(place: .remote(slot: 1), strict: true))
        #expect(try verdict(good, from: IPAddress(other)) == .dropSpoofed)
        let inner = Frames.other(
            family, payload: [], from: try IPAddress(other), to: family.pod(2))
        #expect(try verdict(inner) == .dropSpoofed)
        #expect(try verdict(Frames.other(family, payload: [], from: family.pod(1), to: family.pod(3))) == .dropSpoofed)
        // Its length, its version.
        let length = family == .ipv4 ? 3 : 5
        #expect(try verdict(patched(length, good[length] + 1)) == .dropMalformed)
        #expect(try verdict(patched(length, good[length] - 1)) == .dropMalformed)
        #expect(try verdict(patched(0, good[0] ^ 0x20)) == .dropSpoofed)
        if family == .ipv4 { #expect(try verdict(patched(0, 0x44)) == .dropMalformed) }
    }

    /// RFC 6040, section 4.2: what the outer packet has met on its way.
    @Test(arguments: Frames.Family.allCases, [UInt8(0), 1, 2, 3])
    func congestion(family: Frames.Family, outer: UInt8) throws {
        for inner in [UInt8(0), 1, 2, 3] {
            let counter = 1000 + UInt64(outer) * 4 + UInt64(inner)
            let judged = try nodes.receiver.judge(
                wire(packet(family, 40, ecn: inner), family, counter: counter, ecn: outer), with: .decrypt)
            if outer == 3, inner == 0 {
                #expect(judged.verdict == .dropMalformed)
            } else {
                #expect(judged.verdict == .decrypted)
                let expected = frame(packet(family, 40, ecn: outer == 3 ? 3 : inner), family)
                #expect(Array(judged.frame.suffix(expected.count)) == expected, "\(outer) \(inner)")
            }
        }
    }

    /// Neighbour discovery takes a hop limit of 255 for a proof that no router lies between (RFC 4861, section 11.2).
    @Test(arguments: Frames.Family.allCases, [UInt8(0), 1, 61, 64, 200])
    func hopsOnTheWayCount(family: Frames.Family, left: UInt8) throws {
        func inner(_ timeToLive: UInt8) -> [UInt8] {
            Frames.other(
                family, payload: Frames.payload(40), from: family.pod(1), to: family.pod(2), timeToLive: timeToLive)
        }
        for (index, own) in [UInt8(1), 64, 255].enumerated() {
            var outer = wire(inner(own), family, counter: 2000 + UInt64(left) * 3 + UInt64(index))
            outer[Frames.etherLength + (family == .ipv4 ? 8 : 7)] = left
            if family == .ipv4 { outer = Frames.withHeaderChecksum(outer) }
            let judged = try nodes.receiver.judge(outer, with: .decrypt)
            #expect(judged.verdict == .decrypted)
            let expected = frame(inner(min(own, left)), family)
            #expect(Array(judged.frame.suffix(expected.count)) == expected, "\(own) \(left)")
        }
    }

    /// Other people's UDP packets to the port: encrypted inline, and in clear.
    @Test(arguments: Frames.Family.allCases)
    func othersWhoUseThePort(family: Frames.Family) throws {
        func toPort(_ frame: [UInt8]) -> [UInt8] {
            var frame = frame
            let port = Frames.etherLength + family.headerLength + 2
            frame.replaceSubrange(port..<port + 2, with: Frames.big(1000))
            return Frames.withChecksums(frame, .udp, family)
        }
        for size in [0, 4, 60, 200] {
            let plain = toPort(nodes.plain(.udp, family, size))
            let sent = try nodes.sender.judge(plain, with: .encrypt)
            #expect(sent.verdict == .encrypted)
            #expect(sent.frame.count == plain.count + 28)
            let received = try nodes.receiver.judge(sent.frame, with: .decrypt)
            #expect(received.verdict == .decrypted)
            #expect(Array(received.frame.suffix(plain.count)) == plain)
            #expect(try nodes.receiver.judge(plain, with: .decrypt).verdict == .dropCleartext)
        }
        // The key of another node than the one whose address it is.
        let forged = Frames.tunnelled(
            packet(family, 40), family, from: family.pod(1), to: family.pod(2), key: nodes.strangerKey,
            spi: Nodes.strangerSPI, counter: 1)
        #expect(try nodes.receiver.judge(forged, with: .decrypt).verdict == .dropSpoofed)
        // A key that nobody has.
        let unknown = Frames.tunnelled(
            packet(family, 40), family, from: family.pod(1), to: family.pod(2), key: nodes.key, spi: 0x7f00_0001,
            counter: 1)
        #expect(try nodes.receiver.judge(unknown, with: .decrypt).verdict == .dropCleartext)
    }

    /// Text and key stream are wiped from the programs' memory.
    @Test func nothingStays() throws {
        let inner = packet(.ipv4, 400)
        let good = wire(inner, .ipv4, counter: 50)
        var forged = good
        forged[forged.count - 1] ^= 1
        let text = Array(good[Frames.etherLength + 44..<good.count - 16])
        let stream = zip(text, inner).map { $0 ^ $1 }
        func expectNone(_ instance: KernelInstance, _ what: Comment) throws {
            let left = Octets(try instance.leftovers())
            for at in stride(from: 24, to: inner.count - 8, by: 8) {
                try #require(!left.contains(stream[at..<at + 8]) && !left.contains(inner[at..<at + 8]), what)
            }
        }
        #expect(try nodes.receiver.judge(forged, with: .decrypt).verdict == .dropAuth)
        #expect(Octets(try nodes.receiver.leftovers()).contains(text[64..<72]))
        try expectNone(nodes.receiver, "forged")
        #expect(try nodes.receiver.judge(good, with: .decrypt).verdict == .decrypted)
        try expectNone(nodes.receiver, "decrypted")
        #expect(try nodes.sender.judge(frame(inner, .ipv4), with: .encrypt).verdict == .encrypted)
        try expectNone(nodes.sender, "encrypted")
    }
}

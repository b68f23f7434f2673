import BPF
import BPFObjects
import Keys
import Netlink
import Testing

@testable import Datapath

/// Who is encrypted, who passes, who is dropped, and under which reason.
@Suite(.serialized, .enabled(if: isRoot, needsRoot))
struct PolicyTests {
    let strict: Nodes
    let permissive: Nodes

    init() throws {
        strict = try Nodes()
        permissive = try Nodes(strict: false)
    }

    private func send(_ nodes: Nodes, _ frame: [UInt8]) throws -> Verdict? {
        let judged = try nodes.sender.judge(frame, with: .encrypt)
        let outcome = try #require(judged.verdict).outcome
        #expect(judged.action == (outcome == .dropped ? xdpDrop : outcome == .fault ? xdpAborted : xdpPass))
        if judged.verdict != .encrypted { #expect(judged.frame == frame) }
        return judged.verdict
    }

    /// Both programs must agree.
    private func receive(_ nodes: Nodes, _ frame: [UInt8]) throws -> Verdict? {
        let judged = try nodes.receiver.judge(frame, with: .decrypt)
        let outcome = try #require(judged.verdict).outcome
        #expect(judged.action == (outcome == .dropped ? xdpDrop : outcome == .fault ? xdpAborted : xdpPass))
        // A test run of tcx wants a whole IP header. An authentic packet with a wrong checksum has moved the window.
        if judged.verdict != .decrypted, judged.verdict != .dropChecksum, frame.count >= 34 {
            let guarded = try nodes.receiver.judge(frame, with: .guard)
            #expect(guarded.verdict == judged.verdict)
            #expect(guarded.action == (outcome == .dropped ? tcxDrop : tcxNext))
        }
        return judged.verdict
    }

    private func frame(_ family: Frames.Family, from source: IPAddress, to destination: IPAddress) -> [UInt8] {
        Frames.plain(.tcp, family, payload: Frames.payload(100), from: source, to: destination)
    }

    // MARK: Sending

    @Test(arguments: Frames.Family.allCases)
    func whatLeavesAPod(family: Frames.Family) throws {
        let stranger = try IPAddress(family == .ipv4 ? "192.0.2.9" : "2001:db8::9")
        let inStrictCIDR = try IPAddress(family == .ipv4 ? "10.9.77.1" : "fd00:9:77::1")
        let neighbour = try IPAddress(family == .ipv4 ? "10.9.1.3" : "fd00:9:1::3")
        for (nodes, isStrict) in [(strict, true), (permissive, false)] {
            try nodes.sender.setStrictCIDRs([try IPPrefix(family == .ipv4 ? "10.9.0.0/16" : "fd00:9::/32")])
            try nodes.sender.setEndpoint(
                neighbour, EndpointEntry(place: .local(since: 1, until: 0), strict: isStrict))
            let mine = family.pod(1)
            #expect(try send(nodes, frame(family, from: mine, to: family.pod(2))) == .encrypted)
            #expect(try send(nodes, frame(family, from: mine, to: stranger)) == .passUnprotected)
            #expect(try send(nodes, frame(family, from: mine, to: neighbour)) == .passSameNode)
            #expect(
                try send(nodes, frame(family, from: mine, to: inStrictCIDR))
                    == (isStrict ? .dropUnknownPeer : .passUnknownPeer))
            // Under somebody else's address, or under none of ours, nothing reaches a protected peer.
            #expect(try send(nodes, frame(family, from: family.pod(2), to: stranger)) == .dropSpoofed)
            #expect(try send(nodes, frame(family, from: stranger, to: family.pod(2))) == .dropSpoofed)
            #expect(try send(nodes, frame(family, from: stranger, to: inStrictCIDR)) == .dropSpoofed)
            #expect(try send(nodes, frame(family, from: stranger, to: stranger)) == .passUnprotected)
        }
    }

    @Test func untilThePeerKnowsTheEndpoint() throws {
        for (nodes, early) in [(strict, Verdict.dropNotReady), (permissive, .passCleartext)] {
            let packet = frame(.ipv4, from: Frames.Family.ipv4.pod(1), to: Frames.Family.ipv4.pod(2))
            try nodes.sender.setEndpoint(
                Frames.Family.ipv4.pod(1),
                EndpointEntry(place: .local(since: 5, until: 0), strict: early == .dropNotReady))
            #expect(try send(nodes, packet) == early)
            try nodes.sender.setPeer(slot: 1, PeerEntry(nodeID: 2, acknowledged: 4))
            #expect(try send(nodes, packet) == early)
            try nodes.sender.setPeer(slot: 1, PeerEntry(nodeID: 2, acknowledged: 5))
            #expect(try send(nodes, packet) == .encrypted)
        }
    }

    @Test func whileProtectionEnds() throws {
        let here = Frames.Family.ipv4.pod(1)
        let there = Frames.Family.ipv4.pod(2)
        let packet = frame(.ipv4, from: here, to: there)
        // Ours ends: encrypted for who has not heard of it, clear for who has.
        try strict.sender.setEndpoint(
            here, EndpointEntry(place: .local(since: 1, until: 3), strict: true, withdrawing: true))
        try strict.sender.setPeer(slot: 1, PeerEntry(nodeID: 2, acknowledged: 2))
        #expect(try send(strict, packet) == .encrypted)
        try strict.sender.setPeer(slot: 1, PeerEntry(nodeID: 2, acknowledged: 3))
        #expect(try send(strict, packet) == .passWithdrawing)
        // Theirs ends.
        try strict.sender.setEndpoint(here, EndpointEntry(place: .local(since: 1, until: 0), strict: true))
        try strict.sender.setEndpoint(there, EndpointEntry(place: .remote(slot: 1), strict: true, withdrawing: true))
        #expect(try send(strict, packet) == .passWithdrawing)
        // The receiver takes both.
        try strict.receiver.setEndpoint(here, EndpointEntry(place: .remote(slot: 1), strict: true, withdrawing: true))
        #expect(try receive(strict, packet) == .passWithdrawing)
        #expect(try receive(strict, strict.wire(.tcp, .ipv4, 100, counter: 1)) == .decrypted)
    }

    @Test func withoutAKeyNothingLeaves() throws {
        let packet = frame(.ipv4, from: Frames.Family.ipv4.pod(1), to: Frames.Family.ipv4.pod(2))
        for nodes in [strict, permissive] {
            try nodes.sender.setSending(epoch: 0)
            #expect(try send(nodes, packet) == .dropNoKey)
            try nodes.sender.setSending(epoch: Nodes.epoch + 1)
            #expect(try send(nodes, packet) == .dropNoKey)
            // An older key of the same parity is not the one that was asked for.
            try nodes.sender.setSending(epoch: Nodes.epoch + 2)
            #expect(try send(nodes, packet) == .dropNoKey)
            try nodes.sender.setSending(epoch: Nodes.epoch)
            #expect(try send(nodes, packet) == .encrypted)
            try nodes.sender.removeAssociation(AssociationID(slot: 1, direction: .send, epoch: Nodes.epoch))
            #expect(try send(nodes, packet) == .dropNoKey)
        }
    }

    // MARK: Receiving

    @Test(arguments: Frames.Family.allCases)
    func whatEntersAPod(family: Frames.Family) throws {
        let stranger = try IPAddress(family == .ipv4 ? "192.0.2.9" : "2001:db8::9")
        let inStrictCIDR = try IPAddress(family == .ipv4 ? "10.9.77.1" : "fd00:9:77::1")
        let mine = family.pod(2)
        for (nodes, isStrict) in [(strict, true), (permissive, false)] {
            try nodes.receiver.setStrictCIDRs([try IPPrefix(family == .ipv4 ? "10.9.0.0/16" : "fd00:9::/32")])
            #expect(try receive(nodes, nodes.wire(.tcp, family, 100, counter: 1)) == .decrypted)
            #expect(
                try receive(nodes, frame(family, from: family.pod(1), to: mine))
                    == (isStrict ? .dropCleartext : .passCleartext))
            #expect(try receive(nodes, frame(family, from: stranger, to: mine)) == .passUnprotected)
            #expect(
                try receive(nodes, frame(family, from: inStrictCIDR, to: mine))
                    == (isStrict ? .dropUnknownPeer : .passUnknownPeer))
            // To an address that is nobody's, such as a subnet's broadcast address: what the peer would not have sent.
            let nobody = try IPAddress(family == .ipv4 ? "10.9.2.255" : "fd00:9:2::ff")
            let group = try IPAddress(family == .ipv4 ? "224.0.0.251" : "ff02::fb")
            #expect(
                try receive(nodes, frame(family, from: family.pod(1), to: nobody))
                    == (isStrict ? .dropUnknownPeer : .passUnprotected))
            #expect(try receive(nodes, frame(family, from: family.pod(1), to: group)) == .passUnprotected)
            // Known SPI, bad tag: dropped in both modes.
            var forged = nodes.wire(.tcp, family, 100, counter: 2)
            forged[forged.count - 1] ^= 0x80
            #expect(try receive(nodes, forged) == .dropAuth)
            // The SPI of node 1 under the address of node 3's pod, and the other way round.
            let borrowed = Frames.sealed(
                frame(family, from: family.pod(3), to: mine), .tcp, family, key: nodes.key, spi: Nodes.spi, counter: 3)
            #expect(try receive(nodes, borrowed) == .dropSpoofed)
            let other = Frames.sealed(
                frame(family, from: family.pod(1), to: mine), .tcp, family, key: nodes.strangerKey,
                spi: Nodes.strangerSPI, counter: 1)
            #expect(try receive(nodes, other) == .dropSpoofed)
            // An SPI that nobody has is no SPI.
            let unknown = Frames.sealed(
                frame(family, from: family.pod(1), to: mine), .tcp, family, key: nodes.key, spi: 0x7700_0001, counter: 1
            )
            #expect(try receive(nodes, unknown) == (isStrict ? .dropCleartext : .passCleartext))
            // A shim that is cut off.
            let plain = Frames.plain(
                .udp, family, payload: Frames.big32(Nodes.spi) + Frames.payload(23), from: family.pod(1), to: mine)
            #expect(try receive(nodes, plain) == .dropMalformed)
        }
    }

    @Test func aWrongChecksumOnTheWire() throws {
        var counter: UInt64 = 100
        for family in Frames.Family.allCases {
            for l4 in Frames.L4.allCases {
                let place = Frames.etherLength + family.headerLength + l4.checksumOffset
                counter += 1
                var wire = strict.wire(l4, family, 64, counter: counter)
                wire[place] ^= 1
                #expect(try receive(strict, wire) == .dropChecksum)
                var plain = strict.plain(l4, family, 64)
                plain[place] ^= 1
                #expect(try send(strict, plain) == .dropChecksum)
            }
        }
        var header = strict.wire(.tcp, .ipv4, 64, counter: 900)
        header[Frames.etherLength + 8] ^= 1
        #expect(try receive(strict, header) == .dropChecksum)
    }

    @Test func udpWithoutAChecksumGetsOne() throws {
        var plain = strict.plain(.udp, .ipv4, 64)
        let place = Frames.etherLength + 20 + 6
        let right = Array(plain[place..<place + 2])
        plain[place] = 0
        plain[place + 1] = 0
        let sent = try strict.sender.judge(plain, with: .encrypt)
        #expect(sent.verdict == .encrypted)
        let received = try strict.receiver.judge(sent.frame, with: .decrypt)
        #expect(received.verdict == .decrypted)
        #expect(
            Array(received.frame.suffix(plain.count)[(received.frame.count - plain.count + place)...].prefix(2))
                == right)
    }

    // MARK: What the inline framing cannot carry

    @Test func tunnelledAndMalformed() throws {
        let ip = Frames.etherLength
        func fixed(_ frame: [UInt8], _ change: (inout [UInt8]) -> Void) -> [UInt8] {
            var frame = frame
            change(&frame)
            return Frames.withChecksums(frame, .tcp, .ipv4)
        }
        let tcp = strict.plain(.tcp, .ipv4, 64)
        let udp = strict.plain(.udp, .ipv4, 64)
        let cases: [(String, [UInt8], Verdict, Verdict)] = [
            ("first fragment", fixed(tcp) { $0[ip + 6] = 0x20 }, .encrypted, .dropCleartext),
            ("later fragment", fixed(tcp) { $0[ip + 7] = 1 }, .encrypted, .dropCleartext),
            ("IPv4 options", fixed(tcp) { $0[ip] = 0x46 }, .encrypted, .dropCleartext),
            ("SCTP", fixed(tcp) { $0[ip + 9] = 132 }, .encrypted, .dropCleartext),
            (
                "ICMP unreachable", fixed(strict.plain(.echo, .ipv4, 64)) { $0[ip + 20] = 3 }, .encrypted,
                .dropCleartext
            ),
            (
                "IPv6 fragment header", patch(strict.plain(.tcp, .ipv6, 64), ip + 6, 44), .encrypted,
                .dropCleartext
            ),
            ("TCP header too short", fixed(tcp) { $0[ip + 32] = 0x40 }, .dropMalformed, .dropMalformed),
            (
                "TCP header longer than the packet", fixed(strict.plain(.tcp, .ipv4, 0)) { $0[ip + 32] = 0xf0 },
                .dropMalformed,
                .dropMalformed
            ),
            ("UDP length lies", patch(udp, ip + 25, udp[ip + 25] &+ 1), .dropMalformed, .dropMalformed),
            ("bytes behind the packet", tcp + [1, 2, 3], .dropMalformed, .dropMalformed),
            ("IP length beyond the frame", fixed(tcp) { $0[ip + 3] = 0xff }, .dropMalformed, .dropMalformed),
            ("IP version 5", patch(tcp, ip, 0x55), .dropMalformed, .dropMalformed),
            ("IHL of 4", patch(tcp, ip, 0x44), .dropMalformed, .dropMalformed),
            ("half an IP header", Array(tcp[..<30]), .dropMalformed, .dropMalformed),
            ("half a VLAN tag", Array(strict.plain(.tcp, .ipv4, 0, vlans: 1)[..<16]), .dropMalformed, .dropMalformed),
        ]
        for (name, frame, sending, receiving) in cases {
            #expect(try send(strict, frame) == sending, "\(name)")
            #expect(try receive(strict, frame) == receiving, "\(name)")
        }
    }

    @Test func framesThatAreNotIP() throws {
        let addresses: [UInt8] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]
        let arp = addresses + [0x08, 0x06] + [UInt8](repeating: 0, count: 28)
        let lldp = addresses + [0x88, 0xcc] + [UInt8](repeating: 0, count: 28)
        for (nodes, verdict) in [(strict, Verdict.dropEtherType), (permissive, .passEtherType)] {
            try nodes.sender.setStrictEtherType(verdict == .dropEtherType)
            try nodes.receiver.setStrictEtherType(verdict == .dropEtherType)
            #expect(try send(nodes, arp) == .passControl)
            #expect(try receive(nodes, arp) == .passControl)
            #expect(try send(nodes, lldp) == verdict)
            #expect(try receive(nodes, lldp) == verdict)
        }
        // Neighbour discovery between protected addresses; from behind a router it is none.
        for (limit, sending, receiving) in [
            (UInt8(255), Verdict.passControl, Verdict.passControl), (64, .encrypted, .dropCleartext),
        ] {
            var advertisement = Frames.plain(
                .echo, .ipv6, payload: Frames.payload(24), from: Frames.Family.ipv6.pod(1),
                to: Frames.Family.ipv6.pod(2),
                timeToLive: limit)
            advertisement[Frames.etherLength + 40] = 136
            advertisement = Frames.withChecksums(advertisement, .echo, .ipv6)
            #expect(try send(strict, advertisement) == sending)
            #expect(try receive(strict, advertisement) == receiving)
        }
    }

    @Test func tooBigForTheScratch() throws {
        let frame = strict.plain(.udp, .ipv4, Int(XE_TEXT_MAX) - 27)
        #expect(try send(strict, frame) == .dropTooBig)
    }

    private func patch(_ frame: [UInt8], _ place: Int, _ value: UInt8) -> [UInt8] {
        var frame = frame
        frame[place] = value
        return frame
    }
}

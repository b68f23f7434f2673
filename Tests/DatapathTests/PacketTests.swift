import BPF
import CSys
import FoundationEssentials
import Glibc
import Keys
import Netlink
import Secrets
import Testing

@testable import Datapath

/// Two instances of the kernel half: pod 1's node sends, pod 2's node receives. Keys are known to the test.
struct Nodes {
    static let epoch: Epoch = 2
    static let spi: UInt32 = 0x2a00_0001
    static let strangerSPI: UInt32 = 0x2b00_0003

    let sender: KernelInstance
    let receiver: KernelInstance
    let key: [UInt8]
    /// Of node 3, which the receiver knows, too.
    let strangerKey: [UInt8]

    init(strict: Bool = true, window: UInt32 = 2048) throws {
        let small = Datapath.Capacity(peers: 15, endpoints: 64, strictCIDRs: 16, windows: 16)
        sender = try KernelInstance(
            programs: [.encrypt, .encryptTC], options: Datapath.Options(nodeID: 1, window: window, capacity: small))
        receiver = try KernelInstance(
            programs: [.decrypt, .guard, .local], options: Datapath.Options(nodeID: 2, window: window, capacity: small))
        key = (0..<32).map { UInt8($0 &* 5 &+ 1) }
        strangerKey = (0..<32).map { UInt8($0 &* 3 &+ 2) }
        try sender.setPeer(slot: 1, PeerEntry(nodeID: 2, acknowledged: 1))
        try receiver.setPeer(slot: 1, PeerEntry(nodeID: 1, acknowledged: 1))
        try receiver.setPeer(slot: 2, PeerEntry(nodeID: 3, acknowledged: 1))
        for family in Frames.Family.allCases {
            let here = EndpointEntry(place: .local(since: 1, until: 0), strict: strict)
            try sender.setEndpoint(family.pod(1), here)
            try receiver.setEndpoint(family.pod(2), here)
            try sender.setEndpoint(family.pod(2), EndpointEntry(place: .remote(slot: 1), strict: strict))
            try receiver.setEndpoint(family.pod(1), EndpointEntry(place: .remote(slot: 1), strict: strict))
            try receiver.setEndpoint(family.pod(3), EndpointEntry(place: .remote(slot: 2), strict: strict))
        }
        try install(key, in: sender, .send)
        try install(key, in: receiver, .receive)
        try install(strangerKey, in: receiver, .receive, slot: 2, peer: 3, spi: Self.strangerSPI)
        try sender.setSending(epoch: Self.epoch)
        try receiver.setSending(epoch: Self.epoch)
    }

    func install(
        _ key: [UInt8], in instance: KernelInstance, _ direction: Direction, slot: UInt32 = 1, peer: NodeID = 1,
        spi: UInt32 = Nodes.spi, epoch: Epoch = Nodes.epoch
    ) throws {
        try instance.install(
            AssociationKey(
                epoch: epoch, peerNodeID: peer, spi: spi,
                keyID: try #require(KeyID(bytes: Array(key.suffix(12)) + Frames.big32(spi))),
                key: key.withUnsafeBytes { SecretBytes(copying: $0) }),
            at: AssociationID(slot: slot, direction: direction, epoch: epoch))
    }

    /// A frame from pod 1 to pod 2.
    func plain(_ l4: Frames.L4, _ family: Frames.Family, _ count: Int, vlans: Int = 0) -> [UInt8] {
        Frames.plain(l4, family, payload: Frames.payload(count), from: family.pod(1), to: family.pod(2), vlans: vlans)
    }

    /// What node 1 would send of it.
    func wire(
        _ l4: Frames.L4, _ family: Frames.Family, _ count: Int, lane: UInt16 = 0, counter: UInt64, vlans: Int = 0
    ) -> [UInt8] {
        Frames.sealed(
            plain(l4, family, count, vlans: vlans), l4, family, key: key, spi: Self.spi, lane: lane, counter: counter,
            vlans: vlans)
    }
}

let xdpPass: UInt32 = 2
let xdpDrop: UInt32 = 1
let xdpAborted: UInt32 = 0
let tcxNext = UInt32(bitPattern: -1)
let tcxDrop: UInt32 = 2

/// Keeps the calling thread on one CPU, whose number is the lane.
func onCPU<R>(_ cpu: Int, _ body: () throws -> R) throws -> R {
    try #require(csys_run_on_cpu(Int32(cpu)) == 0)
    defer { _ = csys_run_on_cpu(-1) }
    return try body()
}

/// Documented vectors, and two nodes that have their keys.
struct Vectors {
    struct File: Decodable {
        struct Vector: Decodable {
            let name: String
            let lane: UInt16
            let counter: UInt64
            let key: String
            let spi: String
            let plain: String
            let wire: String
            let opened: String

            /// For endpoints that hide their headers.
            var isHidden: Bool { name.hasPrefix("hidden-") }
        }
        let vectors: [Vector]
    }

    let vectors: [File.Vector]
    let nodes: Nodes

    init(_ file: String) throws {
        let text = try String(contentsOfSource: "Tests/DatapathTests/vectors/\(file).json")
        vectors = try JSONDecoder().decode(File.self, from: Data(text.utf8)).vectors
        let first = try #require(vectors.first)
        let key = try #require([UInt8](hex: first.key))
        let spi = try #require(UInt32(first.spi, radix: 16))
        let epoch = 2 + spi >> 31
        nodes = try Nodes()
        for instance in [nodes.sender, nodes.receiver] {
            for direction in Direction.allCases {
                try instance.removeAssociation(AssociationID(slot: 1, direction: direction, epoch: epoch))
            }
            try instance.setSending(epoch: epoch)
        }
        try setEndpoints(hidden: false)
        try nodes.install(key, in: nodes.sender, .send, spi: spi, epoch: epoch)
        try nodes.install(key, in: nodes.receiver, .receive, spi: spi, epoch: epoch)
    }

    /// The vectors' own addresses. Who receives has not heard of hidden headers.
    func setEndpoints(hidden: Bool) throws {
        for address in ["10.201.1.2", "fd00:201:1::2"] {
            try nodes.sender.setEndpoint(
                IPAddress(address), EndpointEntry(place: .local(since: 1, until: 0), strict: true, hidden: hidden))
            try nodes.receiver.setEndpoint(IPAddress(address), EndpointEntry(place: .remote(slot: 1), strict: true))
        }
        for address in ["10.201.2.2", "fd00:201:2::2"] {
            try nodes.sender.setEndpoint(IPAddress(address), EndpointEntry(place: .remote(slot: 1), strict: true))
            try nodes.receiver.setEndpoint(
                IPAddress(address), EndpointEntry(place: .local(since: 1, until: 0), strict: true))
        }
    }
}

/// The documented vectors, byte for byte.
@Suite(.serialized, .enabled(if: isRoot, needsRoot))
struct VectorTests {
    @Test(arguments: ["inline", "tunnel"])
    func encryptsToTheByte(file: String) throws {
        let vectors = try Vectors(file)
        // A lane's counter starts at 1 and rises by one: those vectors in their order.
        var expected: UInt64 = 1
        var count = 0
        var isHidden = false
        for vector in vectors.vectors where vector.lane == 0 {
            try #require(vector.counter == expected)
            expected += 1
            if vector.isHidden != isHidden {
                isHidden = vector.isHidden
                try vectors.setEndpoints(hidden: isHidden)
            }
            let frame = try #require([UInt8](hex: vector.plain))
            let judged = try onCPU(0) { try vectors.nodes.sender.judge(frame, with: .encrypt) }
            #expect(judged.verdict == .encrypted, "\(vector.name)")
            #expect(judged.action == xdpPass)
            #expect(hexadecimal(judged.frame) == vector.wire, "\(vector.name)")
            count += 1
        }
        #expect(count >= 70)
    }

    @Test(arguments: ["inline", "tunnel"], [KernelProgram.decrypt, .guard])
    func decryptsToTheByteAndOnlyOnce(file: String, program: KernelProgram) throws {
        let vectors = try Vectors(file)
        // tcx resizes by a helper that knows no VLAN tag inside of the frame; the kernel has taken tags out before.
        for vector in vectors.vectors where program == .decrypt || !vector.name.contains("vlan") {
            let frame = try #require([UInt8](hex: vector.wire))
            let judged = try vectors.nodes.receiver.judge(frame, with: program)
            #expect(judged.verdict == .decrypted, "\(vector.name)")
            #expect(judged.action == (program == .decrypt ? xdpPass : tcxNext))
            #expect(hexadecimal(judged.frame.suffix(vector.opened.count / 2)) == vector.opened, "\(vector.name)")
            let again = try vectors.nodes.receiver.judge(frame, with: program)
            #expect(again.verdict == .dropReplay, "\(vector.name)")
            #expect(again.frame == frame, "a dropped packet is not written to")
        }
    }

    private func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
        bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
    }
}

/// Sizes, framings and bit flips.
@Suite(.serialized, .enabled(if: isRoot, needsRoot))
struct PacketTests {
    let nodes: Nodes

    init() throws { nodes = try Nodes() }

    @Test(arguments: Frames.L4.allCases, Frames.Family.allCases)
    func everySizeThereAndBack(l4: Frames.L4, family: Frames.Family) throws {
        for size in Array(0...300) + Array(stride(from: 301, to: 1440, by: 13)) + [1439, 1440] {
            let plain = nodes.plain(l4, family, size)
            let sent = try nodes.sender.judge(plain, with: .encrypt)
            try #require(sent.verdict == .encrypted, "\(size) bytes")
            #expect(sent.frame.count == plain.count + 28)
            if size >= 8 { #expect(!contains(sent.frame, Frames.payload(size).prefix(8))) }
            let received = try nodes.receiver.judge(sent.frame, with: .decrypt)
            try #require(received.verdict == .decrypted, "\(size) bytes")
            #expect(Array(received.frame.suffix(plain.count)) == plain, "\(size) bytes")
        }
    }

    @Test(arguments: [2000, 3000, 5000, 8960], Frames.Family.allCases)
    func jumboFrames(size: Int, family: Frames.Family) throws {
        let plain = nodes.plain(.tcp, family, size)
        let sent = try nodes.sender.judge(plain, with: .encrypt)
        try #require(sent.verdict == .encrypted)
        let received = try nodes.receiver.judge(sent.frame, with: .decrypt)
        try #require(received.verdict == .decrypted)
        #expect(Array(received.frame.suffix(plain.count)) == plain)
    }

    @Test(arguments: Frames.L4.allCases, Frames.Family.allCases)
    func tcxDoesTheSame(l4: Frames.L4, family: Frames.Family) throws {
        for size in [0, 1, 7, 8, 63, 64, 65, 1400] {
            let plain = nodes.plain(l4, family, size)
            let sent = try nodes.sender.judge(plain, with: .encryptTC)
            try #require(sent.verdict == .encrypted, "\(size) bytes")
            let received = try nodes.receiver.judge(sent.frame, with: .guard)
            try #require(received.verdict == .decrypted, "\(size) bytes")
            #expect(received.frame == plain, "\(size) bytes")
        }
    }

    @Test(arguments: [1, 2], Frames.Family.allCases)
    func tagsOfVLANs(tags: Int, family: Frames.Family) throws {
        let plain = nodes.plain(.tcp, family, 100, vlans: tags)
        let sent = try nodes.sender.judge(plain, with: .encrypt)
        try #require(sent.verdict == .encrypted)
        let received = try nodes.receiver.judge(sent.frame, with: .decrypt)
        #expect(received.verdict == .decrypted)
        #expect(Array(received.frame.suffix(plain.count)) == plain)
    }

    /// Every bit of a wire packet, flipped: it is dropped, unless the bit is the network's to change (Ethernet addresses; IPv6's
    /// traffic class, flow label and hop limit).
    @Test(arguments: Frames.L4.allCases, Frames.Family.allCases)
    func everyFlippedBitIsRefused(l4: Frames.L4, family: Frames.Family) throws {
        let ip = Frames.etherLength
        let good = nodes.wire(l4, family, 37, counter: 5000)
        var verdicts: Set<Verdict> = []
        for byte in 0..<good.count {
            for bit in 0..<8 {
                var frame = good
                frame[byte] ^= 1 << UInt8(bit)
                let judged = try nodes.receiver.judge(frame, with: .decrypt)
                let verdict = try #require(judged.verdict)
                let place: Comment = "byte \(byte) bit \(bit): \(verdict.name)"
                verdicts.insert(verdict)
                if byte < 12 || (family == .ipv6 && byte == ip && bit < 4)
                    || (family == .ipv6 && (ip + 1...ip + 3).contains(byte))
                    || (family == .ipv6 && byte == ip + 7)
                {
                    // Mutable on the way: authentic all the same. The first such copy moves the window.
                    #expect([.decrypted, .dropReplay].contains(verdict), place)
                    continue
                }
                if family.addressOffset + ip..<family.addressOffset + ip + family.addressLength ~= byte {
                    // Another source: one that is not protected, or not the SPI's, or (IPv4) one that the checksum gives away.
                    #expect([.passUnprotected, .dropSpoofed, .dropChecksum].contains(verdict), place)
                    continue
                }
                #expect(verdict.outcome == .dropped || verdict == .passEtherType || verdict == .passControl, place)
                #expect(verdict != .decrypted, place)
                // Ciphertext and tag: nothing but authentication looks at them. A replay shows before that.
                if byte >= ip + family.headerLength + l4.headerLength + 12 {
                    #expect(verdict == .dropAuth || verdict == .dropReplay, place)
                }
            }
        }
        #expect(!verdicts.contains { $0.outcome == .fault })
    }

    /// A forged packet does not move the window: the good one behind it gets through.
    @Test func forgeriesLeaveTheWindowAlone() throws {
        var forged = nodes.wire(.udp, .ipv4, 64, counter: 1_000_000)
        forged[forged.count - 1] ^= 1
        #expect(try nodes.receiver.judge(forged, with: .decrypt).verdict == .dropAuth)
        #expect(try nodes.receiver.judge(nodes.wire(.udp, .ipv4, 64, counter: 1), with: .decrypt).verdict == .decrypted)
    }

    /// Key stream: text in clear XOR ciphertext, which the test has both of. Short texts are decrypted in one go with their tag's mask, so their
    /// key stream is there before they are verified.
    @Test(arguments: [8, 37, 64, 127, 128, 129, 700, 1400])
    func noKeyStreamStays(size: Int) throws {
        let good = nodes.wire(.udp, .ipv4, size, counter: UInt64(20_000 + size))
        // Authenticated and in clear, the shim, and then what is encrypted.
        let ciphertext = Array(good.suffix(size))
        let stream = zip(ciphertext, Frames.payload(size)).map { $0 ^ $1 }
        func expectNone(_ instance: KernelInstance, _ what: Comment) throws {
            let left = Octets(try instance.leftovers())
            // The packet's ciphertext is there, so the search finds what it looks for.
            #expect(left.contains(ciphertext[..<8]), what)
            for at in stride(from: 0, through: size - 8, by: 8) {
                try #require(!left.contains(stream[at..<at + 8]), "\(what): byte \(at)")
            }
        }
        var forged = good
        forged[forged.count - size - 1] ^= 1
        #expect(try nodes.receiver.judge(forged, with: .decrypt).verdict == .dropAuth)
        try expectNone(nodes.receiver, "forged")
        let received = try nodes.receiver.judge(good, with: .decrypt)
        #expect(received.verdict == .decrypted)
        try expectNone(nodes.receiver, "decrypted")
        let sent = try nodes.sender.judge(received.frame, with: .encrypt)
        #expect(sent.verdict == .encrypted)
    }

    /// A frame that has no addresses is not told of under those of the one before.
    @Test func dropsOfFramesWithoutAddresses() async throws {
        try nodes.receiver.setStrictEtherType(true)
        let events = try nodes.receiver.dropEvents()
        let wire = nodes.wire(.udp, .ipv4, 100, counter: 1)
        var other = wire
        other.replaceSubrange(12..<14, with: [0x88, 0xcc])
        var version = wire
        version[Frames.etherLength] = 0x65
        try onCPU(0) {
            for (frame, verdict) in [(other, Verdict.dropEtherType), (version, .dropMalformed)] {
                _ = try nodes.receiver.judge(wire, with: .decrypt)
                #expect(try nodes.receiver.judge(frame, with: .decrypt).verdict == verdict)
            }
        }
        var told: [DropEvent] = []
        for await event in events where event.verdict != .dropReplay {
            told.append(event)
            if told.count == 2 { break }
        }
        #expect(told.map(\.verdict) == [.dropEtherType, .dropMalformed])
        let none = try IPAddress("::")
        for event in told { #expect(event.source == none && event.destination == none, "\(event)") }
    }

    /// 2,000 frames of noise behind headers that lead to the parser's corners.
    @Test func noiseNeverFaults() throws {
        var random = SystemRandomNumberGenerator()
        for round in 0..<2000 {
            var frame = nodes.wire(
                Frames.L4.allCases[round % 4], Frames.Family.allCases[round / 4 % 2],
                Int.random(in: 0...200, using: &random),
                counter: 7_000_000 + UInt64(round), vlans: round / 8 % 3)
            for _ in 0...Int.random(in: 0...6, using: &random) {
                frame[Int.random(in: 12..<min(frame.count, 90), using: &random)] = UInt8.random(
                    in: 0...255, using: &random)
            }
            if round % 3 == 0 { frame.removeLast(Int.random(in: 0..<frame.count - 14, using: &random)) }
            // A test run of tcx wants a whole IP header.
            for program in frame.count >= 54 ? [KernelProgram.decrypt, .guard] : [.decrypt] {
                let judged = try nodes.receiver.judge(frame, with: program)
                let verdict = try #require(judged.verdict, "\(frame)")
                // tcx cannot resize behind a VLAN tag in the frame: that is a fault, and dropped.
                if !(program == .guard && round / 8 % 3 > 0) {
                    #expect(verdict.outcome != .fault, "\(verdict) \(frame)")
                }
            }
            let sent = try nodes.sender.judge(frame, with: .encrypt)
            #expect(sent.verdict?.outcome != .fault, "\(frame)")
        }
    }

    private func contains(_ haystack: [UInt8], _ needle: some Collection<UInt8>) -> Bool {
        let needle = Array(needle)
        return haystack.indices.dropLast(needle.count - 1).contains {
            haystack[$0..<$0 + needle.count].elementsEqual(needle)
        }
    }
}

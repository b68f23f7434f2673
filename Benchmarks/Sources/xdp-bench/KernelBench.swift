import BPF
import BPFObjects
import Glibc
import Lab

/// The product's programs in maps of their own, with peers, endpoints and keys, ready to be run on frames: Benchmarks/bpf/bench.bpf.c.
/// Nothing is pinned or attached; everything ends with this value.
struct KernelBench: ~Copyable {
    /// `struct bench_frame`.
    private struct Frame: BitwiseCopyable {
        var length: UInt32 = 0
        var group: UInt32 = 0
        var window = xe_window_key()
        var bytes = InlineArray<2048, UInt8>(repeating: 0)
    }
    /// `struct bench_state`.
    private struct State: BitwiseCopyable {
        var current: UInt32 = 0
        var count: UInt32 = 1
    }

    /// What to run.
    enum Program: String, CaseIterable {
        case encrypt = "bench_encrypt"
        case decrypt = "bench_decrypt"
        case restorePlain = "bench_restore_plain"
        case restoreWire = "bench_restore_wire"
        case undoEncrypt = "bench_undo_encrypt"
        case undoDecrypt = "bench_undo_decrypt"
        case floor = "xe_floor"
    }

    let peers: Int
    let endpoints: Int
    /// How many different frames runs draw from.
    let frames: Int
    private let object: BPFObject
    /// Of the payload that the frames hold now, bytes.
    private var payload = 0
    private var plain: [[UInt8]] = []
    private var wire: [[UInt8]] = []
    private var loaded: Kind?

    private enum Kind {
        case plain, wire
    }

    /// AES-256 key 00 01 … 1f and H = AES_key(0^128). One for all: what costs time is where contexts lie, not what is in them.
    private static let key: [UInt8] = Array(0..<32)
    private static let hashKey: [UInt8] = [
        0xf2, 0x90, 0x00, 0xb6, 0x2a, 0x49, 0x9f, 0xd0, 0xa9, 0xf3, 0x9a, 0x6a, 0xdd, 0x2e, 0x77, 0x80,
    ]
    private static let epoch: UInt32 = 1
    private static let local: UInt32 = 0x0a00_0001  // 10.0.0.1

    /// Loads the programs and fills the maps. Endpoints are spread over the peers.
    static func load(_ path: String, peers: Int, endpoints: Int, frames: Int) throws -> KernelBench {
        precondition(peers >= 1 && endpoints >= peers && (1...endpoints).contains(frames))
        let object = try BPFObject(path: path)
        try object.setMaxEntries(UInt32(frames), map: "bench_frames")
        try object.load()
        let bench = KernelBench(object: object, peers: peers, endpoints: endpoints, frames: frames)
        try bench.fill()
        return bench
    }

    private init(object: consuming BPFObject, peers: Int, endpoints: Int, frames: Int) {
        self.object = object
        self.peers = peers
        self.endpoints = endpoints
        self.frames = frames
    }

    private borrowing func fill() throws {
        var config = xe_config()
        config.marker = 0x1122_3344_5566_7788
        config.sending = Self.epoch
        config.window = UInt32(XE_WINDOW_DEFAULT)
        config.node_id = 0xff_fffe
        config.layout = UInt32(XE_LAYOUT)
        try object.map("config").update(UInt32(0), config)
        let install = try object.program("xe_install")
        let peerMap = try object.map("peers")
        for slot in 1...UInt32(peers) {
            try peerMap.update(slot, xe_peer(node_id: slot, acknowledged: 1))
            for direction in [XE_SEND, XE_RECEIVE] {
                try Self.install(install, slot: slot, direction: direction.rawValue)
            }
        }
        let map = try object.map("endpoints")
        for number in 1...endpoints { try map.update(Self.address(Self.remote(number)), remoteEndpoint(number)) }
        try map.update(Self.address(Self.local), Self.localEndpoint)
    }

    private static func remote(_ number: Int) -> UInt32 { 0x0a40_0000 + UInt32(number) }

    private static func address(_ ipv4: UInt32) -> xe_address {
        xe_address(word: (0, 0, UInt32(0xffff).bigEndian, ipv4.bigEndian))
    }

    private func slot(_ number: Int) -> UInt32 { UInt32((number - 1) % peers + 1) }

    private func remoteEndpoint(_ number: Int) -> xe_endpoint {
        xe_endpoint(slot: slot(number), flags: UInt32(XE_ENDPOINT_STRICT.rawValue), since: 0, until: 0)
    }

    private static var localEndpoint: xe_endpoint {
        xe_endpoint(
            slot: 0, flags: UInt32(XE_ENDPOINT_LOCAL.rawValue | XE_ENDPOINT_STRICT.rawValue), since: 1, until: 0)
    }

    private static func association(_ slot: UInt32, _ direction: UInt32) -> UInt32 {
        slot * 4 + direction * 2 + (epoch & 1)
    }

    /// Both directions of a peer get the same key and SPI, so that what is sent to it can stand in for what it sends.
    private static func install(_ program: borrowing BPFProgram, slot: UInt32, direction: UInt32) throws {
        var request = xe_install()
        request.index = association(slot, direction)
        request.spi = (0x8000_0000 | slot).bigEndian
        request.epoch = epoch
        request.peer_node = slot
        request.key_len = 32
        withUnsafeMutableBytes(of: &request.key) { $0.copyBytes(from: key) }
        withUnsafeMutableBytes(of: &request.hash_key) { $0.copyBytes(from: hashKey) }
        // Each must be another one: the kernel takes no key twice.
        let keyID = UInt64(slot) << 8 | UInt64(direction) + 1
        withUnsafeMutableBytes(of: &request.key_id) { $0.storeBytes(of: keyID, as: UInt64.self) }
        try program.run(context: &request)
        guard request.error == 0 else {
            throw LabError("the kernel refuses key \(direction) of peer \(slot): \(BPFError.text(of: -request.error))")
        }
    }
}

// MARK: - Frames

extension KernelBench {
    /// A TCP segment with timestamps (12 bytes of options) and a payload, checksums right, from the Ethernet header on.
    private static func segment(from source: UInt32, to destination: UInt32, payload: Int) -> [UInt8] {
        func bytes(_ value: some FixedWidthInteger) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }
        var tcp = bytes(UInt16(40000)) + bytes(UInt16(8080)) + bytes(UInt32(1)) + bytes(UInt32(1))
        tcp += [0x80, 0x18, 0x01, 0xf5, 0, 0, 0, 0]  // 32 bytes of header; PSH, ACK; window, checksum, urgent
        tcp += [1, 1, 8, 10] + bytes(UInt32(1000)) + bytes(UInt32(2000))
        tcp += (0..<payload).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        let pseudo = bytes(source) + bytes(destination) + [0, 6] + bytes(UInt16(tcp.count))
        let tcpSum = bytes(checksum(pseudo + tcp))
        tcp[16] = tcpSum[0]
        tcp[17] = tcpSum[1]
        var ip: [UInt8] = [0x45, 0] + bytes(UInt16(20 + tcp.count)) + [0, 1, 0x40, 0, 64, 6, 0, 0]
        ip += bytes(source) + bytes(destination)
        let ipSum = bytes(checksum(ip))
        ip[10] = ipSum[0]
        ip[11] = ipSum[1]
        return [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0] + ip + tcp
    }

    private static func checksum(_ bytes: [UInt8]) -> UInt16 {
        var sum: UInt32 = 0
        for (index, byte) in bytes.enumerated() { sum += index % 2 == 0 ? UInt32(byte) << 8 : UInt32(byte) }
        while sum >> 16 != 0 { sum = sum & 0xffff + sum >> 16 }
        return ~UInt16(sum)
    }

    /// Frames from the local pod to `frames` of the endpoints.
    private func plainFrames() -> [[UInt8]] {
        frameNumbers.map { Self.segment(from: Self.local, to: Self.remote($0), payload: payload) }
    }

    /// Which endpoints take part: spread over all of them.
    private var frameNumbers: [Int] { (0..<frames).map { $0 * endpoints / frames + 1 } }

    /// Frames from the same endpoints to the local pod, as they would be on the wire. For a moment the endpoints change places, so
    /// that the product's own program makes them.
    private func wireFrames() throws -> [[UInt8]] {
        let map = try object.map("endpoints")
        let encrypt = try object.program("xe_encrypt")
        defer { try? map.update(Self.address(Self.local), Self.localEndpoint) }
        var wire: [[UInt8]] = []
        for number in frameNumbers {
            var here = remoteEndpoint(number)
            try map.update(Self.address(Self.local), here)
            here = Self.localEndpoint
            try map.update(Self.address(Self.remote(number)), here)
            defer { try? map.update(Self.address(Self.remote(number)), remoteEndpoint(number)) }
            let frame = Self.segment(from: Self.remote(number), to: Self.local, payload: payload)
            let run = try encrypt.run(packet: frame)
            guard run.action == 2, run.packet.count == frame.count + 28 else {
                throw LabError("xe_encrypt gave \(run.action) for a frame of \(frame.count) bytes")
            }
            wire.append(run.packet)
        }
        return wire
    }
}

// MARK: - Running

extension KernelBench {
    /// Makes frames with `payload` bytes of TCP payload, for encrypting and for decrypting.
    mutating func prepare(payload: Int) throws {
        self.payload = payload
        plain = plainFrames()
        wire = try wireFrames()
        loaded = nil
    }

    /// Puts frames into the map that runs draw from.
    private mutating func load(_ kind: Kind) throws {
        guard loaded != kind else { return }
        let map = try object.map("bench_frames")
        let associations = try object.map("associations")
        for (index, bytes) in (kind == .plain ? plain : wire).enumerated() {
            var frame = Frame()
            frame.length = UInt32(bytes.count)
            withUnsafeMutableBytes(of: &frame.bytes) { $0.copyBytes(from: bytes) }
            if kind == .wire {
                let key = Self.association(slot(frameNumbers[index]), XE_RECEIVE.rawValue)
                let association = try associations.lookup(key, as: xe_association.self)
                // The shim begins behind Ethernet, IPv4 and TCP headers: SPI 4, lane 2, counter 6.
                let iv = bytes[(14 + 20 + 32 + 4)...].prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
                let lane = iv >> 48
                let counter = iv & 0xffff_ffff_ffff
                let groups = UInt64(XE_WINDOW_DEFAULT / XE_WINDOW_GROUP + 1)
                frame.group = UInt32(counter / UInt64(XE_WINDOW_GROUP) % groups)
                frame.window = xe_window_key(association: association?.id ?? 0, lane: lane)
            }
            try map.update(UInt32(index), frame)
        }
        loaded = kind
    }

    /// Runs a program `repeating` times. Returns nanoseconds for one run.
    mutating func run(_ program: Program, repeating: Int) throws -> Double {
        switch program {
        case .encrypt: try load(.plain)
        case .decrypt, .restoreWire: try load(.wire)
        // These only store frames, of either kind.
        case .restorePlain, .undoEncrypt, .undoDecrypt: if loaded == nil { try load(.plain) }
        case .floor: break
        }
        let packet = program == .floor ? floorRequest : loaded == .plain ? plain[0] : wire[0]
        try object.map("bench_states").update(UInt32(0), State(current: 0, count: UInt32(frames)))
        let run = try object.program(program.rawValue).run(packet: packet, repeating: Int32(repeating))
        // A run that went wrong leaves the packet as it is, so that all that follow go wrong too.
        guard run.action == 2 else {
            throw LabError("\(program.rawValue) gave \(run.action) for a payload of \(payload) bytes; \(try drops())")
        }
        return Double(run.nanoseconds)
    }

    private var floorRequest: [UInt8] {
        var request = xe_gcm_request()
        request.index = Self.association(1, XE_SEND.rawValue)
        request.text_len = UInt32(payload)
        return withUnsafeBytes(of: request) { Array($0) }
    }

    /// What the programs have counted, by number of the verdict.
    private func drops() throws -> String {
        let map = try object.map("verdicts")
        let counted = try (0..<UInt32(XE_VERDICTS.rawValue)).compactMap { verdict -> String? in
            let counts = try map.lookupPerCPU(verdict, as: xe_count.self) ?? []
            let packets = counts.reduce(0) { $0 + $1.packets }
            return packets == 0 ? nil : "verdict \(verdict): \(packets)"
        }
        return counted.joined(separator: ", ")
    }

    /// What the verifier and the compiler made of each program of the product.
    func programs() throws -> [(name: String, verified: UInt32, native: UInt32)] {
        try object.programNames.filter { $0.hasPrefix("xe_") }.map { name in
            let info = try object.program(name).info()
            return (name, info.verifiedInstructions, info.nativeSize)
        }
    }

    /// Nanoseconds that the product's program takes for a packet: what undoes its work is measured beside it and subtracted.
    mutating func packet(_ program: Program, repeating: Int) throws -> Double {
        let whole = try run(program, repeating: repeating)
        let plain = try run(.restorePlain, repeating: repeating)
        let undo = try run(program == .encrypt ? .undoEncrypt : .undoDecrypt, repeating: repeating) - plain
        // With many frames, the window's reset would find it cold when it is alone, and costs more than behind the program.
        let restore = program == .encrypt || frames > 1 ? plain : try run(.restoreWire, repeating: repeating)
        return whole - restore - undo / 2
    }

    /// Bytes of all maps of the product, as the kernel accounts for them.
    func mapMemory() throws -> Int {
        try object.mapNames.filter { !$0.hasPrefix("bench_") }.reduce(0) { try $0 + memory(of: try object.map($1)) }
    }
}

import BPF
import BPFObjects
import CLibBPF
import CSys
import Glibc
import Keys
import Secrets
import Testing

@testable import Datapath

/// The rules that keep a nonce from coming twice, and a packet from being accepted twice.
@Suite(.serialized, .enabled(if: isRoot, needsRoot))
struct NonceTests {
    let nodes: Nodes

    init() throws { nodes = try Nodes() }

    private func counter(of wire: [UInt8]) -> (lane: UInt64, counter: UInt64) {
        let place = Frames.etherLength + 20 + 20 + 4
        let iv = wire[place..<place + 8].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        return (iv >> 48, iv & (1 << 48 - 1))
    }

    private func send() throws -> (lane: UInt64, counter: UInt64) {
        let judged = try nodes.sender.judge(nodes.plain(.tcp, .ipv4, 10), with: .encrypt)
        try #require(judged.verdict == .encrypted)
        return counter(of: judged.frame)
    }

    @Test func lanesAreCPUsAndCountersRiseByOneFromOne() throws {
        for cpu in 0..<min(2, sysconf(Int32(_SC_NPROCESSORS_ONLN))) {
            try onCPU(cpu) {
                for expected in 1...20 {
                    let sent = try send()
                    #expect(sent == (UInt64(cpu), UInt64(expected)))
                }
            }
        }
    }

    @Test func aNewKeyStartsAtOneAndTheOldKeyNeverComesBack() throws {
        try onCPU(0) {
            let id = AssociationID(slot: 1, direction: .send, epoch: Nodes.epoch)
            for expected in 1...3 { #expect(try send().counter == UInt64(expected)) }
            try nodes.sender.removeAssociation(id)
            do {
                try nodes.install(nodes.key, in: nodes.sender, .send)
                Issue.record("a key that was in use was installed again")
            } catch let error as DatapathError {
                #expect(error.code == .keyUsedBefore)
            }
            #expect(try nodes.sender.judge(nodes.plain(.tcp, .ipv4, 10), with: .encrypt).verdict == .dropNoKey)
            let other = nodes.key.map { $0 ^ 0x55 }
            try nodes.install(other, in: nodes.sender, .send)
            #expect(try send().counter == 1)
        }
    }

    @Test func aReceiveKeyDoesNotComeBackWithAnEmptyWindow() throws {
        let wire = nodes.wire(.tcp, .ipv4, 10, counter: 1)
        #expect(try nodes.receiver.judge(wire, with: .decrypt).verdict == .decrypted)
        try nodes.receiver.removeAssociation(AssociationID(slot: 1, direction: .receive, epoch: Nodes.epoch))
        #expect(throws: DatapathError.self) { try nodes.install(nodes.key, in: nodes.receiver, .receive) }
        #expect(try nodes.receiver.judge(wire, with: .decrypt).verdict == .dropCleartext)
    }

    @Test func sendingStopsWhenTheCounterIsUsedUp() throws {
        try onCPU(0) {
            _ = try send()
            // All CPUs' lanes of slot 1, two short of the end.
            let tables = nodes.sender.tables
            var lanes = try tables.maps.lanes.lookupPerCPU(UInt32(1), as: xe_lane.self) ?? []
            for cpu in lanes.indices {
                lanes[cpu].association.0 = lanes[0].association.0
                lanes[cpu].counter.0 = UInt64(1 << 48 - 1) - 1
            }
            try tables.maps.lanes.updatePerCPU(UInt32(1), lanes)
            #expect(try send().counter == UInt64(1 << 48 - 1))
            for _ in 0..<3 {
                let judged = try nodes.sender.judge(nodes.plain(.tcp, .ipv4, 10), with: .encrypt)
                #expect(judged.verdict == .dropExhausted)
            }
        }
    }

    @Test func epochsBelowTheFloorAreRefused() throws {
        try nodes.sender.setEpochFloor(5)
        #expect(throws: DatapathError.self) {
            try nodes.install(nodes.key.map { $0 ^ 1 }, in: nodes.sender, .send, slot: 2, peer: 3, epoch: 4)
        }
        try nodes.install(nodes.key.map { $0 ^ 1 }, in: nodes.sender, .send, slot: 2, peer: 3, epoch: 5)
    }

    /// The window against the plainest model there is: a set of everything seen.
    @Test(arguments: [64, 128, 2048, 8192] as [UInt32])
    func theWindowIsExact(size: UInt32) throws {
        let nodes = try Nodes(window: size)
        var seen: Set<UInt64> = []
        var top: UInt64 = 0
        var random = SystemRandomNumberGenerator()
        func judge(_ counter: UInt64) throws {
            let expected: Verdict
            if counter > top {
                expected = .decrypted
            } else if top - counter >= UInt64(size) {
                expected = .dropStale
            } else {
                expected = seen.contains(counter) ? .dropReplay : .decrypted
            }
            let verdict = try nodes.receiver.judge(
                nodes.wire(.udp, .ipv4, 8, lane: 7, counter: counter), with: .decrypt
            ).verdict
            try #require(verdict == expected, "counter \(counter), top \(top)")
            if verdict == .decrypted {
                seen.insert(counter)
                top = max(top, counter)
            }
        }
        // Edges first: the last one inside, the first outside, jumps of exactly a word and a window.
        let edge = UInt64(size)
        for counter in [
            1, 1, 2, edge, edge + 1, 1, 2, 3, edge + 2, 2, 3, 4, edge * 2, edge + 1, edge + 2, edge * 2 + 63,
            edge * 2 + 64, edge * 2 + 65, edge * 3 + 65, edge * 2 + 65, edge * 2 + 66, edge * 9, edge * 8 + 1, edge * 8,
        ] {
            try judge(counter)
        }
        for _ in 0..<1500 {
            let back = UInt64.random(in: 0...edge + edge / 4, using: &random)
            switch Int.random(in: 0..<10, using: &random) {
            case 0: try judge(top + UInt64.random(in: 1...edge * 2, using: &random))
            case 1...4: try judge(top + UInt64.random(in: 1...70, using: &random))
            default: try judge(top > back ? top - back : 1)
            }
        }
        // Lanes are apart.
        #expect(
            try nodes.receiver.judge(nodes.wire(.udp, .ipv4, 8, lane: 8, counter: 1), with: .decrypt).verdict
                == .decrypted)
    }

    @Test func withoutRoomForAWindowNothingIsAccepted() throws {
        // Room for 16 in these tests.
        var verdicts: [Verdict?] = []
        for lane in UInt16(0)..<40 {
            verdicts.append(
                try nodes.receiver.judge(nodes.wire(.udp, .ipv4, 8, lane: lane, counter: 1), with: .decrypt).verdict)
        }
        #expect(verdicts.prefix(16).allSatisfy { $0 == .decrypted })
        #expect(verdicts.last == .dropNoWindow)
        #expect(Set(verdicts) == [.decrypted, .dropNoWindow])
    }

    /// No map shows a key, H or a text, whatever has been through it.
    @Test func mapsShowNoSecrets() throws {
        let text = Frames.payload(256)
        let sent = try nodes.sender.judge(nodes.plain(.udp, .ipv4, 256), with: .encrypt)
        let received = try nodes.receiver.judge(sent.frame, with: .decrypt)
        #expect(received.verdict == .decrypted)
        var h = [UInt8](repeating: 0, count: 16)
        nodes.key.withUnsafeBytes { key in h.withUnsafeMutableBytes { HashKey.compute(key: key, into: $0) } }
        do {
            let dump = dumpMaps()
            // The positive control: what is not secret is found.
            #expect(holds(dump, Frames.big32(Nodes.spi)))
            for window in [0, 16] {
                #expect(!holds(dump, Array(nodes.key[window..<window + 16])), "half a key")
            }
            #expect(!holds(dump, h), "H")
            #expect(!holds(dump, Array(h.reversed())), "H, reversed")
            for place in stride(from: 0, to: 256, by: 16) {
                #expect(!holds(dump, Array(text[place..<place + 16])), "text")
            }
        }
    }

    /// What the kernel shows of every map on this machine: ours, those of the tests beside this one, and others'.
    private func dumpMaps() -> [UInt8] {
        var dump: [UInt8] = []
        var id: UInt32 = 0
        while bpf_map_get_next_id(id, &id) == 0 {
            let fd = bpf_map_get_fd_by_id(id)
            guard fd >= 0 else { continue }
            defer { close(fd) }
            var info = bpf_map_info()
            var length = UInt32(MemoryLayout<bpf_map_info>.size)
            guard bpf_obj_get_info_by_fd(fd, &info, &length) == 0 else { continue }
            let perCPU = [BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_PERCPU_HASH, BPF_MAP_TYPE_LRU_PERCPU_HASH]
                .contains { $0.rawValue == info.type }
            let size =
                perCPU ? Int(info.value_size + 7) / 8 * 8 * Int(libbpf_num_possible_cpus()) : Int(info.value_size)
            var key = [UInt8](repeating: 0, count: Int(info.key_size))
            var value = [UInt8](repeating: 0, count: size)
            var next = bpf_map_get_next_key(fd, nil, &key)
            while next == 0 {
                if bpf_map_lookup_elem(fd, key, &value) == 0 { dump += key + value }
                next = bpf_map_get_next_key(fd, key, &key)
            }
        }
        return dump
    }

    private func holds(_ haystack: [UInt8], _ needle: [UInt8]) -> Bool {
        // Passing arrays as pointers keeps them alive for the call.
        csys_contains(haystack, haystack.count, needle, needle.count) != 0
    }
}

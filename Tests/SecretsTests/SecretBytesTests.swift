import Glibc
import Testing

@testable import Secrets

@Suite struct SecretBytesTests {
    @Test func holdsWhatWasFilledIn() {
        for count in [0, 1, 32, 64, 65, 4096, 10_000] {
            let secret = SecretBytes(count: count) { buffer in
                for i in 0..<buffer.count { buffer[i] = UInt8(truncatingIfNeeded: i) }
            }
            #expect(secret.count == count)
            #expect(secret.withBytes { $0.byteCount } == count)
            #expect(secret.withUnsafeBytes { Array($0) } == (0..<count).map { UInt8(truncatingIfNeeded: $0) })
        }
    }

    @Test func comparesContentAndCount() {
        let a = SecretBytes(count: 32) { $0[31] = 1 }
        #expect(a == SecretBytes(count: 32) { $0[31] = 1 })
        #expect(a != SecretBytes(count: 32) { $0[0] = 1 })
        #expect(a != SecretBytes(count: 33) { $0[31] = 1 })
    }

    @Test func showsOnlyTheCount() {
        let secret = SecretBytes(count: 6) { buffer in
            for (i, byte) in "canary".utf8.enumerated() { buffer[i] = byte }
        }
        var dumped = ""
        dump(secret, to: &dumped)
        for text in ["\(secret)", String(describing: secret), String(reflecting: secret), dumped, "\([secret])"] {
            #expect(!text.contains("canary"))
            #expect(!text.contains("99, 97"))
            #expect(text.contains("6 secret bytes"))
        }
    }

    @Test func randomBytesDiffer() {
        #expect(SecretBytes(random: 32) != SecretBytes(random: 32))
        #expect(SecretBytes(random: 1000).withUnsafeBytes { Set($0).count } > 200)
    }

    @Test func fillMayFail() {
        struct Failure: Error {}
        #expect(throws: Failure.self) {
            try SecretBytes(count: 32) { (_: UnsafeMutableRawBufferPointer) throws(Failure) in throw Failure() }
        }
    }

    @Test func movesAnArrayAndZeroesIt() {
        var array = (1...100).map { UInt8($0) }
        let secret = SecretBytes(zeroing: &array)
        #expect(array.isEmpty)
        #expect(secret.withUnsafeBytes { Array($0) } == (1...100).map { UInt8($0) })
    }

    /// The slot of a released secret is zero when the next one gets it.
    @Test func releasedSlotsAreZero() {
        for _ in 0..<200 {
            var secrets: [SecretBytes] = []
            for _ in 0..<130 { secrets.append(SecretBytes(random: 64)) }
            secrets.removeAll()
            let fresh = SecretBytes(count: 64) { _ in }
            #expect(fresh.withUnsafeBytes { $0.allSatisfy { $0 == 0 } })
        }
    }

    @Test func secretsDoNotOverlap() {
        let secrets = (0..<1000).map { i in
            SecretBytes(count: 1 + i % 64) { $0.initializeMemory(as: UInt8.self, repeating: UInt8(i % 251)) }
        }
        for (i, secret) in secrets.enumerated() {
            #expect(secret.withUnsafeBytes { $0.allSatisfy { $0 == UInt8(i % 251) } })
        }
    }

    @Test func manyTasksAtOnce() async {
        await withTaskGroup(of: Bool.self) { group in
            for task in 0..<16 {
                group.addTask {
                    for round in 0..<300 {
                        let value = UInt8(truncatingIfNeeded: task * 31 + round)
                        let secret = SecretBytes(count: 40) { $0.initializeMemory(as: UInt8.self, repeating: value) }
                        guard secret.withUnsafeBytes({ $0.allSatisfy { $0 == value } }) else { return false }
                    }
                    return true
                }
            }
            for await good in group { #expect(good) }
        }
    }

    /// `/proc/self/smaps` says of every page what can become of it: ours are neither dumped nor inherited.
    @Test func pagesAreLockedAndNeverDumped() throws {
        let secret = SecretBytes(random: 5000)
        try #require(secret.storage != .unlockedMemory, "raise `ulimit -l`")
        let address = secret.withUnsafeBytes { UInt(bitPattern: $0.baseAddress) }
        var found = false
        var inside = false
        for line in readLines("/proc/self/smaps") {
            let words = line.split(separator: " ")
            let range = words.first?.split(separator: "-") ?? []
            if range.count == 2, let low = UInt(range[0], radix: 16), let high = UInt(range[1], radix: 16) {
                inside = (low..<high).contains(address)
                if inside && secret.storage == .memfdSecret { #expect(line.contains("secretmem")) }
            } else if inside && line.hasPrefix("VmFlags:") {
                found = true
                #expect(words.contains("dd"), "not dumped")
                #expect(words.contains("dc"), "not inherited by children")
                #expect(words.contains("lo"), "locked")
            }
        }
        #expect(found)
    }

    /// Where pages are secret, even root cannot read them through the kernel.
    @Test func otherProcessesCannotReadThem() throws {
        let secret = SecretBytes(random: 5000)
        guard secret.storage == .memfdSecret else {
            print("skipped: this kernel has no memfd_secret")
            return
        }
        let fd = open("/proc/self/mem", O_RDONLY)
        try #require(fd >= 0)
        defer { close(fd) }
        var byte: UInt8 = 0
        #expect(secret.withUnsafeBytes { pread(fd, &byte, 1, off_t(Int(bitPattern: $0.baseAddress))) } == -1)
    }
}

@Suite struct ProcessHardeningTests {
    @Test func readsTheListOfSwapDevices() {
        #expect(ProcessHardening.swapDevices(in: "Filename\tType\tSize\tUsed\tPriority\n").isEmpty)
        #expect(
            ProcessHardening.swapDevices(in: "Filename\tType\n/dev/sda2   partition\t1\t0\t-2\n/swapfile file 1 0 -3\n")
                == ["/dev/sda2", "/swapfile"])
    }

    @Test func warnsAboutEveryWeakness() {
        let good = ProcessHardening(coreLimitIsZero: true, notDumpable: true, swap: [], storage: .memfdSecret)
        #expect(good.warnings.isEmpty)
        var weak = good
        weak.swap = ["/dev/sda2"]
        weak.storage = .unlockedMemory
        weak.notDumpable = false
        #expect(weak.warnings.count == 3)
        #expect(weak.warnings.contains { $0.contains("/dev/sda2") })
        #expect(weak.warnings.contains { $0.contains("LimitMEMLOCK") })
    }

    @Test func turnsCoreDumpsOff() {
        let result = ProcessHardening.apply()
        #expect(result.coreLimitIsZero && result.notDumpable)
        var limit = rlimit()
        #expect(getrlimit(__rlimit_resource_t(RLIMIT_CORE.rawValue), &limit) == 0)
        #expect(limit.rlim_cur == 0 && limit.rlim_max == 0)
        #expect(readLines("/proc/self/limits").contains { $0.hasPrefix("Max core file size") && $0.contains(" 0 ") })
    }
}

private func readLines(_ path: String) -> [String] {
    guard let file = fopen(path, "r") else { return [] }
    defer { fclose(file) }
    var lines: [String] = []
    var line: UnsafeMutablePointer<CChar>?
    var size = 0
    while getline(&line, &size, file) > 0, let line { lines.append(String(cString: line).replacing("\n", with: "")) }
    free(line)
    return lines
}

import Glibc
import Secrets
import Testing

@testable import KMS

@Suite struct LocalKMSTests {
    let folder = TemporaryFolder()
    let context = testContext(epoch: 7)

    @Test func wrapsAndUnwraps() async throws {
        let kms = LocalKMS(kekFile: folder.path("kek"))
        try LocalKMS.createKEKFile(at: kms.kekFile)
        let blob = try await kms.generateDEK(for: context)
        let first = try await kms.unwrap(blob, for: context)
        let second = try await kms.unwrap(WrappedDEK(decoding: blob.encoded, expected: .local), for: context)
        #expect(first.count == 32)
        #expect(first == second)
        let other = try await kms.unwrap(kms.generateDEK(for: context), for: context)
        #expect(first != other, "DEKs are drawn afresh")
        #expect(try await kms.currentKEKVersion() == blob.kekVersion)
        try await kms.checkHealth()
    }

    /// The heap's free pieces of a size are kept in a stack of seven by each thread; what is freed on top of seven goes elsewhere.
    @Test(
        "No KEK stays in memory, whatever the heap looks like",
        .enabled(if: geteuid() == 0, "reading a process's memory needs root"))
    func residue() throws {
        let kms = LocalKMS(kekFile: folder.path("kek"))
        try LocalKMS.createKEKFile(at: kms.kekFile)
        let blob = try kms.sealed(for: context)
        for stacked in [0, 1, 6, 7, 12] {
            let pieces = stride(from: 256, through: 1024, by: 16).flatMap { size in
                (0..<stacked).map { _ in malloc(size) }
            }
            for piece in pieces { free(piece) }
            _ = try kms.opened(blob, for: context)
            for piece in pieces.map({ _ in malloc(64) }) { free(piece) }
            #expect(try memoryHolds(secretIn: kms.kekFile) == false, "\(stacked) pieces of each size")
        }
        // The search finds what is there.
        let copy = try #require(fopen(kms.kekFile, "re"))
        defer { fclose(copy) }
        var text = [CChar](repeating: 0, count: 65)
        try #require(fread(&text, 1, 64, copy) == 64)
        #expect(try memoryHolds(secretIn: kms.kekFile))
        withExtendedLifetime(text) {}
    }

    /// Whether our memory holds the KEK of a file, as bytes or as text; looked for by another process.
    private func memoryHolds(secretIn path: String) throws -> Bool {
        let script = """
            import sys
            text = open(sys.argv[2], "rb").read().strip()
            needles = [text, bytes.fromhex(text.decode())]
            with open(f"/proc/{sys.argv[1]}/maps") as maps, open(f"/proc/{sys.argv[1]}/mem", "rb", 0) as memory:
                for line in maps:
                    low, high = (int(end, 16) for end in line.split()[0].split("-"))
                    if line.split()[1].startswith("rw") and "[vvar" not in line:
                        try:
                            memory.seek(low)
                            area = memory.read(high - low)
                        except OSError:
                            continue
                        if any(needle in area for needle in needles):
                            sys.exit(3)
            """
        folder.write("search.py", script, mode: 0o600)
        let status = system("python3 \(folder.path("search.py")) \(getpid()) \(path)")
        try #require(status == 0 || status == 3 << 8, "the search ended with \(status)")
        return status != 0
    }

    @Test func everyPartOfTheContextBinds() async throws {
        let kms = LocalKMS(kekFile: folder.path("kek"))
        try LocalKMS.createKEKFile(at: kms.kekFile)
        let blob = try await kms.generateDEK(for: context)
        for other in [
            testContext(epoch: 8), testContext(epoch: 7, purpose: "other"), testContext(cluster: 2, epoch: 7),
        ] {
            await expectKMSError(.notAuthentic) { _ = try await kms.unwrap(blob, for: other) }
        }
    }

    @Test func everyFlippedBitIsNoticed() async throws {
        let kms = LocalKMS(kekFile: folder.path("kek"))
        try LocalKMS.createKEKFile(at: kms.kekFile)
        let good = try await kms.generateDEK(for: context).encoded
        for bit in 0..<good.count * 8 {
            var bytes = good
            bytes[bit / 8] ^= 1 << UInt8(bit % 8)
            var failed = false
            do {
                _ = try await kms.unwrap(WrappedDEK(decoding: bytes, expected: .local), for: context)
            } catch {
                failed = true
                #expect(error.category == .badBlob, "bit \(bit): \(error)")
            }
            #expect(failed, "bit \(bit)")
        }
    }

    @Test func rotation() async throws {
        let path = folder.path("kek")
        let kms = LocalKMS(kekFile: path)
        let (a, b) = (String(repeating: "a1", count: 32), String(repeating: "B2", count: 32))
        folder.write("kek", a, mode: 0o600)
        let old = try await kms.generateDEK(for: context)
        let dek = try await kms.unwrap(old, for: context)
        folder.write("kek", "\(b)\n\(a)\n", mode: 0o600)
        #expect(try await kms.currentKEKVersion() != old.kekVersion)
        #expect(try await kms.unwrap(old, for: context) == dek)
        folder.write("kek", b, mode: 0o600)
        await expectKMSError(.wrongKEK) { _ = try await kms.unwrap(old, for: context) }
    }

    @Test(arguments: [
        ("", "64 hexadecimal digits"), ("abc", "64 hexadecimal digits"),
        (String(repeating: "g", count: 64), "64 hexadecimal"),
        (String(repeating: "a", count: 64) + "\nb", "64 hexadecimal"),
        (String(repeating: "a", count: 65), "64 hexadecimal"),
        (String(repeating: "a", count: 5000), "4096"),
    ])
    func refusesOtherContent(_ content: String, _ expected: String) async {
        folder.write("kek", content, mode: 0o600)
        let kms = LocalKMS(kekFile: folder.path("kek"))
        await expectKMSError(.misconfigured, containing: expected) { try await kms.checkHealth() }
    }

    @Test(arguments: [0o644, 0o640, 0o604, 0o660, 0o700, 0o4600] as [mode_t])
    func refusesOtherModes(_ mode: mode_t) async {
        folder.write("kek", String(repeating: "a", count: 64), mode: mode)
        let kms = LocalKMS(kekFile: folder.path("kek"))
        await expectKMSError(.misconfigured, containing: "chmod 600") { try await kms.checkHealth() }
    }

    @Test func refusesLinksFoldersPipesAndOwners() async throws {
        folder.write("real", String(repeating: "a", count: 64), mode: 0o600)
        symlink(folder.path("real"), folder.path("link"))
        mkdir(folder.path("folder"), 0o600)
        mkfifo(folder.path("pipe"), 0o600)
        await expectKMSError(.misconfigured, containing: "symbolic link") {
            try await LocalKMS(kekFile: folder.path("link")).checkHealth()
        }
        for name in ["folder", "pipe"] {
            await expectKMSError(.misconfigured, containing: "not a regular file") {
                try await LocalKMS(kekFile: folder.path(name)).checkHealth()
            }
        }
        await expectKMSError(.misconfigured, containing: "does not exist") {
            try await LocalKMS(kekFile: folder.path("nothing")).checkHealth()
        }
        if geteuid() == 0 {
            chown(folder.path("real"), 12345, 0)
            await expectKMSError(.misconfigured, containing: "belongs to user 12345") {
                try await LocalKMS(kekFile: folder.path("real")).checkHealth()
            }
        }
    }

    @Test func neverOverwritesAKEK() throws {
        let path = folder.path("kek")
        try LocalKMS.createKEKFile(at: path)
        var status = stat()
        #expect(stat(path, &status) == 0)
        #expect(status.st_mode & 0o7777 == 0o600)
        #expect(throws: KMSError.self) { try LocalKMS.createKEKFile(at: path) }
    }
}

@Suite struct WrappedDEKTests {
    @Test func encodesAsDocumented() throws {
        let blob = try WrappedDEK(provider: .gcp, kekID: "k", kekVersion: "v2", wrapped: [1, 2, 3])
        #expect(blob.encoded == [1, 3, 0, 1, 0x6b, 0, 2, 0x76, 0x32, 0, 3, 1, 2, 3])
        #expect(try WrappedDEK(decoding: blob.encoded, expected: .gcp) == blob)
    }

    @Test func everyTruncationAndExtensionIsRefused() throws {
        let good = try WrappedDEK(
            provider: .aws, kekID: "arn:aws:kms:x", kekVersion: "1", wrapped: Array(repeating: 9, count: 300)
        ).encoded
        for count in 0..<good.count {
            #expect(throws: KMSError.self) { try WrappedDEK(decoding: good[..<count], expected: .aws) }
        }
        #expect(throws: KMSError.self) { try WrappedDEK(decoding: good + [0], expected: .aws) }
    }

    @Test(
        arguments: [
            [2, 3, 0, 1, 0x6b, 0, 1, 0x76, 0, 1, 1], [1, 0, 0, 1, 0x6b, 0, 1, 0x76, 0, 1, 1],
            [1, 9, 0, 1, 0x6b, 0, 1, 0x76, 0, 1, 1],
            [1, 3, 0, 0, 0, 1, 0x76, 0, 1, 1], [1, 3, 0, 1, 0x0a, 0, 1, 0x76, 0, 1, 1],
            [1, 3, 0, 1, 0xc3, 0, 1, 0x76, 0, 1, 1],
            [1, 3, 0, 1, 0x6b, 0, 1, 0x76, 0, 0],
        ] as [[UInt8]])
    func refusesMalformed(_ bytes: [UInt8]) {
        #expect(throws: KMSError.self) { try WrappedDEK(decoding: bytes, expected: .gcp) }
    }

    @Test func refusesWhatAProviderShouldNotSay() {
        #expect(throws: KMSError.self) { try WrappedDEK(provider: .aws, kekID: "", kekVersion: "1", wrapped: [1]) }
        #expect(throws: KMSError.self) { try WrappedDEK(provider: .aws, kekID: "a b", kekVersion: "1", wrapped: [1]) }
        #expect(throws: KMSError.self) { try WrappedDEK(provider: .aws, kekID: "a", kekVersion: "1", wrapped: []) }
        #expect(throws: KMSError.self) {
            try WrappedDEK(provider: .aws, kekID: "a", kekVersion: "1", wrapped: Array(repeating: 0, count: 6145))
        }
    }
}

@Suite struct KeyContextTests {
    @Test func canonicalBytes() throws {
        let context = testContext(epoch: 0x0102_0304)
        #expect(
            context.canonicalBytes == Array("xdp-encryptor/1 dek".utf8) + Array(repeating: 1, count: 16) + [
                1, 2, 3, 4, 7,
            ]
                + Array("traffic".utf8))
        #expect(
            context.encryptionContext == [
                "xdp-encryptor/cluster": String(repeating: "01", count: 16), "xdp-encryptor/epoch": "16909060",
                "xdp-encryptor/purpose": "traffic",
            ])
    }

    @Test func refusesWhatIsNotAContext() {
        let cluster = [UInt8](repeating: 1, count: 16)
        #expect(KeyContext(clusterID: [1], epoch: 1) == nil)
        #expect(KeyContext(clusterID: cluster, epoch: 0) == nil)
        for purpose in ["", "A", "a b", String(repeating: "a", count: 33), "é"] {
            #expect(KeyContext(clusterID: cluster, epoch: 1, purpose: purpose) == nil)
        }
    }
}

@Suite struct PrintableTests {
    @Test func keepsTheOtherSidesTextOnOneLine() {
        #expect(printable("a\nb\u{1b}[31mc\u{202e}") == "a b [31mc")
        #expect(printable(String(repeating: "x", count: 1000)).count == 301)
    }
}

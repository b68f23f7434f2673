import Testing

@testable import Lab

extension EndToEnd {
    /// What root sees of the maps: no key, no H, no plain text.
    @Suite struct SecretsInMapsTests {
        @Test("No pinned map holds a DEK, a key, its H, or plain text")
        func dumps() throws {
            try Bench.with { bench in
                let traffic = try bench.traffic()
                for family in [4, 6] { try traffic.run("file", family: family, "--bytes", "500000") }
                try bench.encryption.refreshKeys()
                var maps = 0
                for node in bench.nodes.prefix(size(1, full: 2)) {
                    let dump = bench.lab.directory + "/dump-\(node.number).json"
                    for path in bench.encryption.allPins(node) {
                        let outcome = try bench.lab.run(["bpftool", "-j", "map", "dump", "pinned", path])
                        // Programs and links are pinned, too; a ring buffer cannot be dumped.
                        guard outcome.succeeded || outcome.output.hasPrefix("[") else { continue }
                        maps += 1
                        try writeFile(dump, outcome.output)
                        let found = try bench.lab.run([
                            Python.interpreter, try Python.script("find_secrets.py"), "--keys", bench.encryption.keys,
                            "--text",
                            marker, dump,
                        ])
                        #expect(found.status == 0, "\(path): \(found.output)\(found.errors)")
                    }
                }
                #expect(maps >= size(1, full: 2) * 8, "\(bench.encryption.allPins(bench.nodes[0]))")
            }
        }

        @Test("The search finds a secret that is there")
        func positiveControl() throws {
            try Lab.with { lab in
                let encryption = try Encryption(lab)
                try encryption.refreshKeys()
                let dek = try #require(
                    try readFile(encryption.keys).split(separator: "\"").first {
                        $0.count == 64 && $0.allSatisfy(\.isHexDigit)
                    })
                let bytes = stride(from: 0, to: 64, by: 2).map { offset in
                    "\"0x\(dek.dropFirst(offset).prefix(2))\""
                }
                let dump = try lab.write(
                    "dump.json", "[{\"key\":[\"0x00\"],\"value\":[\(bytes.joined(separator: ","))]}]")
                let found = try lab.run([
                    Python.interpreter, try Python.script("find_secrets.py"), "--keys", encryption.keys, "--text",
                    marker, dump,
                ])
                #expect(found.status == 1)
            }
        }
    }
}

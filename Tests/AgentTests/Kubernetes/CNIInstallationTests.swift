import Cluster
import FoundationEssentials
import Testing

@testable import Agent

/// The plugin in the runtime's configuration: only its own entry is touched.
@Suite struct CNIInstallationTests {
    private func text(_ path: String) throws -> String { String(decoding: try AtomicFile.read(path), as: UTF8.self) }

    @Test("Installed, repeated, changed, removed: everything else stays as it is written")
    func roundTrip() async throws {
        try await withFolder { folder in
            let original = """
                { "cniVersion":"1.0.0",  "name":"k8s", "x": 1.50,
                  "plugins" : [ {"type":"bridge", "mtu": 1e3} ,
                    {"type":"portmap","capabilities":{"portMappings":true}}
                  ]
                }
                """
            let (first, second) = ("\(folder)/10-pods.conflist", "\(folder)/20-other.conflist")
            try AtomicFile.write(Array(original.utf8), to: first, mode: 0o600)
            try AtomicFile.write(Array("{\"plugins\":[]}".utf8), to: second)
            try AtomicFile.write([1, 2, 3], to: "\(folder)/program")
            let installation = CNIInstallation(programs: folder, configurations: folder)
            #expect(try installation.install(program: "\(folder)/program").count == 2)
            let installed = try text(first)
            #expect(installed.contains("{\"type\":\"bridge\", \"mtu\": 1e3}"))
            #expect(installed.hasPrefix("{ \"cniVersion\":\"1.0.0\",  \"name\":\"k8s\", \"x\": 1.50,"))
            #expect(installed.components(separatedBy: "xdp-encryptor-cni").count == 2)
            #expect(try installation.install(program: "\(folder)/program").isEmpty)
            #expect(try text(first) == installed)
            #expect(try text(second) == "{\"plugins\":[]}")

            var options = CNIInstallation.Options()
            options.onDaemonAbsent = "refuse-all"
            #expect(try installation.install(program: "\(folder)/program", options).count == 1)
            #expect(try text(first).contains("\"onDaemonAbsent\":\"refuse-all\""))
            #expect(try text(first).components(separatedBy: "xdp-encryptor-cni").count == 2)

            #expect(try installation.uninstall().count == 2)
            let removed = try text(first)
            #expect(!removed.contains("xdp-encryptor"))
            #expect(removed.contains("{\"type\":\"portmap\",\"capabilities\":{\"portMappings\":true}}"))
            #expect(try installation.uninstall().isEmpty)
        }
    }

    @Test("Without a network nothing is installed, and garbage is not touched")
    func refused() async throws {
        try await withFolder { folder in
            try AtomicFile.write([1], to: "\(folder)/program")
            let installation = CNIInstallation(programs: folder, configurations: folder)
            #expect(throws: FileError.self) { try installation.install(program: "\(folder)/program") }
            try AtomicFile.write(Array("{\"plugins\": 3}".utf8), to: "\(folder)/a.conflist")
            #expect(throws: FileError.self) { try installation.install(program: "\(folder)/program") }
            #expect(try text("\(folder)/a.conflist") == "{\"plugins\": 3}")
        }
    }
}

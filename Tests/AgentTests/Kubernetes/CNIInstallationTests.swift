import Cluster
import FoundationEssentials
import Glibc
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

    private let list = #"{"cniVersion":"1.0.0","name":"k8s","plugins":[{"type":"ptp"},{"type":"portmap"}]}"#

    private func types(_ path: String) throws -> [String] {
        struct Shape: Decodable {
            struct Plugin: Decodable { var type: String }
            var plugins: [Plugin]
        }
        return try JSONDecoder().decode(Shape.self, from: Data(AtomicFile.read(path))).plugins.map(\.type)
    }
    private func problem(_ text: String, name: String = "a.conflist") async throws -> String {
        try await withFolder { folder in
            try AtomicFile.write([1], to: "\(folder)/program")
            try AtomicFile.write(Array(text.utf8), to: "\(folder)/\(name)")
            let installation = CNIInstallation(programs: folder, configurations: folder)
            do throws(FileError) {
                _ = try installation.install(program: "\(folder)/program")
                return ""
            } catch {
                #expect(try self.text("\(folder)/\(name)") == text)
                #expect(throws: FileError.self, "no program without an entry") {
                    try AtomicFile.read("\(folder)/\(CNIInstallation.type)")
                }
                return error.description
            }
        }
    }

    @Test("Written anew by its owner, or another one comes first: noticed, and put back")
    func putBack() async throws {
        try await withFolder { folder in
            let path = "\(folder)/10-aws.conflist"
            let program = "\(folder)/program"
            try AtomicFile.write([1], to: program)
            try AtomicFile.write(Array(list.utf8), to: path)
            let installation = CNIInstallation(programs: folder, configurations: folder)
            #expect(try !installation.isInstalled(program: program))
            _ = try installation.install(program: program)
            #expect(try installation.isInstalled(program: program))
            try AtomicFile.write(Array(list.utf8), to: path)
            #expect(try !installation.isInstalled(program: program))
            // Returns at once: the change came before the watch.
            installation.waitForChange(program: program)
            #expect(try installation.install(program: program) == ["added the plugin to \(path)"])
            try AtomicFile.write(Array(list.utf8), to: "\(folder)/05-cilium.conflist")
            #expect(try !installation.isInstalled(program: program))
            _ = try installation.install(program: program)
            #expect(try types("\(folder)/05-cilium.conflist") == ["ptp", "portmap", CNIInstallation.type])

            try AtomicFile.write([2], to: program)
            #expect(try !installation.isInstalled(program: program))
            #expect(try installation.install(program: program) == ["wrote \(folder)/\(CNIInstallation.type)"])
            #expect(try AtomicFile.read("\(folder)/\(CNIInstallation.type)") == [2])

            #expect(try installation.uninstall(keepsProgram: true).count == 2)
            #expect(try AtomicFile.read("\(folder)/\(CNIInstallation.type)") == [2])
            #expect(try installation.uninstall() == ["removed \(folder)/\(CNIInstallation.type)"])
        }
    }

    @Test("An entry stays before plugins that were chained behind it, and is never the first")
    func place() async throws {
        try await withFolder { folder in
            let path = "\(folder)/a.conflist"
            try AtomicFile.write([1], to: "\(folder)/program")
            let installation = CNIInstallation(programs: folder, configurations: folder)
            for plugins in [["ptp", CNIInstallation.type, "istio-cni"], [CNIInstallation.type, "ptp", "istio-cni"]] {
                let text = plugins.map { "{\"type\":\"\($0)\"}" }.joined(separator: ",")
                try AtomicFile.write(Array("{\"cniVersion\":\"0.4.0\",\"plugins\":[\(text)]}".utf8), to: path)
                _ = try installation.install(program: "\(folder)/program")
                #expect(try types(path) == ["ptp", CNIInstallation.type, "istio-cni"])
                #expect(try installation.install(program: "\(folder)/program").isEmpty)
            }
        }
    }

    @Test("Links are followed, modes kept")
    func links() async throws {
        try await withFolder { folder in
            try await withFolder { elsewhere in
                try AtomicFile.write([1], to: "\(folder)/program")
                try AtomicFile.write(Array(list.utf8), to: "\(elsewhere)/real", mode: 0o600)
                #expect(symlink("\(elsewhere)/real", "\(folder)/a.conflist") == 0)
                _ = try CNIInstallation(programs: folder, configurations: folder).install(program: "\(folder)/program")
                #expect(try types("\(elsewhere)/real").last == CNIInstallation.type)
                var status = stat()
                #expect(lstat("\(folder)/a.conflist", &status) == 0 && status.st_mode & S_IFMT == S_IFLNK)
                #expect(stat("\(elsewhere)/real", &status) == 0 && status.st_mode & 0o777 == 0o600)
                #expect(stat("\(folder)/\(CNIInstallation.type)", &status) == 0 && status.st_mode & 0o777 == 0o755)
            }
        }
    }

    @Test("What nothing can be chained to says why, and stays as it is")
    func unchainable() async throws {
        #expect(try await problem("{").contains("is no list"))
        #expect(try await problem(#"{"cniVersion":"1.0.0","name":"n"}"#).contains("is no list"))
        #expect(
            try await problem(#"{"cniVersion":"1.0.0","type":"multus"}"#, name: "00-multus.conf").contains("single plugin"))
        #expect(try await problem(#"{"cniVersion":"1.0.0","plugins":[]}"#).contains("no plugin that makes"))
        #expect(
            try await problem(#"{"cniVersion":"1.0.0","plugins":[{"type":"xdp-encryptor-cni"}]}"#)
                .contains("no plugin that makes"))
        #expect(try await problem(#"{"cniVersion":"0.2.0","plugins":[{"type":"ptp"}]}"#).contains("CNI version 0.2.0"))
    }
}

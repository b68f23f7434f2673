import Cluster
import Foundation
import Testing

@testable import Agent

@Suite struct CNIChainTests {
    static let settings = CNIInstaller.Settings(onDaemonAbsent: "refuse-protected", unknownPods: "allow").members
    static let chain = """
        {"cniVersion": "0.4.0", "name": "aws-cni", "disableCheck": true, "mtu": 9001, "ratio": 0.5, "nothing": null,
         "plugins": [{"name": "aws-cni", "type": "aws-cni", "vethPrefix": "eni", "pluginLogFile": "/var/log/aws/plugin.log"},
                     {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}]}
        """

    static func tree(_ text: [UInt8]) throws -> JSONTree { try JSONDecoder().decode(JSONTree.self, from: Data(text)) }
    static func types(_ text: [UInt8]) throws -> [String] {
        struct Shape: Decodable {
            struct Plugin: Decodable { var type: String }
            var plugins: [Plugin]
        }
        return try JSONDecoder().decode(Shape.self, from: Data(text)).plugins.map(\.type)
    }
    func problem(_ text: String) -> String? {
        do throws(FileError) {
            _ = try CNIChain(Array(text.utf8)).adding(Self.settings)
            return nil
        } catch {
            return error.description
        }
    }

    @Test func ourPluginComesLastAndOnce() throws {
        let with = try #require(try CNIChain(Array(Self.chain.utf8)).adding(Self.settings))
        #expect(try Self.types(with) == ["aws-cni", "portmap", "xdp-encryptor-cni"])
        #expect(try CNIChain(with).adding(Self.settings) == nil)
        #expect(try CNIChain(with).hasOurs)
    }

    @Test func everythingElseStaysAndComesBack() throws {
        let with = try #require(try CNIChain(Array(Self.chain.utf8)).adding(Self.settings))
        let without = try #require(try CNIChain(with).removing())
        #expect(try Self.tree(without) == Self.tree(Array(Self.chain.utf8)))
        #expect(try CNIChain(without).removing() == nil)
        let text = String(decoding: with, as: UTF8.self)
        for kept in ["\"/var/log/aws/plugin.log\"", "9001", "0.5", "true", "null"] { #expect(text.contains(kept)) }
    }

    @Test func otherSettingsReplaceItWhereItStands() throws {
        let others = CNIInstaller.Settings(onDaemonAbsent: "refuse-all", unknownPods: "refuse").members
        let text = #"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"ptp"},{"type":"xdp-encryptor-cni"},{"type":"istio-cni"}]}"#
        let with = try #require(try CNIChain(Array(text.utf8)).adding(others))
        #expect(try Self.types(with) == ["ptp", "xdp-encryptor-cni", "istio-cni"])
        #expect(String(decoding: with, as: UTF8.self).contains("refuse-all"))
    }

    @Test func neverFirst() throws {
        let text = #"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"xdp-encryptor-cni"},{"type":"ptp"}]}"#
        let with = try #require(try CNIChain(Array(text.utf8)).adding(Self.settings))
        #expect(try Self.types(with) == ["ptp", "xdp-encryptor-cni"])
    }

    @Test func whatCannotBeChainedSaysWhy() {
        #expect(problem("{") == "is not a JSON object")
        #expect(problem("[]") == "is not a JSON object")
        #expect(problem(#"{"cniVersion":"1.0.0","type":"bridge"}"#)?.contains("single plugin") == true)
        #expect(problem(#"{"cniVersion":"1.0.0","name":"n"}"#) == "has no list of plugins")
        #expect(problem(#"{"cniVersion":"1.0.0","plugins":[]}"#)?.contains("has no plugin that makes") == true)
        #expect(problem(#"{"cniVersion":"1.0.0","plugins":[{"type":"xdp-encryptor-cni"}]}"#)?.contains("has no plugin that makes") == true)
        #expect(problem(#"{"cniVersion":"0.2.0","plugins":[{"type":"ptp"}]}"#)?.contains("CNI version 0.2.0") == true)
        #expect(problem(#"{"plugins":[{"type":"ptp"}]}"#)?.contains("CNI version 0.1.0") == true)
    }
}

@Suite struct CNIInstallerTests {
    /// Folders as a node has them, and a program.
    struct Node: ~Copyable {
        let root: String
        var installer: CNIInstaller

        init() throws {
            root = FileManager.default.temporaryDirectory.appending(path: "xe-cni-\(UUID().uuidString)").path()
            for folder in ["bin", "net.d"] {
                try FileManager.default.createDirectory(atPath: "\(root)/\(folder)", withIntermediateDirectories: true)
            }
            try "program 1".write(toFile: "\(root)/program", atomically: true, encoding: .utf8)
            installer = CNIInstaller(
                program: "\(root)/program", programs: "\(root)/bin", networks: "\(root)/net.d",
                settings: .init(onDaemonAbsent: "refuse-protected", unknownPods: "allow"))
        }

        deinit { try? FileManager.default.removeItem(atPath: root) }

        func write(_ name: String, _ text: String) throws {
            try text.write(toFile: "\(root)/net.d/\(name)", atomically: true, encoding: .utf8)
        }
        func types(_ name: String) throws -> [String] {
            try CNIChainTests.types(AtomicFile.read("\(root)/net.d/\(name)"))
        }
        func mode(_ path: String) throws -> Int {
            try #require(FileManager.default.attributesOfItem(atPath: "\(root)/\(path)")[.posixPermissions] as? Int)
        }
        var files: [String] {
            get throws {
                try FileManager.default.contentsOfDirectory(atPath: "\(root)/net.d")
                    + FileManager.default.contentsOfDirectory(atPath: "\(root)/bin")
            }
        }
    }

    @Test func installsOnceAndUninstalls() throws {
        let node = try Node()
        try node.write("10-aws.conflist", CNIChainTests.chain)
        try node.write("99-other.conflist", CNIChainTests.chain)
        #expect(try !node.installer.isInstalled())
        #expect(try node.installer.install().count == 2)
        #expect(try node.installer.install() == [])
        #expect(try node.installer.isInstalled())
        #expect(try node.types("10-aws.conflist").last == "xdp-encryptor-cni")
        #expect(try !node.types("99-other.conflist").contains("xdp-encryptor-cni"), "runtimes use the first only")
        #expect(try node.mode("bin/xdp-encryptor-cni") == 0o755)

        #expect(try node.installer.uninstall(removesProgram: false).count == 1)
        #expect(try node.types("10-aws.conflist") == ["aws-cni", "portmap"])
        #expect(try node.installer.uninstall(removesProgram: true).count == 1)
        #expect(try node.installer.uninstall(removesProgram: true) == [])
        #expect(try node.files.sorted() == ["10-aws.conflist", "99-other.conflist"], "nothing of ours is left behind")
    }

    @Test func isPutBackWhenTheNetworkIsWrittenAnew() throws {
        let node = try Node()
        try node.write("10-aws.conflist", CNIChainTests.chain)
        _ = try node.installer.install()
        try node.write("10-aws.conflist", CNIChainTests.chain)
        #expect(try !node.installer.isInstalled())
        #expect(try node.installer.install().count == 1)
        // A network of another name that comes first is the one in use.
        try node.write("05-cilium.conflist", CNIChainTests.chain)
        #expect(try !node.installer.isInstalled())
        #expect(try node.installer.install().count == 1)
        #expect(try node.types("05-cilium.conflist").last == "xdp-encryptor-cni")
        #expect(try node.installer.uninstall(removesProgram: false).count == 2)
    }

    @Test func aNewProgramReplacesTheOldOne() throws {
        let node = try Node()
        try node.write("10-a.conflist", CNIChainTests.chain)
        _ = try node.installer.install()
        try "program 2".write(toFile: "\(node.root)/program", atomically: true, encoding: .utf8)
        #expect(try !node.installer.isInstalled())
        #expect(try node.installer.install() == ["put the plugin at \(node.root)/bin/xdp-encryptor-cni"])
        #expect(try String(contentsOfFile: "\(node.root)/bin/xdp-encryptor-cni", encoding: .utf8) == "program 2")
    }

    @Test func linksAndModesStay() throws {
        let node = try Node()
        try CNIChainTests.chain.write(toFile: "\(node.root)/real", atomically: true, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: "\(node.root)/real")
        try FileManager.default.createSymbolicLink(
            atPath: "\(node.root)/net.d/10-a.conflist", withDestinationPath: "\(node.root)/real")
        _ = try node.installer.install()
        #expect(try node.mode("real") == 0o600)
        #expect(try FileManager.default.destinationOfSymbolicLink(atPath: "\(node.root)/net.d/10-a.conflist") == "\(node.root)/real")
        #expect(try node.installer.isInstalled())
    }

    @Test func saysWhatIsMissing() throws {
        func problem(_ node: borrowing Node) -> String {
            do throws(FileError) {
                _ = try node.installer.install()
                return ""
            } catch {
                return error.description
            }
        }
        let node = try Node()
        #expect(problem(node).contains("there is no network configuration"))
        try node.write(".hidden.conflist", CNIChainTests.chain)
        try node.write("README", "x")
        #expect(problem(node).contains("there is no network configuration"))
        try node.write("00-multus.conf", #"{"cniVersion":"1.0.0","name":"m","type":"multus"}"#)
        #expect(problem(node).contains("00-multus.conf is the configuration of a single plugin"))
        #expect(try node.files.allSatisfy { !$0.hasPrefix("xdp-encryptor") }, "nothing is installed where it cannot be chained")
    }
}

import Datapath
import FoundationEssentials
import Netlink
import Synchronization
import Testing

@testable import Agent

/// The plugin's side of the CNI specification, without a daemon.
@Suite struct CNIPluginTests {
    static let result =
        #"{ "cniVersion":"1.0.0", "interfaces":[{"name":"veth1","mac":"x"},{"name":"eth0","sandbox":"/run/netns/a"}], "#
        + #""ips":[{"address":"10.0.0.7/24","gateway":"10.0.0.1","interface":1},{"address":"fd00::7/64","interface":1},{"address":"10.9.9.9/24","interface":0}], "x\"y":1.50e3, "dns":{} }"#

    /// Answers that a daemon would give, and what it was asked.
    final class Daemon: Sendable {
        let asked = Mutex<[CNIRequest]>([])
        let reply: CNIReply?
        init(_ reply: CNIReply?) { self.reply = reply }

        func ask(_ request: CNIRequest) throws(CNIClient.Absent) -> CNIReply {
            asked.withLock { $0.append(request) }
            guard let reply else { throw CNIClient.Absent(description: "nobody there") }
            return reply
        }
    }

    private func run(
        _ command: String?, keys: String = "", version: String = "1.0.0", previous: String? = result,
        daemon: Daemon, arguments: String = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=u-1;IgnoreUnknown=1"
    ) -> CNIPlugin.Outcome {
        var environment = [
            "CNI_CONTAINERID": "c0ffee", "CNI_NETNS": "/run/netns/a", "CNI_IFNAME": "eth0", "CNI_ARGS": arguments,
        ]
        environment["CNI_COMMAND"] = command
        let input =
            "{\"cniVersion\":\"\(version)\",\"name\":\"pods\",\"type\":\"xdp-encryptor-cni\"\(keys)"
            + (previous.map { ",\n  \"prevResult\" : \($0)" } ?? "") + "}"
        return CNIPlugin(
            environment: environment, input: Array(input.utf8),
            identify: { _ in NamespaceIdentity(device: 4, inode: 5) }
        ) { (_, request) throws(CNIClient.Absent) in try daemon.ask(request) }.run()
    }

    private struct ErrorObject: Decodable {
        var cniVersion: String
        var code: Int
        var msg: String
    }
    private func error(_ outcome: CNIPlugin.Outcome) throws -> ErrorObject {
        #expect(outcome.status == 1)
        return try JSONDecoder().decode(ErrorObject.self, from: Data(outcome.output))
    }
    private func text(_ outcome: CNIPlugin.Outcome) -> String { String(decoding: outcome.output, as: UTF8.self) }

    @Test("ADD hands the result of the plugins before on, byte by byte", arguments: CNIPlugin.versions)
    func unchanged(version: String) throws {
        let daemon = Daemon(CNIReply(.done, isProtected: true))
        let outcome = run("ADD", version: version, daemon: daemon)
        #expect(outcome.status == 0)
        #expect(text(outcome) == Self.result + "\n")
        let request = try #require(daemon.asked.withLock { $0.first })
        #expect(request.command == .add)
        #expect(request.podNamespace == "shop" && request.podName == "web-0" && request.uid == "u-1")
        #expect(request.addresses == [try IPAddress("10.0.0.7"), try IPAddress("fd00::7")])
        #expect(request.identity == NamespaceIdentity(device: 4, inode: 5))
        #expect(request.annotations == nil && request.unknownPods == .allow)
    }

    @Test("The runtime's annotations are passed on")
    func annotations() throws {
        let daemon = Daemon(CNIReply(.done))
        let keys = #","runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"ebpf.xdp/encrypt":"true"}}"#
        _ = run("ADD", keys: keys, daemon: daemon)
        #expect(daemon.asked.withLock { $0.first?.annotations } == ["ebpf.xdp/encrypt": "true"])
    }

    @Test("The daemon's no and not yet are errors of the specification")
    func refused() throws {
        let later = try error(run("ADD", daemon: Daemon(CNIReply(.later, "busy"))))
        #expect(later.code == 11 && later.msg.contains("busy") && later.cniVersion == "1.0.0")
        #expect(try error(run("ADD", daemon: Daemon(CNIReply(.refused, "no")))).code == 100)
    }

    @Test("Without the daemon protected pods do not start, others do")
    func absent() throws {
        let daemon = Daemon(nil)
        let marked = #","runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"ebpf.xdp/encrypt":"true"}}"#
        let plain = #","runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"a":"b"}}"#
        let nowhere = #","protectedPods":"/nonexistent/xe""#
        func code(_ keys: String) throws -> Int {
            let outcome = run("ADD", keys: keys, daemon: daemon)
            return outcome.status == 0 ? 0 : try error(outcome).code
        }
        #expect(try code(marked + nowhere) == 11)
        #expect(try code(plain + nowhere) == 0)
        #expect(try code(nowhere) == 0)
        #expect(try code(nowhere + #","unknownPods":"refuse""#) == 11)
        #expect(try code(plain + nowhere + #","unknownPods":"refuse""#) == 0)
        #expect(try code(plain + nowhere + #","onDaemonAbsent":"refuse-all""#) == 11)
        #expect(try code(marked + nowhere + #","onDaemonAbsent":"allow""#) == 0)
        #expect(try error(run("ADD", keys: marked + nowhere, daemon: daemon)).msg.contains("shop/web-0"))
    }

    @Test("Without the daemon, pods that it has protected are known from its file")
    func knownPods() throws {
        let path = "/tmp/xe-protected-\(UInt32.random(in: 0 ... .max))"
        try Array("shop/web-0\nshop/web-1\n".utf8).withUnsafeBytes { try Data($0).write(toFile: path) }
        defer { unlinkFile(path) }
        let daemon = Daemon(nil)
        let keys = ",\"protectedPods\":\"\(path)\""
        #expect(try error(run("ADD", keys: keys, daemon: daemon)).code == 11)
        let other = run(
            "ADD", keys: keys, daemon: daemon, arguments: "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-2;K8S_POD_UID=u")
        #expect(other.status == 0)
    }

    @Test("DEL always succeeds")
    func delete() {
        #expect(run("DEL", daemon: Daemon(nil)).status == 0)
        #expect(run("DEL", version: "9.9.9", daemon: Daemon(nil)).status == 0)
        #expect(run("DEL", previous: nil, daemon: Daemon(CNIReply(.done))) == .init(output: [], status: 0))
        let broken = CNIPlugin(environment: ["CNI_COMMAND": "DEL"], input: [0x7b], identify: { _ in nil }) {
            (_, _) throws(CNIClient.Absent) in CNIReply(.done)
        }
        #expect(broken.run().status == 0)
    }

    @Test("CHECK, STATUS, GC, VERSION")
    func others() throws {
        #expect(run("CHECK", daemon: Daemon(CNIReply(.done))).status == 0)
        #expect(try error(run("CHECK", daemon: Daemon(CNIReply(.refused, "gone")))).code == 100)
        #expect(run("CHECK", daemon: Daemon(nil)).status == 0)
        #expect(run("STATUS", version: "1.1.0", daemon: Daemon(CNIReply(.done))).status == 0)
        #expect(try error(run("STATUS", version: "1.1.0", daemon: Daemon(nil))).code == 50)
        let daemon = Daemon(CNIReply(.done))
        let valid = #","cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]"#
        #expect(run("GC", keys: valid, version: "1.1.0", daemon: daemon).status == 0)
        #expect(daemon.asked.withLock { $0.first?.valid } == ["a.eth0"])
        let version = text(run("VERSION", previous: nil, daemon: daemon))
        #expect(version.contains(#""supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]"#))
        #expect(version.contains(#""cniVersion":"1.0.0""#))
    }

    @Test("Wrong configurations and environments are named")
    func wrong() throws {
        let daemon = Daemon(CNIReply(.done))
        #expect(try error(run("ADD", version: "0.2.0", daemon: daemon)).code == 1)
        #expect(try error(run("ADD", previous: nil, daemon: daemon)).code == 7)
        #expect(try error(run("ADD", keys: #","onDaemonAbsent":"perhaps""#, daemon: daemon)).code == 7)
        #expect(try error(run("ADD", keys: #","timeoutSeconds":0"#, daemon: daemon)).code == 7)
        #expect(try error(run(nil, daemon: daemon)).code == 4)
        #expect(try error(run("DANCE", daemon: daemon)).code == 4)
        let noNamespace = CNIPlugin(
            environment: [
                "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c", "CNI_NETNS": "/x", "CNI_IFNAME": "eth0",
            ], input: Array("{\"cniVersion\":\"1.0.0\",\"prevResult\":{}}".utf8), identify: { _ in nil }
        ) { (_, _) throws(CNIClient.Absent) in CNIReply(.done) }
        #expect(try error(noNamespace.run()).code == 5)
    }

    @Test(
        "A member is found as it is written",
        arguments: [
            (#"{"a":1,"prevResult":{"x":[1,{"y":"}"}]},"b":2}"#, #"{"x":[1,{"y":"}"}]}"#),
            (#"{"prevResult": "te\"xt" }"#, #""te\"xt""#),
            (#"{"nested":{"prevResult":1},"prevResult" :  12.50 }"#, "12.50"),
            (#"{"prevResult":[1,[2,"]"]]}"#, #"[1,[2,"]"]]"#),
            (#"{"prevResult":null}"#, "null"),
        ])
    func members(_ text: String, _ expected: String) {
        let found = rawMember("prevResult", of: Array(text.utf8))
        #expect(found.map { String(decoding: $0, as: UTF8.self) } == expected)
    }

    @Test(
        "Where there is no such member, or no JSON, nothing is found and nothing breaks",
        arguments: [
            "", "{", "{}", "[]", "{\"a\":{\"prevResult\":1}}", "{\"prevResult\"", "{\"prevResult\":",
            "{\"prevResult\":{",
            "\"\\", "{\"a\\",
        ])
    func noMember(_ text: String) { #expect(rawMember("prevResult", of: Array(text.utf8)) == nil) }
}

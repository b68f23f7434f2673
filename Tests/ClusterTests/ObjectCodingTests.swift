import Keys
import Testing

@testable import Cluster

@Suite struct ObjectCodingTests {
    static let endpoint =
        #"{"addresses":["10.0.0.1","fd00::1"],"node":"node-a","mode":"strict","networkNamespace":"/run/netns/a","interface":"eth0"}"#
    static let node = """
        {"id":1,"incarnation":"000102030405060708090a0b0c0d0e0f","revision":3,"endpoints":[{"name":"a","addresses":["10.0.0.1"],
        "mode":"strict","state":"ready","since":2,"until":0}],"epochs":[1],"sending":1,"applied":{}}
        """
    static let epoch =
        #"{"number":1,"wrappedDEK":"AAEC","provider":"local","kekID":"file","kekVersion":"v","notBefore":"2026-01-01T00:00:00Z","notAfter":"2026-01-02T00:00:00Z","acknowledgeBy":"2026-01-01T00:01:00Z"}"#

    func problem<Object: Checked>(_ type: Object.Type, _ text: String) -> String? {
        do {
            _ = try ObjectCoding.decode(type, from: Array(text.utf8))
            return nil
        } catch {
            return error.description
        }
    }

    func changed(_ text: String, _ old: String, _ new: String) throws -> String {
        let range = try #require(text.firstRange(of: old))
        var text = text
        text.replaceSubrange(range, with: new)
        return text
    }

    @Test func goodObjectsComeBack() throws {
        func roundTrip<Object: Checked & Equatable>(_ type: Object.Type, _ text: String) throws {
            let (object, unknown) = try ObjectCoding.decode(type, from: Array(text.utf8))
            #expect(unknown.isEmpty)
            let (again, _) = try ObjectCoding.decode(type, from: ObjectCoding.encode(object))
            #expect(again == object)
        }
        try roundTrip(EncryptedEndpoint.self, Self.endpoint)
        try roundTrip(EncryptionNode.self, Self.node)
        try roundTrip(EncryptionEpoch.self, Self.epoch)
        try roundTrip(
            Cluster.self, #"{"id":"000102030405060708090A0B0C0D0E0F","strictCIDRs":["10.0.0.0/8"],"drainSeconds":0}"#)
    }

    @Test func headersAreVisibleUnlessTheySayOtherwise() throws {
        let strict = #""mode":"strict""#
        for (written, headers) in [
            ("", Headers.visible), (#","headers":"visible""#, .visible), (#","headers":"hidden""#, .hidden),
        ] {
            let (endpoint, unknown) = try ObjectCoding.decode(
                EncryptedEndpoint.self, from: Array(changed(Self.endpoint, strict, strict + written).utf8))
            #expect(endpoint.headers == headers && unknown.isEmpty)
            let (node, alsoUnknown) = try ObjectCoding.decode(
                EncryptionNode.self, from: Array(changed(Self.node, strict, strict + written).utf8))
            #expect(node.endpoints.map(\.headers) == [headers] && alsoUnknown.isEmpty)
            for bytes in [try ObjectCoding.encode(endpoint), try ObjectCoding.encode(node)] {
                let text = String(decoding: bytes, as: UTF8.self)
                #expect(text.contains(#""headers" : "hidden""#) == (headers == .hidden))
                #expect(text.contains("headers") == (headers == .hidden))
            }
            #expect(
                try ObjectCoding.decode(EncryptedEndpoint.self, from: ObjectCoding.encode(endpoint)).object == endpoint)
            #expect(try ObjectCoding.decode(EncryptionNode.self, from: ObjectCoding.encode(node)).object == node)
        }
    }

    @Test(arguments: [
        (#""10.0.0.1""#, #""10.0.0""#, "addresses[0]: \"10.0.0\" is not an IP address"),
        (#""10.0.0.1""#, "7", "addresses[0]: expected text"),
        (#"["10.0.0.1","fd00::1"]"#, "[]", "addresses: is empty"),
        (#""fd00::1""#, #""10.0.0.1""#, "addresses: holds an address twice"),
        (#""strict""#, #""loose""#, "mode: "),
        (#""strict""#, #""strict","headers":"odd""#, "headers: "),
        (#""node-a""#, #""../etc""#, "node: \"../etc\" is no name"),
        (#""/run/netns/a""#, #""netns/a""#, "networkNamespace: \"netns/a\" is no absolute path"),
        (#""eth0""#, #""eth0/../../x""#, "interface: "),
        (#""interface":"eth0""#, #""iface":"eth0""#, "interface: is missing"),
        ("{", "[", "is not valid JSON"),
    ])
    func badEndpoints(_ old: String, _ new: String, _ expected: String) throws {
        let text = try #require(problem(EncryptedEndpoint.self, changed(Self.endpoint, old, new)))
        #expect(text.hasPrefix(expected), "\(text)")
    }

    @Test(arguments: [
        (#""id":1"#, #""id":0"#, "id: 0 is out of range; expected 1 to 16777215"),
        (#""id":1"#, #""id":-1"#, "id: -1 is out of range"),
        (#""since":2"#, #""since":2.5"#, "endpoints[0].since: 2.5 is out of range"),
        (#""id":1"#, #""id":16777216"#, "id: 16777216 is out of range"),
        (#""id":1"#, #""id":"1""#, "id: expected a whole number"),
        ("0e0f", "0e", "incarnation: \"000102030405060708090a0b0c0d0e\" is not 16 bytes"),
        (#""since":2"#, #""since":0"#, "endpoints[0].since: 0 is out of range"),
        (#""since":2"#, #""since":4"#, "endpoints[0].since: 4 is out of range"),
        (#""until":0"#, #""until":3"#, "endpoints[0].until: "),
        (#""ready""#, #""withdrawing""#, "endpoints[0].until: "),
        (#""ready""#, #""ready","headers":"odd""#, "endpoints[0].headers: "),
        (#""epochs":[1]"#, #""epochs":[0]"#, "epochs: "),
        (#""applied":{}"#, #""applied":{"b":{"incarnation":"00","revision":1}}"#, "applied.b.incarnation: "),
        (#""epochs":[1]"#, #""epochs":null"#, "epochs: is null"),
    ])
    func badNodes(_ old: String, _ new: String, _ expected: String) throws {
        let text = try #require(problem(EncryptionNode.self, changed(Self.node, old, new)))
        #expect(text.hasPrefix(expected), "\(text)")
    }

    @Test(arguments: [
        ("AAEC", "%", "wrappedDEK: is not base64"),
        ("AAEC", "", "wrappedDEK: is empty"),
        (#""number":1"#, #""number":0"#, "number: 0 means"),
        ("2026-01-02T", "2025-01-02T", "notAfter: "),
        ("2026-01-02T", "tomorrow ", "notAfter: \"tomorrow 00:00:00Z\" is not a time"),
    ])
    func badEpochs(_ old: String, _ new: String, _ expected: String) throws {
        let text = try #require(problem(EncryptionEpoch.self, changed(Self.epoch, old, new)))
        #expect(text.hasPrefix(expected), "\(text)")
    }

    @Test(arguments: ["", " ", "{", "null", "[]", "\u{0}", #"{"id":"x"}"#])
    func garbageIsNoCluster(_ text: String) {
        #expect(problem(Cluster.self, text) != nil)
    }

    @Test func clusterRangesAreChecked() {
        let text = #"{"id":"000102030405060708090a0b0c0d0e0f","strictCIDRs":[],"drainSeconds":601}"#
        #expect(problem(Cluster.self, text) == "drainSeconds: 601 is out of range; expected 0 to 600")
    }

    @Test func unknownKeysAreNamed() throws {
        let text = try changed(
            changed(Self.node, #""since":2"#, #""since":2,"sinse":3"#), #""id":1"#, #""id":1,"colour":{"a":1}"#)
        let (_, unknown) = try ObjectCoding.decode(EncryptionNode.self, from: Array(text.utf8))
        #expect(unknown == ["colour", "endpoints[0].sinse"])
    }
}

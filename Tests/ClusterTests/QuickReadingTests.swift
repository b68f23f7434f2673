import FoundationEssentials
import Keys
import Kubernetes
import Netlink
import Testing

@testable import Cluster

/// Nodes and slices are the same, read quickly or decoded.
struct QuickReadingTests {
    /// As API servers write: Swift's encoder would escape slashes, and texts with escapes are left to Codable.
    private let encoder = {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .withoutEscapingSlashes
        return encoder
    }()

    private func read<O: KubernetesObject>(_ type: O.Type, _ json: Data) -> O? {
        json.withUnsafeBytes { bytes in
            var reader = JSONReader(bytes)
            return (try? O.read(&reader)) ?? nil
        }
    }

    private func report() throws -> NodeReport {
        var node = EncryptionNode(id: 7, incarnation: .random())
        node.lanes = 4
        node.revision = 9
        node.endpoints = [
            .init(
                name: "a", addresses: [try IPAddress("10.0.0.1"), try IPAddress("fd00::1")], mode: .strict,
                state: .ready,
                since: 2),
            .init(
                name: "b", addresses: [try IPAddress("10.0.255.9")], mode: .permissive, headers: .hidden,
                state: .withdrawing, since: 1, until: 9, withdrawnAt: Timestamp(milliseconds: 1_700_000_000_123)),
        ]
        node.epochs = [1, 2]
        node.sending = 2
        node.sendingSince = Timestamp(milliseconds: 1_700_000_000_000)
        return NodeReport(node, appliedThrough: 1 << 40, notApplied: ["x"])
    }

    @Test func nodes() throws {
        var object = EncryptionNodeObject(
            name: "node-1",
            spec: .init(
                nodeID: 7,
                endpoints: [
                    .init(
                        name: "a", pod: .init(namespace: "n", name: "p", uid: "a"),
                        addresses: [try IPAddress("10.0.0.1")],
                        mode: .strict, policies: ["EncryptionPolicy/all"]),
                    .init(
                        name: "b", pod: .init(namespace: "n", name: "q", uid: "b"),
                        addresses: [try IPAddress("10.0.0.2")],
                        mode: .strict, headers: .hidden, policies: ["EncryptionPolicy/all"]),
                ]))
        object.metadata.resourceVersion = "12"
        for status in [
            nil, EncryptionNodeObject.Status(report: nil),
            EncryptionNodeObject.Status(
                report: try report(), engine: "ecb", problems: [Problem(.warning, "kms", "slow")],
                conditions: [Condition("Ready", .isTrue, reason: "Working", message: "well", at: .now())],
                heartbeat: .now(), version: "0.1.0"),
        ] {
            object.status = status
            let json = try encoder.encode(object)
            #expect(read(EncryptionNodeObject.self, json) == object)
            #expect(try JSONDecoder().decode(EncryptionNodeObject.self, from: json) == object)
        }
    }

    @Test func slices() throws {
        var slice = EncryptedEndpointSlice(
            name: "slice-1",
            spec: .init(
                sequence: 77,
                nodes: [
                    NodeEntry(
                        name: "node-1", report: try report(), incarnationAt: 3, history: [.init(revision: 9, at: 5)])
                ]))
        slice.metadata.resourceVersion = "13"
        let json = try encoder.encode(slice)
        #expect(read(EncryptedEndpointSlice.self, json) == slice)
    }

    @Test(arguments: [
        #"{"metadata":{"name":"a"}}"#,
        #"{"metadata":{"name":"a"},"spec":{"nodeID":0}}"#,
        #"{"metadata":{"name":"a"},"spec":{"nodeID":"1"}}"#,
        #"{"metadata":{"name":"a"},"spec":{"nodeID":1,"endpoints":[{"name":"a"}]}}"#,
        #"{"metadata":{"name":"a"},"spec":{"nodeID":1},"status":{"incarnation":"00"}}"#,
        #"{"metadata":{"name":"a"},"spec":{"nodeID":1},"status":{"id":1,"incarnation":"000102030405060708090a0b0c0d0e0f","endpoints":[{"name":"a","addresses":["10.0.0.256"],"mode":"strict","state":"ready","since":1,"until":0}],"revision":1}}"#,
        #"{"metadata":{"name":"a"},"spec":{"nodeID":1},"status":{"id":1,"incarnation":"000102030405060708090a0b0c0d0e0f","endpoints":[{"name":"a","addresses":["10.0.0.1"],"mode":"strict","headers":"odd","state":"ready","since":1,"until":0}],"revision":1}}"#,
        #"{"metadata":{"name":"a"},"spec":{"nodeID":1,"endpoints":[{"name":"a","pod":{"namespace":"n","name":"p","uid":"a"},"addresses":["10.0.0.1"],"mode":"strict","headers":"odd","policies":[]}]}}"#,
    ])
    func whatMakesNoSenseIsLeftToCodable(_ json: String) {
        #expect(read(EncryptionNodeObject.self, Data(json.utf8)) == nil)
    }

    /// What was written before there were other headers, and what goes on being written where they are visible.
    @Test func headersThatAreNotThereAreVisible() throws {
        func object(_ headers: String) -> Data {
            let name = #""name":"a","addresses":["10.0.0.1"],"mode":"strict"\#(headers)"#
            let pod = #""pod":{"namespace":"n","name":"p","uid":"a"},"policies":[]"#
            return Data(
                #"{"metadata":{"name":"a"},"spec":{"nodeID":1,"endpoints":[{\#(name),\#(pod)}]},"status":{"id":1,"incarnation":"000102030405060708090a0b0c0d0e0f","endpoints":[{\#(name),"state":"ready","since":1,"until":0}],"revision":1}}"#
                    .utf8)
        }
        for (text, headers) in [
            ("", Headers.visible), (#","headers":"visible""#, .visible), (#","headers":"hidden""#, .hidden),
        ] {
            let quick = read(EncryptionNodeObject.self, object(text))
            let decoded = try JSONDecoder().decode(EncryptionNodeObject.self, from: object(text))
            #expect(quick == decoded)
            #expect(decoded.spec?.endpoints.map(\.headers) == [headers])
            #expect(decoded.status?.report?.endpoints.map(\.headers) == [headers])
            let written = String(decoding: try encoder.encode(decoded), as: UTF8.self)
            #expect(written.contains("headers") == (headers == .hidden))
        }
        // One that is not known: as with a mode, the status is not taken, and the problem names it.
        let odd = try JSONDecoder().decode(EncryptionNodeObject.self, from: object(#","headers":"odd""#))
        #expect(odd.spec == nil && odd.status?.report == nil)
        #expect(odd.unreadable?.contains("headers") == true, "\(odd.unreadable ?? "")")
    }

    /// Every node has those of all others.
    @Test func publishedEndpointsAreSmall() {
        #expect(MemoryLayout<EncryptionNode.PublishedEndpoint>.stride == 80)
    }

    @Test(arguments: ["0.0.0.0", "10.1.2.3", "255.255.255.255", "fd00::1", "::"])
    func addresses(_ text: String) throws {
        let address = Array(text.utf8).withUnsafeBytes { IPAddress(ascii: $0) }
        #expect(try address == IPAddress(text))
        #expect(address?.description == text)
    }

    @Test(arguments: [
        "", ".", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.256", "1..2.3", "1.2.3.4 ", "::ffff:10.0.0.1", "x",
    ])
    func noAddresses(_ text: String) {
        #expect(Array(text.utf8).withUnsafeBytes { IPAddress(ascii: $0) } == nil)
    }
}

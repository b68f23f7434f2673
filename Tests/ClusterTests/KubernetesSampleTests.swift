import Foundation
import Keys
import Kubernetes
import Netlink
import Testing

@testable import Cluster

/// Objects with every field set, as Swift writes them, are the files in Tests/kube/samples, which other tests hold against the CRDs:
/// so that a field that has another name here than there is noticed.
///
/// `XE_WRITE_SAMPLES=1 swift test --filter KubernetesSampleTests` writes the files.
@Suite struct KubernetesSampleTests {
    static let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../kube/samples")
    static let time = Timestamp(milliseconds: 1_777_896_000_000)

    static func condition(_ type: String, _ status: Condition.Status, generation: Int64? = 3) -> Condition {
        Condition(
            type, status, reason: "SomeReason", message: "What holds, and what to do.", at: time,
            observedGeneration: generation)
    }

    static func address(_ text: String) throws -> IPAddress { try IPAddress(text) }

    static func report() throws -> NodeReport {
        let incarnation = try #require(Incarnation(bytes: Array(0..<16)))
        var node = EncryptionNode(id: 16_777_215, incarnation: incarnation)
        node.lanes = 64
        node.revision = 4_294_967_295
        node.endpoints = [
            .init(
                name: "5d0d8a2e-6b0f-4c5e-9d2b-0f6f0f3c9a01",
                addresses: [try address("10.244.1.7"), try address("fd00:244:1::7")],
                mode: .strict, headers: .hidden, state: .ready, since: 7),
            .init(
                name: "5d0d8a2e-6b0f-4c5e-9d2b-0f6f0f3c9a02", addresses: [try address("::")], mode: .permissive,
                state: .withdrawing, since: 1, until: 8, withdrawnAt: time),
        ]
        node.epochs = [1, 4_294_967_295]
        node.sending = 1
        node.sendingSince = time
        return NodeReport(
            node, appliedThrough: 9_007_199_254_740_991, notApplied: ["ip-10-0-0-1.eu-central-1.compute.internal"])
    }

    static func policies() -> [EncryptionPolicy] {
        var full = EncryptionPolicy(
            name: "payments",
            spec: .init(
                namespaceSelector: LabelSelector(
                    matchLabels: ["kubernetes.io/metadata.name": "payments"],
                    matchExpressions: [.init(key: "tier", operator: "In", values: ["front", "back"])]),
                podSelector: LabelSelector(
                    matchLabels: ["app": "card"],
                    matchExpressions: [
                        .init(key: "canary", operator: "DoesNotExist"),
                        .init(key: "zone", operator: "NotIn", values: ["x"]),
                    ]),
                mode: "strict", headers: "hidden", strictCIDRs: ["10.244.0.0/16", "fd00:244::/32"], enforced: true))
        full.status = .init(
            observedGeneration: 3, selectedPods: 12, protectedPods: 11,
            conditions: [
                condition("Accepted", .isTrue), condition("Enforcing", .isFalse),
                condition("ServiceTranslation", .unknown),
                condition("Conflict", .isFalse),
            ])
        return [full, EncryptionPolicy(name: "all", spec: .init())]
    }

    static func nodes() throws -> [EncryptionNodeObject] {
        var full = EncryptionNodeObject(
            name: "ip-10-0-0-1.eu-central-1.compute.internal",
            spec: .init(
                nodeID: 1,
                endpoints: [
                    .init(
                        name: "5d0d8a2e-6b0f-4c5e-9d2b-0f6f0f3c9a01",
                        pod: .init(namespace: "shop", name: "reviews-0", uid: "5d0d8a2e-6b0f-4c5e-9d2b-0f6f0f3c9a01"),
                        addresses: [try address("10.244.1.7"), try address("fd00:244:1::7")], mode: .strict,
                        headers: .hidden, policies: ["EncryptionPolicy/payments", "VirtualService/shop/reviews"])
                ]))
        full.status = .init(
            report: try report(), engine: "ecb",
            problems: [Problem(.error, "kms", "denied"), Problem(.warning, "endpoints/x.json", "is not there")],
            conditions: [condition("Ready", .isFalse)], heartbeat: time, version: "0.1.0")
        // One whose kernel cannot do it has nothing to report but that.
        var old = EncryptionNodeObject(name: "old", spec: .init(nodeID: 2))
        old.status = .init(report: nil, conditions: [condition("Ready", .isFalse, generation: nil)])
        return [full, old, EncryptionNodeObject(name: "new", spec: .init(nodeID: 3))]
    }

    static func epochs() -> [EncryptionEpochObject] {
        [EpochDecision.State.waiting, .prepared, .active, .retiring, .ended, .expired].enumerated().map {
            index, state in
            let number = Epoch(index + 1)
            var object = EncryptionEpochObject(
                EncryptionEpoch(
                    number: number, wrappedDEK: Base64(Array(0..<200)),
                    provider: ["local", "aws", "gcp", "azure", "openbao"][index % 5],
                    kekID: "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
                    kekVersion: "rotation-1", notBefore: time, notAfter: time.adding(seconds: 86_400),
                    acknowledgeBy: time.adding(seconds: 60)))
            object.metadata.annotations = [
                EncryptionEpochObject.clusterIDAnnotation: "000102030405060708090a0b0c0d0e0f"
            ]
            object.status = .init(
                phase: state, acknowledged: 3, nodes: 4, missing: ["node-d"],
                conditions: [condition("Acknowledged", .isFalse)])
            return object
        }
    }

    static func slices() throws -> [EncryptedEndpointSlice] {
        [
            EncryptedEndpointSlice(
                name: "slice-1",
                spec: .init(
                    sequence: 42,
                    nodes: [
                        NodeEntry(
                            name: "node-a", report: try report(), incarnationAt: 40,
                            history: [.init(revision: 3, at: 40), .init(revision: 4, at: 42)]),
                        NodeEntry(
                            name: "node-b",
                            report: NodeReport(
                                EncryptionNode(id: 2, incarnation: try #require(Incarnation(bytes: Array(1...16))))),
                            incarnationAt: 41, history: []),
                    ])),
            EncryptedEndpointSlice(name: "slice-2", spec: .init(sequence: 1, nodes: [])),
            EncryptedEndpointSlice(name: "changes-43", spec: .init(sequence: 43, changes: try changes())),
        ]
    }

    static func changes() throws -> [NodeChange] {
        var report = try report()
        report.revision = 8
        let before = NodeEntry(name: "node-a", report: report, incarnationAt: 40, history: [])
        report.revision += 1
        report.endpoints.removeFirst()
        report.endpoints.append(
            .init(
                name: "z", addresses: [try IPAddress("10.9.9.9")], mode: .permissive, headers: .hidden,
                state: .withdrawing,
                since: 1, until: report.revision, withdrawnAt: time))
        report.epochs.append(9)
        report.sending = 9
        report.appliedThrough = 42
        report.notApplied = ["node-c"]
        var whole = NodeChange(name: "node-b", after: 42)
        whole.revision = 1
        whole.isWholeList = true
        whole.endpoints = [
            .init(name: "a", addresses: [try IPAddress("fd00::9")], mode: .strict, state: .ready, since: 1)
        ]
        return [try #require(NodeChange(before, after: 42, to: report)), whole]
    }

    /// As the client sends them: with their kind.
    static func text<Object: KubernetesObject>(_ objects: [Object]) throws -> String {
        let encoder = JSONEncoder()
        let whole = try objects.map { object in
            var value = try #require(
                JSONSerialization.jsonObject(with: encoder.encode(object)) as? [String: Any])
            value["apiVersion"] = Object.resource.apiVersion
            value["kind"] = Object.resource.kind
            return value
        }
        let data = try JSONSerialization.data(
            withJSONObject: whole, options: [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes])
        return String(decoding: data, as: UTF8.self) + "\n"
    }

    func compare<Object: KubernetesObject & Equatable>(_ objects: [Object]) throws {
        let text = try Self.text(objects)
        let file = Self.folder.appending(path: "\(Object.resource.plural).json")
        if ProcessInfo.processInfo.environment["XE_WRITE_SAMPLES"] != nil {
            try FileManager.default.createDirectory(at: Self.folder, withIntermediateDirectories: true)
            try Data(text.utf8).write(to: file)
        }
        let there = try Data(contentsOf: file)
        #expect(
            String(decoding: there, as: UTF8.self) == text, "run it with XE_WRITE_SAMPLES=1, then make check-deploy")
        #expect(try JSONDecoder().decode([Object].self, from: there) == objects)
    }

    @Test func policiesAreAsInTheirFile() throws { try compare(Self.policies()) }
    @Test func nodesAreAsInTheirFile() throws { try compare(try Self.nodes()) }
    @Test func epochsAreAsInTheirFile() throws { try compare(Self.epochs()) }
    @Test func slicesAreAsInTheirFile() throws { try compare(try Self.slices()) }

    @Test func namesOfNodesMayBeAsLongAsInKubernetes() throws {
        for (length, isRead) in [(1, true), (253, true), (254, false)] {
            var slice = try #require(try Self.slices().first)
            slice.spec?.nodes[0].name = String(repeating: "n", count: length)
            let read = try JSONDecoder().decode(EncryptedEndpointSlice.self, from: JSONEncoder().encode(slice))
            #expect((read.spec != nil) == isRead, "\(length): \(read.unreadable ?? "")")
        }
    }
}

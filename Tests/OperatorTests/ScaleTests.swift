import Cluster
import Foundation
import Keys
import Kubernetes
import Netlink
import Testing

@testable import Operator

/// The pure part at size: 5,000 nodes and 100,000 pods with `XE_SCALE_FULL=1`, a tenth of it otherwise. Prints time and memory.
@Suite(.serialized) struct ScaleTests {
    static let scale = ProcessInfo.processInfo.environment["XE_SCALE_FULL"] == nil ? 10 : 1
    static let nodes = 5000 / scale
    static let pods = 100_000 / scale
    /// Looked at together: what comes in a second.
    static let churn = 2000 / scale

    private static var residentMiB: Int {
        let data = FileHandle(forReadingAtPath: "/proc/self/statm")?.readDataToEndOfFile() ?? Data()
        let fields = String(decoding: data, as: UTF8.self).split(separator: " ")
        return fields.count > 1 ? (Int(fields[1]) ?? 0) / 256 : 0
    }

    private static func makePod(_ number: Int, generation: Int = 0) -> Pod {
        // 50 pods a ReplicaSet, with the labels that one has; names and uids as they are in life.
        let app = number / 50
        let suffix = String(number &* 2_654_435_761 &+ generation, radix: 36).suffix(5)
        let uid = UUID().uuidString.lowercased()
        let address = "10.\(number >> 16 & 255).\(number >> 8 & 255).\(number & 255)"
        return pod(
            "team-\(app % 40)/service-\(app)-7d9f8b6c5d-\(suffix)",
            node: "ip-10-1-\(number % nodes / 256)-\(number % nodes % 256).internal",
            ips: [address],
            labels: [
                "app": "service-\(app)", "app.kubernetes.io/part-of": "shop", "pod-template-hash": "7d9f8b6c5d",
                "version": "v\(app % 3)",
            ], uid: uid, version: "\(1_000_000 + number)")
    }

    private static func time<T>(_ what: String, _ body: () throws -> T) rethrows -> T {
        let begin = ContinuousClock.now
        defer {
            print("scale: \(what): \(ContinuousClock.now - begin), resident \(residentMiB) MiB")
        }
        return try body()
    }

    @Test func manyPods() throws {
        let before = Self.residentMiB
        var inventory = Inventory()
        Self.time("\(Self.pods) pods, \(Self.nodes) nodes put in") {
            for number in 0..<Self.nodes {
                inventory.put(
                    node("ip-10-1-\(number / 256)-\(number % 256).internal", "172.16.\(number / 256).\(number % 256)"))
            }
            for team in 0..<40 {
                var metadata = ObjectMeta(name: "team-\(team)")
                metadata.labels = ["kubernetes.io/metadata.name": "team-\(team)", "tier": team % 2 == 0 ? "a" : "b"]
                inventory.put(Namespace(metadata: metadata))
            }
            for app in 0..<Self.pods / 50 {
                inventory.put(
                    Service(
                        metadata: meta("team-\(app % 40)/service-\(app)"),
                        spec: .init(selector: ["app": "service-\(app)"])))
                if app % 4 == 0 {
                    var spec = VirtualService.Spec(hosts: ["service-\(app)"])
                    spec.http = [.init(route: [.init(.init(host: "service-\(app)"))])]
                    inventory.put(VirtualService(metadata: meta("team-\(app % 40)/service-\(app)"), spec: spec))
                }
            }
            inventory.put(policy("tier-a", .init(namespaceSelector: .init(matchLabels: ["tier": "a"]))))
            inventory.put(policy("all", .init(mode: "permissive")))
            for number in 0..<Self.pods {
                inventory.put(Self.makePod(number))
            }
            inventory.setAllSynced()
        }
        Self.time("EndpointSlices put in") {
            for app in 0..<Self.pods / 50 {
                let keys = (0..<50).map { Self.makePod(app * 50 + $0).metadata.name }
                inventory.put(
                    EndpointSlice(
                        metadata: meta(
                            "team-\(app % 40)/service-\(app)-x", labels: [EndpointSlice.serviceLabel: "service-\(app)"]),
                        addressType: "IPv4",
                        endpoints: keys.map { .init(targetRef: .init(kind: "Pod", namespace: nil, name: $0)) }))
            }
        }
        Self.time("first settling") { _ = inventory.settle() }
        #expect(inventory.pods.values.allSatisfy { $0.decision.mode != nil })

        var book = SliceBook()
        Self.time("endpoints of all nodes, and slices of what they say") {
            for number in 0..<Self.nodes {
                let name = "ip-10-1-\(number / 256)-\(number % 256).internal"
                var node = EncryptionNode(id: NodeID(number + 1), incarnation: .random())
                node.revision = 1
                let wanted = inventory.wantedEndpoints(name)
                node.endpoints = wanted.map {
                    .init(name: $0.name, addresses: $0.addresses, mode: $0.mode, state: .ready, since: 1)
                }
                var object = EncryptionNodeObject(
                    name: name, spec: .init(nodeID: NodeID(number + 1), endpoints: wanted))
                object.status = .init(report: NodeReport(node))
                inventory.put(object)
                book.update(name, inventory.encryptionNodes[name]?.report)
            }
            for name in book.due(withAcknowledgements: true) {
                let spec = book.draft(name)
                book.written(name, spec, resourceVersion: "1")
            }
        }
        #expect(book.count <= Self.pods / 500)
        _ = inventory.settle()
        Self.time("a policy changes: all pods again") {
            inventory.put(policy("all", .init(mode: "strict")))
            _ = inventory.settle()
        }
        Self.time("statuses of policies") {
            _ = PolicyStatusPlan.plan(
                inventory, translation: .judge(ServiceProxies(), attachMode: .pod, socketLoadBalancing: false),
                now: .now())
        }
        var most = Duration.zero
        for second in 1...10 {
            let pods = (0..<Self.churn).map { Self.makePod((second * 7919 + $0 * 31) % Self.pods, generation: 0) }
            let begin = ContinuousClock.now
            for pod in pods { inventory.put(pod) }
            let changes = inventory.settle()
            for key in changes.pods { _ = inventory.annotationPlan(key, mayLift: true) }
            var bytes = 0
            for name in changes.nodes where inventory.nodePlan(name) == .write {
                let body = JSONWriter.patch(resourceVersion: "1") { writer in
                    writer.key("spec")
                    writer.spec(inventory.wantedEndpoints(name))
                }
                bytes += body.count
            }
            most = max(most, ContinuousClock.now - begin)
        }
        print(
            "scale: \(Self.churn) pods change, planned and written as JSON: \(most) at most of ten, resident \(Self.residentMiB) MiB"
        )
        print("scale: resident \(Self.residentMiB - before) MiB more than before")
        #expect(Self.residentMiB - before < 300)
        withExtendedLifetime((inventory, book)) {}
    }

}

import Cluster
import Foundation
import Keys
import Kubernetes
import Synchronization
import Testing

@testable import Operator

/// Answers that arrive after the watch has told of something newer: they must not put the past back, because the watch tells nothing
/// twice.
extension ReconcilerTests {
    /// Does something once, between the first request of its sort being carried out and its answer.
    private func during(
        _ verb: String, _ plural: String, _ name: String? = nil, skipping: Int = 0, in world: World,
        _ body: @escaping @Sendable () async throws -> Void
    ) {
        let left = Mutex(skipping + 1)
        world.api.setSlow { request in
            guard request.verb == verb, request.plural == plural, name == nil || request.key?.name == name else {
                return
            }
            let isTurn = left.withLock { left in
                left -= 1
                return left == 0
            }
            guard isTurn else { return }
            do { try await body() } catch { Issue.record(error) }
        }
    }

    private func endpoints(_ world: World) throws -> [EncryptionNodeObject.Endpoint] {
        try world.api.all(EncryptionNodeObject.self).values.flatMap { $0.spec?.endpoints ?? [] }
    }

    /// A cluster in which everything is asked for, and nothing is there yet but the node.
    private func world() throws -> World {
        let world = try World()
        try world.api.put(node("node-a", "192.168.0.10"))
        try world.api.put(policy("all", .init()))
        return world
    }

    /// What a keymgr would say that publishes nothing.
    private func report(_ world: World, _ name: String, revision: UInt32) throws {
        var object = try #require(try world.api.find(EncryptionNodeObject.self, ObjectKey(name: name)))
        var own = EncryptionNode(id: object.spec?.nodeID ?? 1, incarnation: .random())
        own.revision = revision
        object.status = .init(report: NodeReport(own, appliedThrough: 0))
        try world.api.put(object)
    }

    private func revisions(_ world: World) throws -> [UInt32] {
        try world.api.all(EncryptedEndpointSlice.self).values.flatMap { $0.spec?.nodes ?? [] }.map(\.report.revision)
    }

    @Test func aPodThatGetsItsAddressesWhileItIsAnnotated() async throws {
        let world = try world()
        during("patch", "pods", in: world) {
            var pod = try #require(try world.api.find(Pod.self, key("shop/web")))
            pod.status = .init(phase: "Running", podIPs: [.init(ip: "10.244.1.5")])
            try world.api.put(pod)
            await world.api.delivery(of: Pod.self)
        }
        _ = world.lead()
        try await eventually("node") { try world.api.all(EncryptionNodeObject.self).count == 1 }
        try world.api.put(pod("shop/web", phase: "Pending"))
        try await eventually("wanted") { try wanted(world) == ["shop/web"] }
        await world.stop()
    }

    @Test func aPodThatIsReplacedWhileItIsAnnotated() async throws {
        let world = try world()
        during("patch", "pods", in: world) {
            world.api.remove(Pod.self, key("shop/web"))
            try world.api.put(pod("shop/web", ips: ["10.244.1.5"], uid: "second"))
            await world.api.delivery(of: Pod.self)
        }
        _ = world.lead()
        try world.api.put(pod("shop/web", ips: ["10.244.1.5"], uid: "first"))
        try await eventually("wanted") { try endpoints(world).map(\.name) == ["second"] }
        try await Task.sleep(for: .milliseconds(100))
        #expect(try endpoints(world).map(\.name) == ["second"])
        await world.stop()
    }

    @Test func aPodThatEndsWhileItIsAnnotated() async throws {
        let world = try world()
        during("patch", "pods", in: world) {
            world.api.remove(Pod.self, key("shop/web"))
            await world.api.delivery(of: Pod.self)
        }
        let (hub, _, _) = world.lead()
        try world.api.put(pod("shop/web", ips: ["10.244.1.5"]))
        try await eventually("annotated") { world.api.log.contains { $0.verb == "patch" && $0.plural == "pods" } }
        try world.api.put(pod("shop/other", ips: ["10.244.1.6"]))
        try await eventually("wanted") { try wanted(world) == ["shop/other"] }
        #expect(await hub.numbers.pods == 1)
        await world.stop()
    }

    @Test func aNodeThatReportsWhileItsEndpointsAreWritten() async throws {
        let world = try world()
        during("patch", "encryptionnodes", in: world) {
            try report(world, "node-a", revision: 7)
            await world.api.delivery(of: EncryptionNodeObject.self)
        }
        _ = world.lead()
        try await eventually("node") { try world.api.all(EncryptionNodeObject.self).count == 1 }
        try report(world, "node-a", revision: 6)
        try await eventually("told") { try revisions(world) == [6] }
        try world.api.put(pod("shop/web", ips: ["10.244.1.5"]))
        try await eventually("told") { try revisions(world) == [7] }
        try await Task.sleep(for: .milliseconds(100))
        #expect(try revisions(world) == [7])
        await world.stop()
    }

    @Test func aNodeThatReportsWhileItIsMade() async throws {
        let world = try world()
        during("create", "encryptionnodes", in: world) {
            try report(world, "node-a", revision: 7)
            await world.api.delivery(of: EncryptionNodeObject.self)
        }
        let (hub, _, _) = world.lead()
        try await eventually("told") { try revisions(world) == [7] }
        try await Task.sleep(for: .milliseconds(100))
        #expect(await hub.reports["node-a"]?.revision == 7)
        await world.stop()
    }

    @Test func aNodeThatReportsWhileALeaderReadsThemAll() async throws {
        let world = try world()
        let object = EncryptionNodeObject(name: "node-a", spec: .init(nodeID: 1))
        try world.api.put(object)
        try report(world, "node-a", revision: 6)
        // The first list is the reflector's.
        during("list", "encryptionnodes", skipping: 1, in: world) {
            try report(world, "node-a", revision: 7)
            await world.api.delivery(of: EncryptionNodeObject.self)
        }
        _ = world.lead()
        try await eventually("told") { try revisions(world) == [7] }
        await world.stop()
    }

    @Test func anAnswerCountsOnlyOverWhatItWasAskedFor() async throws {
        let hub = Hub(clusterDomain: "cluster.local", clock: .system)
        await hub.handle(Reflector<EncryptionPolicy>.Event.applied(policy("all", .init())))
        /// The uid and the version of the pod that the hub would annotate.
        func seen() async throws -> String? {
            _ = await hub.settle()
            guard let body = await hub.annotationPatch(key("shop/web"))?.body else { return nil }
            let patch = try JSONSerialization.jsonObject(with: Data(body)) as? [String: [String: Any]]
            let metadata = try #require(patch?["metadata"])
            return "\(metadata["uid"] ?? "") \(metadata["resourceVersion"] ?? "")"
        }
        func at(_ version: String, uid: String = "a") -> Pod {
            pod("shop/web", ips: ["10.0.0.1"], uid: uid, version: version)
        }
        // Nothing is known, and nothing has gone: it counts.
        var before = await hub.witness(.pods, key("shop/web"))
        await hub.put(at("1"), since: before)
        #expect(try await seen() == "a 1")
        // What was seen has not changed: it counts.
        before = await hub.witness(.pods, key("shop/web"))
        await hub.put(at("2"), since: before)
        #expect(try await seen() == "a 2")
        // It has changed meanwhile.
        await hub.put(at("3"), since: before)
        #expect(try await seen() == "a 2")
        // Another one has taken its place, whatever its version.
        before = await hub.witness(.pods, key("shop/web"))
        await hub.handle(Reflector<Pod>.Event.applied(at("2", uid: "b")))
        await hub.put(at("5"), since: before)
        #expect(try await seen() == "b 2")
        // It was not known, came and went: that it is not known does not mean that nothing has happened.
        await hub.handle(Reflector<Pod>.Event.deleted(key("shop/web"), uid: "b"))
        before = await hub.witness(.pods, key("shop/web"))
        await hub.handle(Reflector<Pod>.Event.applied(at("6", uid: "c")))
        await hub.handle(Reflector<Pod>.Event.deleted(key("shop/web"), uid: "c"))
        await hub.put(at("6", uid: "c"), since: before)
        #expect(try await seen() == nil)
        // A kind of which no versions are kept takes no answers at all.
        let service = await hub.witness(.services, key("shop/web"))
        #expect(service == nil)
    }
}

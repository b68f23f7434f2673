import Cluster
import Kubernetes
import Netlink
import Testing

@testable import Operator

/// Nothing is lifted on half of what there is.
@Suite struct HoldTests {
    private func endpoint(_ pod: String, _ address: String, mode: Mode = .strict, headers: Headers = .visible) throws
        -> EncryptionNodeObject.Endpoint
    {
        let key = key(pod)
        let namespace = key.namespace ?? ""
        let uid = "uid-\(namespace)-\(key.name)"
        return .init(
            name: uid, pod: .init(namespace: namespace, name: key.name, uid: uid),
            addresses: [try IPAddress(address)], mode: mode, headers: headers, policies: ["EncryptionPolicy/x"])
    }

    @Test(arguments: WatchedKind.allCases)
    func everyKindThatCanAskHolds(kind: WatchedKind) {
        var inventory = Inventory()
        inventory.setAllSynced()
        #expect(inventory.holds.isEmpty)
        inventory.kinds[kind]?.isSynced = false
        #expect(inventory.holds.isEmpty == !kind.canAsk)
        inventory.setAllSynced()
        inventory.kinds[kind]?.failure = "the API server is gone"
        #expect(inventory.holds.isEmpty == !kind.canAsk)
        // No such kind, for good.
        inventory.setAbsent(kind)
        #expect(inventory.holds.isEmpty)
        // It is there again: unknown until it was listed.
        inventory.setServed(kind)
        #expect(inventory.holds.isEmpty == !kind.canAsk)
    }

    @Test func whatIsThereStaysWhileSomethingIsNotKnown() throws {
        var inventory = Inventory()
        inventory.put(node("node-a", "192.168.0.10"))
        inventory.put(policy("p", .init(podSelector: .init(matchLabels: ["app": "a"]), mode: "permissive")))
        inventory.put(pod("shop/a", ips: ["10.0.0.1"], labels: ["app": "a"]))
        inventory.put(pod("shop/b", ips: ["10.0.0.2"]))
        inventory.put(pod("shop/c", ips: ["10.0.0.3"], phase: "Failed"))
        inventory.put(pod("shop/d", ips: ["10.0.0.4"], uid: "another"))
        inventory.setAllSynced()
        inventory.kinds[.virtualServices]?.failure = "forbidden"
        _ = inventory.settle()
        let existing = try [
            endpoint("shop/a", "10.0.0.1", headers: .hidden), endpoint("shop/b", "10.0.0.2"),
            endpoint("shop/c", "10.0.0.3"),
            endpoint("shop/d", "10.0.0.4"), endpoint("shop/e", "10.0.0.5"),
        ]
        let held = inventory.heldEndpoints("node-a", existing: existing)
        // a: as strict and as hidden as it was. b: nobody asks, but nobody knows. c, d, e: pods that have surely ended.
        #expect(held.map(\.name) == ["uid-shop-a", "uid-shop-b"])
        #expect(held.map(\.mode) == [.strict, .strict])
        #expect(held.map(\.headers) == [.hidden, .visible])
        // When not even pods are known, everything stays.
        inventory.kinds[.pods]?.failure = "gone"
        #expect(inventory.heldEndpoints("node-a", existing: existing).count == 5)
        // When everything is known, what is asked for is what counts.
        inventory.setAllSynced()
        #expect(inventory.wantedEndpoints("node-a").map(\.name) == ["uid-shop-a"])
        #expect(inventory.wantedEndpoints("node-a").map(\.mode) == [.permissive])
        #expect(inventory.wantedEndpoints("node-a").map(\.headers) == [.visible])
    }

    @Test func aMeshThatCannotBeReadDoesNotStopTheRest() {
        var inventory = Inventory()
        inventory.setAllSynced()
        #expect(inventory.isSynced)
        inventory.kinds[.virtualServices] = KindState()
        #expect(!inventory.isSynced)
        inventory.kinds[.virtualServices]?.failure = "forbidden"
        #expect(inventory.isSynced)
        #expect(!inventory.holds.isEmpty)
        inventory.kinds[.policies] = KindState()
        inventory.kinds[.policies]?.failure = "forbidden"
        #expect(!inventory.isSynced)
    }

    @Test func whatIsAskedForIsAddedMeanwhile() {
        var inventory = Inventory()
        inventory.put(policy("p", .init()))
        inventory.put(pod("shop/a", ips: ["10.0.0.1"]))
        _ = inventory.settle()
        #expect(!inventory.holds.isEmpty)
        #expect(inventory.heldEndpoints("node-a", existing: []).count == 1)
        #expect(inventory.plan("shop/a", mayLift: false) != nil)
    }

    @Test func anAddressThatWentToAnotherPodIsNotHeldForTheOld() throws {
        var inventory = Inventory()
        inventory.put(policy("p", .init(podSelector: .init(matchLabels: ["app": "a"]))))
        inventory.put(pod("shop/new", ips: ["10.0.0.1"], labels: ["app": "a"]))
        _ = inventory.settle()
        let held = inventory.heldEndpoints("node-a", existing: [try endpoint("shop/old", "10.0.0.1")])
        #expect(held.map(\.name) == ["uid-shop-new"])
    }

    @Test func aNewListTakesAwayOnlyWhenItIsComplete() {
        var inventory = Inventory()
        func handle(_ event: Reflector<EncryptionPolicy>.Event) { inventory.handle(event) }
        inventory.put(pod("shop/a", ips: ["10.0.0.1"]))
        handle(.reset)
        handle(.listed(policy("p", .init())))
        handle(.synced)
        #expect(inventory.protected().count == 1)
        // 410, and again, and again: lists that never end.
        for _ in 0..<5 {
            handle(.failing(KubernetesError(.expired, "too old")))
            handle(.reset)
            #expect(inventory.protected().count == 1)
            #expect(!inventory.holds.isEmpty)
        }
        handle(.synced)
        #expect(inventory.protected().isEmpty)
    }

    @Test func whatCannotBeReadIsNotGone() {
        var inventory = Inventory()
        inventory.setAllSynced()
        inventory.put(pod("shop/a", ips: ["10.0.0.1"], labels: ["app": "a"]))
        func handle(_ event: Reflector<ServiceEntry>.Event) { inventory.handle(event) }
        var spec = ServiceEntry.Spec(hosts: ["x.example.com"])
        spec.workloadSelector = .init(labels: ["app": "a"])
        handle(.applied(ServiceEntry(metadata: meta("shop/x"), spec: spec)))
        #expect(inventory.protected().count == 1)
        let garbage = UndecodableObject(
            key: key("shop/x"), resourceVersion: "7", problem: "spec.hosts: expected a list")
        handle(.undecodable(garbage))
        #expect(inventory.protected().count == 1)
        #expect(inventory.holds.contains { $0.contains("shop/x") })
        handle(.reset)
        handle(.undecodable(garbage))
        handle(.synced)
        #expect(inventory.protected().count == 1)
        handle(.deleted(key("shop/x"), uid: nil))
        #expect(inventory.protected().isEmpty)
        #expect(inventory.holds.isEmpty)
    }

    /// A hub that knows everything: a node with one pod that a policy selects, as its EncryptionNode says.
    private func hub() async throws -> Hub {
        let hub = Hub(clusterDomain: "cluster.local", clock: .system)
        func list<O: Inventoried>(_ objects: O...) async {
            await hub.handle(Reflector<O>.Event.reset)
            for object in objects { await hub.handle(Reflector<O>.Event.listed(object)) }
            await hub.handle(Reflector<O>.Event.synced)
        }
        for kind in WatchedKind.allCases where kind.isOptional || kind == .endpointSlices { await hub.setAbsent(kind) }
        await list(pod("shop/a", ips: ["10.0.0.1"]))
        await list(node("node-a", "192.168.0.10"))
        await list(policy("p", .init()))
        await list(
            EncryptionNodeObject(
                name: "node-a", spec: .init(nodeID: 1, endpoints: [try endpoint("shop/a", "10.0.0.1")])))
        await hub.handle(Reflector<Service>.Event.synced)
        await hub.handle(Reflector<Namespace>.Event.synced)
        await hub.handle(Reflector<EncryptionEpochObject>.Event.synced)
        await hub.handle(slice: .synced)
        #expect(await hub.isSynced)
        #expect(await hub.holds.isEmpty)
        _ = await hub.settle(everything: true)
        return hub
    }

    private func work(_ hub: Hub) async -> String {
        switch await hub.nodeWork("node-a") {
        case .none: "none"
        case .create: "create"
        case .write(let endpoints, _): "write \(endpoints.count)"
        case .merge: "merge"
        case .remove: "remove"
        case .later: "later"
        }
    }

    @Test func whatWasHeldForAMomentThatNobodyNoticedIsLiftedAfterIt() async throws {
        let hub = try await hub()
        await hub.handle(Reflector<EncryptionPolicy>.Event.deleted(key("p"), uid: nil))
        #expect(await hub.settle().nodes == ["node-a"])
        // Its turn comes while a watch is broken, which is mended before anybody settles.
        await hub.handle(Reflector<Service>.Event.failing(KubernetesError(.network, "gone")))
        #expect(await work(hub) == "merge")
        await hub.handle(Reflector<Service>.Event.recovered)
        #expect(await hub.settle().nodes == ["node-a"])
        #expect(await work(hub) == "write 0")
        // Once is enough.
        #expect(await hub.settle().nodes.isEmpty)
    }

    @Test func aNodeThatIsGoneWhileNodesCannotBeFollowedIsLookedAtAgain() async throws {
        let hub = try await hub()
        await hub.handle(Reflector<EncryptionPolicy>.Event.deleted(key("p"), uid: nil))
        await hub.handle(Reflector<Pod>.Event.deleted(key("shop/a"), uid: nil))
        await hub.handle(Reflector<Node>.Event.deleted(key("node-a"), uid: nil))
        await hub.handle(Reflector<EncryptionNodeObject>.Event.applied(.init(name: "node-a", spec: .init(nodeID: 1))))
        _ = await hub.settle()
        await hub.handle(Reflector<Node>.Event.failing(KubernetesError(.network, "gone")))
        #expect(await work(hub) == "later")
        await hub.handle(Reflector<Node>.Event.recovered)
        #expect(await work(hub) == "remove")
    }

    @Test func nodesAreRemovedOnlyWhenThatIsSure() {
        var inventory = Inventory()
        inventory.setAllSynced()
        inventory.put(EncryptionNodeObject(name: "node-a", spec: .init(nodeID: 1)))
        inventory.put(pod("shop/a", ips: ["10.0.0.1"]))
        _ = inventory.settle()
        // Its pods are still there.
        #expect(inventory.nodePlan("node-a") == .none)
        inventory.remove(.pods, key("shop/a"))
        inventory.kinds[.nodes]?.failure = "gone"
        #expect(inventory.nodePlan("node-a") == .none)
        inventory.kinds[.nodes]?.failure = nil
        #expect(inventory.nodePlan("node-a") == .remove)
        inventory.put(node("node-a", "192.168.0.10"))
        #expect(inventory.nodePlan("node-a") == .none)
        inventory.put(node("win", "192.168.0.12", labels: ["kubernetes.io/os": "windows"]))
        #expect(inventory.nodePlan("win") == .none)
        inventory.put(node("node-b", "192.168.0.11"))
        #expect(inventory.nodePlan("node-b") == .create)
        // As long as Kubernetes allows; one that it does not would make the slice unreadable for everybody.
        for (length, plan) in [(101, NodePlan.create), (253, .create), (254, .none)] {
            let long = String(repeating: "n", count: length)
            inventory.put(node(long, "192.168.0.12"))
            #expect(inventory.nodePlan(long) == plan, "\(length)")
        }
    }
}

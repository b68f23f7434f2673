import Cluster
import Kubernetes
import Netlink
import Testing

@testable import Operator

/// Which addresses an endpoint has, and whose they are.
@Suite struct AddressTests {
    private func inventory(_ pods: [Pod]) -> Inventory {
        var inventory = Inventory()
        inventory.put(node("node-a", "192.168.0.10"))
        inventory.put(node("node-b", "192.168.0.11"))
        inventory.put(policy("all", .init()))
        for pod in pods { inventory.put(pod) }
        inventory.setAllSynced()
        _ = inventory.settle()
        return inventory
    }

    private func endpoints(_ inventory: Inventory, _ node: String) -> [String: [String]] {
        inventory.wantedEndpoints(node).reduce(into: [:]) { $0[$1.name] = $1.addresses.map(\.description) }
    }

    @Test func bothFamiliesInOrderAndNothingLinkLocal() {
        let inventory = inventory([pod("shop/a", ips: ["fd00::1", "10.244.1.1", "fe80::1"])])
        #expect(endpoints(inventory, "node-a") == ["uid-shop-a": ["10.244.1.1", "fd00::1"]])
    }

    @Test func podsWithoutAddressOrNodeWait() {
        let inventory = inventory([pod("shop/a"), pod("shop/b", node: nil, ips: ["10.244.1.1"])])
        #expect(endpoints(inventory, "node-a").isEmpty)
        // But the annotation is there as soon as the pod is, for the CNI plugin.
        #expect(inventory.plan("shop/a") != nil)
    }

    @Test func finishedPodsLeave() {
        var inventory = inventory([pod("shop/a", ips: ["10.244.1.1"])])
        #expect(endpoints(inventory, "node-a").count == 1)
        inventory.put(pod("shop/a", ips: ["10.244.1.1"], phase: "Succeeded"))
        let changes = inventory.settle()
        #expect(changes.nodes == ["node-a"])
        #expect(endpoints(inventory, "node-a").isEmpty)
    }

    @Test func addressesOfNodesAreNobodysOwn() {
        var inventory = inventory([pod("shop/a", ips: ["192.168.0.10"]), pod("shop/b", ips: ["10.244.1.200"])])
        #expect(endpoints(inventory, "node-a") == ["uid-shop-b": ["10.244.1.200"]])
        inventory.put(
            CiliumNode(
                metadata: ObjectMeta(name: "node-a"),
                spec: .init(addresses: [.init(type: "CiliumInternalIP", ip: "10.244.1.200")])))
        #expect(inventory.settle().nodes.contains("node-a"))
        #expect(endpoints(inventory, "node-a").isEmpty)
        #expect(inventory.addressProblems(key("shop/b"), inventory.pods[key("shop/b")]!.facts).count == 1)
    }

    @Test func anAddressThatIsUsedAgainGoesToTheNewPod() {
        // The old pod is still there, its node does not answer any more; the new one has its address.
        var inventory = inventory([
            pod("shop/old", ips: ["10.244.1.1", "fd00::1"], uid: "old", deleted: true),
            pod("shop/new", node: "node-b", ips: ["10.244.1.1"], uid: "new", created: "2026-05-04T13:00:00Z"),
        ])
        #expect(endpoints(inventory, "node-a") == ["old": ["fd00::1"]])
        #expect(endpoints(inventory, "node-b") == ["new": ["10.244.1.1"]])
        // When the new one ends, the old one has it still.
        inventory.remove(.pods, key("shop/new"))
        #expect(inventory.settle().nodes.contains("node-a"))
        #expect(endpoints(inventory, "node-a") == ["old": ["10.244.1.1", "fd00::1"]])
    }

    @Test func aNewPodOfTheSameNameIsAnotherEndpoint() {
        var inventory = inventory([pod("shop/db-0", ips: ["10.244.1.1"], uid: "first")])
        inventory.put(pod("shop/db-0", node: "node-b", ips: ["10.244.2.1"], uid: "second"))
        let changes = inventory.settle()
        #expect(changes.nodes == ["node-a", "node-b"])
        #expect(endpoints(inventory, "node-a").isEmpty)
        #expect(endpoints(inventory, "node-b") == ["second": ["10.244.2.1"]])
        // News of the first one's end come late.
        inventory.handle(Reflector<Pod>.Event.deleted(key("shop/db-0"), uid: "first"))
        _ = inventory.settle()
        #expect(endpoints(inventory, "node-b").count == 1)
    }

    @Test func twoLivePodsWithOneAddressAreBothHeldAndReported() {
        let inventory = inventory([
            pod("shop/a", ips: ["10.244.1.1"]), pod("shop/b", node: "node-b", ips: ["10.244.1.1"]),
        ])
        #expect(endpoints(inventory, "node-a") == ["uid-shop-a": ["10.244.1.1"]])
        #expect(endpoints(inventory, "node-b") == ["uid-shop-b": ["10.244.1.1"]])
        let statuses = PolicyStatusPlan.plan(
            inventory, translation: .judge(ServiceProxies(), attachMode: .pod, socketLoadBalancing: false), now: .now())
        let enforcing = statuses["all"]?.conditions?.first { $0.type == "Enforcing" }
        #expect(enforcing?.status == .isFalse)
        #expect(enforcing?.reason == "AddressConflict")
        #expect(enforcing?.message.contains("shop/a and shop/b") == true)
    }

    @Test func ciliumEndpoints() throws {
        var inventory = try Fixture("mesh").inventory()
        inventory.put(policy("all", .init()))
        try Fixture("cilium").put(into: &inventory)
        _ = inventory.settle()
        let first = inventory.wantedEndpoints("node-a").reduce(into: [:]) {
            $0[$1.name] = $1.addresses.map(\.description)
        }
        #expect(first["uid-cart-v1"] == ["10.244.1.1", "10.245.0.1", "fd00::1:1"])
        // Another pod's own word counts more than an endpoint that may be old.
        #expect(first["uid-catalog-1"] == ["10.244.1.2"])
        // An endpoint of the pod before counts for nothing.
        let second = inventory.wantedEndpoints("node-b").reduce(into: [:]) {
            $0[$1.name] = $1.addresses.map(\.description)
        }
        #expect(second["uid-ledger-0"] == ["10.244.2.2"])
        inventory.remove(.ciliumEndpoints, key("shop/cart-v1"))
        #expect(inventory.settle().nodes.contains("node-a"))
        #expect(
            inventory.wantedEndpoints("node-a").first { $0.name == "uid-cart-v1" }?.addresses.count == 2)
    }
}

import Cluster
import Kubernetes
import Netlink
import Testing

@testable import Operator

/// Hosts of mesh resources to services to pods, in the shapes of Istio's documentation.
@Suite struct MeshResolutionTests {
    private func virtual(
        _ name: String, hosts: [String], to destinations: [VirtualService.Destination], gateways: [String]? = nil,
        exportTo: [String]? = nil
    ) -> VirtualService {
        var spec = VirtualService.Spec(hosts: hosts)
        spec.gateways = gateways
        spec.exportTo = exportTo
        spec.http = destinations.isEmpty ? nil : [.init(route: destinations.map { .init($0) })]
        return VirtualService(metadata: meta(name), spec: spec)
    }

    private func entry(_ name: String, hosts: [String], _ change: (inout ServiceEntry.Spec) -> Void = { _ in })
        -> ServiceEntry
    {
        var spec = ServiceEntry.Spec(hosts: hosts)
        change(&spec)
        return ServiceEntry(metadata: meta(name), spec: spec)
    }

    @Test func withoutAnybodyAskingNobodyIsProtected() throws {
        var inventory = try Fixture("mesh").inventory()
        #expect(inventory.protected().isEmpty)
        #expect(inventory.pods.count == 8)
    }

    @Test(arguments: ["cart", "cart.shop.svc", "cart.shop.svc.cluster.local", "CART.shop.svc.cluster.local."])
    func hostsAreNamesOfServices(host: String) throws {
        var inventory = try Fixture("mesh").inventory()
        inventory.put(virtual("shop/routes", hosts: [host], to: [.init(host: host)]))
        #expect(inventory.protected() == ["shop/cart-v1": .strict, "shop/cart-v2": .strict])
        #expect(inventory.decision("shop/cart-v1")?.asks.map(\.source) == ["VirtualService/shop/routes"])
        inventory.remove(.virtualServices, key("shop/routes"))
        #expect(inventory.protected().isEmpty)
    }

    @Test func shortNamesAreOfTheResourcesNamespace() throws {
        var inventory = try Fixture("mesh").inventory()
        inventory.put(virtual("pay/routes", hosts: ["cart"], to: [.init(host: "cart")]))
        #expect(inventory.protected().isEmpty)
        let outcome = try #require(inventory.rules.mesh[MeshReference("VirtualService", key("pay/routes"))])
        #expect(outcome.notes.map(\.reason).contains("HostMatchesNothing"))
        #expect(outcome.notes.allSatisfy { $0.isWarning })
        #expect(outcome.notes[0].message.contains("no service cart in namespace pay"))
    }

    @Test func subsetsNarrow() throws {
        var inventory = try Fixture("mesh").inventory()
        inventory.put(virtual("shop/routes", hosts: ["cart"], to: [.init(host: "cart", subset: "v2")]))
        // Nobody says what v2 is: all of them, and a warning.
        #expect(inventory.protected() == ["shop/cart-v1": .strict, "shop/cart-v2": .strict])
        #expect(
            inventory.rules.mesh[MeshReference("VirtualService", key("shop/routes"))]?.notes.map(\.reason)
                == ["SubsetNotFound"])
        inventory.put(
            DestinationRule(
                metadata: meta("shop/cart"),
                spec: .init(host: "cart", subsets: [.init(name: "v2", labels: ["version": "v2"])])))
        #expect(inventory.protected() == ["shop/cart-v2": .strict])
        #expect(inventory.rules.mesh[MeshReference("VirtualService", key("shop/routes"))]?.notes == [])
        // A subset that others keep for themselves.
        var spec = DestinationRule.Spec(
            host: "cart.shop.svc.cluster.local", subsets: [.init(name: "v2", labels: ["version": "v2"])])
        spec.exportTo = ["."]
        inventory.put(DestinationRule(metadata: meta("ops/cart"), spec: spec))
        inventory.remove(.destinationRules, key("shop/cart"))
        #expect(inventory.protected().count == 2)
    }

    @Test func allKindsOfRoutesCount() throws {
        var inventory = try Fixture("mesh").inventory()
        var spec = VirtualService.Spec(hosts: ["anything.example.com"])
        spec.http = [.init(mirror: .init(host: "catalog"))]
        spec.tcp = [.init(route: [.init(.init(host: "ledger.pay.svc.cluster.local"))])]
        spec.tls = [.init(route: [.init(.init(host: "cart"))])]
        inventory.put(VirtualService(metadata: meta("shop/routes"), spec: spec))
        #expect(
            Set(inventory.protected().keys) == ["shop/cart-v1", "shop/cart-v2", "shop/catalog-1", "pay/ledger-0"])
    }

    @Test func gatewaysHostsAreNoServices() throws {
        var inventory = try Fixture("mesh").inventory()
        inventory.put(virtual("shop/in", hosts: ["cart"], to: [.init(host: "catalog")], gateways: ["istio-system/in"]))
        #expect(Set(inventory.protected().keys) == ["shop/catalog-1"])
        inventory.put(virtual("shop/in", hosts: ["cart"], to: [.init(host: "catalog")], gateways: ["in", "mesh"]))
        #expect(Set(inventory.protected().keys) == ["shop/catalog-1", "shop/cart-v1", "shop/cart-v2"])
        // "*" would be everything.
        inventory.put(virtual("shop/in", hosts: ["*"], to: [.init(host: "catalog")]))
        #expect(Set(inventory.protected().keys) == ["shop/catalog-1"])
    }

    @Test func servicesCanBeKeptForTheirNamespace() throws {
        var inventory = try Fixture("mesh").inventory()
        inventory.put(virtual("shop/routes", hosts: ["x"], to: [.init(host: "vault.pay.svc.cluster.local")]))
        #expect(inventory.protected().isEmpty)
        let notes = inventory.rules.mesh[MeshReference("VirtualService", key("shop/routes"))]?.notes ?? []
        #expect(notes.contains { $0.message.contains("not exported to namespace shop") })
        inventory.put(virtual("pay/routes", hosts: ["vault"], to: [.init(host: "vault")]))
        #expect(Set(inventory.protected().keys) == ["pay/vault-0"])
        // Exported to nobody at all.
        inventory.put(virtual("pay/routes", hosts: ["vault"], to: [.init(host: "vault")], exportTo: ["~"]))
        #expect(inventory.protected().isEmpty)
    }

    @Test func wildcardsAndAliases() throws {
        var inventory = try Fixture("mesh").inventory()
        inventory.put(entry("ops/all", hosts: ["*.shop.svc.cluster.local"]))
        #expect(Set(inventory.protected().keys) == ["shop/cart-v1", "shop/cart-v2", "shop/catalog-1"])
        inventory.put(entry("ops/all", hosts: ["alias"]))
        #expect(Set(inventory.protected().keys) == ["pay/ledger-0"])
    }

    @Test func endpointsOfServicesWithoutSelector() throws {
        var inventory = try Fixture("mesh").inventory()
        inventory.put(virtual("ops/routes", hosts: ["legacy"], to: [.init(host: "legacy")]))
        // One by address, one by reference.
        #expect(Set(inventory.protected().keys) == ["ops/legacy-0", "ops/legacy-1"])
        inventory.put(
            EndpointSlice(
                metadata: meta("ops/legacy-manual", labels: [EndpointSlice.serviceLabel: "legacy"]),
                addressType: "IPv4", endpoints: [.init(addresses: ["10.244.2.4"])]))
        #expect(Set(inventory.protected().keys) == ["ops/legacy-1"])
        inventory.remove(.endpointSlices, key("ops/legacy-manual"))
        #expect(inventory.protected().isEmpty)
    }

    /// The example of Istio's reference: virtual addresses in front of endpoints.
    @Test func addressesOfServiceEntries() throws {
        var inventory = try Fixture("mesh").inventory()
        func put(_ change: @escaping (inout ServiceEntry.Spec) -> Void) {
            inventory.put(
                entry("shop/external-svc-mongocluster", hosts: ["mymongodb.somedomain"]) {
                    $0.addresses = ["10.244.0.0/16", "fd00:244::/32"]
                    $0.location = "MESH_INTERNAL"
                    change(&$0)
                })
        }
        let all = Set(inventory.pods.keys.map(\.description))
        // Virtual ones are nobody's, whatever pods have addresses in there.
        put {
            $0.resolution = "STATIC"
            $0.endpoints = [.init(address: "10.244.2.2"), .init(address: "3.3.3.3")]
        }
        #expect(inventory.protected().count == 1)
        for resolution in ["DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"] {
            put { $0.resolution = resolution }
            #expect(inventory.protected().isEmpty, "\(resolution)")
        }
        // Traffic goes where it was addressed. Pods in their node's network have none of their own.
        for resolution in ["NONE", nil] {
            put { $0.resolution = resolution }
            let protected = Set(inventory.protected().keys)
            #expect(protected.count >= 7 && protected.isSubset(of: all), "\(protected)")
        }
        #expect(inventory.rules.mesh.values.flatMap(\.notes).isEmpty)
        // One address; one that is a network's only by its length; what is no address.
        let address = try IPAddress("10.244.2.3")
        let pod = try #require(inventory.pods.first { $0.value.facts.addresses.contains(address) })
        for text in ["\(address)", "\(address)/32"] {
            put { $0.addresses = [text, "10.244.0.0/33", "a.example.com", "10.244.0.0/x", ""] }
            #expect(inventory.protected() == ["\(pod.key)": .strict], "\(text)")
        }
        put { $0.addresses = ["\(address)/8"] }
        #expect(inventory.protected().count >= 7)
        // Networks outside of the mesh, however they overlap.
        put { $0.location = "MESH_EXTERNAL" }
        #expect(inventory.protected().isEmpty)
        put { $0.location = nil }
        #expect(inventory.protected().isEmpty)
    }

    /// The example of Istio's reference: a service of virtual machines and pods, whose addresses are pods' here.
    @Test func workloadEntries() throws {
        var inventory = try Fixture("mesh").inventory()
        func workload(_ name: String, _ address: String, _ labels: [String: String]) {
            inventory.put(WorkloadEntry(metadata: meta(name), spec: .init(address: address, labels: labels)))
        }
        func pod(at address: String) throws -> String {
            let address = try IPAddress(address)
            return try #require(inventory.pods.first { $0.value.facts.addresses.contains(address) }).key.description
        }
        inventory.put(
            entry("shop/details-svc", hosts: ["details.bookinfo.com"]) {
                $0.location = "MESH_INTERNAL"
                $0.resolution = "STATIC"
                $0.workloadSelector = .init(labels: ["app": "details-legacy"])
            })
        #expect(inventory.protected().isEmpty)
        workload("shop/vm1", "10.244.2.3", ["app": "details-legacy", "instance-id": "vm1"])
        #expect(try inventory.protected() == [pod(at: "10.244.2.3"): .strict])
        #expect(inventory.decision(try pod(at: "10.244.2.3"))?.asks.map(\.source) == ["ServiceEntry/shop/details-svc"])
        // Of another namespace, with other labels, outside of the cluster, a socket, a name.
        workload("pay/vm2", "10.244.1.3", ["app": "details-legacy"])
        workload("shop/vm3", "10.244.1.3", ["app": "details"])
        workload("shop/vm4", "2.2.2.2", ["app": "details-legacy"])
        workload("shop/vm5", "unix:///run/x", ["app": "details-legacy"])
        #expect(inventory.protected().count == 1)
        workload("shop/vm6", "ledger.pay.svc.cluster.local", ["app": "details-legacy"])
        #expect(Set(inventory.protected().keys) == [try pod(at: "10.244.2.3"), "pay/ledger-0"])
        inventory.remove(.workloadEntries, key("shop/vm6"))
        inventory.remove(.workloadEntries, key("shop/vm1"))
        #expect(inventory.protected().isEmpty)
        // A service of Kubernetes selects them as well, and subsets narrow them.
        inventory.put(virtual("shop/routes", hosts: ["cart"], to: [.init(host: "cart", subset: "v2")]))
        inventory.put(
            DestinationRule(
                metadata: meta("shop/cart"),
                spec: .init(host: "cart", subsets: [.init(name: "v2", labels: ["version": "v2"])])))
        let cart = try #require(inventory.mesh.services[key("shop/cart")]).selector
        workload("shop/cart-vm", "10.244.1.3", cart.merging(["version": "v1"]) { $1 })
        #expect(inventory.protected() == ["shop/cart-v2": .strict])
        workload("shop/cart-vm", "10.244.1.3", cart.merging(["version": "v2"]) { $1 })
        #expect(Set(inventory.protected().keys) == ["shop/cart-v2", try pod(at: "10.244.1.3")])
    }

    @Test func serviceEntries() throws {
        var inventory = try Fixture("mesh").inventory()
        // Workloads of its own namespace by labels.
        inventory.put(
            entry("shop/vm", hosts: ["vm.example.com"]) {
                $0.location = "MESH_INTERNAL"
                $0.workloadSelector = .init(labels: ["app": "catalog"])
            })
        #expect(Set(inventory.protected().keys) == ["shop/catalog-1"])
        // Addresses that belong to pods; others and sockets do no harm.
        inventory.put(
            entry("shop/vm", hosts: ["vm.example.com"]) {
                $0.resolution = "STATIC"
                $0.endpoints = [
                    .init(address: "10.244.2.2"), .init(address: "8.8.8.8"), .init(address: "unix:///run/x"),
                    .init(address: "cart.shop.svc.cluster.local"),
                ]
            })
        #expect(Set(inventory.protected().keys) == ["pay/ledger-0", "shop/cart-v1", "shop/cart-v2"])
        // Outside of the cluster: nothing to protect, and no warning.
        inventory.put(entry("shop/vm", hosts: ["api.example.com"]) { $0.location = "MESH_EXTERNAL" })
        #expect(inventory.protected().isEmpty)
        let reference = MeshReference("ServiceEntry", key("shop/vm"))
        #expect(inventory.rules.mesh[reference]?.notes.map(\.reason) == ["OutsideOfCluster"])
        #expect(inventory.rules.mesh[reference]?.notes.contains { $0.isWarning } == false)
        inventory.put(entry("shop/vm", hosts: ["api.example.com"]) { $0.location = "MESH_INTERNAL" })
        _ = inventory.settle()
        #expect(inventory.rules.mesh[reference]?.notes.map(\.reason) == ["HostMatchesNothing"])
    }

    @Test func hostsThatServiceEntriesAddAreKnown() throws {
        var inventory = try Fixture("mesh").inventory()
        inventory.put(virtual("shop/out", hosts: ["db.internal"], to: [.init(host: "db.internal")]))
        _ = inventory.settle()
        let reference = MeshReference("VirtualService", key("shop/out"))
        #expect(inventory.rules.mesh[reference]?.notes.isEmpty == false)
        inventory.put(
            entry("pay/db", hosts: ["*.internal"]) { $0.endpoints = [.init(address: "10.244.2.2")] })
        #expect(Set(inventory.protected().keys) == ["pay/ledger-0"])
        #expect(inventory.rules.mesh[reference]?.notes == [])
        inventory.put(
            entry("pay/db", hosts: ["*.internal"]) {
                $0.endpoints = [.init(address: "10.244.2.2")]
                $0.exportTo = ["."]
            })
        _ = inventory.settle()
        #expect(inventory.rules.mesh[reference]?.notes.isEmpty == false)
    }

    @Test func deletingOneLeavesWhatOthersAskFor() throws {
        var inventory = try Fixture("mesh").inventory()
        inventory.put(virtual("shop/a", hosts: ["cart"], to: [.init(host: "cart")]))
        inventory.put(entry("ops/b", hosts: ["cart.shop.svc.cluster.local"]))
        #expect(inventory.protected().count == 2)
        #expect(
            inventory.decision("shop/cart-v1")?.asks.map(\.source) == ["ServiceEntry/ops/b", "VirtualService/shop/a"])
        inventory.remove(.virtualServices, key("shop/a"))
        #expect(inventory.protected() == ["shop/cart-v1": .strict, "shop/cart-v2": .strict])
        inventory.remove(.serviceEntries, key("ops/b"))
        #expect(inventory.protected().isEmpty)
    }

    @Test func hostNetworkIsNeverProtected() throws {
        var inventory = try Fixture("mesh").inventory()
        inventory.put(entry("ops/agents", hosts: ["a.example.com"]) { $0.workloadSelector = .init(labels: [:]) })
        #expect(Set(inventory.protected().keys) == ["ops/legacy-0", "ops/legacy-1"])
        #expect(inventory.decision("ops/agent")?.why == .hostNetwork)
    }
}

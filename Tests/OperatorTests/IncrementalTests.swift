import Cluster
import Kubernetes
import Netlink
import Testing

@testable import Operator

/// Whatever happens in whatever order: what was worked out step by step is what a fresh look at everything gives.
@Suite struct IncrementalTests {
    private struct World {
        var pods: [ObjectKey: Pod] = [:]
        var services: [ObjectKey: Service] = [:]
        var slices: [ObjectKey: EndpointSlice] = [:]
        var entries: [ObjectKey: ServiceEntry] = [:]
        var virtuals: [ObjectKey: VirtualService] = [:]
        var rules: [ObjectKey: DestinationRule] = [:]
        var policies: [ObjectKey: EncryptionPolicy] = [:]
        var namespaces: [ObjectKey: Namespace] = [:]
        var endpoints: [ObjectKey: CiliumEndpoint] = [:]
        var nodes: [ObjectKey: Node] = [:]

        func fresh() -> Inventory {
            var inventory = Inventory()
            for object in nodes.values { inventory.put(object) }
            for object in endpoints.values { inventory.put(object) }
            for object in slices.values { inventory.put(object) }
            for object in pods.values { inventory.put(object) }
            for object in services.values { inventory.put(object) }
            for object in namespaces.values { inventory.put(object) }
            for object in entries.values { inventory.put(object) }
            for object in virtuals.values { inventory.put(object) }
            for object in rules.values { inventory.put(object) }
            for object in policies.values { inventory.put(object) }
            return inventory
        }
    }

    @Test(arguments: 1...25)
    func sameAsAFreshLook(seed: UInt64) {
        var random = SplitMix(state: seed)
        var world = World()
        var inventory = Inventory()
        func pick<T>(_ list: [T]) -> T { list[Int.random(in: 0..<list.count, using: &random)] }
        func change<O: Inventoried>(_ path: WritableKeyPath<World, [ObjectKey: O]>, _ object: O) {
            // One in four goes.
            if Int.random(in: 0..<4, using: &random) == 0 {
                world[keyPath: path][object.key] = nil
                inventory.remove(O.place.kind, object.key)
            } else {
                world[keyPath: path][object.key] = object
                inventory.put(object)
            }
        }
        let spaces = ["shop", "pay"]
        let nodeNames = ["node-a", "node-b", "node-c"]
        // Decisions of nodes that were not reported as changed must not change.
        var known: [String: [EncryptionNodeObject.Endpoint]] = [:]
        for step in 0..<300 {
            let space = pick(spaces)
            switch Int.random(in: 0..<14, using: &random) {
            case 0...4:
                let number = Int.random(in: 0..<8, using: &random)
                change(
                    \.pods,
                    pod(
                        "\(space)/p\(number)", node: pick(nodeNames + [nil]),
                        ips: ["10.0.0.\(Int.random(in: 1...9, using: &random))"],
                        labels: ["app": pick(["x", "y"]), "version": pick(["v1", "v2"])],
                        annotations: pick([
                            nil, nil, ["ebpf.xdp/encrypt": "false"], ["ebpf.xdp/encrypt": "true"],
                        ]), uid: "\(space)-u\(number)-\(Int.random(in: 0..<2, using: &random))",
                        phase: pick(["Running", "Running", "Failed"]),
                        hostNetwork: Int.random(in: 0..<6, using: &random) == 0,
                        created: pick(["2026-05-04T12:00:00Z", "2026-05-04T13:00:00Z"]),
                        deleted: Int.random(in: 0..<4, using: &random) == 0))
            case 5:
                change(
                    \.services,
                    Service(
                        metadata: meta("\(space)/\(pick(["x", "y", "bare"]))"),
                        spec: .init(selector: pick([["app": "x"], ["app": "y"], [:]]))))
            case 6:
                change(
                    \.slices,
                    EndpointSlice(
                        metadata: meta(
                            "\(space)/s\(Int.random(in: 0..<3, using: &random))",
                            labels: [EndpointSlice.serviceLabel: pick(["x", "y", "bare"])]),
                        endpoints: [
                            .init(
                                addresses: ["10.0.0.1"],
                                targetRef: .init(
                                    kind: "Pod", namespace: nil, name: "p\(Int.random(in: 0..<8, using: &random))")),
                            .init(addresses: ["10.0.0.\(Int.random(in: 1...9, using: &random))"]),
                        ]))
            case 7:
                var spec = ServiceEntry.Spec(hosts: [
                    pick(["x", "y.pay.svc.cluster.local", "bare", "*.shop.svc.cluster.local"])
                ])
                spec.endpoints = pick([nil, [.init(address: "10.0.0.\(Int.random(in: 1...9, using: &random))")]])
                spec.workloadSelector = pick([nil, nil, .init(labels: ["app": "x"])])
                change(
                    \.entries,
                    ServiceEntry(metadata: meta("\(space)/e\(Int.random(in: 0..<2, using: &random))"), spec: spec))
            case 8:
                var spec = VirtualService.Spec(hosts: [pick(["x", "bare", "y.pay.svc.cluster.local"])])
                spec.http = [.init(route: [.init(.init(host: pick(["x", "y"]), subset: pick([nil, "v1", "v2"])))])]
                change(
                    \.virtuals,
                    VirtualService(metadata: meta("\(space)/v\(Int.random(in: 0..<2, using: &random))"), spec: spec))
            case 9:
                change(
                    \.rules,
                    DestinationRule(
                        metadata: meta("\(space)/d"),
                        spec: .init(host: pick(["x", "y"]), subsets: [.init(name: "v1", labels: ["version": "v1"])])))
            case 10:
                change(
                    \.policies,
                    policy(
                        pick(["one", "two"]),
                        .init(
                            namespaceSelector: pick([nil, .init(matchLabels: ["team": "a"])]),
                            podSelector: pick([nil, .init(matchLabels: ["version": "v2"])]),
                            mode: pick([nil, "permissive"]), enforced: pick([nil, true])),
                        generation: Int64(step)))
            case 11:
                change(
                    \.namespaces,
                    Namespace(
                        metadata: {
                            var metadata = ObjectMeta(name: space)
                            metadata.labels = pick([[:], ["team": "a"]])
                            return metadata
                        }()))
            case 12:
                change(
                    \.endpoints,
                    CiliumEndpoint(
                        metadata: meta("\(space)/p\(Int.random(in: 0..<8, using: &random))"),
                        status: .init(
                            networking: .init(addressing: [
                                .init(ipv4: "10.0.0.\(Int.random(in: 1...12, using: &random))")
                            ]))))
            default:
                change(\.nodes, node(pick(nodeNames), "10.0.0.\(Int.random(in: 1...9, using: &random))"))
            }
            guard step % 7 == 0 else { continue }
            let changes = inventory.settle()
            var fresh = world.fresh()
            _ = fresh.settle()
            for (key, entry) in fresh.pods {
                #expect(inventory.pods[key]?.decision == entry.decision, "\(key) after \(step) steps")
            }
            #expect(inventory.pods.count == fresh.pods.count)
            for name in nodeNames {
                let wanted = inventory.wantedEndpoints(name)
                #expect(wanted == fresh.wantedEndpoints(name), "\(name) after \(step) steps")
                if !changes.nodes.contains(name) {
                    #expect(wanted == known[name] ?? [], "\(name) changed without being named, after \(step) steps")
                }
                known[name] = wanted
            }
        }
    }
}

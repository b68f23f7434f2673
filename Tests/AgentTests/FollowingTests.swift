import Cluster
import Datapath
import Keys
import Netlink
import Testing

@testable import Agent

/// What is new in other nodes' lists is put in force at once: exactly as a whole reconciliation would.
@Suite struct FollowingTests {
    /// One node that follows, one that only reconciles, and three others that are only lists.
    private func world() throws -> World {
        let world = World(nodes: 5)
        world.openEpoch()
        for id in 1...5 { world.addEndpoint("pod-\(id)", on: NodeID(id), ["10.0.\(id).1"]) }
        #expect(world.settle())
        return world
    }

    private func endpoint(
        _ name: String, _ addresses: [String], since: UInt32, isReady: Bool = true, mode: Mode = .strict,
        headers: Headers = .visible
    ) -> EncryptionNode.PublishedEndpoint {
        .init(
            name: name, addresses: addresses.map { try! IPAddress($0) }, mode: mode, headers: headers,
            state: isReady ? .ready : .withdrawing, since: since, until: isReady ? 0 : since)
    }

    @Test func newAddressesAndGoneOnes() throws {
        let world = try world()
        let node = world[1]
        var view = node.view
        view.nodes["node-2"]?.revision += 1
        view.nodes["node-2"]?.endpoints = [endpoint("new", ["10.0.2.7", "fd00::7"], since: 2, mode: .permissive)]
        #expect(node.reconciler?.follow(view) == 3)
        let slot = try #require(node.kernel.now.peers.first { $0.value.nodeID == 2 }).key
        for text in ["10.0.2.7", "fd00::7"] {
            #expect(
                node.kernel.now.endpoints[try IPAddress(text)]
                    == EndpointEntry(place: .remote(slot: slot), strict: false))
        }
        #expect(node.kernel.now.endpoints[try IPAddress("10.0.2.1")] == nil)
        // Nothing is left for the plan.
        node.view = view
        world.reconcile(node)
        #expect(node.last.changes.isEmpty)
        #expect(node.reconciler?.follow(view) == 0)
    }

    @Test func headersAlone() throws {
        let world = try world()
        let node = world[1]
        var view = node.view
        let address = try IPAddress("10.0.2.1")
        #expect(node.kernel.now.endpoints[address]?.hidden == false)
        for (headers, isHidden) in [(Headers.hidden, true), (.visible, false)] {
            view.nodes["node-2"]?.revision += 1
            view.nodes["node-2"]?.endpoints[0].headers = headers
            #expect(node.reconciler?.follow(view) == 1)
            #expect(node.kernel.now.endpoints[address]?.hidden == isHidden)
            node.view = view
            world.reconcile(node)
            #expect(node.last.changes.isEmpty)
        }
    }

    @Test func whatIsNotSimpleIsLeft() throws {
        let world = try world()
        let node = world[1]
        let before = node.kernel.now
        var view = node.view
        // An address of ours, one of another node, a node that has begun afresh, and one that is new.
        view.nodes["node-2"]?.endpoints.append(endpoint("x", ["10.0.1.1"], since: 1))
        view.nodes["node-3"]?.endpoints.append(endpoint("y", ["10.0.4.1"], since: 1))
        view.nodes["node-5"]?.incarnation = .random()
        view.nodes["node-5"]?.endpoints = []
        view.nodes["node-9"] = EncryptionNode(id: 9, incarnation: .random())
        #expect(node.reconciler?.follow(view) == 0)
        // They stay left, whatever they say next: there are no keys with them yet.
        view.nodes["node-5"]?.endpoints = [endpoint("z", ["10.0.5.9"], since: 1)]
        view.nodes["node-9"]?.endpoints = [endpoint("z", ["10.0.9.9"], since: 1)]
        #expect(node.reconciler?.follow(view) == 0)
        #expect(node.kernel.now == before)
    }

    @Test func anAddressThatMovesIsNeverWithoutAnEntry() throws {
        let world = try world()
        let node = world[1]
        var view = node.view
        let address = try IPAddress("10.0.2.1")
        view.nodes["node-2"]?.endpoints = []
        view.nodes["node-3"]?.endpoints.append(endpoint("moved", ["10.0.2.1"], since: 1))
        _ = node.reconciler?.follow(view)
        #expect(node.kernel.now.endpoints[address] != nil)
        node.view = view
        world.reconcile(node)
        let slot = try #require(node.kernel.now.peers.first { $0.value.nodeID == 3 }).key
        #expect(node.kernel.now.endpoints[address]?.place == .remote(slot: slot))
    }

    @Test func afterAFailureAReconciliationComesFirst() throws {
        let world = try world()
        let node = world[1]
        var view = node.view
        view.nodes["node-2"]?.endpoints = []
        node.kernel.with { $0.failing = ["removeEndpoint"] }
        #expect(node.reconciler?.follow(view) == nil)
        node.kernel.with { $0.failing = [] }
        #expect(node.reconciler?.follow(view) == nil)
        node.view = view
        world.reconcile(node)
        #expect(node.kernel.now.endpoints[try IPAddress("10.0.2.1")] == nil)
        #expect(node.reconciler?.follow(view) == 0)
    }

    /// Lists change at random, addresses wander and are contested: who follows comes to the same as who does not, and never has more or
    /// less of an address that nobody contests.
    @Test(.serialized, arguments: UInt64(1)...20) func sameAsPlanned(_ seed: UInt64) async throws {
        var random = SplitMix(state: seed)
        let world = try world()
        let (follower, other) = (world[1], world[2])
        var view = world.truth
        for _ in 0..<60 {
            await Task.yield()
            let name = "node-\(Int.random(in: 3...5, using: &random))"
            guard var node = view.nodes[name] else { continue }
            node.revision += 1
            if Int.random(in: 0..<3, using: &random) > 0 || node.endpoints.isEmpty {
                let number = Int.random(in: 1...12, using: &random)
                node.endpoints.removeAll { $0.name == "e-\(number)" }
                node.endpoints.append(
                    endpoint(
                        "e-\(number)", ["10.9.0.\(Int.random(in: 1...30, using: &random))"], since: 1,
                        isReady: Int.random(in: 0..<5, using: &random) > 0,
                        mode: Bool.random(using: &random) ? .strict : .permissive,
                        headers: Bool.random(using: &random) ? .visible : .hidden))
            } else {
                node.endpoints.remove(at: Int.random(in: 0..<node.endpoints.count, using: &random))
            }
            view.nodes[name] = node
            _ = follower.reconciler?.follow(view)
            if Int.random(in: 0..<5, using: &random) == 0 {
                for node in [follower, other] {
                    node.view = view
                    world.reconcile(node)
                }
                let remote = { (node: World.Node) in
                    let state = node.kernel.now
                    return state.endpoints.filter { !$0.value.isLocal && $0.key.description.hasPrefix("10.9.") }
                        .mapValues { entry -> String in
                            guard case .remote(let slot) = entry.place else { return "" }
                            return
                                "\(state.peers[slot]?.nodeID ?? 0) \(entry.strict) \(entry.withdrawing) \(entry.hidden)"
                        }
                }
                // Of two that claim an address, the one stays that was there first: that may differ for a moment.
                let claims = view.nodes.values.flatMap { $0.endpoints.flatMap(\.addresses) }
                let contested = Set(claims.filter { address in claims.count { $0 == address } > 1 })
                #expect(
                    remote(follower).filter { !contested.contains($0.key) }
                        == remote(other).filter { !contested.contains($0.key) })
            }
        }
    }
}

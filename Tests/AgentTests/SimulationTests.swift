import Cluster
import Datapath
import Keys
import Netlink
import Testing

@testable import Agent

/// Nodes that see each other's files late, in any order, and die at any call.
@Suite struct SimulationTests {
    @Test(.serialized, arguments: UInt64(1)...40) func randomLives(_ seed: UInt64) async throws {
        var random = SplitMix(state: seed)
        let world = World(nodes: Int.random(in: 2...4, using: &random))
        var installed: Set<KeyID> = []
        var counted: [ObjectIdentifier: Int] = [:]
        var story: [String] = []
        var kernels: [FakeDatapath] = []
        world.cluster.drainSeconds = Int64.random(in: 0...3, using: &random)
        world.openEpoch()
        var names = 0

        func check() {
            for node in world.nodes.values {
                if !kernels.contains(where: { $0 === node.kernel }) { kernels.append(node.kernel) }
            }
            for kernel in kernels {
                let keys = kernel.with { $0.installed }
                for key in keys[(counted[ObjectIdentifier(kernel)] ?? 0)...] {
                    // Every pair has the same key at both ends, so a key is installed twice at most: once to send, once to receive.
                    let once = installed.insert(key).inserted
                    if !once, kernels.count(where: { $0 !== kernel && $0.with { $0.installed.contains(key) } }) == 0 {
                        Issue.record("seed \(seed): key \(key) was installed twice; \(story.suffix(20))")
                    }
                }
                counted[ObjectIdentifier(kernel)] = keys.count
            }
            let broken = world.brokenPromises()
            #expect(broken.isEmpty, "seed \(seed): \(story.suffix(20))")
        }

        for _ in 0..<Int.random(in: 100...400, using: &random) {
            let nodes = world.nodes.values.sorted { $0.id < $1.id }
            guard let node = nodes.randomElement(using: &random) else { return }
            // Other tests wait for answers in time.
            await Task.yield()
            let truth = world.truth
            switch Int.random(in: 0..<100, using: &random) {
            case 0..<35:
                // Some of what there is arrives.
                if Bool.random(using: &random) { node.view.cluster = truth.cluster }
                if Bool.random(using: &random) { node.view.epochs = truth.epochs }
                if Bool.random(using: &random) { node.view.endpoints = truth.endpoints }
                for (name, object) in truth.nodes.sorted(by: { $0.key < $1.key }) where Bool.random(using: &random) {
                    node.view.nodes[name] = object
                }
                story.append("\(node.name) reads")
            case 35..<80:
                if Int.random(in: 0..<4, using: &random) == 0 {
                    let calls = Int.random(in: 0..<12, using: &random)
                    node.kernel.with { $0.callsUntilCrash = calls }
                    world.reconcile(node)
                    world.kill(node)
                    story.append("\(node.name) dies after \(calls) calls")
                } else if Int.random(in: 0..<3, using: &random) == 0 {
                    let count = node.reconciler?.follow(node.view)
                    story.append("\(node.name) follows: \(count.map { "\($0)" } ?? "not")")
                } else {
                    world.reconcile(node)
                    story.append("\(node.name) reconciles: \(node.last.changes.map(\.description))")
                }
            case 80..<86:
                names += 1
                world.addEndpoint(
                    "pod-\(names)", on: node.id, ["10.0.\(node.id).\(names % 250)", "fd00::\(names)"],
                    headers: Bool.random(using: &random) ? .visible : .hidden)
                story.append("pod-\(names) on \(node.name)")
            case 86..<90:
                if let name = world.endpoints.keys.sorted().randomElement(using: &random) {
                    world.endpoints[name] = nil
                    story.append("\(name) ends")
                }
            case 90..<94:
                let live = EpochDecision.decide(
                    cluster: world.cluster, epochs: world.epochs, nodes: Array(truth.nodes.values), now: world.now)
                if live.live.count < 2 {
                    world.openEpoch()
                    story.append("epoch \(world.epochs.count)")
                }
            case 94..<96:
                world.reboot(node)
                story.append("\(node.name) reboots")
            case 96..<97:
                if nodes.count < 5 {
                    world.addNode(NodeID(nodes.count + 1))
                    story.append("a new node")
                }
            case 97..<98:
                if let name = world.endpoints.keys.sorted().randomElement(using: &random) {
                    let isHidden = world.endpoints[name]?.headers == .hidden
                    world.endpoints[name]?.headers = isHidden ? .visible : .hidden
                    story.append("\(name) has other headers")
                }
            default:
                world.now = world.now.adding(seconds: Int64.random(in: 0...3, using: &random))
            }
            check()
        }

        #expect(world.settle(), "seed \(seed): no end")
        check()
        try expectConverged(world, "seed \(seed)")
    }
}

/// Everything is as it should be in the end, on every node.
func expectConverged(_ world: World, _ what: String) throws {
    let newest = try #require(world.epochs.keys.max())
    for node in world.nodes.values {
        let state = node.kernel.now
        #expect(state.sending == newest, "\(what): \(node.name) \(node.last.problems)")
        #expect(node.last.problems.isEmpty, "\(what): \(node.name)")
        let object = try #require(world.objects[node.name]?.current)
        #expect(object.epochs == [newest], "\(what): \(node.name)")
        var addresses: Set<IPAddress> = []
        for (name, endpoint) in world.endpoints {
            for address in endpoint.addresses {
                addresses.insert(address)
                let entry = try #require(state.endpoints[address], "\(what): \(node.name) lacks \(address)")
                #expect(entry.isLocal == (endpoint.node == node.name), "\(what)")
                #expect(entry.strict && !entry.withdrawing, "\(what)")
                #expect(entry.hidden == (endpoint.headers == .hidden), "\(what): \(node.name) \(address)")
            }
            #expect((state.attachments[name] != nil) == (endpoint.node == node.name), "\(what)")
        }
        #expect(Set(state.endpoints.keys) == addresses, "\(what): \(node.name)")
        #expect(state.associations.count == 2 * (world.nodes.count - 1), "\(what): \(node.name)")
        #expect(state.peers.count == world.nodes.count - 1, "\(what): \(node.name)")
        for peer in state.peers.values { #expect(peer.acknowledged == object.revision, "\(what): \(node.name)") }
    }
}

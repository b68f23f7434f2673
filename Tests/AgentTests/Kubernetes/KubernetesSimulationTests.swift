import Cluster
import Datapath
import Keys
import Testing

@testable import Agent

/// Nodes that hear of each other through statuses and slices: late, with lost writes, dying at any call.
@Suite struct KubernetesSimulationTests {
    @Test(.serialized, arguments: UInt64(1)...60) func randomLives(_ seed: UInt64) async throws {
        var random = SplitMix(state: seed)
        let sim = KubernetesWorld(nodes: Int.random(in: 2...4, using: &random))
        sim.world.cluster.drainSeconds = Int64.random(in: 0...3, using: &random)
        sim.world.openEpoch()
        var names = 0
        var story: [String] = []

        for _ in 0..<Int.random(in: 150...500, using: &random) {
            let agents = sim.agents.values.sorted { $0.node.id < $1.node.id }
            guard let agent = agents.randomElement(using: &random) else { return }
            // Other tests wait for answers in time.
            await Task.yield()
            switch Int.random(in: 0..<100, using: &random) {
            case 0..<20:
                // A watch brings some of what has been written since.
                sim.see(agent, through: Int.random(in: agent.position...sim.log.count, using: &random))
                story.append("\(agent.node.name) sees \(agent.position)")
            case 20..<50:
                if Int.random(in: 0..<5, using: &random) == 0 {
                    let calls = Int.random(in: 0..<12, using: &random)
                    agent.node.kernel.with { $0.callsUntilCrash = calls }
                    sim.reconcile(agent)
                    // What was handed over may still have been written.
                    if Bool.random(using: &random) { sim.deliver(agent) }
                    sim.kill(agent)
                    story.append("\(agent.node.name) dies after \(calls) calls")
                } else {
                    sim.reconcile(agent)
                    story.append("\(agent.node.name) reconciles \(agent.node.last.changes.map(\.description))")
                }
            case 50..<66:
                sim.deliver(agent)
                story.append("\(agent.node.name) writes through \(agent.wish?.appliedThrough ?? -1)")
            case 66..<80:
                sim.fold(Bool.random(using: &random) ? "even" : "odd")
                story.append("the operator writes \(sim.log.count)")
            case 80..<86:
                names += 1
                sim.world.addEndpoint(
                    "pod-\(names)", on: agent.node.id, ["10.0.\(agent.node.id).\(names % 250)", "fd00::\(names)"])
            case 86..<90:
                if let name = sim.world.endpoints.keys.sorted().randomElement(using: &random) {
                    sim.world.endpoints[name] = nil
                }
            case 90..<93:
                let decision = EpochDecision.decide(
                    cluster: sim.world.cluster, epochs: sim.world.epochs, nodes: sim.statuses.values.map(\.node),
                    now: sim.world.now)
                if decision.live.count < 2 { sim.world.openEpoch() }
            case 93..<95:
                sim.reboot(agent)
                story.append("\(agent.node.name) reboots")
            case 95..<96:
                if agents.count < 5 { sim.addNode(NodeID(agents.count + 1)) }
            default:
                sim.world.now = sim.world.now.adding(seconds: Int64.random(in: 0...3, using: &random))
                sim.clock += .milliseconds(Int64.random(in: 0...3000, using: &random))
            }
            let broken = sim.world.brokenPromises()
            #expect(broken.isEmpty, "seed \(seed): \(story.suffix(30))")
            if !broken.isEmpty { return }
        }

        let writes = sim.settle()
        #expect(writes != nil, "seed \(seed): no end")
        #expect(sim.world.brokenPromises().isEmpty, "seed \(seed)")
        try expectConverged(sim.world, "seed \(seed)")
    }

    @Test("Acknowledgements come to an end, and cost a write a node")
    func writes() throws {
        let sim = KubernetesWorld(nodes: 8)
        sim.world.openEpoch()
        _ = try #require(sim.settle())
        sim.world.addEndpoint("pod-1", on: 1, ["10.0.1.1"])
        let writes = try #require(sim.settle())
        // Its own node publishes it, and each of the others acknowledges it, once.
        #expect(writes <= 1 + 7 + 1, "\(writes)")
        try expectConverged(sim.world, "in the end")
    }

    @Test("A restart takes no acknowledgement back, also when the history has forgotten the revision")
    func restart() throws {
        let sim = KubernetesWorld(nodes: 2)
        sim.world.openEpoch()
        sim.world.addEndpoint("pod-0", on: 1, ["10.0.1.100"])
        _ = try #require(sim.settle())
        let (one, two) = (try #require(sim.agents["node-1"]), try #require(sim.agents["node-2"]))
        let before = try #require(one.node.kernel.now.peers.values.first).acknowledged
        #expect(before > 0)
        // Node 2 sees nothing of what follows.
        for number in 1...20 {
            sim.world.addEndpoint("pod-\(number)", on: 1, ["10.0.1.\(number)"])
            sim.see(one, through: sim.log.count)
            sim.reconcile(one)
            sim.deliver(one)
            sim.fold("even")
            sim.fold("odd")
        }
        sim.kill(one)
        sim.see(one, through: sim.log.count)
        sim.reconcile(one)
        let after = try #require(one.node.kernel.now.peers.values.first).acknowledged
        #expect(after == before)
        // And the other side: it says after its restart what it said before.
        sim.kill(two)
        sim.see(two, through: sim.log.count)
        sim.reconcile(two)
        #expect(two.wish.map { $0.appliedThrough >= sim.log[0].spec.sequence } == true)
        #expect(sim.world.brokenPromises().isEmpty)
        _ = try #require(sim.settle())
        try expectConverged(sim.world, "in the end")
    }

    @Test("An API server that shows an older state changes nothing, until it stays so")
    func goesBack() throws {
        let sim = KubernetesWorld(nodes: 2)
        sim.world.openEpoch()
        sim.world.addEndpoint("pod-1", on: 1, ["10.0.1.1"])
        _ = try #require(sim.settle())
        let two = try #require(sim.agents["node-2"])
        let known = two.node.kernel.now.endpoints.count
        #expect(known == 1)
        for restarts in [false, true] {
            if restarts { sim.kill(two) }
            two.position = 1
            sim.reconcile(two)
            #expect(two.node.kernel.now.endpoints.count == known, "restarts: \(restarts)")
        }
        // For good, as after a restored backup.
        sim.clock += KubernetesReader.patience + .seconds(1)
        let reading = try #require(sim.reading(two))
        #expect(reading.sequence == 1)
    }
}

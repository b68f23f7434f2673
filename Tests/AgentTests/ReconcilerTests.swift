import Cluster
import Datapath
import Keys
import Netlink
import Testing

@testable import Agent

@Suite struct ReconcilerTests {
    /// Two nodes with a pod each, talking.
    func world(_ count: Int = 2) throws -> World {
        let world = World(nodes: count)
        world.openEpoch()
        for id in 1...count { world.addEndpoint("pod-\(id)", on: NodeID(id), ["10.0.\(id).1", "fd00:\(id)::1"]) }
        #expect(world.settle())
        try expectConverged(world, "at first")
        return world
    }

    func address(_ text: String) throws -> IPAddress { try IPAddress(text) }

    // MARK: Order

    @Test func programsAndKeysComeBeforePublicationAndPublicationBeforeEncryption() throws {
        let world = World(nodes: 2)
        world.openEpoch()
        world.addEndpoint("pod-1", on: 1, ["10.0.1.1"])
        let (a, b) = (world[1], world[2])
        a.view = world.truth
        world.reconcile(a)
        let local = try #require(a.kernel.now.endpoints[address("10.0.1.1")])
        // Alone with the epoch: it holds, sends, has attached and published.
        #expect(a.kernel.now.attachments["pod-1"]?.isWhole == true)
        #expect(world.objects[a.name]?.current?.endpoints.map(\.name) == ["pod-1"])
        #expect(local.strict && local.isLocal)

        b.view = world.truth
        world.reconcile(b)
        #expect(b.kernel.now.endpoints[try address("10.0.1.1")]?.place == .remote(slot: 1))
        // A does not know yet that B knows: it has not even keys for it.
        #expect(a.kernel.now.peers.isEmpty)
        // B can receive from A before it says so.
        #expect(world.objects[b.name]?.current?.applied[a.name]?.epochs == [1])
        #expect(b.kernel.now.associations.keys.contains { $0.direction == .receive })
        a.view = world.truth
        world.reconcile(a)
        let revision = try #require(world.objects[a.name]?.current?.revision)
        #expect(a.kernel.now.peers[1] == PeerEntry(nodeID: 2, acknowledged: revision))
    }

    @Test func aLateEndpointIsNotEncryptedBeforeItsRevisionIsAcknowledged() throws {
        let world = try world()
        world.addEndpoint("late", on: 1, ["10.0.1.9"])
        let a = world[1]
        a.view = world.truth
        world.reconcile(a)
        guard case .local(let since, _) = a.kernel.now.endpoints[try address("10.0.1.9")]?.place else {
            Issue.record("it is not there")
            return
        }
        let peer = try #require(a.kernel.now.peers[1])
        #expect(since == world.objects[a.name]?.current?.revision)
        #expect(peer.acknowledged < since)
        #expect(world.settle())
        #expect(try #require(a.kernel.now.peers[1]).acknowledged >= since)
    }

    @Test func withdrawalWaitsForEveryOtherNode() throws {
        let world = try world(3)
        world.endpoints["pod-1"] = nil
        let (a, b, c) = (world[1], world[2], world[3])
        for node in [a, b] {
            node.view = world.truth
            world.reconcile(node)
        }
        a.view = world.truth
        world.reconcile(a)
        // C has not seen it: programs stay, C is still sent encrypted packets.
        let entry = try #require(a.kernel.now.endpoints[address("10.0.1.1")])
        guard case .local(_, let until) = entry.place else { return }
        #expect(entry.withdrawing && until > 0 && a.kernel.now.attachments["pod-1"] != nil)
        let slotOfC = try #require(a.kernel.now.peers.first { $0.value.nodeID == 3 })
        #expect(slotOfC.value.acknowledged < until)
        #expect(b.kernel.now.endpoints[try address("10.0.1.1")]?.withdrawing == true)
        #expect(world.objects[a.name]?.current?.endpoints.first?.state == .withdrawing)
        c.view = world.truth
        world.reconcile(c)
        a.view = world.truth
        world.reconcile(a)
        #expect(a.kernel.now.attachments["pod-1"] == nil)
        #expect(world.settle())
        try expectConverged(world, "afterwards")
    }

    @Test func withdrawalEndsAtItsDeadline() throws {
        let world = try world()
        world.endpoints["pod-1"] = nil
        let a = world[1]
        a.view = world.truth
        world.reconcile(a)
        #expect(a.last.nextChange.map { $0 <= world.now.adding(seconds: 60) } == true)
        world.now = world.now.adding(seconds: 59)
        world.reconcile(a)
        #expect(a.kernel.now.attachments["pod-1"] != nil)
        world.now = world.now.adding(seconds: 1)
        world.reconcile(a)
        #expect(a.kernel.now.attachments["pod-1"] == nil)
        #expect(world.objects[a.name]?.current?.endpoints.isEmpty == true)
    }

    @Test func anEndpointThatComesBackWhileItEndsIsProtectedAgain() throws {
        let world = try world()
        let endpoint = try #require(world.endpoints["pod-1"])
        world.endpoints["pod-1"] = nil
        world[1].view = world.truth
        world.reconcile(world[1])
        world.endpoints["pod-1"] = endpoint
        #expect(world.settle())
        try expectConverged(world, "afterwards")
    }

    @Test func aBridgeThatIsNotForPodsAloneIsReported() throws {
        let world = try world()
        let a = world[1]
        a.kernel.with { $0.state.openBridges = [OpenBridge(name: "cni0", reason: "its port eth1 is no veth")] }
        world.reconcile(a)
        let problem = try #require(a.last.problems.first { $0.object == "bridge cni0" })
        #expect(problem.severity == .warning && problem.message.contains("its port eth1 is no veth"), "\(problem)")
        a.kernel.with { $0.state.openBridges = [] }
        world.reconcile(a)
        #expect(!a.last.problems.contains { $0.object == "bridge cni0" })
    }

    // MARK: Death

    @Test(arguments: 0..<40) func deathAtEachCall(_ calls: Int) throws {
        let world = World(nodes: 2)
        world.openEpoch()
        for id in 1...2 { world.addEndpoint("pod-\(id)", on: NodeID(id), ["10.0.\(id).1"]) }
        let a = world[1]
        // Die once on the way up, once in a rotation, once in a withdrawal: each at the same number of calls.
        func dieOnce() {
            a.kernel.with { $0.callsUntilCrash = calls }
            for _ in 0..<6 {
                for node in world.nodes.values {
                    node.view = world.truth
                    world.reconcile(node)
                    #expect(world.brokenPromises().isEmpty)
                }
                world.now = world.now.adding(seconds: 1)
            }
            world.kill(a)
            #expect(world.settle())
            #expect(world.brokenPromises().isEmpty)
        }
        dieOnce()
        try expectConverged(world, "up, \(calls)")
        world.openEpoch()
        dieOnce()
        try expectConverged(world, "rotated, \(calls)")
        world.endpoints["pod-1"] = nil
        dieOnce()
        try expectConverged(world, "withdrawn, \(calls)")
        #expect(Set(a.kernel.with { $0.installed }).count == a.kernel.with { $0.installed.count })
    }

    @Test func aRestartChangesNothing() throws {
        let world = try world(3)
        let before = world[1].kernel.now
        let changes = world[1].kernel.with { $0.changes }
        world.kill(world[1])
        world[1].view = world.truth
        world.reconcile(world[1])
        #expect(world[1].kernel.now == before)
        #expect(world[1].kernel.with { $0.changes } == changes)
    }

    @Test func aRestartWithoutTheDEKKeepsWhatWasSaid() throws {
        let world = try world()
        let (a, object) = (world[1], try #require(world.objects["node-1"]?.current))
        let before = a.kernel.now
        world.kill(a)
        let dek = world.deks
        world.deks = [:]
        a.view = world.truth
        world.reconcile(a)
        #expect(a.kernel.now == before)
        #expect(world.objects["node-1"]?.current == object)
        world.deks = dek
        #expect(world.settle())
        try expectConverged(world, "afterwards")
    }

    @Test func aRebootMakesOtherKeys() throws {
        let world = try world()
        let before = world[2].kernel.now.associations.values.map(\.keyID)
        world.reboot(world[1])
        #expect(world.settle())
        try expectConverged(world, "afterwards")
        #expect(Set(world[2].kernel.now.associations.values.map(\.keyID)).isDisjoint(with: before))
    }

    // MARK: Nonces

    @Test func anIncarnationThatComesBackGetsOtherKeys() throws {
        let world = try world()
        let (a, b) = (world[1], world[2])
        let old = try #require(world.objects[b.name]?.current)
        var other = old
        other.incarnation = .random()
        other.applied = [:]
        let first = a.kernel.now.incarnation
        // B's object goes forth and back, as a restored backup would make it.
        for object in [other, old] {
            a.view.nodes[b.name] = object
            world.reconcile(a)
            world.now = world.now.adding(seconds: 100)
        }
        #expect(a.kernel.now.incarnation != first)
        let installed = a.kernel.with { $0.installed }
        #expect(Set(installed).count == installed.count)
        #expect(a.last.problems.contains { $0.message.contains("was in use before") })
        #expect(world.settle())
        try expectConverged(world, "afterwards")
    }

    @Test func aFlappingIncarnationIsAnsweredLessAndLessOften() throws {
        let world = try world()
        let (a, b) = (world[1], world[2])
        let old = try #require(world.objects[b.name]?.current)
        var other = old
        other.incarnation = .random()
        var incarnations: Set<Incarnation> = []
        for round in 0..<600 {
            a.view.nodes[b.name] = round.isMultiple(of: 2) ? other : old
            world.reconcile(a)
            incarnations.insert(a.kernel.now.incarnation)
            world.now = Timestamp(milliseconds: world.now.milliseconds + 100)
        }
        #expect((3...8).contains(incarnations.count), "\(incarnations.count) in a minute")
        let installed = a.kernel.with { $0.installed }
        #expect(Set(installed).count == installed.count)
    }

    @Test func twoNamesWithOneNumberGetNoKeys() throws {
        let world = try world()
        let twin = world.addNode(2, name: "twin")
        let before = world[1].kernel.now
        twin.view = world.truth
        world.reconcile(twin)
        world[1].view = world.truth
        world.reconcile(world[1])
        // What was there stays, nothing new comes.
        #expect(world[1].kernel.now.associations == before.associations)
        #expect(world[1].kernel.now.endpoints == before.endpoints)
        #expect(twin.kernel.now.associations.isEmpty)
        for node in [world[1], twin] {
            #expect(node.last.problems.filter { $0.message.contains("2 is the number of node-2 and twin") }.count == 2)
        }
    }

    // MARK: Addresses

    @Test func anAddressMovesWithItsPod() throws {
        let world = try world()
        world.endpoints["pod-1"] = nil
        world.addEndpoint("pod-3", on: 2, ["10.0.1.1", "fd00:1::1"])
        #expect(world.settle())
        try expectConverged(world, "afterwards")
    }

    @Test func anAddressOfTwoPodsStaysWhereItWasAndIsStrict() throws {
        let world = try world(3)
        world.addEndpoint("thief", on: 3, ["10.0.2.1"], mode: .permissive)
        world.settle()
        let a = world[1]
        let entry = try #require(a.kernel.now.endpoints[address("10.0.2.1")])
        let slot = try #require(a.kernel.now.peers.first { $0.value.nodeID == 2 }).key
        #expect(entry == EndpointEntry(place: .remote(slot: slot), strict: true))
        #expect(
            a.last.problems.contains {
                $0.object == "address 10.0.2.1" && $0.message.contains("pod-2 on node-2 and thief on node-3")
            })
        // The node of a claimant keeps protecting its own pod, and says the same.
        #expect(world[3].kernel.now.endpoints[try address("10.0.2.1")]?.isLocal == true)
        #expect(world[3].kernel.now.endpoints[try address("10.0.2.1")]?.strict == true)
        #expect(!world[3].last.problems.isEmpty)
        world.endpoints["thief"] = nil
        #expect(world.settle())
        try expectConverged(world, "afterwards")
    }

    @Test func headersAloneReachEveryNode() throws {
        let world = try world(3)
        let a = world[1]
        let before = try #require(world.objects[a.name]?.current)
        world.endpoints["pod-1"]?.headers = .hidden
        a.view = world.truth
        world.reconcile(a)
        #expect(a.kernel.now.endpoints[try address("10.0.1.1")]?.hidden == true)
        // It stands in the list from when it did before, in a list of its own number.
        let published = try #require(world.objects[a.name]?.current)
        #expect(published.revision > before.revision)
        #expect(published.endpoints.map(\.headers) == [.hidden])
        #expect(published.endpoints.map(\.since) == before.endpoints.map(\.since))
        // Who has not put it in force does not say that it has.
        let b = world[2]
        b.view = world.truth
        b.kernel.with { $0.failing = ["setEndpoint"] }
        world.reconcile(b)
        #expect(world.objects[b.name]?.current?.applied[a.name]?.revision != published.revision)
        b.kernel.with { $0.failing = [] }
        #expect(world.settle())
        try expectConverged(world, "hidden")
        #expect(world.objects[b.name]?.current?.applied[a.name]?.revision == published.revision)
        // The end of its protection is hidden, too.
        world.endpoints["pod-1"] = nil
        a.view = world.truth
        world.reconcile(a)
        let ending = try #require(world.objects[a.name]?.current?.endpoints.first)
        #expect(ending.state == .withdrawing && ending.headers == .hidden)
        #expect(a.kernel.now.endpoints[try address("10.0.1.1")]?.hidden == true)
        #expect(world.settle())
        try expectConverged(world, "gone")
    }

    @Test func anAddressOfTwoPodsIsHiddenIfOneOfThemIs() throws {
        let world = try world(3)
        world.addEndpoint("thief", on: 3, ["10.0.2.1"], headers: .hidden)
        world.settle()
        for id: NodeID in 1...3 {
            #expect(world[id].kernel.now.endpoints[try address("10.0.2.1")]?.hidden == true, "node \(id)")
        }
        #expect(world[1].kernel.now.endpoints[try address("10.0.1.1")]?.hidden == false)
        world.endpoints["thief"] = nil
        #expect(world.settle())
        try expectConverged(world, "afterwards")
    }

    @Test(arguments: ["pod-1", "double"])
    func anAddressOfTwoPodsOfOneNodeIsHiddenIfOneOfThemIs(_ hidden: String) throws {
        let world = try world()
        world.addEndpoint("double", on: 1, ["10.0.1.1"])
        world.endpoints[hidden]?.headers = .hidden
        world.settle()
        for id: NodeID in 1...2 {
            #expect(world[id].kernel.now.endpoints[try address("10.0.1.1")]?.hidden == true, "node \(id)")
        }
        world.endpoints[hidden]?.headers = .visible
        world.settle()
        for id: NodeID in 1...2 {
            #expect(world[id].kernel.now.endpoints[try address("10.0.1.1")]?.hidden == false, "node \(id)")
        }
    }

    @Test func twoEndpointsOfOneNodeWithOneAddress() throws {
        let world = try world()
        world.addEndpoint("double", on: 1, ["10.0.1.1"], mode: .permissive)
        world.settle()
        #expect(world[1].kernel.now.endpoints[try address("10.0.1.1")]?.strict == true)
        #expect(world[1].last.problems.contains { $0.message.contains("double on node-1 and pod-1 on node-1") })
        world.endpoints["double"] = nil
        #expect(world.settle())
        #expect(world[1].last.problems.isEmpty && world[2].last.problems.isEmpty)
        #expect(world[1].reconciler?.published?.endpoints.map(\.name) == ["pod-1"])
        #expect(world[1].kernel.now.attachments.keys.sorted() == ["pod-1"])
        try expectConverged(world, "afterwards")
    }

    /// A pod has gone, and the next one of its node got one of its addresses at once: the other addresses end, this one does not.
    @Test func anAddressIsUsedAgainOnItsNode() throws {
        let world = try world()
        let (used, ended) = (try address("10.0.1.1"), try address("fd00:1::1"))
        world.endpoints["pod-1"] = nil
        world.addEndpoint("next", on: 1, ["10.0.1.1"])
        for _ in 0..<60 {
            world.settle(rounds: 1)
            #expect(world[1].kernel.now.endpoints[used] != nil && world[2].kernel.now.endpoints[used] != nil)
        }
        #expect(world.settle())
        for id: NodeID in 1...2 {
            #expect(world[id].last.problems.isEmpty, "node \(id)")
            #expect(world[id].kernel.now.endpoints[ended] == nil, "node \(id)")
        }
        #expect(world[1].reconciler?.published?.endpoints.map(\.name) == ["next"])
        #expect(world[1].kernel.now.attachments.keys.sorted() == ["next"])
        try expectConverged(world, "afterwards")
    }

    // MARK: Bad days

    @Test func whatCannotBeReadTakesNothingAway() throws {
        let world = try world()
        let a = world[1]
        let before = a.kernel.now
        for kinds: Set<ObjectKind> in [[.nodes], [.endpoints], [.epochs], [.cluster], Set(ObjectKind.allCases)] {
            world.kill(a)
            a.view = world.truth
            if kinds.contains(.nodes) { a.view.nodes = [:] }
            if kinds.contains(.endpoints) { a.view.endpoints = [:] }
            if kinds.contains(.epochs) { a.view.epochs = [:] }
            if kinds.contains(.cluster) { a.view.cluster = nil }
            a.view.incomplete = kinds
            world.reconcile(a)
            let now = a.kernel.now
            #expect(now.associations == before.associations, "\(kinds)")
            #expect(now.endpoints == before.endpoints, "\(kinds)")
            #expect(now.attachments == before.attachments, "\(kinds)")
            #expect(now.sending == before.sending && now.epochFloor == before.epochFloor, "\(kinds)")
            #expect(now.strictCIDRs == before.strictCIDRs, "\(kinds)")
        }
        #expect(world.settle())
        try expectConverged(world, "afterwards")
    }

    @Test func anExpiredEpochFailsClosed() throws {
        let world = try world()
        world.now = world.now.adding(seconds: 90_000)
        for node in world.nodes.values {
            world.reconcile(node)
            #expect(node.kernel.now.sending == 0)
            #expect(node.kernel.now.associations.isEmpty)
            #expect(node.kernel.now.epochFloor == 2)
            // Still protected: strict drops.
            #expect(node.kernel.now.endpoints.values.contains { $0.isLocal && $0.strict })
        }
        // Not even a clock that goes back brings its keys back.
        world.now = world.now.adding(seconds: -90_000)
        #expect(world.settle())
        #expect(world.nodes.values.allSatisfy { $0.kernel.now.associations.isEmpty })
        world.openEpoch()
        #expect(world.settle())
        try expectConverged(world, "afterwards")
    }

    @Test func aLeaseThatEndsFailsClosedAndComesBackWithOtherKeys() throws {
        let world = try world()
        let a = world[1]
        let keys = a.kernel.now.associations.values.map(\.keyID)
        var reconciler = try #require(a.reconciler)
        let now = world.now
        _ = reconciler.reconcile(a.view, keyring: a.keyring, lapsed: [1], clock: { now })
        #expect(a.kernel.now.associations.isEmpty && a.kernel.now.sending == 0)
        a.reconciler = reconciler
        world.now = world.now.adding(seconds: 5)
        #expect(world.settle())
        try expectConverged(world, "afterwards")
        #expect(Set(a.kernel.now.associations.values.map(\.keyID)).isDisjoint(with: keys))
    }

    @Test func aNodeThatIsRemovedIsForgotten() throws {
        let world = try world(3)
        world.nodes["node-3"] = nil
        world.objects["node-3"] = nil
        world.endpoints["pod-3"] = nil
        #expect(world.settle())
        try expectConverged(world, "afterwards")
        world.addNode(3)
        world.addEndpoint("pod-3", on: 3, ["10.0.3.1"])
        #expect(world.settle())
        try expectConverged(world, "again")
    }

    @Test func anInterfaceThatVanishesIsLetGoAndComesBack() throws {
        let world = try world()
        let a = world[1]
        a.kernel.with {
            $0.namespaces.remove("/run/netns/pod-1")
            $0.state.attachments["pod-1"]?.isWhole = false
        }
        world.settle()
        #expect(a.kernel.now.attachments.isEmpty)
        #expect(world.objects[a.name]?.current?.endpoints.isEmpty == true)
        #expect(world[2].kernel.now.endpoints[try address("10.0.1.1")] == nil)
        #expect(a.last.problems.contains { $0.object == "endpoints/pod-1.json" })
        a.kernel.with { _ = $0.namespaces.insert("/run/netns/pod-1") }
        #expect(world.settle())
        try expectConverged(world, "afterwards")
    }

    @Test(arguments: ["install", "setEndpoint", "setPeer", "attach", "setSending", "removeAssociation"])
    func aCallThatFailsIsReportedAndTriedAgain(_ call: String) throws {
        let world = World(nodes: 2)
        world.openEpoch()
        for id in 1...2 { world.addEndpoint("pod-\(id)", on: NodeID(id), ["10.0.\(id).1"]) }
        if call == "removeAssociation" {
            #expect(world.settle())
            world.openEpoch()
        }
        world[1].kernel.with { $0.failing = [call] }
        world.settle(rounds: 6)
        #expect(world[1].last.needsRetry)
        #expect(world[1].last.problems.contains { $0.message.contains("\(call) fails") })
        #expect(world.brokenPromises().isEmpty)
        world[1].kernel.with { $0.failing = [] }
        #expect(world.settle())
        try expectConverged(world, "afterwards")
    }

    @Test func ourObjectIsWrittenAgainWhenSomebodyElseWritesIt() throws {
        let world = try world()
        let mine = try #require(world.objects["node-1"]?.current)
        var other = mine
        other.incarnation = .random()
        world.objects["node-1"]?.set(other)
        world.now = world.now.adding(seconds: 2)
        world[1].view = world.truth
        world.reconcile(world[1])
        #expect(world.objects["node-1"]?.current == mine)
        #expect(world[1].last.problems.contains { $0.message.contains("Do two nodes have this name?") })
    }

    @Test func revisionsNeverGoBack() throws {
        let world = try world()
        let before = try #require(world.objects["node-1"]?.current?.revision)
        // The runtime directory and the node's own object are lost, kernel and peers' acknowledgements are not.
        world.kill(world[1])
        world[1].copy.set(nil)
        world.objects["node-1"]?.set(nil)
        #expect(world.settle())
        try expectConverged(world, "afterwards")
        #expect(try #require(world.objects["node-1"]?.current?.revision) > before)
    }
}

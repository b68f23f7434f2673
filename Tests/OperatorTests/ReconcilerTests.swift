import Cluster
import Foundation
import KMS
import Keys
import Kubernetes
import Logging
import Netlink
import Secrets
import Synchronization
import Testing

@testable import Operator

/// The whole operator against an API server in memory, with nodes that do as they are told.
@Suite(.timeLimit(.minutes(2)), .serialized) struct ReconcilerTests {
    /// A KMS that wraps nothing and can be told to refuse.
    final class FakeKMS: KeyManagementService {
        let provider = KMSProvider.local
        let kekID = "kek"
        private let state = Mutex((version: "1", error: KMSError?.none, made: 0))
        func set(version: String) { state.withLock { $0.version = version } }
        func set(error: KMSError?) { state.withLock { $0.error = error } }
        var made: Int { state.withLock { $0.made } }

        func generateDEK(for context: KeyContext) async throws(KMSError) -> WrappedDEK {
            let (version, error) = state.withLock { state in
                if state.error == nil { state.made += 1 }
                return (state.version, state.error)
            }
            if let error { throw error }
            return try WrappedDEK(provider: .local, kekID: kekID, kekVersion: version, wrapped: [1, 2, 3])
        }
        func unwrap(_ blob: WrappedDEK, for context: KeyContext) async throws(KMSError) -> SecretBytes {
            SecretBytes(random: 32)
        }
        func currentKEKVersion() async throws(KMSError) -> String {
            let (version, error) = state.withLock { ($0.version, $0.error) }
            if let error { throw error }
            return version
        }
        func checkHealth() async throws(KMSError) {}
    }

    /// A cluster, operators in it, and keymgrs that publish what their spec says.
    final class World: Sendable {
        let api = FakeAPI()
        let kms = FakeKMS()
        let configuration: OperatorConfiguration
        private let tasks = Mutex<[Task<Void, Never>]>([])
        private let incarnations = Mutex<[String: Incarnation]>([:])

        init(_ change: (inout OperatorConfiguration) -> Void = { _ in }) throws {
            var configuration = OperatorConfiguration(kms: .local(kekFile: "/nowhere"))
            configuration.strictCIDRs = [try IPPrefix("10.244.0.0/16")]
            var election = OperatorConfiguration.LeaderElection()
            election.leaseDurationSeconds = 3
            election.renewDeadlineSeconds = 2
            election.retryPeriodSeconds = 1
            configuration.leaderElection = election
            change(&configuration)
            self.configuration = configuration
            api.setAbsent(["ciliumendpoints", "ciliumnodes"])
        }

        /// The operator without an election: as a leader whose lease lasts.
        func lead(_ leadership: Leadership? = nil) -> (hub: Hub, board: StatusBoard, task: Task<Void, Never>) {
            let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            let clock = KubernetesClock.system
            let hub = Hub(clusterDomain: "cluster.local", clock: clock)
            let board = StatusBoard(configuration)
            var watchers = Watchers(api: api, hub: hub, clock: clock, logger: logger)
            watchers.absence = (.milliseconds(50), .milliseconds(300))
            watchers.discoveryInterval = .milliseconds(50)
            var pace = LeaderSession.Pace()
            pace.settle = .milliseconds(5)
            pace.node = .milliseconds(20)
            pace.acknowledgements = .milliseconds(30)
            pace.statuses = .milliseconds(30)
            pace.cluster = .milliseconds(200)
            pace.nodeGrace = .milliseconds(200)
            let session = LeaderSession(
                api: api, hub: hub,
                leadership: leadership ?? Leadership(term: 1, clock: clock, end: clock.now() + .seconds(3600)),
                configuration: configuration, namespace: "xe", kms: kms, recorder: events, board: board, clock: clock,
                pace: pace, logger: logger)
            let task = Task { [watchers] in
                await withDiscardingTaskGroup { group in
                    group.addTask { await watchers.run() }
                    group.addTask { await session.run() }
                }
            }
            tasks.withLock { $0.append(task) }
            return (hub, board, task)
        }
        let events = Events()

        final class Events: EventSink {
            private let list = Mutex<[String]>([])
            func record(
                _ severity: Event.Severity, regarding: ObjectReference, reason: String, action: String, note: String
            ) {
                list.withLock {
                    $0.append("\(severity.rawValue) \(regarding.kind ?? "")/\(regarding.name ?? "") \(reason): \(note)")
                }
            }
            var all: [String] { list.withLock { $0 } }
        }

        func stop() async {
            let tasks = tasks.withLock { $0 }
            for task in tasks { task.cancel() }
            for task in tasks { await task.value }
        }

        /// A keymgr at work: publishes what its spec says, and acknowledges slices.
        func keymgrs() {
            let task = Task {
                while !Task.isCancelled {
                    for object in (try? api.all(EncryptionNodeObject.self).values.map(\.self)) ?? [] {
                        await keymgr(object)
                    }
                    try? await Task.sleep(for: .milliseconds(5))
                }
            }
            tasks.withLock { $0.append(task) }
        }

        private func keymgr(_ object: EncryptionNodeObject) async {
            guard let spec = object.spec else { return }
            let name = object.metadata.name
            let incarnation = incarnations.withLock { all in
                let known = all[name] ?? .random()
                all[name] = known
                return known
            }
            let before = object.status?.report
            var node = before?.node ?? EncryptionNode(id: spec.nodeID, incarnation: incarnation)
            let wanted = spec.endpoints.map { endpoint in
                EncryptionNode.PublishedEndpoint(
                    name: endpoint.name, addresses: endpoint.addresses, mode: endpoint.mode, headers: endpoint.headers,
                    state: .ready, since: max(1, node.revision))
            }
            let known = node.endpoints
            if wanted.map(\.name) != known.map(\.name) || wanted.map(\.mode) != known.map(\.mode)
                || wanted.map(\.headers) != known.map(\.headers)
            {
                node.revision += 1
                node.endpoints = wanted
            }
            let slices = (try? api.all(EncryptedEndpointSlice.self).values.map(\.self)) ?? []
            let entries = slices.flatMap { $0.spec?.nodes ?? [] }
            let epochs = (try? api.all(EncryptionEpochObject.self).values.compactMap { $0.spec?.number }) ?? []
            node.epochs = epochs.sorted()
            node.sending = epochs.max() ?? 0
            if node.sending != before?.sending { node.sendingSince = .now() }
            let due = EncryptedEndpointSlice.acknowledgementDue(entries)
            let through = max(before?.appliedThrough ?? 0, due)
            let report = NodeReport(node, appliedThrough: through)
            guard report != before else { return }
            var changed = object
            changed.status = .init(report: report)
            _ = try? await api.replaceStatus(changed)
        }
    }

    /// Waits until something holds.
    func eventually(
        _ what: String, within: Duration = .seconds(20), _ condition: () async throws -> Bool,
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        let end = ContinuousClock.now + within
        while ContinuousClock.now < end {
            if try await condition() { return }
            try await Task.sleep(for: .milliseconds(10))
        }
        Issue.record("not within \(within): \(what)", sourceLocation: sourceLocation)
        throw CancellationError()
    }

    func fill(_ world: World) throws {
        let fixture = try Fixture("mesh")
        for object in try fixture.decode(Namespace.self) { try world.api.put(object) }
        for object in try fixture.decode(Node.self) { try world.api.put(object) }
        for object in try fixture.decode(Service.self) { try world.api.put(object) }
        for object in try fixture.decode(Pod.self) { try world.api.put(object) }
        for object in try fixture.decode(EndpointSlice.self) { try world.api.put(object) }
    }

    private func virtual(_ name: String, to host: String) -> VirtualService {
        var spec = VirtualService.Spec(hosts: [host])
        spec.http = [.init(route: [.init(.init(host: host))])]
        var metadata = ObjectMeta(name: key(name).name, namespace: key(name).namespace)
        metadata.uid = "uid-\(name)"
        return VirtualService(metadata: metadata, spec: spec)
    }

    private func annotated(_ world: World) throws -> Set<String> {
        Set(
            try world.api.all(Pod.self).values.filter { $0.metadata.annotations?["ebpf.xdp/encrypt"] == "true" }.map {
                "\($0.key)"
            })
    }
    func wanted(_ world: World) throws -> [String] {
        try world.api.all(EncryptionNodeObject.self).values.flatMap { $0.spec?.endpoints ?? [] }
            .map { "\($0.pod.namespace)/\($0.pod.name)" }.sorted()
    }
    func published(_ world: World) throws -> [String] {
        try world.api.all(EncryptedEndpointSlice.self).values.flatMap { $0.spec?.nodes ?? [] }.flatMap(
            \.report.endpoints
        )
        .map(\.name).sorted()
    }

    @Test func fromAVirtualServiceToSlicesAndBack() async throws {
        let world = try World()
        try fill(world)
        let (_, board, _) = world.lead()
        world.keymgrs()
        // Every node gets a number, the cluster an id, and an epoch is opened.
        try await eventually("nodes") {
            Set(try world.api.all(EncryptionNodeObject.self).values.compactMap { $0.spec?.nodeID }).count == 2
        }
        try await eventually("epoch") { try world.api.all(EncryptionEpochObject.self).count == 1 }
        let cluster = try #require(try world.api.find(ClusterConfigMap.self, key("xe/xdp-encryptor-cluster"))).cluster()
        #expect(cluster.strictCIDRs.map(\.description) == ["10.244.0.0/16"])
        #expect(try wanted(world) == [])

        try world.api.put(virtual("shop/cart", to: "cart"))
        try await eventually("annotations") { try annotated(world) == ["shop/cart-v1", "shop/cart-v2"] }
        try await eventually("spec") { try wanted(world) == ["shop/cart-v1", "shop/cart-v2"] }
        try await eventually("slices") { try published(world) == ["uid-cart-v1", "uid-cart-v2"] }
        let pod = try #require(try world.api.find(Pod.self, key("shop/cart-v1")))
        #expect(pod.metadata.annotations?["ebpf.xdp/policy"] == "strict;VirtualService/shop/cart")
        #expect(pod.metadata.annotations?["ebpf.xdp/managed-by"] == "ebpf-xdp-operator")
        try await eventually("event") {
            world.events.all.contains { $0.hasPrefix("Normal Pod/cart-v1 EncryptionRequested") }
        }
        // Acknowledgements come to rest.
        try await eventually("acknowledgements") {
            let nodes = try world.api.all(EncryptedEndpointSlice.self).values.flatMap { $0.spec?.nodes ?? [] }
            let due = EncryptedEndpointSlice.acknowledgementDue(nodes)
            return nodes.count == 2 && nodes.allSatisfy { $0.report.appliedThrough >= due }
        }
        func sequence() throws -> Int64? {
            try world.api.all(EncryptedEndpointSlice.self).values.compactMap { $0.spec?.sequence }.max()
        }
        let rest = try sequence()
        try await Task.sleep(for: .milliseconds(500))
        #expect(try sequence() == rest)
        #expect(board.status.sequence == rest)

        world.api.remove(VirtualService.self, key("shop/cart"))
        try await eventually("no annotations") { try annotated(world) == [] }
        try await eventually("no endpoints") { try wanted(world) == [] }
        try await eventually("empty slices") { try published(world) == [] }
        #expect(
            try world.api.find(Pod.self, key("shop/cart-v1"))?.metadata.annotations?.keys.contains {
                $0.hasPrefix("ebpf.xdp/")
            } != true)
        await world.stop()
    }

    @Test func nothingIsLiftedWhileTheAPIServerIsGone() async throws {
        let world = try World()
        try fill(world)
        try world.api.put(virtual("shop/cart", to: "cart"))
        try world.api.put(policy("ledger", .init(podSelector: .init(matchLabels: ["app": "ledger"]))))
        let (hub, _, _) = world.lead()
        world.keymgrs()
        try await eventually("protected") {
            try wanted(world) == ["pay/ledger-0", "shop/cart-v1", "shop/cart-v2"] && annotated(world).count == 3
        }
        // VirtualServices can no longer be read, and meanwhile the policy goes.
        world.api.setFault { request in
            request.plural == "virtualservices" ? KubernetesError(.forbidden, "no right", status: 403) : nil
        }
        world.api.dropWatches()
        try await eventually("hold") { await !hub.holds.isEmpty }
        world.api.remove(EncryptionPolicy.self, key("ledger"))
        try world.api.put(
            pod("shop/new", node: "node-a", ips: ["10.244.1.77"], annotations: ["ebpf.xdp/encrypt": "true"]))
        // What is asked for is added; what nobody asks for stays.
        try await eventually("added") {
            try wanted(world) == ["pay/ledger-0", "shop/cart-v1", "shop/cart-v2", "shop/new"]
        }
        try await Task.sleep(for: .milliseconds(200))
        #expect(try annotated(world).contains("pay/ledger-0"))
        // A pod that ends leaves all the same.
        world.api.remove(Pod.self, key("shop/cart-v2"))
        try await eventually("gone") { try wanted(world) == ["pay/ledger-0", "shop/cart-v1", "shop/new"] }
        // Known again: lifted.
        world.api.clearFault()
        try await eventually("lifted") { try wanted(world) == ["shop/cart-v1", "shop/new"] }
        try await eventually("annotation lifted") { try !annotated(world).contains("pay/ledger-0") }
        await world.stop()
    }

    @Test func stormsOf410AndThrottlingPass() async throws {
        let world = try World()
        try fill(world)
        try world.api.put(policy("all", .init()))
        let count = Mutex(0)
        world.api.setFault { request in
            let number = count.withLock {
                $0 += 1; return $0
            }
            if request.verb == "patch", number.isMultiple(of: 3) {
                return KubernetesError(.tooManyRequests, "slowly", status: 429, retryAfter: .milliseconds(20))
            }
            if request.verb == "create", number.isMultiple(of: 2) { return KubernetesError(.timeout, "no answer") }
            return nil
        }
        let (hub, _, _) = world.lead()
        world.keymgrs()
        let storm = Task {
            while !Task.isCancelled {
                world.api.compact()
                try? await Task.sleep(for: .milliseconds(15))
            }
        }
        try await eventually("protected", within: .seconds(60)) {
            try annotated(world).count == 7 && wanted(world).count == 7
        }
        // Nothing flaps meanwhile.
        for _ in 0..<20 {
            #expect(try wanted(world).count == 7)
            try await Task.sleep(for: .milliseconds(10))
        }
        storm.cancel()
        world.api.clearFault()
        try await eventually("calm") { await hub.holds.isEmpty }
        #expect(try wanted(world).count == 7)
        await world.stop()
    }

    @Test func kindsOfAMeshMayComeAndGo() async throws {
        let world = try World()
        try fill(world)
        world.api.setAbsent(["ciliumendpoints", "ciliumnodes", "serviceentries", "virtualservices", "destinationrules"])
        let (hub, _, _) = world.lead()
        try await eventually("works without a mesh") { try world.api.all(EncryptionNodeObject.self).count == 2 }
        // It begins before it is believed that there is none.
        try await eventually("nothing is held") { await hub.holds.isEmpty }
        world.api.setAbsent(["ciliumendpoints", "ciliumnodes"])
        try world.api.put(virtual("shop/cart", to: "cart"))
        try await eventually("mesh is read") { try wanted(world) == ["shop/cart-v1", "shop/cart-v2"] }
        // The CRD is gone for a moment, as in an upgrade: nothing is lifted.
        world.api.setAbsent(["ciliumendpoints", "ciliumnodes", "virtualservices"])
        try await Task.sleep(for: .milliseconds(200))
        #expect(try wanted(world) == ["shop/cart-v1", "shop/cart-v2"])
        // Gone for good: what it asked for ends with it.
        try await eventually("lifted") { try wanted(world) == [] }
        await world.stop()
    }

    @Test func aKeymgrsWriteInBetweenIsNotUndone() async throws {
        let world = try World()
        try fill(world)
        try world.api.put(policy("all", .init()))
        _ = world.lead()
        world.keymgrs()
        try await eventually("protected") { try published(world).count == 7 }
        // Status and spec are written all the time; each stays the writer's own.
        for number in 0..<30 {
            try world.api.put(pod("shop/x\(number)", node: "node-a", ips: ["10.244.3.\(number + 1)"]))
        }
        try await eventually("all of them") { try published(world).count == 37 && wanted(world).count == 37 }
        await world.stop()
    }

    @Test func twoLeadersForAMoment() async throws {
        let world = try World()
        try fill(world)
        try world.api.put(policy("all", .init()))
        world.keymgrs()
        let (_, first, firstTask) = world.lead()
        try await eventually("protected") { try published(world).count == 7 }
        let before = first.status.sequence
        // A second one leads, and the first has not noticed its end.
        let (_, second, _) = world.lead()
        try await eventually("takes over") { second.status.sequence > before }
        for number in 0..<10 {
            try world.api.put(node("node-\(number + 10)", "192.168.1.\(number + 1)"))
            try world.api.put(pod("shop/y\(number)", node: "node-\(number + 10)", ips: ["10.244.4.\(number + 1)"]))
            try await Task.sleep(for: .milliseconds(20))
        }
        try await eventually("numbers") { try world.api.all(EncryptionNodeObject.self).count == 12 }
        let numbers = try world.api.all(EncryptionNodeObject.self).values.compactMap { $0.spec?.nodeID }
        #expect(Set(numbers).count == numbers.count)
        firstTask.cancel()
        await firstTask.value
        try await eventually("all of them") { try published(world).count == 17 && wanted(world).count == 17 }
        // Nobody stands in two slices, and every number was given once.
        let slices = try world.api.all(EncryptedEndpointSlice.self).values.compactMap(\.spec)
        let names = slices.flatMap { $0.nodes.map(\.name) }
        #expect(Set(names).count == names.count)
        #expect(Set(slices.map(\.sequence)).count == slices.count)
        await world.stop()
    }

    @Test func aLeaderThatHasLostItsLeaseWritesNothing() async throws {
        let world = try World()
        try fill(world)
        let clock = KubernetesClock.system
        let leadership = Leadership(term: 1, clock: clock, end: clock.now() + .seconds(2))
        let (hub, _, _) = world.lead(leadership)
        try await eventually("works") { try world.api.all(EncryptionNodeObject.self).count == 2 }
        try await eventually("end") { !leadership.isCurrent }
        // Whatever was on its way has arrived.
        try await Task.sleep(for: .milliseconds(300))
        world.api.clearLog()
        try world.api.put(policy("all", .init()))
        try world.api.put(node("node-c", "192.168.0.12"))
        try await eventually("knows") { await hub.numbers.wanted == 7 }
        try await Task.sleep(for: .milliseconds(500))
        let writes = world.api.log.filter { !["get", "list", "watch"].contains($0.verb) }
        #expect(writes == [])
        await world.stop()
    }

    @Test func replicasTakeTurns() async throws {
        let world = try World()
        try fill(world)
        try world.api.put(policy("all", .init()))
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        func replica(_ name: String) -> (worker: Operator, task: Task<Void, any Error>) {
            let worker = Operator(
                api: world.api, configuration: world.configuration, namespace: "xe", identity: name, kms: world.kms,
                clock: .system, logger: logger, pace: LeaderSession.Pace(), absence: (.milliseconds(50), .seconds(1)),
                discoveryInterval: .milliseconds(100))
            return (worker, Task { try await worker.run() })
        }
        let first = replica("one")
        try await eventually("first leads") {
            await first.worker.answer("/metrics")?.body.contains("operator_leader 1") == true
        }
        let second = replica("two")
        try await eventually("ready") { await second.worker.answer("/readyz")?.status == 200 }
        #expect(await second.worker.answer("/metrics")?.body.contains("operator_leader 0") == true)
        #expect(await second.worker.answer("/healthz")?.status == 200)
        #expect(await second.worker.answer("/nowhere") == nil)
        try await eventually("works") { try wanted(world).count == 7 }
        first.task.cancel()
        _ = await first.task.result
        try await eventually("second leads") {
            await second.worker.answer("/metrics")?.body.contains("operator_leader 1") == true
        }
        try world.api.put(pod("shop/z", node: "node-a", ips: ["10.244.5.1"]))
        try await eventually("goes on") { try wanted(world).count == 8 }
        second.task.cancel()
        _ = await second.task.result
        await world.stop()
    }

    @Test func rotatedKEKsAndOutagesOfTheKMS() async throws {
        let world = try World { configuration in
            var epochs = OperatorConfiguration.Epochs()
            epochs.pollSeconds = 1
            configuration.epochs = epochs
        }
        try fill(world)
        world.kms.set(error: KMSError(.unreachable, .local, "no"))
        let (_, board, _) = world.lead()
        world.keymgrs()
        try await eventually("outage is shown") { board.status.kmsError?.kind == .unreachable }
        #expect(try world.api.all(EncryptionEpochObject.self).isEmpty)
        world.kms.set(error: nil)
        try await eventually("first epoch", within: .seconds(60)) {
            try world.api.all(EncryptionEpochObject.self).count == 1
        }
        let cluster = try #require(board.status.cluster)
        let first = try #require(try world.api.find(EncryptionEpochObject.self, key("epoch-1")))
        #expect(first.metadata.annotations?[EncryptionEpochObject.clusterIDAnnotation] == "\(cluster.id)")
        try await eventually("phase") {
            try world.api.find(EncryptionEpochObject.self, key("epoch-1"))?.status?.phase == .active
        }
        world.kms.set(version: "2")
        try await eventually("second epoch") { try world.api.find(EncryptionEpochObject.self, key("epoch-2")) != nil }
        #expect(try world.api.find(EncryptionEpochObject.self, key("epoch-2"))?.spec?.kekVersion == "2")
        try await eventually("phases") {
            let phases = try world.api.all(EncryptionEpochObject.self).values.sorted { $0.key < $1.key }.map {
                $0.status?.phase
            }
            return phases == [.ended, .active]
        }
        await world.stop()
    }

    @Test func aLostClusterObjectComesBackWithItsID() async throws {
        let world = try World()
        try fill(world)
        let (_, board, task) = world.lead()
        world.keymgrs()
        try await eventually("epoch") { try world.api.all(EncryptionEpochObject.self).count == 1 }
        let id = try #require(board.status.cluster?.id)
        let name = key("xe/xdp-encryptor-cluster")
        world.api.remove(ClusterConfigMap.self, name)
        try await eventually("back") { try world.api.find(ClusterConfigMap.self, name)?.cluster().id == id }
        // Somebody else's id is put back; garbage is written anew.
        var map = try #require(try world.api.find(ClusterConfigMap.self, name))
        map.data?["cluster.json"] = #"{"id": "\#(ClusterID.random())", "strictCIDRs": []}"#
        try world.api.put(map)
        try await eventually("put back") { try world.api.find(ClusterConfigMap.self, name)?.cluster().id == id }
        map.data?["cluster.json"] = "{"
        try world.api.put(map)
        try await eventually("written anew") { (try? world.api.find(ClusterConfigMap.self, name)?.cluster().id) == id }
        // A new operator that remembers nothing: the epochs do.
        task.cancel()
        await task.value
        world.api.remove(ClusterConfigMap.self, name)
        let (_, fresh, _) = world.lead()
        try await eventually("remembered") { fresh.status.cluster?.id == id }
        // And numbers of nodes go on above those that are in use.
        try world.api.put(node("node-c", "192.168.0.12"))
        try await eventually("third node") {
            try world.api.find(EncryptionNodeObject.self, key("node-c"))?.spec?.nodeID == 3
        }
        await world.stop()
    }

    @Test func withoutAMemoryNoNewIDIsDrawn() async throws {
        let world = try World()
        try fill(world)
        let epoch = EncryptionEpoch(
            number: 1, wrappedDEK: Base64([1]), provider: "local", kekID: "k", kekVersion: "1", notBefore: .now(),
            notAfter: Timestamp.now().adding(seconds: 1000), acknowledgeBy: .now())
        try world.api.put(EncryptionEpochObject(epoch))
        let (_, board, _) = world.lead()
        try await Task.sleep(for: .seconds(1))
        #expect(board.status.cluster == nil)
        #expect(try world.api.find(ClusterConfigMap.self, key("xe/xdp-encryptor-cluster")) == nil)
        #expect(try world.api.all(EncryptionNodeObject.self).isEmpty)
        await world.stop()
    }

    @Test func nodesThatAreGoneLoseTheirObjectAfterAWhile() async throws {
        let world = try World()
        try fill(world)
        _ = world.lead()
        world.keymgrs()
        try world.api.put(node("node-c", "192.168.0.12"))
        try await eventually("third node") {
            try world.api.all(EncryptedEndpointSlice.self).values.flatMap { $0.spec?.nodes ?? [] }.count == 3
        }
        world.api.remove(Node.self, key("node-c"))
        try await eventually("gone") { try world.api.find(EncryptionNodeObject.self, key("node-c")) == nil }
        try await eventually("gone from slices") {
            try world.api.all(EncryptedEndpointSlice.self).values.flatMap { $0.spec?.nodes ?? [] }.count == 2
        }
        // A node with pods stays.
        world.api.remove(Node.self, key("node-a"))
        try await Task.sleep(for: .milliseconds(500))
        #expect(try world.api.find(EncryptionNodeObject.self, key("node-a")) != nil)
        // It comes back with another number.
        try world.api.put(node("node-c", "192.168.0.12"))
        try await eventually("back") {
            try world.api.find(EncryptionNodeObject.self, key("node-c"))?.spec?.nodeID ?? 0 > 3
        }
        await world.stop()
    }

    @Test func slicesThatSomebodyElseWritesOrDeletesAreRepaired() async throws {
        let world = try World()
        try fill(world)
        try world.api.put(policy("all", .init()))
        let (_, board, _) = world.lead()
        world.keymgrs()
        try await eventually("published") { try published(world).count == 7 }
        var slice = try #require(try world.api.find(EncryptedEndpointSlice.self, key("slice-1")))
        slice.spec?.nodes = []
        try world.api.put(slice)
        try await eventually("repaired") { try published(world).count == 7 }
        let sequence = board.status.sequence
        world.api.remove(EncryptedEndpointSlice.self, key("slice-1"))
        try await eventually("back") { try published(world).count == 7 }
        #expect(try world.api.find(EncryptedEndpointSlice.self, key("slice-1"))?.spec?.sequence ?? 0 > sequence)
        // Also when the server does not answer just then.
        try await eventually("quiet") {
            let before = board.status.sequence
            try await Task.sleep(for: .milliseconds(300))
            return board.status.sequence == before
        }
        let left = Mutex(3)
        world.api.setFault { request in
            guard request.verb == "get", request.plural == "encryptedendpointslices" else { return nil }
            return left.withLock { left in
                left -= 1
                return left < 0 ? nil : KubernetesError(.server, "not now", status: 500)
            }
        }
        world.api.remove(EncryptedEndpointSlice.self, key("slice-1"))
        try await eventually("back again") { try published(world).count == 7 }
        await world.stop()
    }

    @Test func aSliceThatCannotBeWrittenDoesNotHoldUpTheOthers() async throws {
        let world = try World()
        for number in 1...3 { try world.api.put(node("node-\(number)", "192.168.0.\(number)")) }
        world.api.setFault { request in
            request.key?.name == "slice-1" && request.verb != "get"
                ? KubernetesError(.server, "etcdserver: request is too large", status: 500) : nil
        }
        _ = world.lead()
        try await eventually("nodes") { try world.api.all(EncryptionNodeObject.self).count == 3 }
        for (key, object) in try world.api.all(EncryptionNodeObject.self) {
            var object = object
            var own = EncryptionNode(id: object.spec?.nodeID ?? 1, incarnation: .random())
            own.revision = 1
            // Each needs most of a slice.
            own.endpoints = (0..<600).map { index in
                let bytes: [UInt8] = [10, UInt8(truncatingIfNeeded: own.id), UInt8(index >> 8), UInt8(index & 255)]
                return .init(
                    name: "\(key.name)-\(index)", addresses: [IPAddress(bytes: bytes)].compactMap(\.self),
                    mode: .strict,
                    state: .ready, since: 1)
            }
            object.status = .init(report: NodeReport(own, appliedThrough: 0))
            try world.api.put(object)
        }
        func written() throws -> [String] { try world.api.all(EncryptedEndpointSlice.self).keys.map(\.name).sorted() }
        try await eventually("the others") { try written() == ["slice-2", "slice-3"] }
        world.api.clearFault()
        try await eventually("all") { try written() == ["slice-1", "slice-2", "slice-3"] }
        await world.stop()
    }

    @Test func headersAloneReachTheSlices() async throws {
        let world = try World()
        try fill(world)
        try world.api.put(policy("all", .init()))
        _ = world.lead()
        world.keymgrs()
        func headers() throws -> [Headers] {
            SliceView(
                try world.api.all(EncryptedEndpointSlice.self).reduce(into: [:]) { $0[$1.key.name] = $1.value.spec }
            ).peers.values.flatMap { $0.entry.report.endpoints.map(\.headers) }
        }
        try await eventually("published") { try headers() == Array(repeating: .visible, count: 7) }
        try world.api.put(policy("all", .init(headers: "hidden"), generation: 2))
        try await eventually("hidden") { try headers() == Array(repeating: .hidden, count: 7) }
        try world.api.put(policy("all", .init(), generation: 3))
        try await eventually("visible again") { try headers() == Array(repeating: .visible, count: 7) }
        await world.stop()
    }

    @Test func policiesSayWhatBecameOfThem() async throws {
        let world = try World()
        try fill(world)
        try putKubeProxy(world)
        try world.api.put(policy("all", .init(headers: "odd", strictCIDRs: ["10.245.0.0/16"])))
        _ = world.lead()
        world.keymgrs()
        func conditions() throws -> [String: Condition] {
            (try world.api.find(EncryptionPolicy.self, key("all"))?.status?.conditions ?? []).reduce(into: [:]) {
                $0[$1.type] = $1
            }
        }
        try await eventually("protected") {
            try world.api.find(EncryptionPolicy.self, key("all"))?.status?.protectedPods == 7
        }
        try await eventually("translation") { try conditions()["ServiceTranslation"]?.status == .isFalse }
        let all = try conditions()
        #expect(all["Enforcing"]?.reason == "ServiceTranslation")
        #expect(all["Accepted"]?.reason == "Invalid")
        #expect(all["Accepted"]?.observedGeneration == 1)
        #expect(world.events.all.contains { $0.contains("Warning EncryptionPolicy/all KubeProxy") })
        #expect(world.events.all.contains { $0.contains("Warning EncryptionPolicy/all Invalid") })
        try await eventually("prefixes") {
            try world.api.find(ClusterConfigMap.self, key("xe/xdp-encryptor-cluster"))?.cluster().strictCIDRs.count == 2
        }
        // Statuses come to rest.
        let version = try world.api.find(EncryptionPolicy.self, key("all"))?.metadata.resourceVersion
        try await Task.sleep(for: .milliseconds(400))
        #expect(try world.api.find(EncryptionPolicy.self, key("all"))?.metadata.resourceVersion == version)
        await world.stop()
    }

    @Test func kubeProxyAndSocketLoadBalancing() async throws {
        let world = try World { $0.socketLoadBalancing = true }
        try fill(world)
        try putKubeProxy(world)
        try world.api.put(policy("all", .init()))
        let board = world.lead().board
        // Before anything has been looked for.
        #expect(board.status.translation.works == true)
        world.keymgrs()
        func conditions() throws -> [String: Condition] {
            (try world.api.find(EncryptionPolicy.self, key("all"))?.status?.conditions ?? []).reduce(into: [:]) {
                $0[$1.type] = $1
            }
        }
        try await eventually("all protected") { try conditions()["Enforcing"]?.reason == "AllProtected" }
        // Several looks for kube-proxy later.
        try await Task.sleep(for: .milliseconds(500))
        let all = try conditions()
        #expect(all["ServiceTranslation"]?.status == .isTrue)
        #expect(all["ServiceTranslation"]?.reason == "KeymgrSocketLoadBalancing")
        #expect(all["Enforcing"]?.status == .isTrue)
        #expect(!world.events.all.contains { $0.contains("KubeProxy") || $0.contains("CannotTell") })
        await world.stop()
    }

    private func putKubeProxy(_ world: World) throws {
        var configMap = ConfigMap(metadata: ObjectMeta(name: "kube-proxy", namespace: "kube-system"))
        configMap.data = ["config.conf": "mode: ipvs\n"]
        try world.api.put(configMap)
        try world.api.put(
            DaemonSet(
                metadata: ObjectMeta(name: "kube-proxy", namespace: "kube-system"),
                status: .init(desiredNumberScheduled: 2)))
    }

    @Test func hostsThatMatchNothingAreReported() async throws {
        let world = try World()
        try fill(world)
        try world.api.put(virtual("shop/lost", to: "nowhere"))
        _ = world.lead()
        try await eventually("event") {
            world.events.all.contains { $0.hasPrefix("Warning VirtualService/lost HostMatchesNothing") }
        }
        await world.stop()
    }

    @Test func nodesAreToldOf() async throws {
        let world = try World()
        try fill(world)
        _ = world.lead()
        try await eventually("an object") { try world.api.all(EncryptionNodeObject.self).count == 2 }
        world.keymgrs()
        try await eventually("ready") {
            world.events.all.contains { $0.hasPrefix("Normal Node/node-a EncryptionReady") }
        }
        try await eventually("problem") {
            // The keymgrs here know of no problems: what they write takes it away again.
            if var node = try world.api.find(EncryptionNodeObject.self, key("node-a")), node.status?.problems == [] {
                node.status?.problems = [Problem(.error, "uplink eth0", "cannot be attached")]
                _ = try? await world.api.replaceStatus(node)
            }
            return world.events.all.contains {
                $0.hasPrefix("Warning Node/node-a EncryptionProblem") && $0.contains("uplink eth0")
            }
        }
        await world.stop()
    }

    /// Policies need no services; mesh resources lead to no pod, and the operator works all the same.
    @Test func aServerWithoutEndpointSlices() async throws {
        let world = try World()
        try fill(world)
        world.api.setAbsent(["ciliumendpoints", "ciliumnodes", "endpointslices"])
        try world.api.put(policy("all", .init()))
        _ = world.lead()
        world.keymgrs()
        try await eventually("protected") {
            try world.api.find(EncryptionPolicy.self, key("all"))?.status?.protectedPods == 7
        }
        await world.stop()
    }
}

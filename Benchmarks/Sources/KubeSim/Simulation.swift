internal import Glibc
internal import Synchronization

/// A cluster in memory, with an API server in front of it: nodes, pods, services, mesh resources and policies; a kubelet and a scheduler
/// that make pods come and go; and a keymgr on every node but one, which do what real ones do towards the API: they publish what the
/// operator wants of them as protected, and acknowledge slices. They write straight into the store.
public final class Simulation: Sendable {
    /// How large.
    public struct Size: Sendable {
        /// Nodes, the one with the real agent among them.
        public var nodes: Int
        /// Pods at the beginning; churn keeps their number about the same.
        public var pods: Int

        /// Makes a size.
        public init(nodes: Int, pods: Int) {
            self.nodes = nodes
            self.pods = pods
        }
    }

    /// A pod of the node with the real agent, which is really there.
    public struct OwnPod: Sendable {
        /// Its name.
        public var name: String
        /// Its addresses, as text.
        public var addresses: [String]

        /// Makes a pod.
        public init(name: String, addresses: [String]) {
            self.name = name
            self.addresses = addresses
        }
    }

    /// Something to look for in a node's kernel.
    public struct Sample: Sendable {
        /// An IPv4 address.
        public var address: UInt32
        /// It must come; otherwise it must go.
        public var isComing: Bool
        /// When the pod changed, seconds of the monotonic clock.
        public var since: Double
    }

    /// The name of the node with the real agent.
    public static let ownNode = "node-00000"
    let size: Size
    let store: Store
    let server: Server
    let keymgrs: Keymgrs
    let population: Mutex<Population>
    private let samples = Mutex<[Sample]>([])

    /// Loads everything. Nothing moves before `start`.
    public init(_ size: Size, ownPods: [OwnPod]) {
        self.size = size
        let store = Store(Kinds.all)
        let keymgrs = Keymgrs(store, nodes: size.nodes)
        self.store = store
        self.keymgrs = keymgrs
        server = Server(store) { plural, name in
            switch plural {
            case "encryptionnodes": keymgrs.specChanged(name)
            case "encryptionepochs": keymgrs.epochChanged(name)
            case "encryptedendpointslices": keymgrs.sliceChanged(name)
            default: break
            }
        }
        population = Mutex(Population(nodes: size.nodes))
        load(ownPods)
    }

    /// Serves a listening socket.
    public func serve(_ listener: Int32) { server.serve(listener) }

    /// The other nodes' keymgrs begin to work.
    public func start() { keymgrs.start() }

    /// Addresses that shall be protected at present, of all nodes.
    public var expected: Int { population.withLock { $0.expected } }

    /// Pods that shall be annotated.
    public var expectedPods: Int { population.withLock { $0.expectedPods } }

    /// What has happened since the last time.
    public func takeSamples() -> [Sample] {
        samples.withLock { samples in
            defer { samples = [] }
            return samples
        }
    }

    /// Statuses that simulated keymgrs have written.
    public var statusWrites: Int { keymgrs.writes }

    /// Pods that the operator has annotated.
    public var requests: [String: Int] { server.requests }

    private func load(_ ownPods: [OwnPod]) {
        for (index, name) in (0..<Kinds.namespaces).map({ ($0, Kinds.namespace($0)) }) {
            put(Kinds.namespace, name, Template.namespace(name, group: index % Kinds.policies))
            put(Kinds.virtualService, "\(name)/mesh", Template.virtualService(name))
            for app in 0..<Kinds.apps { put(Kinds.service, "\(name)/app-\(app)", Template.service(name, app)) }
        }
        put(Kinds.namespace, "xdp-encryptor", Template.namespace("xdp-encryptor", group: nil))
        for number in 0..<Kinds.policies { put(Kinds.policy, "policy-\(number)", Template.policy(number)) }
        for number in 0..<size.nodes {
            put(Kinds.node, Kinds.node(number), Template.node(number))
            put(Kinds.encryptionNode, Kinds.node(number), Template.encryptionNode(number))
        }
        var members: [String: [(pod: String, address: UInt32, node: Int)]] = [:]
        population.withLock { population in
            for _ in 0..<size.pods {
                let number = population.add(at: 0)
                population.assign(number, at: -100)
                let pod = population.pods[number]
                put(Kinds.pod, pod.key, Template.pod(pod, isRunning: true))
                members["\(Kinds.namespace(pod.namespace))/app-\(pod.app)", default: []].append(
                    (pod.name, pod.address, pod.node))
            }
            for (index, own) in ownPods.enumerated() {
                put(Kinds.pod, "ns-000/\(own.name)", Template.ownPod(own, index))
                population.expected += own.addresses.count
                population.expectedPods += 1
            }
        }
        for (service, pods) in members {
            put(Kinds.endpointSlice, service + "-1", Template.endpointSlice(service, pods))
        }
    }

    private func put(_ kind: Store.Kind, _ name: String, _ object: String) {
        _ = try? store.change(kind, name) { (_, version) throws(Store.Refusal) in
            Store.versioned(Array(object.utf8.dropFirst()), version)
        }
    }

    // MARK: churn

    /// What happened while pods came and went.
    public struct Churn: Sendable {
        /// Events of each sort.
        public var counts: [String: Int] = [:]
        /// How long it took, seconds.
        public var seconds = 0.0
        /// All events in a second.
        public var rate: Double { Double(counts.values.reduce(0, +)) / max(seconds, 0.001) }
    }

    /// Makes pods come and go: so many changes a second, a quarter of each sort. Every `sampling`th change of an address is
    /// remembered to be looked for. Blocks.
    public func churn(rate: Int, seconds: Double, sampling: Int) -> Churn {
        var churn = Churn()
        let begin = monotonic()
        var done = 0
        while true {
            let now = monotonic()
            if now - begin >= seconds { break }
            let due = Int((now - begin) * Double(rate))
            // A machine that cannot keep up shows it in the rate.
            for _ in 0..<min(due - done, 200) {
                churn.counts[event(done, sampling), default: 0] += 1
                done += 1
            }
            pause(0.004)
        }
        churn.seconds = monotonic() - begin
        return churn
    }

    private func event(_ index: Int, _ sampling: Int) -> String {
        let now = monotonic()
        switch index % 4 {
        case 0:
            let pod = population.withLock { population in
                let number = population.add(at: now)
                return population.pods[number]
            }
            put(Kinds.pod, pod.key, Template.pod(pod, isRunning: false))
            return "created"
        case 1:
            guard let pod = population.withLock({ $0.assignNext(now) }) else { return relabel(now) }
            change(pod, Template.running(pod))
            if pod.isProtected, index / 4 % sampling == 0 {
                samples.withLock { $0.append(Sample(address: pod.address, isComing: true, since: now)) }
            }
            return "given an address"
        case 2: return relabel(now)
        default:
            guard let pod = population.withLock({ $0.removeAny(now) }) else { return relabel(now) }
            store.remove(Kinds.pod, pod.key)
            if pod.isProtected, index / 4 % sampling == 0 {
                samples.withLock { $0.append(Sample(address: pod.address, isComing: false, since: now)) }
            }
            return "deleted"
        }
    }

    private func relabel(_ now: Double) -> String {
        let (pod, number) = population.withLock { $0.any() }
        change(pod, "\"metadata\":{\"labels\":{\"rollout\":\"r-\(number % 50)\"}}")
        return "labelled"
    }

    private func change(_ pod: PodRecord, _ patch: String) {
        _ = try? store.change(Kinds.pod, pod.key) { (before, version) throws(Store.Refusal) in
            guard let before else { return nil }
            let merged = RawJSON.merge(before.json, Array("{\(patch)}".utf8)[...])
            return Store.versioned(Array(merged.dropFirst()), version)
        }
    }
}

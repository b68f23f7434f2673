internal import Cluster
internal import Keys
internal import Kubernetes
internal import Netlink
internal import Synchronization

/// The inventory, shared: watchers put events in, the leader asks what is to be done. The inventory itself never leaves, or every
/// later change would copy it.
actor Hub {
    private var inventory: Inventory
    private nonisolated let inbox = Inbox()
    private let clock: KubernetesClock
    private var wereHolds = true
    private var sliceEvents: [String: SliceEvent] = [:]
    private var pendingReports: Set<String> = []
    private var lastSettle = Duration.zero
    private var events: UInt64 = 0

    /// Something has changed: for the one who settles.
    nonisolated let changed = ChangeSignal()

    /// Events that were not looked at yet. Thousands come in a second: to change over to the actor and back for each would take longer than
    /// the event itself.
    private final class Inbox: Sendable {
        typealias Event = @Sendable (inout Inventory) -> Void
        private let events = Mutex<[Event]>([])
        /// More than these wait outside.
        private static let room = 512

        /// Puts an event in. False when it is time to look at them.
        func add(_ event: @escaping Event) -> Bool {
            events.withLock { events in
                events.append(event)
                return events.count < Self.room
            }
        }

        func take() -> [Event] {
            events.withLock { events in
                defer { events = [] }
                return events
            }
        }
    }

    /// Takes what has come. Before anything is asked of the inventory.
    private func look() {
        let events = inbox.take()
        for event in events { event(&inventory) }
        self.events += UInt64(events.count)
        sinceSettled += events.count
        // Nobody else takes the changes of a replica that waits; a leader begins by looking at everything.
        guard !isLed, sinceSettled >= 4096 else { return }
        sinceSettled = 0
        _ = inventory.settle()
    }
    private var sinceSettled = 0

    /// What has happened to a slice.
    enum SliceEvent: Sendable {
        case seen(resourceVersion: String?, sequence: Int64)
        case deleted
    }

    init(clusterDomain: String, clock: KubernetesClock) {
        inventory = Inventory(clusterDomain: clusterDomain)
        self.clock = clock
    }

    // MARK: Events

    nonisolated func handle<O: Inventoried>(_ event: Reflector<O>.Event) async {
        await take { $0.handle(event) }
    }

    /// Events are looked at in the order in which they come, before anything else is asked.
    private nonisolated func take(_ event: @escaping @Sendable (inout Inventory) -> Void) async {
        let hasRoom = inbox.add(event)
        changed.set()
        if !hasRoom { await look() }
    }

    /// Whether somebody settles.
    func setLed(_ isLed: Bool) {
        self.isLed = isLed
        sliceEvents = [:]
    }
    private var isLed = false

    /// What is known of an object before a request about it is sent; nil for kinds of which no versions are kept.
    func witness(_ kind: WatchedKind, _ key: ObjectKey) -> Witness? {
        look()
        return inventory.witness(kind, [key])
    }

    /// The same of all objects of a kind, before they are listed.
    func witness(_ kind: WatchedKind) -> Witness? {
        look()
        return inventory.witness(kind, inventory.keys(kind))
    }

    /// Takes an answer, unless the watch has told of the object meanwhile. What it tells is newer, or followed by what is; and it tells
    /// nothing twice, so that an older answer put over it would stay.
    func put<O: Inventoried>(_ object: O, since witness: Witness?) {
        look()
        guard let witness, inventory.isUnchanged(object.key, since: witness) else { return }
        inventory.put(object)
        changed.set()
    }

    /// A node's endpoints were written, which is as good as an answer with the whole object.
    func wrote(
        _ endpoints: [EncryptionNodeObject.Endpoint], of node: String, resourceVersion: String?, since witness: Witness?
    ) {
        look()
        guard let witness, inventory.isUnchanged(ObjectKey(name: node), since: witness) else { return }
        inventory.wrote(endpoints, of: node, resourceVersion: resourceVersion)
    }

    func handle(slice event: Reflector<SliceHeader>.Event) {
        switch event {
        case .reset: sliceList = []
        case .listed(let header):
            sliceList?.insert(header.metadata.name)
            seen(header)
        case .applied(let header): seen(header)
        case .deleted(let key, _):
            knownSlices.remove(key.name)
            if isLed { sliceEvents[key.name] = .deleted }
        case .undecodable(let object): sliceList?.insert(object.key.name)
        case .synced:
            for name in knownSlices.subtracting(sliceList ?? knownSlices) where isLed { sliceEvents[name] = .deleted }
            knownSlices = sliceList ?? knownSlices
            sliceList = nil
            inventory.kinds[.slices]?.isSynced = true
            inventory.kinds[.slices]?.failure = nil
        case .failing(let error): inventory.kinds[.slices]?.failure = error.message
        case .recovered: inventory.kinds[.slices]?.failure = nil
        }
        changed.set()
    }
    private var sliceList: Set<String>?
    private var knownSlices: Set<String> = []

    private func seen(_ header: SliceHeader) {
        knownSlices.insert(header.metadata.name)
        // A leader begins by reading all of them.
        guard isLed else { return }
        sliceEvents[header.metadata.name] = .seen(
            resourceVersion: header.metadata.resourceVersion, sequence: header.spec?.sequence ?? 0)
    }

    func setAbsent(_ kind: WatchedKind) {
        look()
        inventory.setAbsent(kind)
        changed.set()
    }

    func setUndiscovered(_ kind: WatchedKind, _ why: String) {
        look()
        inventory.setUndiscovered(kind, why)
        changed.set()
    }

    func setServed(_ kind: WatchedKind) {
        look()
        inventory.setServed(kind)
        changed.set()
    }

    // MARK: State

    var isSynced: Bool {
        look()
        return inventory.isSynced
    }
    var holds: [String] {
        look()
        return inventory.holds
    }
    /// Whether what nobody asks for may be lifted now. Who is told that it may not has left something undone: when everything is known
    /// again, all of it is looked at anew, also when nobody has settled meanwhile.
    private func mayLift() -> Bool {
        let mayLift = inventory.holds.isEmpty
        if !mayLift { wereHolds = true }
        return mayLift
    }
    /// Kinds that are waited for, and why, for people.
    var missing: [String] {
        look()
        return inventory.kinds.filter { !$0.value.isSettled($0.key) }.map { kind, state in
            "\(kind.rawValue): \(state.undiscovered ?? state.failure ?? "not read yet")"
        }.sorted()
    }

    /// Numbers for metrics.
    struct Numbers: Sendable {
        var pods = 0, wanted = 0, nodes = 0, encryptionNodes = 0, reporting = 0, policies = 0, epochs = 0, mesh = 0
        var endpointsReady = 0
        var events: UInt64 = 0
        var settle = Duration.zero
        var holds = 0
    }
    var numbers: Numbers {
        look()
        var numbers = Numbers()
        numbers.pods = inventory.pods.count
        numbers.wanted = inventory.pods.values.count { $0.decision.mode != nil }
        numbers.nodes = inventory.nodes.count
        numbers.encryptionNodes = inventory.encryptionNodes.count
        for node in inventory.encryptionNodes.values {
            guard let report = node.report else { continue }
            numbers.reporting += 1
            numbers.endpointsReady += report.endpoints.count { $0.state == .ready }
        }
        numbers.policies = inventory.policies.count
        numbers.epochs = inventory.epochs.count
        numbers.mesh = inventory.rules.mesh.count
        numbers.events = events
        numbers.settle = lastSettle
        numbers.holds = inventory.holds.count
        return numbers
    }

    // MARK: For the leader

    /// What is to be done.
    struct Work: Sendable {
        var pods: [ObjectKey] = []
        var nodes: [String] = []
        var hasReports = false
        var hasRules = false
        var hasEpochs = false
        var isAnything = false
        var took = Duration.zero
    }

    /// Settles and says what is to be done. With `everything`, all objects are looked at, not only those that have changed.
    func settle(everything: Bool = false) -> Work {
        let begin = clock.now()
        look()
        var changes = inventory.settle()
        let mayLift = inventory.holds.isEmpty
        if everything || (mayLift && wereHolds) {
            changes.pods = Set(inventory.pods.keys)
            changes.nodes = Set(inventory.nodes.keys).union(inventory.encryptionNodes.keys)
            changes.reports = Set(inventory.encryptionNodes.keys)
            changes.rules = true
            changes.epochs = true
        }
        wereHolds = !mayLift
        pendingReports.formUnion(changes.reports)
        var work = Work()
        work.pods = changes.pods.filter { inventory.annotationPlan($0, mayLift: mayLift) != nil }
        // Whether there is anything to write is found out when their turn comes.
        work.nodes = Array(changes.nodes)
        work.hasReports = !pendingReports.isEmpty || !sliceEvents.isEmpty
        work.hasRules = changes.rules
        work.hasEpochs = changes.epochs || !changes.reports.isEmpty
        work.isAnything =
            !changes.pods.isEmpty || !changes.nodes.isEmpty || changes.rules || !changes.reports.isEmpty
            || changes.conditions
        work.took = clock.now() - begin
        lastSettle = work.took
        return work
    }

    /// A pod's annotations: what to change, and the patch.
    func annotationPatch(
        _ key: ObjectKey
    ) -> (plan: AnnotationPlan, body: [UInt8], pod: ObjectReference, version: String?)? {
        look()
        guard let entry = inventory.pods[key],
            let plan = inventory.annotationPlan(key, mayLift: mayLift())
        else { return nil }
        let reference = ObjectReference(
            apiVersion: "v1", kind: "Pod", namespace: key.namespace, name: key.name, uid: entry.facts.uid)
        return (plan, plan.body(entry), reference, entry.resourceVersion)
    }

    /// What to do about a node, with what it takes.
    enum NodeWork: Sendable {
        case none
        case create([EncryptionNodeObject.Endpoint])
        case write([EncryptionNodeObject.Endpoint], resourceVersion: String?)
        /// Something that could ask for protection is not surely known: what is there has to be looked at first.
        case merge
        case remove(uid: String?)
        /// Its node may be gone, but that is not surely known just now.
        case later
    }
    func nodeWork(_ name: String) -> NodeWork {
        look()
        let wanted = inventory.wantedEndpoints(name)
        return switch inventory.nodePlan(name, wanted: wanted) {
        case .none: inventory.mayBeGone(name) ? .later : .none
        case .create: .create(wanted)
        case .remove: mayLift() ? .remove(uid: inventory.encryptionNodes[name]?.uid) : .none
        case .write:
            mayLift()
                ? .write(wanted, resourceVersion: inventory.encryptionNodes[name]?.resourceVersion) : .merge
        }
    }
    func heldEndpoints(_ name: String, existing: [EncryptionNodeObject.Endpoint]) -> [EncryptionNodeObject.Endpoint] {
        look()
        return inventory.heldEndpoints(name, existing: existing)
    }

    /// Numbers that nodes have.
    var nodeIDs: [NodeID] {
        look()
        return inventory.encryptionNodes.values.compactMap(\.nodeID)
    }

    /// Nodes without an object.
    var newNodes: Int {
        look()
        return inventory.nodes.count { $0.value.isCandidate && inventory.encryptionNodes[$0.key] == nil }
    }

    /// Nodes that say something new, and slices that something has happened to, since the last time.
    func takeReports() -> (reports: [(node: String, report: NodeReport?)], slices: [String: SliceEvent]) {
        look()
        let reports = pendingReports.compactMap { name -> (String, NodeReport?)? in
            guard let node = inventory.encryptionNodes[name] else { return (name, nil) }
            // A node that has said nothing yet is not there for the others; one that says nothing any more stays as it was.
            return node.report.map { (name, $0) }
        }
        let slices = sliceEvents
        pendingReports = []
        sliceEvents = [:]
        return (reports, slices)
    }

    /// A slice that something has happened to could not be looked at. What has happened to it since counts more.
    func putBack(_ name: String, _ event: SliceEvent) {
        if sliceEvents[name] == nil { sliceEvents[name] = event }
    }

    /// Names of all nodes that have an object.
    var encryptionNodeNames: Set<String> {
        look()
        return Set(inventory.encryptionNodes.keys)
    }

    /// How many nodes have said something.
    var reporting: Int {
        look()
        return inventory.encryptionNodes.values.count { $0.report != nil }
    }

    /// All nodes' reports.
    var reports: [String: NodeReport] {
        look()
        return inventory.encryptionNodes.compactMapValues(\.report)
    }
    var epochs: [Epoch: EncryptionEpochObject] {
        look()
        return inventory.epochs
    }
    var epochProblems: [String: String] {
        look()
        return inventory.epochProblems
    }

    /// Whether every epoch that there is can be read.
    var areEpochsKnown: Bool {
        look()
        return inventory.kinds[.epochs]?.isCurrent == true && inventory.epochProblems.isEmpty
    }

    /// What `cluster.json` shall say.
    func strictCIDRs(configured: [IPPrefix], present: [IPPrefix]) -> [IPPrefix] {
        look()
        return ClusterPlan.strictCIDRs(
            configured: configured, policies: inventory.rules.policies, present: present,
            mayLift: mayLift())
    }

    /// Policies whose status is to be written, with the statuses before.
    func policyStatuses(
        _ translation: ServiceTranslation, now: Timestamp
    ) -> [(name: String, uid: String?, before: EncryptionPolicy.Status?, after: EncryptionPolicy.Status)] {
        look()
        let plans = PolicyStatusPlan.plan(inventory, translation: translation, now: now)
        return plans.compactMap { name, status in
            guard let policy = inventory.policies[name], policy.status != status else { return nil }
            return (name, policy.metadata.uid, policy.status, status)
        }
    }

    /// How nodes are.
    var nodeConditions: [String: NodeCondition] {
        look()
        return inventory.encryptionNodes.mapValues { NodeCondition($0) }
    }

    /// What mesh resources come to, with their uids.
    var meshOutcomes: [MeshReference: (outcome: MeshOutcome, uid: String?)] {
        look()
        return inventory.rules.mesh.reduce(into: [:]) { outcomes, pair in
            let (reference, outcome) = pair
            let uid =
                reference.kind == "ServiceEntry"
                ? inventory.mesh.serviceEntries[reference.key]?.uid : inventory.mesh.virtualServices[reference.key]?.uid
            outcomes[reference] = (outcome, uid)
        }
    }

    /// Whether kube-proxy runs as pods that no DaemonSet owns, as on some hosted clusters.
    var hasKubeProxyPods: Bool {
        look()
        return inventory.pods.contains { key, entry in
            guard key.namespace == "kube-system", !entry.facts.isFinished else { return false }
            let labels = inventory.labels(of: entry.facts)
            return labels["k8s-app"] == "kube-proxy" || labels["component"] == "kube-proxy"
        }
    }
}

public import Cluster
public import Datapath
public import Keys

/// Brings one node's kernel where the cluster's objects want it, and publishes what is there: plans, applies, looks again, until
/// nothing is left to do.
///
/// It keeps nothing that matters: killed at any instruction, another one continues from what the kernel and the node object say.
public struct Reconciler {
    /// Where the node object is written. Throws when it could not be.
    public typealias Publish = @Sendable (EncryptionNode) throws -> Void

    /// What a reconciliation came to.
    public struct Report: Sendable {
        /// What was done, in order.
        public var changes: [Change] = []
        /// What a person should know.
        public var problems: Set<Problem> = []
        /// What the kernel holds now; nil when it could not be read.
        public var state: DatapathState?
        /// Where the epochs stand.
        public var decision = EpochDecision()
        /// When time alone asks for another reconciliation, if ever.
        public var nextChange: Timestamp?
        /// Something did not work: try again soon.
        public var needsRetry = false
    }

    private let name: String
    private let nodeID: NodeID
    private let datapath: any DatapathControl
    private let publish: Publish
    private let lanes: UInt32?
    /// Our node object as it was written last.
    public private(set) var published: EncryptionNode?
    private var publishedAt = Timestamp(milliseconds: 0)
    /// Tells what was written lately: what is read may be a little older than what was written. Hashes: an object names all other nodes.
    private var recent: [Int] = []
    private var unreachable: Set<String> = []
    private var renewals = Renewals()
    /// What is in force of other nodes' lists; nil while something is left to do.
    private var following: Following?

    /// Between writing and looking again there are a few passes; more than these mean that two rules contradict each other.
    private static let maximumPasses = 24

    /// `published` is what this node wrote last, if that is still known: the copy in the runtime directory, or the node's object.
    public init(
        name: String, nodeID: NodeID, lanes: UInt32? = nil, datapath: any DatapathControl, published: EncryptionNode?,
        publish: @escaping Publish
    ) {
        self.name = name
        self.nodeID = nodeID
        self.lanes = lanes
        self.datapath = datapath
        self.published = published
        self.publish = publish
    }

    /// Reconciles once. `lapsed` are epochs that the KMS does not let us use.
    public mutating func reconcile(
        _ snapshot: Snapshot, keyring: Keyring, lapsed: Set<Epoch> = [], clock: () -> Timestamp
    ) -> Report {
        var report = Report()
        following = nil
        let seen = snapshot.nodes[name]
        var snapshot = snapshot
        retryUnreachable(snapshot)
        var isBlocked = false
        for _ in 0..<Self.maximumPasses {
            // Most often it is the one that was read, and the dictionary of all nodes is not copied.
            if let published, snapshot.nodes[name] != published { snapshot.nodes[name] = published }
            // Asked for each time: what is published must not be dated before it was done.
            let now = clock()
            // Not two at a time: it holds every address of the cluster.
            report.state = nil
            let observed: DatapathState
            do throws(DatapathError) {
                observed = try datapath.state()
            } catch {
                report.problems.insert(Problem(.error, "kernel", error.message))
                report.needsRetry = true
                return report
            }
            let situation = Situation(
                name: name, nodeID: nodeID, snapshot: snapshot, observed: observed, published: published,
                keyring: keyring, lapsed: lapsed, unreachable: unreachable, now: now)
            let plan = plan(situation)
            report.state = observed
            report.decision = situation.decision
            report.nextChange = plan.nextChange
            if !plan.changes.isEmpty, !isBlocked {
                following = nil
                // After a failure: no second attempt in this round, but what is there may be published.
                isBlocked = !apply(plan.changes, keyring: keyring, now: now, &report)
                continue
            }
            report.problems.formUnion(plan.problems)
            report.problems.formUnion(observed.openBridges.map(Self.problem))
            if snapshot.cluster == nil { return report }
            if !isBlocked { following = Following(situation) }
            var node = publication(situation)
            node.lanes = lanes
            if node == published {
                if seen == node || seen == nil && !snapshot.isComplete(.nodes) { return report }
                report.needsRetry = true
                let isOurs = seen.map { recent.contains($0.hashValue) } ?? false
                guard now >= publishedAt.adding(seconds: isOurs ? 10 : 1) else { return report }
                if let seen, !recent.isEmpty, !isOurs {
                    report.problems.insert(
                        Problem(
                            .error, "nodes/\(name).json",
                            "somebody else has written it (incarnation \(seen.incarnation)); it is written again. Do two nodes have this name?"
                        ))
                }
            }
            do {
                try publish(node)
                // Nothing follows for us from what we say of others.
                var before = published
                before?.applied = node.applied
                let isAgain = node == before
                published = node
                publishedAt = now
                recent = recent.suffix(15) + [node.hashValue]
                if isAgain { return report }
            } catch {
                report.problems.insert(
                    Problem(.error, "nodes/\(name).json", "\(error); other nodes do not see what has changed here"))
                report.needsRetry = true
                return report
            }
        }
        if !isBlocked {
            report.problems.insert(
                Problem(.error, "agent", "no end after \(Self.maximumPasses) passes; this is a bug, please report it"))
        }
        report.needsRetry = true
        return report
    }

    /// Puts in force at once what is new in other nodes' lists, as far as it is simple. Says nothing of it to anybody: the next reconciliation
    /// does, which must follow. Returns how many changes there were; nil when it has to follow without delay.
    public mutating func follow(_ snapshot: Snapshot) -> Int? {
        guard var following, snapshot.cluster != nil else { return nil }
        // So that it is changed in place.
        self.following = nil
        let changes = following.changes(to: snapshot.nodes)
        for change in changes {
            do throws(DatapathError) {
                switch change {
                case .setEndpoint(let address, let entry): try datapath.setEndpoint(address, entry)
                case .removeEndpoint(let address): try datapath.removeEndpoint(address)
                default: return nil
                }
            } catch {
                return nil
            }
        }
        self.following = following
        return changes.count
    }

    private static func problem(_ bridge: OpenBridge) -> Problem {
        Problem(
            .warning, "bridge \(bridge.name)",
            "is not for protected pods alone: \(bridge.reason). What strict pods of this node send each other through the bridge's own address is dropped as spoofed: it cannot be told from what comes from the network or from another pod"
        )
    }

    /// Applies changes in order. Returns false when something failed; what stands on its own is still done.
    private mutating func apply(
        _ changes: [Change], keyring: Keyring, now: Timestamp, _ report: inout Report
    ) -> Bool {
        var isGood = true
        var failed: Set<Int> = []
        // As a whole, where nothing fails: at the start there is one for every address of the cluster.
        defer {
            let done =
                failed.isEmpty ? changes : changes.enumerated().filter { !failed.contains($0.offset) }.map(\.element)
            if report.changes.isEmpty { report.changes = done } else { report.changes += done }
        }
        for (index, change) in changes.enumerated() {
            do throws(DatapathError) {
                try apply(change, keyring: keyring)
            } catch {
                failed.insert(index)
                if case .attach(let pod) = change, error.code == .interfaceGone {
                    // No failure of ours: the plan without it follows.
                    unreachable.insert(pod.name)
                    continue
                }
                isGood = false
                report.needsRetry = true
                if error.code == .keyUsedBefore, renew(now, &report) {
                    failed.formUnion(index..<changes.count)
                    return true
                }
                report.problems.insert(Problem(.error, change.object, "\(change) failed: \(error.message)"))
            }
        }
        return isGood
    }

    private func apply(_ change: Change, keyring: Keyring) throws(DatapathError) {
        switch change {
        case .setEndpoint(let address, let entry): try datapath.setEndpoint(address, entry)
        case .removeEndpoint(let address): try datapath.removeEndpoint(address)
        case .setPeer(let slot, let peer): try datapath.setPeer(slot: slot, peer)
        case .removePeer(let slot): try datapath.removePeer(slot: slot)
        case .setStrictCIDRs(let prefixes): try datapath.setStrictCIDRs(prefixes)
        case .setStrictEtherType(let strict): try datapath.setStrictEtherType(strict)
        case .install(let id, let peer, let context):
            let key: TrafficKey?
            do throws(KeyError) {
                key = try keyring.key(context)
            } catch {
                throw DatapathError(.failed, error.description)
            }
            guard let key else { throw DatapathError(.failed, "the DEK of epoch \(context.epoch) is not here") }
            let installed = AssociationKey(
                epoch: context.epoch, peerNodeID: peer, spi: key.spi, keyID: key.keyID, key: key.key)
            try datapath.install(installed, at: id)
        case .removeAssociation(let id): try datapath.removeAssociation(id)
        case .setSending(let epoch): try datapath.setSending(epoch: epoch)
        case .setEpochFloor(let epoch): try datapath.setEpochFloor(epoch)
        case .attach(let pod): _ = try datapath.attach(pod)
        case .detach(let name): try datapath.detach(name: name)
        }
    }

    /// A key of ours was in use before: its counters are gone, so all keys of this incarnation end here.
    private mutating func renew(_ now: Timestamp, _ report: inout Report) -> Bool {
        guard renewals.isAllowed(now) else {
            report.problems.insert(
                Problem(
                    .error, "kernel",
                    "keys that were in use before are asked for again and again; a node's object goes back and forth. New ones follow at \(renewals.next)"
                ))
            return false
        }
        do throws(DatapathError) {
            let incarnation = try datapath.renewIncarnation()
            report.problems.insert(
                Problem(
                    .warning, "kernel",
                    "a key that was in use before was asked for; all keys were made anew under incarnation \(incarnation)"
                ))
            return true
        } catch {
            report.problems.insert(Problem(.error, "kernel", "renewing the incarnation failed: \(error.message)"))
            return false
        }
    }

    /// Namespaces come and go without a sign: those that were missing are tried again, each time.
    private mutating func retryUnreachable(_ snapshot: Snapshot) {
        for name in unreachable {
            guard let endpoint = snapshot.endpoints[name], endpoint.node == self.name else {
                unreachable.remove(name)
                continue
            }
            let pod = PodInterface(
                name: name, networkNamespace: endpoint.networkNamespace, interface: endpoint.interface)
            do throws(DatapathError) {
                _ = try datapath.attach(pod)
                unreachable.remove(name)
            } catch {
                if error.code != .interfaceGone { unreachable.remove(name) }
            }
        }
    }
}

/// How often an incarnation may be renewed: at once, then after 1, 2, 4 to 60 seconds, until there was quiet for ten minutes.
private struct Renewals {
    private(set) var next = Timestamp(milliseconds: 0)
    private var pause: Int64 = 1

    mutating func isAllowed(_ now: Timestamp) -> Bool {
        guard now >= next else { return false }
        if next.milliseconds != 0 {
            pause = now.milliseconds - next.milliseconds > 600_000 ? 1 : min(pause * 2, 60)
        }
        next = now.adding(seconds: pause)
        return true
    }
}

extension Change {
    /// What a problem with it is about.
    var object: String {
        switch self {
        case .attach(let pod): "endpoints/\(pod.name).json"
        case .detach(let name): "endpoints/\(name).json"
        default: "kernel"
        }
    }
}

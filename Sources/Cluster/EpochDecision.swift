public import Keys

/// Which epochs are live, and which one is sent with: a pure function of what all nodes can read, so that all of them come to the
/// same answer without talking to each other.
///
/// An epoch is *prepared* (every node installs its keys and says so), *active* (senders use it), *retiring* (a newer one is
/// active; packets on their way still decrypt) and then *ended* (its keys are removed). At most two are live: their keys stand
/// side by side by parity. A third one waits.
public struct EpochDecision: Sendable, Hashable {
    /// Where an epoch stands.
    public enum State: String, Sendable, Hashable, Codable {
        /// Its time has not come, or two others are live.
        case waiting
        /// Nodes install its keys.
        case prepared
        /// Senders use it.
        case active
        /// Only packets on their way use it.
        case retiring
        /// Its keys are gone.
        case ended
        /// Past its time: its keys are gone, whatever else happened.
        case expired
    }

    /// Keys of these are installed, ascending: none, one, or two of different parity.
    public var live: [Epoch] = []
    /// What senders use; 0: none.
    public var sending: Epoch = 0
    /// Of every epoch that there is an object of.
    public var states: [Epoch: State] = [:]
    /// What a person should know.
    public var problems: Set<Problem> = []
    /// When time alone will change the answer, if ever.
    public var nextChange: Timestamp?

    /// Nothing is live.
    public init() {}

    /// How long after the deadline for acknowledgements nodes that still send with the older epoch are waited for, seconds.
    static let stragglerSeconds: Int64 = 30

    /// Decides. `nodes` are all nodes of the cluster, ours with what it published last. Epochs below `floor` have ended here, and do
    /// not come back, whatever the objects say.
    public static func decide(
        cluster: Cluster, epochs: [Epoch: EncryptionEpoch], nodes: [EncryptionNode], floor: Epoch = 0, now: Timestamp
    ) -> EpochDecision {
        var decision = EpochDecision()
        var changes: [Timestamp] = []
        for epoch in epochs.values {
            decision.states[epoch.number] = now < epoch.notAfter ? .waiting : .expired
            changes += [epoch.notBefore, epoch.notAfter, epoch.acknowledgeBy]
        }
        var usable = epochs.values.filter { $0.notBefore <= now && now < $0.notAfter }.sorted { $0.number < $1.number }

        while let first = usable.first, first.number < floor { decision.states[usable.removeFirst().number] = .ended }
        while usable.count > 1 {
            guard let end = retirement(of: usable[0], by: usable[1], nodes: nodes, drain: cluster.drain) else { break }
            guard end <= now else {
                changes.append(end)
                break
            }
            decision.states[usable.removeFirst().number] = .ended
        }

        var candidates = Array(usable.prefix(2))
        if candidates.count == 2, candidates[0].number & 1 == candidates[1].number & 1 {
            let waiting = candidates.removeLast()
            decision.problems.insert(
                Problem(
                    .error, "epochs/\(waiting.number).json",
                    "waits until epoch \(candidates[0].number) has ended at \(candidates[0].notAfter): two live epochs must be consecutive; open epoch \(candidates[0].number + 1)"
                ))
        }
        decision.live = candidates.map(\.number)
        decision.sending = candidates.last { isSendable($0, nodes: nodes, now: now) }?.number ?? 0
        for epoch in decision.live {
            decision.states[epoch] =
                epoch == decision.sending ? .active : epoch < decision.sending ? .retiring : .prepared
        }
        decision.problems.formUnion(
            renewalProblems(candidates, all: epochs.values.sorted { $0.number < $1.number }, now: now))
        if let last = candidates.last { changes += [warning(of: last), alarm(of: last)] }
        decision.nextChange = changes.filter { $0 > now }.min()
        return decision
    }

    /// Every node can receive under it, or the deadline has passed. What one node has begun all follow, so that no two of them
    /// decide differently because a node joined in between.
    private static func isSendable(_ epoch: EncryptionEpoch, nodes: [EncryptionNode], now: Timestamp) -> Bool {
        nodes.contains { $0.sending >= epoch.number } || now >= epoch.acknowledgeBy
            || (!nodes.isEmpty && nodes.allSatisfy { $0.epochs.contains(epoch.number) })
    }

    /// When the keys of an epoch are no longer needed: the last sender has left it and its packets have arrived, or, for nodes
    /// that do not answer, some time after the deadline. Nil as long as nobody has left it.
    private static func retirement(
        of epoch: EncryptionEpoch, by next: EncryptionEpoch, nodes: [EncryptionNode], drain: Int64
    ) -> Timestamp? {
        // A sender beyond the next one: this one has ended before, or there would have been three.
        guard nodes.allSatisfy({ $0.sending <= next.number }) else { return next.notBefore }
        let moved = nodes.filter { $0.sending >= next.number }
        guard !moved.isEmpty else { return nil }
        // Sending with a third one begins only after the first one has ended.
        guard !nodes.contains(where: { $0.sending > next.number }) else { return next.notBefore }
        let deadline = next.acknowledgeBy.adding(seconds: stragglerSeconds)
        // A node that sends with nothing yet may just be about to send with the older one: it is waited for too.
        guard moved.count == nodes.count else { return deadline }
        let last = moved.compactMap(\.sendingSince).max() ?? next.notBefore
        return min(last.adding(seconds: drain), deadline)
    }

    // A quarter of the lifetime before the end, and a tenth.
    private static func warning(of epoch: EncryptionEpoch) -> Timestamp { moment(before: epoch, share: 4) }
    private static func alarm(of epoch: EncryptionEpoch) -> Timestamp { moment(before: epoch, share: 10) }
    private static func moment(before epoch: EncryptionEpoch, share: Int64) -> Timestamp {
        let lifetime = epoch.notAfter.milliseconds(since: epoch.notBefore)
        return Timestamp(milliseconds: epoch.notAfter.milliseconds - lifetime / share)
    }

    private static func renewalProblems(
        _ candidates: [EncryptionEpoch], all: [EncryptionEpoch], now: Timestamp
    ) -> [Problem] {
        guard let last = candidates.last else {
            let next = all.first { $0.notBefore > now }
            let why =
                all.isEmpty
                ? "there is none"
                : next.map { "the next one, \($0.number), begins at \($0.notBefore)" }
                    ?? "epoch \(all[all.count - 1].number) ended at \(all[all.count - 1].notAfter)"
            return [
                Problem(
                    .error, "epochs/",
                    "no epoch is live: \(why); no packet leaves a protected pod until one is opened with `xdp-encryptor epoch open`"
                )
            ]
        }
        guard all.last?.number == last.number, now >= warning(of: last) else { return [] }
        return [
            Problem(
                now >= alarm(of: last) ? .error : .warning, "epochs/\(last.number).json",
                "the last epoch ends at \(last.notAfter), and traffic of protected pods with it; open the next one with `xdp-encryptor epoch open`"
            )
        ]
    }
}

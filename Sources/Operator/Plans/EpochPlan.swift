public import Cluster
public import Keys

/// What follows from epochs and from what nodes say of them.
public struct EpochPlan: Sendable {
    /// Where each epoch stands.
    public var decision: EpochDecision
    /// The status of each.
    public var statuses: [Epoch: EncryptionEpochObject.Status] = [:]
    /// Epochs that ended long ago: their objects go.
    public var obsolete: [Epoch] = []

    /// Plans.
    ///
    /// An object goes when its epoch has ended, when two that have ended are newer, and when no node holds its keys. The newest one
    /// stays in any case: numbers must not begin anew.
    public static func plan(
        cluster: Cluster, epochs: [Epoch: EncryptionEpoch], nodes: [String: NodeReport], now: Timestamp
    ) -> EpochPlan {
        let all = nodes.values.map(\.node)
        let decision = EpochDecision.decide(cluster: cluster, epochs: epochs, nodes: all, now: now)
        var plan = EpochPlan(decision: decision)
        for number in epochs.keys {
            let missing = nodes.filter { !$0.value.epochs.contains(number) }.keys.sorted()
            let phase = decision.states[number]
            let isWaitedFor = phase == .prepared || phase == .active
            let condition =
                missing.isEmpty
                ? Condition(
                    "Acknowledged", .isTrue, reason: "AllNodes", message: "all \(nodes.count) nodes hold its keys",
                    at: now)
                : Condition(
                    "Acknowledged", .isFalse, reason: isWaitedFor ? "Waiting" : "NotHeld",
                    message: "\(missing.count) of \(nodes.count) nodes do not hold its keys", at: now)
            plan.statuses[number] = EncryptionEpochObject.Status(
                phase: phase, acknowledged: nodes.count - missing.count, nodes: nodes.count,
                missing: isWaitedFor ? Array(missing.prefix(20)) : [], conditions: [condition])
        }
        let ended = epochs.keys.filter { [.ended, .expired].contains(decision.states[$0]) }.sorted()
        plan.obsolete = ended.dropLast(2).filter { number in
            number != epochs.keys.max() && !nodes.values.contains { $0.epochs.contains(number) || $0.sending == number }
        }
        return plan
    }

    /// The number of the next epoch: above all that were ever seen; nil when there is none left.
    ///
    /// Nodes may hold one whose object was deleted. What one of them says must not use up the numbers, though, nor be in the way of the next
    /// epoch: that has to have another parity than the newest, or it could not begin before that ends.
    public static func next(epochs: some Sequence<Epoch>, nodes: some Sequence<NodeReport>) -> Epoch? {
        let newest = epochs.max() ?? 0
        let most = newest + min(.max - newest, 1 << 16)
        let highest = nodes.reduce(newest) { highest, node in
            node.epochs.reduce(max(highest, node.sending <= most ? node.sending : 0)) {
                $1 <= most ? max($0, $1) : $0
            }
        }
        let step: Epoch = newest == 0 || highest & 1 == newest & 1 ? 1 : 2
        return highest <= .max - step ? highest + step : nil
    }
}

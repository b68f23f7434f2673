public import Cluster
public import Keys
internal import Kubernetes
public import Netlink

/// What all nodes shall agree on, from the configuration and the policies.
public struct ClusterPlan: Sendable, Hashable {
    /// The strict prefixes of the configuration and of all policies, sorted, each once.
    ///
    /// While nothing may be lifted, those that are in force stay.
    public static func strictCIDRs(
        configured: [IPPrefix], policies: [PolicyRule], present: [IPPrefix], mayLift: Bool
    ) -> [IPPrefix] {
        let wanted = Set(configured + policies.flatMap(\.strictCIDRs))
        let all = mayLift ? wanted : wanted.union(present)
        return all.sorted { ($0.address, $0.length) < ($1.address, $1.length) }
    }

    /// The cluster's object, with times of the configuration.
    public static func cluster(
        id: ClusterID, strictCIDRs: [IPPrefix], epochs: OperatorConfiguration.Epochs
    ) -> Cluster {
        var cluster = Cluster(id: id, strictCIDRs: strictCIDRs)
        cluster.epochLifetimeSeconds = epochs.lifetimeSeconds
        cluster.acknowledgeWithinSeconds = epochs.acknowledgeWithinSeconds
        cluster.drainSeconds = epochs.drainSeconds
        cluster.withdrawWithinSeconds = epochs.withdrawWithinSeconds
        return cluster
    }

    /// The id of a cluster whose object was lost, as its epochs remember it; nil when they do not, or disagree.
    public static func rememberedID(_ epochs: some Sequence<EncryptionEpochObject>) -> ClusterID? {
        let ids = Set(
            epochs.compactMap { $0.metadata.annotations?[EncryptionEpochObject.clusterIDAnnotation] }
                .compactMap { ClusterID(hex: $0) })
        return ids.count == 1 ? ids.first : nil
    }
}

/// Numbers for nodes: each is given once, for ever.
public enum NodeNumbers {
    /// The first of `count` new numbers, and the high-water mark to write before they are used; nil when there are no more.
    ///
    /// - Parameters:
    ///   - mark: As the ConfigMap has it. One that is missing or makes no sense counts as what the nodes that are there tell.
    ///   - used: Of all nodes that are there.
    public static func allocate(mark: String?, used: [NodeID], count: Int) -> (first: NodeID, mark: NodeID)? {
        let floor = (used.max() ?? 0) + 1
        let first = max(mark.flatMap { NodeID($0) } ?? 1, floor, nodeIDs.lowerBound)
        guard count >= 1, UInt64(first) + UInt64(count) - 1 <= UInt64(nodeIDs.upperBound) else { return nil }
        return (first, first + NodeID(count))
    }
}

public import Keys
public import Netlink

/// What all nodes agree on: `cluster.json`.
public struct Cluster: Sendable, Hashable, Codable {
    /// Drawn when the cluster is made, never changed: another id makes other keys.
    public var id: ClusterID
    /// Pod addresses. A packet from a protected pod to an address in here that no node has published is dropped, so that a late
    /// list leaks nothing.
    public var strictCIDRs: [IPPrefix]
    /// How long a new epoch lasts, seconds. 24 h when it is not there.
    public var epochLifetimeSeconds: Int64?
    /// How long senders wait for a node that does not acknowledge a new epoch, seconds. 60 when it is not there.
    public var acknowledgeWithinSeconds: Int64?
    /// How long the keys of an epoch stay when the last sender has left it, seconds: packets on their way. 2 when it is not there.
    public var drainSeconds: Int64?
    /// How long the end of an endpoint's protection waits for nodes that do not acknowledge it, seconds. 60 when it is not there.
    public var withdrawWithinSeconds: Int64?

    /// Makes a cluster with the defaults.
    public init(id: ClusterID, strictCIDRs: [IPPrefix] = []) {
        self.id = id
        self.strictCIDRs = strictCIDRs
    }
}

extension Cluster: Checked {
    /// Seconds, 1 minute to 30 days.
    public var epochLifetime: Int64 { epochLifetimeSeconds ?? 86_400 }
    /// Seconds, 1 to 3600.
    public var acknowledgeWithin: Int64 { acknowledgeWithinSeconds ?? 60 }
    /// Seconds, 0 to 600.
    public var drain: Int64 { drainSeconds ?? 2 }
    /// Seconds, 1 to 3600.
    public var withdrawWithin: Int64 { withdrawWithinSeconds ?? 60 }

    /// Throws for the first value that cannot be.
    public func check() throws(InvalidValue) {
        for (key, value, range) in [
            ("epochLifetimeSeconds", epochLifetimeSeconds, Int64(60)...2_592_000),
            ("acknowledgeWithinSeconds", acknowledgeWithinSeconds, 1...3600),
            ("drainSeconds", drainSeconds, 0...600),
            ("withdrawWithinSeconds", withdrawWithinSeconds, 1...3600),
        ] {
            if let value, !range.contains(value) {
                throw InvalidValue(key, "\(value) is out of range; expected \(range.lowerBound) to \(range.upperBound)")
            }
        }
    }
}

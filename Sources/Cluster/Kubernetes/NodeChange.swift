public import Keys
internal import Netlink

/// What is new of a node since the last write that said something of it: a part of an object of changes.
///
/// Only a node that stands in a slice already, with the same number and incarnation, has changes. Everything else (a node that is new, or
/// that has gone) is written into its slice.
public struct NodeChange: Sendable, Hashable {
    /// The node's name.
    public var name: String
    /// The write that this builds upon: the last one before it that said something of the node. To anything else it does not apply.
    public var after: Int64
    /// Of the list; nil: the list is as it was.
    public var revision: UInt32?
    /// `endpoints` is the whole list.
    public var isWholeList = false
    /// Names of endpoints that have left the list.
    public var removed: [String] = []
    /// Endpoints that have come, or are not what they were.
    public var endpoints: [EncryptionNode.PublishedEndpoint] = []
    /// Nil: as before, as everything below.
    public var epochs: [Epoch]?
    /// The epoch that the node sends with, and since when.
    public var sending: Sending?
    /// What it has applied.
    public var appliedThrough: Int64?
    /// What it could not apply.
    public var notApplied: [String]?

    /// What a node sends with.
    public struct Sending: Sendable, Hashable, Codable {
        /// 0: nothing.
        public var epoch: Epoch
        /// When it began.
        public var since: Timestamp?

        /// Makes a pair.
        public init(epoch: Epoch, since: Timestamp?) {
            self.epoch = epoch
            self.since = since
        }
    }

    /// A change of nothing.
    public init(name: String, after: Int64) {
        self.name = name
        self.after = after
    }

    /// The difference between what was written of a node and what it says now; nil when it has to be written as a whole.
    public init?(_ before: NodeEntry, after: Int64, to report: NodeReport) {
        let old = before.report
        guard old.id == report.id, old.incarnation == report.incarnation, old.lanes == report.lanes else { return nil }
        self.init(name: before.name, after: after)
        if report.revision != old.revision || report.endpoints != old.endpoints {
            revision = report.revision
            let known = old.endpoints.reduce(into: [:]) { $0[$1.key] = $1 }
            endpoints = report.endpoints.filter { known[$0.key] != $0 }
            let names = Set(report.endpoints.map(\.key))
            removed = old.endpoints.filter { !names.contains($0.key) }.map(\.name)
        }
        if report.epochs != old.epochs { epochs = report.epochs }
        if report.sending != old.sending || report.sendingSince != old.sendingSince {
            sending = Sending(epoch: report.sending, since: report.sendingSince)
        }
        if report.appliedThrough != old.appliedThrough { appliedThrough = report.appliedThrough }
        if report.notApplied != old.notApplied { notApplied = report.notApplied }
        if endpoints.count == report.endpoints.count || applied(to: before, at: after + 1)?.report != report {
            // Everything is new, or the list is not in its usual order.
            isWholeList = revision != nil
            endpoints = isWholeList ? report.endpoints : []
            removed = []
            guard applied(to: before, at: after + 1)?.report == report else { return nil }
        }
    }

    /// The node's entry after the write with a number that carried this; nil when it makes no sense there.
    public func applied(to before: NodeEntry, at sequence: Int64) -> NodeEntry? {
        var report = before.report
        if let revision {
            report.revision = revision
            if isWholeList {
                report.endpoints = endpoints
            } else {
                let gone = Set(removed.map { EndpointName($0) })
                var changed = endpoints.reduce(into: [:]) { $0[$1.key] = $1 }
                var list: [EncryptionNode.PublishedEndpoint] = []
                list.reserveCapacity(report.endpoints.count + endpoints.count)
                var left = 0
                for endpoint in report.endpoints {
                    if gone.contains(endpoint.key) {
                        left += 1
                    } else {
                        list.append(changed.removeValue(forKey: endpoint.key) ?? endpoint)
                    }
                }
                guard left == gone.count else { return nil }
                if !changed.isEmpty {
                    list += changed.values
                    list.sort { $0.key < $1.key }
                }
                report.endpoints = list
            }
        }
        if let epochs { report.epochs = epochs }
        if let sending { (report.sending, report.sendingSince) = (sending.epoch, sending.since) }
        if let appliedThrough { report.appliedThrough = appliedThrough }
        if let notApplied { report.notApplied = notApplied }
        return before.carrying(report, at: sequence)
    }

    /// What it takes of an object's room, about as many addresses.
    public var cost: Int {
        endpoints.reduce(1 + removed.count + (notApplied?.count ?? 0)) { $0 + 1 + $1.addressCount }
    }
}

extension NodeEntry {
    /// The entry with another report of the same incarnation, in the write with a number.
    public func carrying(_ report: NodeReport, at sequence: Int64) -> NodeEntry {
        var entry = self
        entry.report = report
        if report.revision != self.report.revision || report.endpoints != self.report.endpoints {
            // A list that goes back, or changes under its revision, has to be acknowledged anew.
            entry.history.removeAll { $0.revision >= report.revision }
            entry.history.append(.init(revision: report.revision, at: sequence))
            entry.history.removeFirst(max(0, entry.history.count - NodeEntry.historyLength))
        }
        return entry
    }
}

extension NodeChange: Codable {
    private enum CodingKeys: String, CodingKey {
        case name, after, revision, all, removed, endpoints, epochs, sending, appliedThrough, notApplied
    }

    /// An endpoint without what goes without saying.
    private struct Endpoint: Codable {
        var name: String
        var addresses: [IPAddress]
        var mode: Mode?
        var headers: Headers?
        var state: EncryptionNode.State?
        var since: UInt32?
        var until: UInt32?
        var withdrawnAt: Timestamp?
    }

    /// Reads a change.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        self.init(
            name: try container.decode(String.self, forKey: .name),
            after: try container.decode(Int64.self, forKey: .after))
        let revision = try container.decodeIfPresent(UInt32.self, forKey: .revision)
        self.revision = revision
        isWholeList = try container.decodeIfPresent(Bool.self, forKey: .all) ?? false
        removed = try container.decodeIfPresent([String].self, forKey: .removed) ?? []
        let endpoints = try container.decodeIfPresent([Endpoint].self, forKey: .endpoints) ?? []
        self.endpoints = endpoints.map { endpoint in
            .init(
                name: endpoint.name, addresses: endpoint.addresses, mode: endpoint.mode ?? .strict,
                headers: endpoint.headers ?? .visible, state: endpoint.state ?? .ready,
                since: endpoint.since ?? revision ?? 0, until: endpoint.until ?? 0, withdrawnAt: endpoint.withdrawnAt)
        }
        epochs = try container.decodeIfPresent([Epoch].self, forKey: .epochs)
        sending = try container.decodeIfPresent(Sending.self, forKey: .sending)
        appliedThrough = try container.decodeIfPresent(Int64.self, forKey: .appliedThrough)
        notApplied = try container.decodeIfPresent([String].self, forKey: .notApplied)
    }

    /// Writes a change: nothing that has not changed.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(name, forKey: .name)
        try container.encode(after, forKey: .after)
        try container.encodeIfPresent(revision, forKey: .revision)
        if isWholeList { try container.encode(true, forKey: .all) }
        if !removed.isEmpty { try container.encode(removed, forKey: .removed) }
        let endpoints = endpoints.map { endpoint in
            Endpoint(
                name: endpoint.name, addresses: endpoint.addresses,
                mode: endpoint.mode == .strict ? nil : endpoint.mode,
                headers: endpoint.headers == .visible ? nil : endpoint.headers,
                state: endpoint.state == .ready ? nil : endpoint.state,
                since: endpoint.since == revision ? nil : endpoint.since,
                until: endpoint.until == 0 ? nil : endpoint.until, withdrawnAt: endpoint.withdrawnAt)
        }
        if !endpoints.isEmpty { try container.encode(endpoints, forKey: .endpoints) }
        try container.encodeIfPresent(epochs, forKey: .epochs)
        try container.encodeIfPresent(sending, forKey: .sending)
        try container.encodeIfPresent(appliedThrough, forKey: .appliedThrough)
        try container.encodeIfPresent(notApplied, forKey: .notApplied)
    }
}

extension NodeChange: Checked {
    /// Throws for the first value that cannot be. What can be seen only together with the entry that it applies to is checked then.
    public func check() throws(InvalidValue) {
        try checkNodeName(name, "name")
        guard after >= 1 else { throw InvalidValue("after", "\(after) is out of range; expected 1 or more") }
        guard revision != nil || (endpoints.isEmpty && removed.isEmpty && !isWholeList) else {
            throw InvalidValue("revision", "is missing, although the list changes")
        }
        guard Set(removed).count == removed.count else {
            throw InvalidValue("removed", "names an endpoint twice")
        }
        let names = Set(endpoints.map(\.key)).union(removed.map { EndpointName($0) })
        guard names.count == endpoints.count + removed.count else {
            throw InvalidValue("endpoints", "an endpoint stands there twice, or among those that are removed")
        }
        guard appliedThrough ?? 0 >= 0 else {
            throw InvalidValue("appliedThrough", "\(appliedThrough ?? 0) is negative; expected a sequence of a slice")
        }
    }
}

/// What slices and objects of changes come to: each node as it was written last.
///
/// A change applies to exactly the state that it was made for. If the one before it was missed, the node stays as it is and is `behind`, until
/// its slice is written again; a node that is behind is never taken for gone, and nothing is concluded from it. So are the nodes of a slice
/// that was lost.
public struct SliceView: Sendable {
    /// A node. An object, so that views of a moment ago and of now share it: they are held side by side while things change.
    public final class Peer: Sendable {
        /// As it was written last.
        public let entry: NodeEntry
        /// The write that last said something of it.
        public let at: Int64
        /// The slice that it stands in.
        let slice: String

        init(_ entry: NodeEntry, at: Int64, slice: String) {
            (self.entry, self.at, self.slice) = (entry, at, slice)
        }

        func moved(to slice: String) -> Peer { Peer(entry, at: at, slice: slice) }
    }
    private struct Slice: Sendable {
        var sequence: Int64
        var nodes: [String]
    }

    /// By name.
    public private(set) var peers: [String: Peer] = [:]
    /// Nodes of which a change is missing, and the first write that did not apply; 0: the slice is missing.
    public private(set) var behind: [String: Int64] = [:]
    /// The highest number of a write that is in it.
    public private(set) var sequence: Int64 = 0
    /// What has to be acknowledged: see `EncryptedEndpointSlice.acknowledgementDue(_:)`. Never less than that.
    public private(set) var due: Int64 = 0
    private var slices: [String: Slice] = [:]
    /// The node whose history is kept.
    private let own: String?

    /// Nothing.
    ///
    /// - Parameter own: Of other nodes than this one, only the newest revision is kept of the history: nobody asks them when they said what.
    ///   Nil: everything is kept.
    public init(own: String? = nil) {
        self.own = own
    }

    /// Everything that there is at one moment, by name.
    ///
    /// - Parameters:
    ///   - unreadable: names of objects that are there, but cannot be read: of these slices what `earlier` has stays.
    public init(
        _ specs: [String: EncryptedEndpointSlice.Spec], unreadable: some Sequence<String> = [],
        earlier: SliceView = SliceView()
    ) {
        own = earlier.own
        for name in unreadable { keep(name, earlier) }
        for (name, spec) in specs.sorted(by: { $0.value.sequence < $1.value.sequence }) { put(name, spec) }
    }

    private mutating func keep(_ name: String, _ earlier: SliceView) {
        guard let slice = earlier.slices[name] else { return }
        slices[name] = slice
        sequence = max(sequence, slice.sequence)
        for node in slice.nodes {
            guard let peer = earlier.peers[node], peer.slice == name else { continue }
            peers[node] = peer
            behind[node] = earlier.behind[node]
            due = max(due, peer.entry.publishedAt)
        }
    }

    /// The names of the slices that it is made of.
    public var sliceNames: some Collection<String> { slices.keys }

    /// Whether it has a slice of this name.
    public func hasSlice(_ name: String) -> Bool { slices[name] != nil }

    /// An object was written. Objects come in the order of their numbers.
    public mutating func put(_ name: String, _ spec: EncryptedEndpointSlice.Spec) {
        sequence = max(sequence, spec.sequence)
        guard let changes = spec.changes else { return put(slice: name, spec) }
        for change in changes { apply(change, at: spec.sequence) }
    }

    private mutating func put(slice name: String, _ spec: EncryptedEndpointSlice.Spec) {
        let before = slices[name]
        slices[name] = Slice(sequence: spec.sequence, nodes: spec.nodes.map(\.name))
        for entry in spec.nodes {
            let known = peers[entry.name]
            // Where a slice was lost, numbers may begin anew, too.
            if let known, known.at > spec.sequence, behind[entry.name] != 0 {
                // Newer changes are there already.
                if slices[known.slice]?.sequence ?? 0 <= spec.sequence { peers[entry.name] = known.moved(to: name) }
                continue
            }
            peers[entry.name] = Peer(shortened(entry), at: spec.sequence, slice: name)
            if let missed = behind[entry.name], missed <= spec.sequence { behind[entry.name] = nil }
            due = max(due, entry.publishedAt)
        }
        if let before { leave(before.nodes, name) }
    }

    private func shortened(_ entry: NodeEntry) -> NodeEntry {
        guard let own, own != entry.name, entry.history.count > 1 else { return entry }
        var entry = entry
        entry.history = Array(entry.history.suffix(1))
        return entry
    }

    /// A slice was written without these nodes, unless they are in it still: those that stand in no other slice have gone.
    private mutating func leave(_ nodes: [String], _ name: String) {
        let present = Set(slices[name]?.nodes ?? [])
        for node in nodes where !present.contains(node) && peers[node]?.slice == name {
            if let other = place(of: node, otherThan: name) {
                peers[node] = peers[node]?.moved(to: other)
            } else {
                peers[node] = nil
                behind[node] = nil
            }
        }
    }

    /// The newest slice that has a node, beside one.
    private func place(of node: String, otherThan name: String) -> String? {
        slices.filter { $0.key != name && $0.value.nodes.contains(node) }
            .max { $0.value.sequence < $1.value.sequence }?.key
    }

    private mutating func apply(_ change: NodeChange, at sequence: Int64) {
        // A node without a slice has gone since, or stands in one that cannot be read; what its slice says already is no news.
        guard let peer = peers[change.name], peer.at < sequence else { return }
        guard behind[change.name] == nil, change.after == peer.at,
            let entry = change.applied(to: peer.entry, at: sequence), isSound(entry)
        else {
            behind[change.name] = behind[change.name] ?? sequence
            return
        }
        peers[change.name] = Peer(shortened(entry), at: sequence, slice: peer.slice)
        due = max(due, entry.publishedAt)
    }

    private func isSound(_ entry: NodeEntry) -> Bool {
        do throws(InvalidValue) {
            try entry.report.check()
            return true
        } catch {
            return false
        }
    }

    /// An object is gone. One of changes has done its work.
    ///
    /// Slices are emptied, and not deleted, by who writes them: one that is gone was lost. Its nodes have not gone with it. They stay as they
    /// were, `behind`, until the next write says something of them.
    public mutating func remove(_ name: String) {
        guard let slice = slices[name] else { return }
        let lost = slice.nodes.filter { node in
            guard peers[node]?.slice == name else { return false }
            guard let other = place(of: node, otherThan: name) else { return true }
            peers[node] = peers[node]?.moved(to: other)
            return false
        }
        for node in lost { behind[node] = 0 }
        if lost.isEmpty { slices[name] = nil }
    }
}

internal import Cluster
internal import Datapath
internal import Keys

/// Which revision of our list other nodes have in force: what `EncryptionNode.applied` says in a cluster directory, put together from
/// the slices.
///
/// A node that has applied all slices as of a sequence has the revision in force that was the newest then. What was known once stays
/// known as long as neither node begins afresh: a history that has forgotten the revision, or a node that says less after a restart,
/// takes nothing back.
struct Acknowledgements: Sendable {
    private struct Known: Sendable {
        var peer: Incarnation
        var own: Incarnation
        var revision: UInt32
        /// What was made of it last: as long as it is the same, it is the same memory, for thousands of nodes.
        var applied: [String: EncryptionNode.Acknowledgement] = [:]
    }
    private var known: [String: Known] = [:]

    /// Knows nothing.
    init() {}

    /// Takes over what the kernel has of an earlier run: histories may have forgotten it. Numbers of peers do not stand in what was
    /// published, so the least that any of them has acknowledged counts for all.
    init(kernel: DatapathState, published: EncryptionNode?) {
        guard let published, published.incarnation == kernel.incarnation,
            let least = kernel.peers.values.map(\.acknowledged).min(), least > 0
        else { return }
        known = published.applied.mapValues {
            Known(peer: $0.incarnation, own: kernel.incarnation, revision: least)
        }
    }

    /// What a peer has in force of ours, by our name, both as they stand in the slices; empty when it has nothing of this incarnation, or
    /// cannot vouch for it.
    mutating func acknowledgement(
        of own: NodeEntry, by peer: NodeEntry
    ) -> [String: EncryptionNode.Acknowledgement] {
        let report = peer.report
        guard report.appliedThrough >= own.incarnationAt, report.appliedThrough > 0,
            !report.notApplied.contains(own.name)
        else { return [:] }
        var revision = own.history.last { $0.at <= report.appliedThrough }?.revision ?? 0
        var applied: [String: EncryptionNode.Acknowledgement] = [:]
        if let before = known[peer.name], before.peer == report.incarnation, before.own == own.report.incarnation {
            revision = max(revision, before.revision)
            applied = before.applied
        }
        let acknowledgement = EncryptionNode.Acknowledgement(
            incarnation: own.report.incarnation, revision: revision, epochs: report.epochs)
        guard applied[own.name] != acknowledgement else { return applied }
        applied = [own.name: acknowledgement]
        known[peer.name] = Known(
            peer: report.incarnation, own: own.report.incarnation, revision: revision, applied: applied)
        return applied
    }

    /// Forgets everything: the server has gone back to an older state.
    mutating func forget() { known = [:] }

    /// Forgets nodes that are gone.
    mutating func keep(only peers: [String: SliceView.Peer]) {
        if known.keys.contains(where: { peers[$0] == nil }) { known = known.filter { peers[$0.key] != nil } }
    }
}

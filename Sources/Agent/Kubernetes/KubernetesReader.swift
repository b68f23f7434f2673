internal import Cluster
internal import Keys

/// Everything that was read of the API: the last good version of each object.
struct KubernetesObjects: Sendable {
    var cluster: Cluster?
    /// What slices and changes come to.
    var view = SliceView()
    var epochs: [Epoch: EncryptionEpoch] = [:]
    /// Every kind has been listed once.
    var isSynced = false
    /// Kinds with an object of which no version could be read, or whose object should be there and is not.
    var incomplete: Set<ObjectKind> = []
    /// A slice or an object of changes whose newest version cannot be read: nothing new can be acknowledged.
    var hasUnreadableSlice = false
    var problems: Set<Problem> = []
}

/// Makes readings of what was read of the API. A value without input or output.
struct KubernetesReader: Sendable {
    /// How long slices that are older than what was applied before are waited for: caches of API servers lag by seconds.
    static let patience = Duration.seconds(10)

    private let name: String
    private var acknowledgements: Acknowledgements
    /// All slices as of here were in force in the kernel, also before a restart.
    private var applied: Int64
    /// The slices that are in force, or are being brought in force.
    private var admitted: (view: SliceView, sequence: Int64)?
    private var behindSince: Duration?

    /// - Parameters:
    ///   - name: of our node.
    ///   - applied: What our node has said in `appliedThrough` in this boot, 0 for nothing.
    init(name: String, applied: Int64 = 0, acknowledgements: Acknowledgements = Acknowledgements()) {
        self.name = name
        self.applied = applied
        self.acknowledgements = acknowledgements
    }

    /// Makes a reading; nil as long as nothing may be concluded from what was read.
    ///
    /// - Parameters:
    ///   - endpoints: of our node.
    ///   - published: what our node has published last.
    ///   - clock: monotonic.
    mutating func reading(
        _ objects: KubernetesObjects, endpoints: [String: EncryptedEndpoint], published: EncryptionNode?,
        clock: Duration
    ) -> Reading? {
        guard objects.isSynced else { return nil }
        var problems = objects.problems
        guard let (view, sequence) = admit(objects, &problems, clock) else { return nil }

        var snapshot = Snapshot(epochs: objects.epochs, problems: problems, incomplete: objects.incomplete)
        // Without knowing every node, nothing may begin that waits for all of them.
        if !objects.incomplete.contains(.nodes) { snapshot.cluster = objects.cluster }
        if snapshot.cluster == nil { snapshot.incomplete.insert(.cluster) }
        snapshot.endpoints = endpoints

        let own = view.peers[name]?.entry
        acknowledgements.keep(only: view.peers)
        snapshot.nodes.reserveCapacity(view.peers.count)
        for (peer, state) in view.peers where peer != name {
            var node = state.entry.report.node
            if let own { node.applied = acknowledgements.acknowledgement(of: own, by: state.entry) }
            snapshot.nodes[peer] = node
        }
        snapshot.nodes[name] = published
        return Reading(snapshot, sequence: sequence, due: view.due)
    }

    /// After a restart, when something is missing: what was in force before still is, but for nodes that are behind. Of these it is what
    /// is there. To say nothing instead would stop everybody's traffic with us.
    private func inForce(_ objects: KubernetesObjects) -> Int64 {
        if objects.hasUnreadableSlice { return 0 }
        return objects.view.behind.keys.reduce(min(applied, objects.view.sequence)) {
            min($0, objects.view.peers[$1]?.at ?? 0)
        }
    }

    /// Slices never go back behind what was applied: a server that has lost its newest writes for a moment would take endpoints away
    /// that other nodes rely on. Only when that stays so, it is what there is.
    private mutating func admit(
        _ objects: KubernetesObjects, _ problems: inout Set<Problem>, _ clock: Duration
    ) -> (view: SliceView, sequence: Int64)? {
        let highest = objects.view.sequence
        let before = admitted?.sequence ?? 0
        // What cannot be read, and changes that build upon something that was missed: their nodes stay as they were.
        if objects.hasUnreadableSlice || !objects.view.behind.isEmpty {
            guard highest >= before || admitted == nil else { return admitted }
            admitted = (objects.view, admitted == nil ? inForce(objects) : before)
            return admitted
        }
        if highest < max(applied, before) {
            let since = behindSince ?? clock
            behindSince = since
            guard clock - since >= Self.patience else {
                problems.insert(
                    Problem(
                        .warning, "encryptedendpointslices",
                        "the API server shows sequence \(highest), and \(max(applied, before)) was there before; its last state stays in force until it has caught up"
                    ))
                return admitted
            }
            // A restored backup.
            acknowledgements.forget()
            applied = highest
        }
        behindSince = nil
        applied = max(applied, highest)
        admitted = (objects.view, highest)
        return admitted
    }
}

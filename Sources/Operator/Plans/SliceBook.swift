public import Cluster
internal import Kubernetes

/// Folds what nodes say of themselves into slices, and numbers the writes. Pure: the leader reads the slices once, tells the book what
/// nodes say, writes what `due` names one after the other, and reports each outcome.
///
/// A node keeps its slice, so that a change costs one write. While a node moves (its slice has become too large) it stands in two for a
/// moment, never in none: not being there would mean that it has gone.
///
/// Where slices are large, what is new of their nodes goes into an object of changes instead: one write for all slices together, of the size
/// of what is new. The slice itself is written later (`dirty`), and when that has happened to all slices that an object of changes is
/// about, that is `obsolete`. After anything that went wrong, slices are written as a whole: whatever agents have seen then, it ends there.
public struct SliceBook: Sendable {
    /// A node's place and state.
    private struct Member: Sendable {
        /// The slice that it belongs in.
        var home: String
        /// As it was written last; nil: not yet.
        var entry: NodeEntry?
        /// The number of that write.
        var at: Int64 = 0
        /// What it said last; nil: it has gone.
        var latest: NodeReport?
        /// Slices that have it, as they were last written.
        var writtenIn: Set<String> = []
        /// What it takes of its slice's room.
        var cost = 0
    }
    private struct Slice: Sendable {
        var resourceVersion: String?
        /// The API server has it, as far as is known.
        var exists = false
        var sequence: Int64 = 0
        /// Nodes that belong in it.
        var population: Set<String> = []
        /// Nodes that it has, as it was last written.
        var written: Set<String> = []
        /// What its nodes take of its room.
        var cost = 0
        /// Objects of changes have what it does not have yet.
        var isDirty = false
    }
    /// An object of changes.
    private struct Changes: Sendable {
        var uid: String?
        /// Slices that have to be written before it can go.
        var slices: Set<String>
    }

    private var members: [String: Member] = [:]
    private var slices: [String: Slice] = [:]
    /// Slices with something that somebody waits for.
    private var urgent: Set<String> = []
    /// Slices with nothing new but acknowledgements.
    private var lazy: Set<String> = []
    /// Nodes with something that somebody waits for, to be written as changes.
    private var changed: Set<String> = []
    /// Nodes with nothing new but acknowledgements, to be written as changes.
    private var acknowledging: Set<String> = []
    /// Objects of changes that the API server has, by name.
    private var changes: [String: Changes] = [:]
    /// Names of those that it had: a watch may still bring them.
    private var formerChanges: Set<String> = []
    /// What a slice must take of its room for its changes to be written apart; nil: they never are.
    public var changesAbove: Int?
    /// The highest number that was ever seen or given.
    public private(set) var highest: Int64 = 0

    /// Up to where slices are filled with new nodes: the rest is room for those in it to grow. Many small slices would be less to write
    /// for a single change, but writes go one after the other: where everything changes all the time, a round of few large ones is shorter.
    static let fill = 900
    /// What a node takes beside its addresses.
    private static let overhead = 8
    /// What an object of changes may hold, in about as many addresses: some 400 KB.
    static let changesCapacity = 4000

    /// Begins with what the API server has. All slices are written once, so that no write of an earlier leader that is still on its way
    /// can be taken by the server after ours.
    ///
    /// - Parameters:
    ///   - changesAbove: Slices with more addresses and nodes than about so many are written as changes; nil: none is.
    public init(_ objects: [EncryptedEndpointSlice] = [], changesAbove: Int? = nil) {
        self.changesAbove = changesAbove
        for object in objects.sorted(by: { ($0.spec?.sequence ?? 0) < ($1.spec?.sequence ?? 0) }) { load(object) }
        // All slices are written once: then none of these is needed.
        for name in changes.keys { changes[name]?.slices = Set(slices.keys) }
    }

    /// How many slices there are.
    public var count: Int { slices.count }

    /// The entry of a node, as it was last written.
    public func entry(_ node: String) -> NodeEntry? { members[node]?.entry }

    /// The version of a slice that the next write is based on; nil when the API server does not have it.
    public func resourceVersion(_ name: String) -> String? {
        slices[name].flatMap { $0.exists ? $0.resourceVersion : nil }
    }

    /// Whether an object of changes is one that the book knows, or knew.
    public func knowsChanges(_ name: String) -> Bool { changes[name] != nil || formerChanges.contains(name) }

    /// How many objects of changes there are.
    public var changesCount: Int { changes.count }

    /// The number of the last write of a slice.
    public func sequence(_ name: String) -> Int64? { slices[name]?.sequence }

    // MARK: What the API server has

    /// Takes a slice as the API server has it: at the beginning, when somebody else has written it, or when it is not known what became
    /// of a write. It is written again.
    public mutating func load(_ object: EncryptedEndpointSlice) {
        let name = object.metadata.name
        if EncryptedEndpointSlice.isOfChanges(name) { return load(changes: object) }
        forgetWritten(name)
        slices[name]?.resourceVersion = object.metadata.resourceVersion
        slices[name]?.exists = true
        slices[name]?.sequence = object.spec?.sequence ?? 0
        highest = max(highest, object.spec?.sequence ?? 0)
        for entry in object.spec?.nodes ?? [] {
            let node = entry.name
            highest = max(highest, entry.publishedAt)
            seen(applied: entry.report.appliedThrough)
            slices[name]?.written.insert(node)
            if let member = members[node] {
                // Of two slices that have a node, the one that was written last counts, and changes that are newer than it.
                if member.entry == nil || slices[member.home]?.sequence ?? 0 <= object.spec?.sequence ?? 0 {
                    if member.at <= object.spec?.sequence ?? 0 {
                        members[node]?.entry = entry
                        members[node]?.at = object.spec?.sequence ?? 0
                    }
                    settle(node, in: name)
                }
            } else {
                members[node] = Member(
                    home: name, entry: entry, at: object.spec?.sequence ?? 0, latest: entry.report,
                    cost: Self.cost(entry.report))
                slices[name]?.population.insert(node)
                slices[name]?.cost += Self.cost(entry.report)
            }
            members[node]?.writtenIn.insert(name)
        }
        urgent.insert(name)
    }

    /// Takes an object of changes as the API server has it: of an earlier leader, of another one, or of our own when it was not known what
    /// became of the write. The slices that it is about are written again, and it goes.
    private mutating func load(changes object: EncryptedEndpointSlice) {
        let name = object.metadata.name
        var homes: Set<String> = []
        if let spec = object.spec {
            highest = max(highest, spec.sequence)
            for change in spec.changes ?? [] {
                seen(applied: change.appliedThrough ?? 0)
                guard let member = members[change.name] else { continue }
                homes.insert(member.home)
                guard let entry = member.entry, member.at == change.after, member.at < spec.sequence,
                    let changed = change.applied(to: entry, at: spec.sequence)
                else { continue }
                // What the node has said since then stays what it said last.
                if member.latest == entry.report { members[change.name]?.latest = changed.report }
                members[change.name]?.entry = changed
                members[change.name]?.at = spec.sequence
            }
        } else {
            // Nobody knows what it is about.
            homes = Set(slices.keys)
        }
        urgent.formUnion(homes)
        for home in homes { slices[home]?.isDirty = true }
        changes[name] = Changes(uid: object.metadata.uid, slices: homes)
    }

    /// It is not known what became of a write of changes. Whether or not anybody has seen them, slices tell all of it again.
    public mutating func doubt(_ spec: EncryptedEndpointSlice.Spec) {
        for change in spec.changes ?? [] {
            if let home = members[change.name]?.home { urgent.insert(home) }
        }
    }

    /// An object of changes is gone from the API server.
    public mutating func lost(changes name: String) {
        guard let lost = changes.removeValue(forKey: name) else { return }
        remember(name)
        // Somebody may begin without it now, who cannot go on then.
        urgent.formUnion(lost.slices)
    }

    /// A node has seen a write with this number: of slices that were lost, it may be all that is left. Numbers that nobody can have reached say
    /// nothing, or one node could use up what there are.
    private mutating func seen(applied number: Int64) {
        if number < Self.reachable { highest = max(highest, number) }
    }

    /// A thousand writes a second for thirty years.
    private static let reachable: Int64 = 1 << 40

    private mutating func remember(_ name: String) {
        if formerChanges.count >= 4096 { formerChanges = [] }
        formerChanges.insert(name)
    }

    /// A slice is gone from the API server: its nodes are written again.
    public mutating func lost(_ name: String) {
        guard slices[name] != nil else { return }
        forgetWritten(name)
        slices[name]?.exists = false
        slices[name]?.resourceVersion = nil
        urgent.insert(name)
    }

    private mutating func forgetWritten(_ name: String) {
        for node in slices[name]?.written ?? [] { members[node]?.writtenIn.remove(name) }
        slices[name, default: Slice()].written = []
    }

    // MARK: What nodes say

    /// A node says something; nil: its object is gone.
    public mutating func update(_ node: String, _ report: NodeReport?) {
        if let report { seen(applied: report.appliedThrough) }
        guard let member = members[node] else {
            guard let report else { return }
            let cost = Self.cost(report)
            let home = place(cost)
            members[node] = Member(home: home, latest: report, cost: cost)
            slices[home]?.population.insert(node)
            slices[home]?.cost += cost
            urgent.insert(home)
            return
        }
        guard report != member.latest || report != member.entry?.report else { return }
        let cost = Self.cost(report)
        members[node]?.latest = report
        members[node]?.cost = cost
        slices[member.home]?.cost += cost - member.cost
        guard let report, let entry = member.entry else {
            urgent.formUnion(member.writtenIn.union([member.home]))
            return
        }
        var acknowledged = entry.report
        acknowledged.appliedThrough = report.appliedThrough
        let isSmall = mayChange(member, entry, report)
        if acknowledged != report {
            if isSmall { changed.insert(node) } else { urgent.insert(member.home) }
        } else if entry.report != report {
            if isSmall { acknowledging.insert(node) } else { lazy.insert(member.home) }
        }
        makeRoom(member.home)
    }

    /// Whether what a node says now can be written as a change.
    private func mayChange(_ member: Member, _ entry: NodeEntry, _ report: NodeReport) -> Bool {
        guard let changesAbove, let slice = slices[member.home], slice.exists, slice.cost > changesAbove,
            member.writtenIn == [member.home]
        else { return false }
        return entry.report.id == report.id && entry.report.incarnation == report.incarnation
            && entry.report.lanes == report.lanes
    }

    /// Nodes that the book has and that are not among these have gone.
    public mutating func retain(only nodes: Set<String>) {
        for node in members.keys where !nodes.contains(node) { update(node, nil) }
    }

    private static func cost(_ report: NodeReport?) -> Int {
        overhead + (report?.endpoints.reduce(0) { $0 + $1.addressCount } ?? 0)
    }

    /// A slice with room; a new one if there is none.
    private mutating func place(_ cost: Int) -> String {
        let room = slices.filter { $0.value.cost + cost <= Self.fill }.keys
        if let name = room.min(by: { ($0.utf8.count, $0) < ($1.utf8.count, $1) }) { return name }
        var number = slices.count + 1
        while slices["slice-\(number)"] != nil { number += 1 }
        slices["slice-\(number)"] = Slice()
        return "slice-\(number)"
    }

    /// Makes a slice the one that a node belongs in.
    private mutating func settle(_ node: String, in home: String) {
        guard let member = members[node], member.home != home else { return }
        slices[member.home]?.population.remove(node)
        slices[member.home]?.cost -= member.cost
        slices[home]?.population.insert(node)
        slices[home]?.cost += member.cost
        members[node]?.home = home
        urgent.formUnion([home, member.home])
    }

    /// Moves nodes out of a slice that holds too much.
    private mutating func makeRoom(_ name: String) {
        while let slice = slices[name], slice.cost > EncryptedEndpointSlice.capacity, slice.population.count > 1,
            let node = slice.population.max(), let cost = members[node]?.cost
        {
            settle(node, in: place(cost))
        }
    }

    // MARK: Writing

    /// Slices to write, in order: first those that somebody waits for, then, if wanted, those with nothing but acknowledgements.
    public func due(withAcknowledgements: Bool) -> [String] {
        // A slice that takes nodes in goes before those that they leave.
        let first = urgent.sorted { arrivals($0) == arrivals($1) ? $0 < $1 : arrivals($0) }
        return withAcknowledgements ? first + lazy.subtracting(urgent).sorted() : first
    }

    private func arrivals(_ name: String) -> Bool {
        guard let slice = slices[name] else { return false }
        return !slice.population.isSubset(of: slice.written)
    }

    /// Whether anything is to be written, but for slices that are dirty.
    public var hasWork: Bool { !urgent.isEmpty || !lazy.isEmpty || hasChanges(withAcknowledgements: true) }

    /// Whether somebody waits for a write of a slice.
    public var isUrgent: Bool { !urgent.isEmpty }

    /// Whether there are changes to write.
    public func hasChanges(withAcknowledgements: Bool) -> Bool {
        !changed.isEmpty || (withAcknowledgements && !acknowledging.isEmpty)
    }

    /// Slices that have less in them than objects of changes, and are to be written at leisure.
    public var dirty: [String] { slices.filter(\.value.isDirty).keys.sorted() }

    /// Objects of changes that nobody needs any more, with their uids.
    public var obsolete: [(name: String, uid: String?)] {
        changes.filter(\.value.slices.isEmpty).map { ($0.key, $0.value.uid) }.sorted { $0.name < $1.name }
    }

    /// An object of changes was deleted.
    public mutating func deleted(changes name: String) {
        if changes.removeValue(forKey: name) != nil { remember(name) }
    }

    /// What to write into an object of changes, under a new number; nil when there is nothing. Nodes whose slice is written anyway are left
    /// to that.
    public mutating func draftChanges(withAcknowledgements: Bool) -> EncryptedEndpointSlice.Spec? {
        highest += 1
        var list: [NodeChange] = []
        var room = Self.changesCapacity
        for node in changed.sorted() + (withAcknowledgements ? acknowledging.subtracting(changed).sorted() : []) {
            guard room > 0 else { break }
            guard let member = members[node], let entry = member.entry, let report = member.latest,
                !urgent.contains(member.home), mayChange(member, entry, report),
                let change = NodeChange(entry, after: member.at, to: report)
            else {
                changed.remove(node)
                acknowledging.remove(node)
                if let member = members[node], member.latest != member.entry?.report { urgent.insert(member.home) }
                continue
            }
            guard entry.report != report else {
                changed.remove(node)
                acknowledging.remove(node)
                continue
            }
            room -= change.cost
            list.append(change)
        }
        guard !list.isEmpty else { return nil }
        return .init(sequence: highest, changes: list.sorted { $0.name < $1.name })
    }

    /// A draft of changes was taken by the API server.
    public mutating func written(changes name: String, _ spec: EncryptedEndpointSlice.Spec, uid: String?) {
        var homes: Set<String> = []
        for change in spec.changes ?? [] {
            let node = change.name
            changed.remove(node)
            acknowledging.remove(node)
            guard let member = members[node], let entry = member.entry,
                let now = change.applied(to: entry, at: spec.sequence)
            else { continue }
            members[node]?.entry = now
            members[node]?.at = spec.sequence
            homes.insert(member.home)
            slices[member.home]?.isDirty = true
            if member.latest != now.report { update(node, member.latest) }
        }
        changes[name] = Changes(uid: uid, slices: homes)
    }

    /// What to write into a slice, under a new number.
    public mutating func draft(_ name: String) -> EncryptedEndpointSlice.Spec {
        highest += 1
        var nodes: [NodeEntry] = []
        guard let slice = slices[name] else { return .init(sequence: highest, nodes: []) }
        for node in slice.population.union(slice.written) {
            guard let member = members[node], let report = member.latest else { continue }
            if member.home == name {
                nodes.append(Self.entry(node, report, after: member.entry, at: highest))
            } else if !member.writtenIn.contains(member.home), let entry = member.entry {
                // On its way: it leaves when it has arrived.
                nodes.append(entry)
            }
        }
        return EncryptedEndpointSlice.Spec(sequence: highest, nodes: nodes.sorted { $0.name < $1.name })
    }

    /// A node's entry in the write with a number.
    static func entry(_ node: String, _ report: NodeReport, after before: NodeEntry?, at sequence: Int64) -> NodeEntry {
        guard let before, before.report.incarnation == report.incarnation, before.report.id == report.id else {
            return NodeEntry(
                name: node, report: report, incarnationAt: sequence,
                history: [.init(revision: report.revision, at: sequence)])
        }
        return before.carrying(report, at: sequence)
    }

    /// A draft was taken by the API server.
    public mutating func written(_ name: String, _ spec: EncryptedEndpointSlice.Spec, resourceVersion: String?) {
        guard let before = slices[name]?.written else { return }
        slices[name]?.resourceVersion = resourceVersion
        slices[name]?.exists = true
        slices[name]?.sequence = spec.sequence
        slices[name]?.written = Set(spec.nodes.map(\.name))
        slices[name]?.isDirty = false
        for key in changes.keys { changes[key]?.slices.remove(name) }
        urgent.remove(name)
        lazy.remove(name)
        for entry in spec.nodes {
            let node = entry.name
            members[node]?.writtenIn.insert(name)
            members[node]?.at = spec.sequence
            changed.remove(node)
            acknowledging.remove(node)
            guard let member = members[node], member.home == name else { continue }
            members[node]?.entry = entry
            urgent.formUnion(member.writtenIn.subtracting([name]))
            if member.latest != entry.report { urgent.insert(name) }
        }
        for node in before.subtracting(spec.nodes.map(\.name)) { members[node]?.writtenIn.remove(name) }
        // Those that have gone, and stand nowhere any more.
        for node in before.union(slices[name]?.population ?? []) {
            guard let member = members[node], member.latest == nil, member.writtenIn.isEmpty else { continue }
            slices[member.home]?.population.remove(node)
            slices[member.home]?.cost -= member.cost
            members[node] = nil
        }
    }
}

import Agent
import Cluster
import Datapath
import Keys
import Netlink

/// What `xdp-encryptor why` answers. Its JSON is for programs: fields are added, never renamed.
struct WhyReport: Encodable {
    /// What becomes of packets, the worst last.
    enum Outcome: String, Encodable, Comparable {
        /// They are encrypted or decrypted.
        case encrypted
        /// They stay on this node, in clear.
        case sameNode = "same_node"
        /// They pass in clear.
        case clear
        /// They are dropped.
        case dropped
        /// This node does not see them.
        case elsewhere

        static func < (left: Outcome, right: Outcome) -> Bool { left.rank < right.rank }
        private var rank: Int {
            switch self {
            case .encrypted: 0
            case .sameNode: 1
            case .clear: 2
            case .dropped: 3
            case .elsewhere: 4
            }
        }
    }

    /// What is known of one address.
    struct End: Encodable {
        enum Place: String, Encodable {
            /// A protected pod of this node.
            case here
            /// A protected pod of another node.
            case peer
            /// Nobody has published it.
            case unpublished
        }
        var address: IPAddress
        var place: Place
        /// namespace/name, of pods of this node.
        var pod: String?
        /// Its UID, or its name in a cluster directory.
        var uid: String?
        /// The other node's name, or its number.
        var node: String?
        /// Clear text from or to it is dropped.
        var isStrict: Bool
        /// Whole packets from and to it are hidden, L4 headers too.
        var isHidden: Bool
        /// Protection is ending.
        var isWithdrawing: Bool
        /// Nobody has published it, and a strict CIDR has it.
        var isInStrictCIDR: Bool
        /// Of a pod of this node: all programs are attached; nil: the daemon has not told which pod it is.
        var isAttached: Bool?
    }

    /// What becomes of packets of one direction, at one end of a pod's interface.
    struct Path: Encodable {
        enum Direction: String, Encodable {
            /// They leave a pod of this node.
            case leaves
            /// They enter a pod of this node.
            case enters
        }
        var direction: Direction
        var source: IPAddress
        /// nil: any pod of these nodes.
        var destination: IPAddress?
        var outcome: Outcome
        /// As in docs/drops.md.
        var verdict: String
        var cause: Forecast.Cause
        /// Other nodes that this is about.
        var nodes: [String] = []
        /// The epoch that is encrypted with, or those that can be decrypted.
        var epochs: [Epoch] = []
        var reason: String
        /// What to do about it.
        var advice: String?
    }

    var ends: [End]
    var paths: [Path]
    /// The worst of all paths.
    var outcome: Outcome
    /// What else somebody should know.
    var notes: [String]
}

/// Works out why: pure.
struct Inquiry {
    let state: DatapathState
    let agent: AgentStatus?
    /// Whose addresses sockets have replaced.
    var services: [ServiceAddress: ServiceBackends] = [:]

    /// What a person has named.
    struct Named {
        var addresses: [IPAddress]
        /// What has to be known of it.
        var note: String?
    }

    /// No address and no pod that is known here.
    struct Unknown: Error {
        var description: String
    }

    /// What a person has named: an address, a pod of this node by namespace/name, by name, or by UID. For the address of a service, the pods
    /// behind it.
    func named(_ text: String) throws(Unknown) -> Named {
        guard let address = try? IPAddress(text) else { return Named(addresses: try addresses(text)) }
        let ports = services.filter { $0.key.address == address }
        if ports.isEmpty { return Named(addresses: [address]) }
        let pods = Set(ports.values.flatMap { $0.backends.map(\.address) }).sorted()
        let list = ports.map { "\($0.key.transport) \($0.key.port)" }.sorted().joined(separator: ", ")
        return Named(
            addresses: Array(pods.prefix(16)),
            note:
                "\(address) is the address of a service (\(list)): sockets of protected pods go to one of its \(pods.count) pods\(pods.count > 16 ? ", of which 16 are shown," : "") instead; what a strict pod sends there otherwise is dropped (service)"
        )
    }

    private func addresses(_ text: String) throws(Unknown) -> [IPAddress] {
        let pods = agent?.pods ?? []
        var found = pods.filter { $0.name == text || $0.label == text }
        if found.isEmpty { found = pods.filter { $0.label?.split(separator: "/").last.map(String.init) == text } }
        guard let pod = found.first else {
            throw Unknown(
                description:
                    "no protected pod of this node is called \(text): give its address, or run this on its node. `xdp-encryptor status` lists this node's"
            )
        }
        guard found.count == 1 else {
            let labels = found.map { $0.label ?? $0.name }.joined(separator: ", ")
            throw Unknown(description: "\(text) is the name of several pods: \(labels)")
        }
        return pod.addresses
    }

    /// About packets between two ends.
    func report(_ first: Named, _ second: Named) -> WhyReport {
        var paths: [WhyReport.Path] = []
        for one in first.addresses {
            for other in second.addresses where one.isIPv4 == other.isIPv4 && one != other {
                paths += between(one, other) + between(other, one)
            }
        }
        return report(
            first.addresses + second.addresses, paths, isBetweenTwo: true, [first.note, second.note].compactMap(\.self))
    }

    /// About packets of one end and whoever.
    func report(_ one: Named) -> WhyReport {
        report(one.addresses, one.addresses.flatMap { toAll($0) }, isBetweenTwo: false, [one.note].compactMap(\.self))
    }

    private func report(
        _ addresses: [IPAddress], _ paths: [WhyReport.Path], isBetweenTwo: Bool, _ notes: [String]
    ) -> WhyReport {
        let ends = addresses.map(end)
        var notes = notes
        for end in ends where end.isAttached == false {
            notes.append(
                "\(name(end.address)): its programs are not all attached, so what it sends is not encrypted and what it receives is not checked; ebpf-xdp-keymgr repairs that while it runs"
            )
        }
        let labels = Set(ends.compactMap(\.pod))
        for problem in agent?.problems ?? [] where labels.contains(where: { problem.object == "pod \($0)" }) {
            notes.append(problem.description)
        }
        if let updated = agent?.updated, Timestamp.now().milliseconds(since: updated) > 150_000 {
            notes.append("ebpf-xdp-keymgr has not written since \(updated): names may be old")
        }
        var outcome = paths.map(\.outcome).max() ?? .elsewhere
        if paths.isEmpty {
            let note: String
            if addresses.count == 1, let end = ends.first, end.place == .unpublished {
                outcome = end.isInStrictCIDR ? .dropped : .clear
                note =
                    end.isInStrictCIDR
                    ? "no node has published it: strict pods drop what they would exchange with it (unknown_peer)"
                    : "no node has published it: what protected pods exchange with it is not encrypted"
            } else if !ends.contains(where: { $0.place == .here }) {
                note = "no protected pod of this node is an end of this: run the command on the node of one"
            } else if isBetweenTwo {
                note = "no packet goes this way: both ends are the same, or have no addresses of one family"
            } else {
                note = "no other node has published a pod that it could talk to"
            }
            notes.append(note)
        } else if ends.contains(where: { $0.isAttached == false }) {
            outcome = max(outcome, .clear)
        }
        return WhyReport(ends: ends, paths: paths, outcome: outcome, notes: notes)
    }

    // MARK: -

    private func end(_ address: IPAddress) -> WhyReport.End {
        let entry = state.endpoints[address]
        var end = WhyReport.End(
            address: address, place: .unpublished, isStrict: entry?.strict ?? false, isHidden: entry?.hidden ?? false,
            isWithdrawing: entry?.withdrawing ?? false,
            isInStrictCIDR: entry == nil && state.isInStrictCIDR(address))
        guard let entry else { return end }
        if let slot = entry.slot {
            end.place = .peer
            end.node = node(slot)
            return end
        }
        end.place = .here
        if let pod = agent?.pods?.first(where: { $0.addresses.contains(address) }) {
            end.pod = pod.label
            end.uid = pod.name
            end.isAttached = state.attachments[pod.name]?.isWhole ?? false
        }
        return end
    }

    private func between(_ source: IPAddress, _ destination: IPAddress) -> [WhyReport.Path] {
        let (from, to) = (end(source).place, end(destination).place)
        var paths: [WhyReport.Path] = []
        if from == .here {
            let forecast = state.leaving(from: source, to: destination)
            let there = forecast.slot.map(node) ?? ""
            paths.append(leaving(forecast, source, destination, whom: name(destination), there: there))
        }
        // Between two pods of this node one line says it all.
        if to == .here, from != .here { paths.append(entering(source, destination)) }
        return paths
    }

    /// What leaves a pod of this node for pods of all others: those that fare alike together.
    private func toAll(_ source: IPAddress) -> [WhyReport.Path] {
        guard end(source).place == .here else { return [] }
        var samples: [UInt32: IPAddress] = [:]
        for (address, entry) in state.endpoints where address.isIPv4 == source.isIPv4 {
            guard let slot = entry.slot, !entry.withdrawing || samples[slot] == nil else { continue }
            // Of several that are as good the lowest, so that an answer does not change for no reason.
            if let present = samples[slot], state.endpoints[present]?.withdrawing == entry.withdrawing,
                present < address
            {
                continue
            }
            samples[slot] = address
        }
        var groups: [Forecast: [UInt32]] = [:]
        for (slot, sample) in samples {
            var forecast = state.leaving(from: source, to: sample)
            forecast.slot = nil
            groups[forecast, default: []].append(slot)
        }
        return groups.map { forecast, slots in
            let nodes = slots.sorted().map(node)
            let shown = nodes.prefix(5).joined(separator: ", ") + (nodes.count > 5 ? ", ..." : "")
            let there = nodes.count == 1 ? shown : "\(nodes.count) nodes (\(shown))"
            var path = leaving(forecast, source, nil, whom: "a pod on \(there)", there: there)
            path.nodes = nodes
            return path
        }.sorted { ($0.outcome, $0.nodes.first ?? "") < ($1.outcome, $1.nodes.first ?? "") }
    }

    private func leaving(
        _ forecast: Forecast, _ source: IPAddress, _ destination: IPAddress?, whom: String, there: String
    ) -> WhyReport.Path {
        let who = name(source)
        let (reason, advice): (String, String?)
        switch forecast.cause {
        case .protected:
            (reason, advice) = ("both ends are protected: encrypted with epoch \(forecast.epoch ?? 0)", nil)
        case .sameNode:
            (reason, advice) = ("both pods are on this node: the packet never leaves the kernel", nil)
        case .sourceNotHere:
            (reason, advice) = ("\(who) is no address of a protected pod of this node", Self.listAddresses)
        case .otherUnprotected:
            (reason, advice) = ("\(whom) is not protected", Self.protect)
        case .otherUnknown:
            (reason, advice) = (
                "\(whom) lies in a strict CIDR\(prefix(destination)), and no node has published it", Self.publish
            )
        case .otherService:
            (reason, advice) = (
                "\(whom) is the address of a service, and sockets of protected pods go to its pods instead",
                "what has not is dropped, such as raw sockets and sockets from before: make the connection anew"
            )
        case .notPublished:
            (reason, advice) = ("this node has not published \(who) as protected yet", Self.wait)
        case .peerNotReady:
            (reason, advice) = (
                "\(who) is not acknowledged yet by \(there)", "see whether ebpf-xdp-keymgr runs on \(there)"
            )
        case .withdrawing:
            (reason, advice) = (
                "the protection of one end is ending, and not every node knows yet",
                "if it lasts longer than withdrawWithinSeconds, a node does not answer: see `xdp-encryptor status`"
            )
        case .noEpoch: (reason, advice) = ("there is no epoch to send with", Self.keys(agent))
        case .noKey:
            (reason, advice) = (
                "there is no key of epoch \(forecast.epoch ?? 0) for \(there)", Self.keys(agent)
            )
        case .cleartext, .destinationNotHere:
            (reason, advice) = (forecast.cause.rawValue, nil)
        }
        return path(
            .leaves, forecast, source, destination, epochs: forecast.epoch.map { [$0] } ?? [], reason, advice)
    }

    private func entering(_ source: IPAddress, _ destination: IPAddress) -> WhyReport.Path {
        let forecast = state.entering(from: source, to: destination)
        let clear = state.enteringInClear(from: source, to: destination)
        let there = forecast.slot.map(node) ?? "the other node"
        let (who, whom) = (name(source), name(destination))
        var epochs: [Epoch] = []
        let (reason, advice): (String, String?)
        switch forecast.cause {
        case .protected:
            epochs = forecast.slot.map { state.receiving(slot: $0) } ?? []
            let list = epochs.map(String.init).joined(separator: " and ")
            let otherwise = clear.verdict.outcome == .dropped ? "would be dropped" : "would pass, too"
            (reason, advice) = (
                "both ends are protected: what \(there) encrypts with epoch \(list) is decrypted; clear text \(otherwise)",
                nil
            )
        case .otherUnprotected: (reason, advice) = ("\(who) is not protected", Self.protect)
        case .otherUnknown:
            (reason, advice) = (
                "\(who) lies in a strict CIDR\(prefix(source)), and no node has published it", Self.publish
            )
        case .withdrawing:
            (reason, advice) = ("the protection of one end is ending: clear text is taken", nil)
        default:
            (reason, advice) = (
                "there is no key to decrypt with what \(there) sends to \(whom)", Self.keys(agent)
            )
        }
        return path(.enters, forecast, source, destination, epochs: epochs, reason, advice)
    }

    private func path(
        _ direction: WhyReport.Path.Direction, _ forecast: Forecast, _ source: IPAddress, _ destination: IPAddress?,
        epochs: [Epoch], _ reason: String, _ advice: String?
    ) -> WhyReport.Path {
        let outcome: WhyReport.Outcome =
            switch forecast.verdict.outcome {
            case .protected: .encrypted
            case .passed: forecast.verdict == .passSameNode ? .sameNode : .clear
            case .dropped, .fault: .dropped
            }
        return WhyReport.Path(
            direction: direction, source: source, destination: destination, outcome: outcome,
            verdict: forecast.verdict.name, cause: forecast.cause, nodes: forecast.slot.map { [node($0)] } ?? [],
            epochs: epochs, reason: reason, advice: advice)
    }

    private func node(_ slot: UInt32) -> String {
        guard let id = state.peers[slot]?.nodeID else { return "the node in slot \(slot)" }
        return agent?.node(id) ?? "node \(id)"
    }

    private func name(_ address: IPAddress) -> String {
        guard state.endpoints[address]?.slot == nil else { return address.description }
        return agent?.pods?.first { $0.addresses.contains(address) }?.label ?? address.description
    }

    private func prefix(_ address: IPAddress?) -> String {
        guard let address else { return "" }
        let all = state.strictCIDRs.filter { $0.contains(address) }
        return all.max { $0.length < $1.length }.map { " (\($0))" } ?? ""
    }

    private static let protect =
        "if it should be: annotate its pod with ebpf.xdp/encrypt: \"true\" or select it with an EncryptionPolicy; a strict CIDR with its range makes such packets drop"
    private static let publish =
        "see whether its pod is protected and ready and ebpf-xdp-keymgr runs on its node; addresses that are no pods' do not belong into a strict CIDR"
    private static let listAddresses = "list all of the pod's addresses in its endpoint"
    private static let wait =
        "it takes a moment after the start of a pod; else see the problems in `xdp-encryptor status`"

    private static func keys(_ agent: AgentStatus?) -> String {
        let kms = agent.map { "; the KMS: \($0.kms)" } ?? ""
        return "see epochs and problems in `xdp-encryptor status` and in the log of ebpf-xdp-keymgr\(kms)"
    }
}

// MARK: - For people

extension WhyReport {
    /// An answer: who the ends are, what becomes of packets, why, and what to do.
    var text: String {
        var lines = columns(ends.map { [$0.address.description, $0.text] })
        if !paths.isEmpty { lines.append("") }
        for path in paths {
            let count = path.nodes.count == 1 ? path.nodes[0] : "\(path.nodes.count) other nodes"
            let whom = path.destination.map { $0.description } ?? "pods on \(count)"
            lines.append("\(path.source) -> \(whom): \(path.word)")
            lines.append("    \(path.reason)")
            if let advice = path.advice { lines.append("    \(advice)") }
        }
        if !notes.isEmpty { lines.append("") }
        return (lines + notes).joined(separator: "\n") + "\n"
    }
}

extension WhyReport.Path {
    fileprivate var word: String {
        switch outcome {
        case .encrypted: direction == .leaves ? "ENCRYPTED" : "DECRYPTED"
        case .sameNode, .clear: "IN CLEAR (\(verdict))"
        case .dropped: "DROPPED (\(verdict))"
        case .elsewhere: "NOT HERE"
        }
    }
}

extension WhyReport.End {
    fileprivate var text: String {
        let mode =
            (isStrict ? ", strict" : ", permissive") + (isHidden ? ", hidden headers" : "")
            + (isWithdrawing ? ", protection is ending" : "")
        switch place {
        case .here:
            let attached = isAttached.map { $0 ? ", attached" : ", NOT ATTACHED" } ?? ""
            return "\(pod ?? uid ?? "a pod"), protected pod of this node\(mode)\(attached)"
        case .peer: return "protected pod on \(node ?? "another node")\(mode)"
        case .unpublished: return isInStrictCIDR ? "not published by any node, in a strict CIDR" : "not protected"
        }
    }
}

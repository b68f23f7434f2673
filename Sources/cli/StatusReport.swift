import Agent
import Cluster
import Datapath
import Keys
import Netlink

/// What `xdp-encryptor status` shows. Its JSON is for programs: fields are added, never renamed.
struct StatusReport: Encodable {
    struct Pod: Encodable {
        /// Its UID, or its name in a cluster directory.
        var name: String
        /// namespace/name; nil: the daemon has not told.
        var label: String?
        var networkNamespace: String
        var interface: String
        var podIndex: Int32
        var hostIndex: Int32
        /// All links are there and hold our programs, and the namespace exists.
        var isWhole: Bool
    }

    struct Peer: Encodable {
        var slot: UInt32
        var nodeID: NodeID
        /// nil: the daemon has not told.
        var name: String?
        /// The revision of our endpoint list that the peer has applied.
        var acknowledged: UInt32
        var endpoints: Int
        var keys: [Key]
        var counters: Counters.Peer
    }

    struct Key: Encodable {
        /// "send" or "receive"
        var direction: String
        var epoch: Epoch
        /// Eight hexadecimal digits, as on the wire.
        var spi: String
        /// Fingerprint.
        var keyID: String
        /// "ecb": AES by the kernel, GHASH in BPF.
        var engine: String
    }

    struct VerdictCount: Encodable {
        var outcome: String
        var name: String
        var packets: UInt64
        var bytes: UInt64
    }

    var nodeID: NodeID
    var incarnation: String
    /// Of the loaded programs.
    var build: String
    var isOurBuild: Bool
    var sendingEpoch: Epoch
    var epochFloor: Epoch
    var engines: [String]
    /// The kernel's driver that computes AES for keys that are installed now, such as "ecb(aes-aesni)"; nil: the kernel does not say.
    var cipherDriver: String?
    /// It is plain C, and the processor has instructions for AES.
    var leavesAESInstructionsUnused: Bool
    var replayWindow: UInt32
    var replayWindows: Int
    var strictEtherType: Bool
    var strictCIDRs: [String]
    var localEndpoints: Int
    var remoteEndpoints: Int
    /// Of both: those with hidden headers.
    var hiddenEndpoints: Int
    var pods: [Pod]
    var peers: [Peer]
    var verdicts: [VerdictCount]
    /// Bridges that protected pods are ports of and that are not for them alone.
    var openBridges: [OpenBridge]
    /// Services whose addresses are replaced at the sockets of pods; nil: they are not.
    var socketLoadBalancing: SocketLoadBalancer.View?
    /// What somebody should look at, as the daemon has written last.
    var problems: [Problem]
    /// When the daemon has written last, at least every minute while it runs; nil: never.
    var daemonUpdated: Timestamp?

    init(_ view: DatapathView, agent: AgentStatus?) throws(DatapathError) {
        let state = try view.state()
        let counters = try view.counters()
        nodeID = state.nodeID
        incarnation = state.incarnation.description
        build = view.build
        isOurBuild = view.isOurBuild
        sendingEpoch = state.sending
        epochFloor = state.epochFloor
        engines = Set(state.associations.values.map { Self.name($0.engine) }).sorted()
        let cipher = CipherDriver.current()
        cipherDriver = cipher?.name
        leavesAESInstructionsUnused = cipher?.leavesInstructionsUnused ?? false
        replayWindow = try view.window()
        replayWindows = try view.windowCount()
        strictEtherType = state.strictEtherType
        strictCIDRs = state.strictCIDRs.map(\.description).sorted()
        var perSlot: [UInt32: Int] = [:]
        var local = 0
        for endpoint in state.endpoints.values {
            switch endpoint.place {
            case .local: local += 1
            case .remote(let slot): perSlot[slot, default: 0] += 1
            }
        }
        localEndpoints = local
        remoteEndpoints = state.endpoints.count - local
        hiddenEndpoints = state.endpoints.values.count { $0.hidden }
        pods = state.attachments.values.sorted { $0.pod.name < $1.pod.name }.map {
            Pod(
                name: $0.pod.name, label: agent?.pod($0.pod.name)?.label, networkNamespace: $0.pod.networkNamespace,
                interface: $0.pod.interface,
                podIndex: $0.podIndex, hostIndex: $0.hostIndex, isWhole: $0.isWhole)
        }
        peers = state.peers.sorted { $0.key < $1.key }.map { slot, peer in
            Peer(
                slot: slot, nodeID: peer.nodeID, name: agent?.node(peer.nodeID), acknowledged: peer.acknowledged,
                endpoints: perSlot[slot] ?? 0, keys: Self.keys(state, slot: slot),
                counters: counters.peers[slot] ?? Counters.Peer())
        }
        verdicts = Verdict.allCases.map { verdict in
            let count = counters.verdicts[verdict] ?? Counters.Count()
            return VerdictCount(
                outcome: verdict.outcome.rawValue, name: verdict.name, packets: count.packets, bytes: count.bytes)
        }
        openBridges = state.openBridges
        socketLoadBalancing = try view.sockets()
        problems = agent?.problems ?? []
        daemonUpdated = agent?.updated
    }

    private static func keys(_ state: DatapathState, slot: UInt32) -> [Key] {
        state.associations.filter { $0.key.slot == slot }
            .sorted { ($0.key.direction.rawValue, $0.value.epoch) < ($1.key.direction.rawValue, $1.value.epoch) }
            .map { id, info in
                let digits = String(info.spi, radix: 16)
                return Key(
                    direction: id.direction == .send ? "send" : "receive", epoch: info.epoch,
                    spi: String(repeating: "0", count: 8 - digits.count) + digits, keyID: info.keyID.description,
                    engine: name(info.engine))
            }
    }

    private static func name(_ engine: AssociationInfo.Engine) -> String {
        switch engine {
        case .ecb: "ecb"
        }
    }
}

// MARK: - For people

extension StatusReport {
    /// One screen: what is well takes a line, what is not stands out.
    var text: String {
        var lines = [
            "node         \(nodeID), incarnation \(incarnation)",
            "programs     build \(build)\(isOurBuild ? "" : ", not the build of this command")",
            "epoch        \(sendingEpoch == 0 ? "none: nothing is sent to protected peers" : "sending with \(sendingEpoch)")"
                + (epochFloor > 0 ? ", keys before \(epochFloor) refused" : ""),
            "engine       \(engines.isEmpty ? "no keys" : engine)",
            "endpoints    \(localEndpoints) here, \(remoteEndpoints) on other nodes"
                + (hiddenEndpoints > 0 ? "; \(hiddenEndpoints) with hidden headers" : ""),
            "strict       \(strictCIDRs.isEmpty ? "no CIDRs" : strictCIDRs.joined(separator: ", "))"
                + (strictEtherType ? "; other EtherTypes dropped" : ""),
            "replay       windows of \(replayWindow) packets, \(replayWindows) in use",
        ]
        if let sockets = socketLoadBalancing {
            lines.append(
                "services     \(sockets.services) addresses, \(sockets.backends) backends, for sockets of \(sockets.pods) pods; \(sockets.connections) connections, \(sockets.datagrams) datagrams"
                    + (sockets.failed > 0 ? ", \(sockets.failed) FAILED" : ""))
        }
        lines.append("")
        lines += Self.table(
            "POD", ["INTERFACE", "NAMESPACE", "STATE"],
            pods.map {
                [$0.label ?? $0.name, $0.interface, $0.networkNamespace, $0.isWhole ? "attached" : "INCOMPLETE"]
            },
            empty: "no pod is attached")
        lines.append("")
        lines += Self.table(
            "NODE", ["ENDPOINTS", "SEND", "RECEIVE", "SENT", "RECEIVED", "AUTH", "REPLAY", "OTHER"],
            peers.map { peer in
                func epochs(_ direction: String) -> String {
                    let epochs = peer.keys.filter { $0.direction == direction }.map { String($0.epoch) }
                    return epochs.isEmpty ? "-" : epochs.joined(separator: ",")
                }
                let counters = peer.counters
                return [
                    peer.name.map { "\($0) (\(peer.nodeID))" } ?? String(peer.nodeID), String(peer.endpoints),
                    epochs("send"), epochs("receive"),
                    String(counters.sentPackets), String(counters.receivedPackets), String(counters.droppedAuth),
                    String(counters.droppedReplay), String(counters.droppedOther),
                ]
            }, empty: "no other node is known")
        lines.append("")
        lines += Self.table(
            "PACKETS", ["REASON", "COUNT", "BYTES"],
            verdicts.filter { $0.packets > 0 }.map {
                [$0.outcome == "fault" ? "FAULT" : $0.outcome, $0.name, String($0.packets), String($0.bytes)]
            }, empty: "no packet was seen")
        let concerns = concerns
        if !concerns.isEmpty { lines += ["", "PROBLEMS"] + concerns }
        return lines.joined(separator: "\n") + "\n"
    }

    /// What is wrong, a line each.
    private var concerns: [String] {
        var lines = problems.map(\.description)
        // The daemon tells of these as well, while it runs.
        for bridge in openBridges where !problems.contains(where: { $0.object == "bridge \(bridge.name)" }) {
            lines.append("bridge \(bridge.name): is not for protected pods alone: \(bridge.reason)")
        }
        if let daemonUpdated, Timestamp.now().milliseconds(since: daemonUpdated) > 150_000 {
            lines.append(
                "ebpf-xdp-keymgr has not written since \(daemonUpdated): does it run? Traffic goes on as shown")
        }
        return lines
    }

    private var engine: String {
        "AES by \(cipherDriver ?? "ecb(aes)") of the kernel, GHASH in BPF"
            + (leavesAESInstructionsUnused ? "; the processor's AES instructions are NOT used: docs/operations.md" : "")
    }

    private static func table(_ first: String, _ rest: [String], _ rows: [[String]], empty: String) -> [String] {
        rows.isEmpty ? [empty] : columns([[first] + rest] + rows)
    }
}

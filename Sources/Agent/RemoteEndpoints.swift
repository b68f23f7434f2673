internal import Cluster
internal import Datapath
internal import Keys
internal import Netlink

/// What other nodes' lists come to: which address is protected by whom.
struct RemoteEndpoints: Sendable {
    struct Claim: Sendable, Hashable {
        var node: String
        var nodeID: NodeID
        var name: String
        var strict: Bool
        var isReady: Bool
    }

    /// The winner of each address.
    private(set) var claims: [IPAddress: Claim] = [:]
    private(set) var problems: Set<Problem> = []

    /// Where two nodes claim an address, a ready endpoint beats one that is ending (that is how an address moves); of two ready
    /// ones the one that the kernel already has stays, as strict as it can be, and both are named in an error.
    init(peers: [String: EncryptionNode], observed: DatapathState) {
        var all: [IPAddress: [Claim]] = [:]
        for (name, node) in peers {
            for endpoint in node.endpoints {
                for address in endpoint.addresses {
                    all[address, default: []].append(
                        Claim(
                            node: name, nodeID: node.id, name: endpoint.name, strict: endpoint.mode == .strict,
                            isReady: endpoint.state == .ready))
                }
            }
        }
        for (address, claims) in all {
            let ready = claims.filter(\.isReady)
            let contenders = (ready.isEmpty ? claims : ready).sorted { ($0.nodeID, $0.name) < ($1.nodeID, $1.name) }
            var winner = contenders[0]
            if contenders.count > 1 {
                if case .remote(let slot) = observed.endpoints[address]?.place,
                    let holder = observed.peers[slot]?.nodeID,
                    let kept = contenders.first(where: { $0.nodeID == holder })
                {
                    winner = kept
                }
                winner.strict =
                    winner.strict || Set(contenders.map(\.nodeID)).count > 1 || contenders.contains { $0.strict }
                if !ready.isEmpty {
                    problems.insert(Self.overlap(address, contenders.map { ("\($0.name) on \($0.node)") }))
                }
            }
            self.claims[address] = winner
        }
    }

    static func overlap(_ address: IPAddress, _ holders: [String]) -> Problem {
        Problem(
            .error, "address \(address)",
            "belongs to \(Set(holders).sorted().joined(separator: " and ")); it is held strictly until one of them gives it up"
        )
    }
}

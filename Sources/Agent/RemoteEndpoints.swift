internal import Cluster
internal import Datapath
internal import Keys
internal import Netlink

/// What other nodes' lists come to: which address is protected by whom.
struct RemoteEndpoints: Sendable {
    /// Small: there is one for every protected address of the cluster.
    struct Claim: Sendable, Hashable {
        var nodeID: NodeID
        var strict: Bool
        var hidden: Bool
        var isReady: Bool

        /// What the kernel shall have of it.
        func entry(slot: UInt32) -> EndpointEntry {
            EndpointEntry(place: .remote(slot: slot), strict: strict, withdrawing: !isReady, hidden: hidden)
        }
    }

    /// Of an address that more than one endpoint names.
    private struct Contender {
        var node: String
        var name: String
        var claim: Claim
    }

    /// The winner of each address.
    private(set) var claims: [IPAddress: Claim] = [:]
    /// Addresses that more than one endpoint names.
    private(set) var contested: Set<IPAddress> = []
    private(set) var problems: Set<Problem> = []

    /// Where two nodes claim an address, a ready endpoint beats one that is ending (that is how an address moves); of two ready
    /// ones the one that the kernel already has stays, as strict as it can be and hidden if one of them is, and both are named in an error.
    init(peers: Peers, observed: DatapathState) {
        claims.reserveCapacity(observed.endpoints.count)
        for (_, node) in peers {
            for endpoint in node.endpoints {
                let claim = Self.claim(endpoint, node)
                for index in 0..<endpoint.addressCount {
                    let address = endpoint.address(index)
                    if claims.updateValue(claim, forKey: address) != nil { contested.insert(address) }
                }
            }
        }
        guard !contested.isEmpty else { return }
        var contenders: [IPAddress: [Contender]] = [:]
        for (name, node) in peers {
            for endpoint in node.endpoints {
                for index in 0..<endpoint.addressCount {
                    let address = endpoint.address(index)
                    guard contested.contains(address) else { continue }
                    contenders[address, default: []].append(
                        Contender(node: name, name: endpoint.name, claim: Self.claim(endpoint, node)))
                }
            }
        }
        for (address, all) in contenders { claims[address] = resolve(address, all, observed) }
    }

    static func claim(_ endpoint: EncryptionNode.PublishedEndpoint, _ node: EncryptionNode) -> Claim {
        Claim(
            nodeID: node.id, strict: endpoint.mode == .strict, hidden: endpoint.headers == .hidden,
            isReady: endpoint.state == .ready)
    }

    private mutating func resolve(_ address: IPAddress, _ all: [Contender], _ observed: DatapathState) -> Claim {
        let ready = all.filter(\.claim.isReady)
        let contenders = (ready.isEmpty ? all : ready).sorted {
            ($0.claim.nodeID, $0.name) < ($1.claim.nodeID, $1.name)
        }
        var winner = contenders[0].claim
        guard contenders.count > 1 else { return winner }
        if case .remote(let slot) = observed.endpoints[address]?.place,
            let holder = observed.peers[slot]?.nodeID,
            let kept = contenders.first(where: { $0.claim.nodeID == holder })
        {
            winner = kept.claim
        }
        winner.strict =
            winner.strict || Set(contenders.map(\.claim.nodeID)).count > 1 || contenders.contains { $0.claim.strict }
        winner.hidden = contenders.contains { $0.claim.hidden }
        if !ready.isEmpty {
            problems.insert(Self.overlap(address, contenders.map { "\($0.name) on \($0.node)" }))
        }
        return winner
    }

    /// Who claims an address, for people. Looks through everything.
    static func holder(of address: IPAddress, _ claim: Claim, _ peers: Peers) -> String {
        for (name, node) in peers where node.id == claim.nodeID {
            for endpoint in node.endpoints where endpoint.addresses.contains(address) {
                return "\(endpoint.name) on \(name)"
            }
        }
        return "node \(claim.nodeID)"
    }

    static func overlap(_ address: IPAddress, _ holders: [String]) -> Problem {
        Problem(
            .error, "address \(address)",
            "belongs to \(Set(holders).sorted().joined(separator: " and ")); it is held strictly until one of them gives it up"
        )
    }
}

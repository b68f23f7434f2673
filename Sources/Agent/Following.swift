internal import Cluster
internal import Datapath
internal import Keys
internal import Netlink

/// What other nodes' lists have put in force, kept from one reconciliation to the next, so that what changes in them can be put in force at
/// once, by itself.
///
/// In a large cluster a reconciliation looks at a hundred thousand addresses, and lists change all the time. Here only the difference is looked
/// at, and only where it is simple: the node is known, and nobody else names the address. These are changes that the next plan would begin
/// with; all else, and what is said of them to others, is left to that plan, which looks at the kernel itself.
struct Following: Sendable {
    private let name: String
    private var claims: [IPAddress: RemoteEndpoints.Claim]
    /// Addresses that are left to the next plan.
    private var contested: Set<IPAddress>
    private let slots: [NodeID: UInt32]
    /// What was read last: of all nodes but those that are left, it is in force.
    private var nodes: [String: EncryptionNode]
    /// Nodes that are left to the next plan.
    private var left: Set<String> = []

    /// Takes a situation in which nothing was left to do.
    init(_ situation: Situation) {
        name = situation.name
        claims = situation.remote.claims
        contested = situation.remote.contested
        for (address, entry) in situation.observed.endpoints where entry.isLocal { contested.insert(address) }
        slots = situation.slots
        nodes = situation.snapshot.nodes
        if !situation.frozen.isEmpty {
            left = Set(nodes.filter { situation.frozen.contains($0.value.id) }.keys)
        }
    }

    /// What can be done at once to go on to newer lists.
    mutating func changes(to newer: [String: EncryptionNode]) -> [Change] {
        var gone: Set<IPAddress> = []
        var come: [IPAddress: EndpointEntry] = [:]
        for (name, node) in newer where name != self.name && !left.contains(name) {
            guard let before = nodes[name], before.id == node.id, before.incarnation == node.incarnation,
                let slot = slots[node.id]
            else {
                left.insert(name)
                continue
            }
            // Lists that have not changed are in the same memory.
            guard before.endpoints != node.endpoints else { continue }
            let (old, new) = (list(before), list(node))
            for (address, claim) in old where new[address] == nil && claims[address] == claim {
                guard !contested.contains(address) else { continue }
                claims[address] = nil
                gone.insert(address)
            }
            for (address, claim) in new where old[address] != claim {
                guard !contested.contains(address) else { continue }
                if let holder = claims[address], holder.nodeID != node.id {
                    contested.insert(address)
                    continue
                }
                claims[address] = claim
                // An address that goes from one node to another is never without an entry.
                gone.remove(address)
                come[address] = claim.entry(slot: slot)
            }
        }
        // The same memory as the reading's, with thousands of nodes in it.
        nodes = newer
        return gone.sorted().map { .removeEndpoint($0) }
            + come.sorted { $0.key < $1.key }.map { .setEndpoint($0.key, $0.value) }
    }

    private mutating func list(_ node: EncryptionNode) -> [IPAddress: RemoteEndpoints.Claim] {
        var list: [IPAddress: RemoteEndpoints.Claim] = [:]
        list.reserveCapacity(node.endpoints.count)
        for endpoint in node.endpoints {
            let claim = RemoteEndpoints.claim(endpoint, node)
            for index in 0..<endpoint.addressCount where list.updateValue(claim, forKey: endpoint.address(index)) != nil
            {
                contested.insert(endpoint.address(index))
            }
        }
        return list
    }
}

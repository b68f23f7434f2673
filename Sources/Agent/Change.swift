public import Datapath
public import Keys
public import Netlink

/// One thing to do in the kernel. Each is idempotent; a plan is a list of them in an order that is safe to break off anywhere.
public enum Change: Sendable, Hashable {
    /// Adds or replaces a protected address.
    case setEndpoint(IPAddress, EndpointEntry)
    /// Removes a protected address.
    case removeEndpoint(IPAddress)
    /// Fills or changes a peer's slot.
    case setPeer(slot: UInt32, PeerEntry)
    /// Frees a slot.
    case removePeer(slot: UInt32)
    /// Makes the strict CIDRs exactly these.
    case setStrictCIDRs(Set<IPPrefix>)
    /// What frames that are neither IP nor ARP meet.
    case setStrictEtherType(Bool)
    /// Derives a key and installs it. The secret itself never stands in a plan. Indirect, as everything that is large: plans name a hundred
    /// thousand addresses.
    indirect case install(AssociationID, peer: NodeID, TrafficContext)
    /// Removes a key.
    case removeAssociation(AssociationID)
    /// Sends with this epoch from now on.
    case setSending(Epoch)
    /// Refuses older epochs from now on.
    case setEpochFloor(Epoch)
    /// Attaches, or repairs, the programs on a pod's interface.
    indirect case attach(PodInterface)
    /// Undoes that.
    case detach(String)
}

extension Change: CustomStringConvertible {
    /// For logs.
    public var description: String {
        switch self {
        case .setEndpoint(let address, let entry):
            switch entry.place {
            case .local(let since, let until): "endpoint \(address) here, since \(since), until \(until)"
            case .remote(let slot): "endpoint \(address) in slot \(slot)"
            }
        case .removeEndpoint(let address): "no endpoint \(address)"
        case .setPeer(let slot, let peer): "slot \(slot) is node \(peer.nodeID), acknowledged \(peer.acknowledged)"
        case .removePeer(let slot): "slot \(slot) is free"
        case .setStrictCIDRs(let prefixes):
            "strict CIDRs \(prefixes.map(\.description).sorted().joined(separator: " "))"
        case .setStrictEtherType(let strict): "other EtherTypes \(strict ? "dropped" : "passed")"
        case .install(let id, let peer, let context):
            "\(id.direction) key of epoch \(context.epoch) for node \(peer) in slot \(id.slot)"
        case .removeAssociation(let id): "no \(id.direction) key of parity \(id.parity) in slot \(id.slot)"
        case .setSending(let epoch): "send with epoch \(epoch)"
        case .setEpochFloor(let epoch): "no epoch before \(epoch)"
        case .attach(let pod): "attach \(pod.name) (\(pod.interface) in \(pod.networkNamespace))"
        case .detach(let name): "detach \(name)"
        }
    }
}

public import Keys
public import Netlink

/// What the kernel would do with an ordinary packet (lengths and checksums are right) between two addresses: worked out
/// from what the maps hold by the rules of the programs, `xe_send_policy` of bpf/encrypt.bpf.h and `xe_receive` of bpf/decrypt.bpf.h.
public struct Forecast: Sendable, Hashable {
    /// How the packet would end.
    public var verdict: Verdict
    /// What that comes from.
    public var cause: Cause
    /// The slot of the other node, where there is one.
    public var slot: UInt32?
    /// The epoch that it would be encrypted with.
    public var epoch: Epoch?

    /// What a verdict comes from.
    public enum Cause: String, Sendable, Hashable, CaseIterable, Codable {
        /// Both ends are protected, and there is a key.
        case protected
        /// Both ends are pods of this node.
        case sameNode = "same_node"
        /// The source is no address of a protected pod of this node.
        case sourceNotHere = "source_not_here"
        /// The other end is no protected address, and no strict CIDR has it.
        case otherUnprotected = "other_unprotected"
        /// The other end is no protected address, and a strict CIDR has it.
        case otherUnknown = "other_unknown"
        /// The other end is the address of a service that leads to protected pods, and only sockets may send to it.
        case otherService = "other_service"
        /// Our node has not published this end as protected yet.
        case notPublished = "not_published"
        /// The other node has not said yet that it knows this end.
        case peerNotReady = "peer_not_ready"
        /// Protection of one end is ending.
        case withdrawing
        /// There is no epoch to send with.
        case noEpoch = "no_epoch"
        /// There is no key of the epoch that is sent with.
        case noKey = "no_key"
        /// From a protected address of another node, in clear.
        case cleartext
        /// To an address that is no protected one of this node.
        case destinationNotHere = "destination_not_here"
    }

    init(_ verdict: Verdict, _ cause: Cause, slot: UInt32? = nil, epoch: Epoch? = nil) {
        self.verdict = verdict
        self.cause = cause
        self.slot = slot
        self.epoch = epoch
    }
}

extension DatapathState {
    /// What happens with a packet that leaves a protected pod of this node.
    public func leaving(from source: IPAddress, to destination: IPAddress) -> Forecast {
        let target = endpoints[destination]
        guard let own = endpoints[source], case .local(let since, let until) = own.place else {
            if endpoints[source] != nil || target?.slot != nil || isInStrictCIDR(destination)
                || serviceAddresses.contains(destination)
            {
                return Forecast(.dropSpoofed, .sourceNotHere, slot: target?.slot)
            }
            return Forecast(target == nil ? .passUnprotected : .passSameNode, .sourceNotHere)
        }
        guard let target else {
            if own.strict, serviceAddresses.contains(destination) { return Forecast(.dropService, .otherService) }
            guard isInStrictCIDR(destination) else { return Forecast(.passUnprotected, .otherUnprotected) }
            return Forecast(own.strict ? .dropUnknownPeer : .passUnknownPeer, .otherUnknown)
        }
        guard let slot = target.slot else { return Forecast(.passSameNode, .sameNode) }
        let acknowledged = peers[slot]?.acknowledged ?? 0
        if acknowledged < since {
            return Forecast(
                own.strict || target.strict ? .dropNotReady : .passCleartext,
                since == .max ? .notPublished : .peerNotReady, slot: slot)
        }
        if target.withdrawing || (until != 0 && acknowledged >= until) {
            return Forecast(.passWithdrawing, .withdrawing, slot: slot)
        }
        if sending == 0 { return Forecast(.dropNoKey, .noEpoch, slot: slot) }
        guard associations[AssociationID(slot: slot, direction: .send, epoch: sending)]?.epoch == sending else {
            return Forecast(.dropNoKey, .noKey, slot: slot, epoch: sending)
        }
        return Forecast(.encrypted, .protected, slot: slot, epoch: sending)
    }

    /// What happens with a packet that enters a protected pod of this node as it comes from the other end when all is well: encrypted
    /// from a protected peer whose key is here, else in clear. From a pod of this node: one that it has sent.
    public func entering(from source: IPAddress, to destination: IPAddress) -> Forecast {
        guard let slot = endpoints[source]?.slot, let epoch = receiving(slot: slot).last else {
            return enteringInClear(from: source, to: destination)
        }
        return Forecast(.decrypted, .protected, slot: slot, epoch: epoch)
    }

    /// What happens with a packet that enters a protected pod of this node in clear.
    public func enteringInClear(from source: IPAddress, to destination: IPAddress) -> Forecast {
        let target = endpoints[destination].flatMap { $0.slot == nil ? $0 : nil }
        guard let other = endpoints[source] else {
            guard isInStrictCIDR(source) else { return Forecast(.passUnprotected, .otherUnprotected) }
            return Forecast(target?.strict == true ? .dropUnknownPeer : .passUnknownPeer, .otherUnknown)
        }
        guard let slot = other.slot else { return Forecast(.passSameNode, .sameNode) }
        guard let target else {
            // A strict peer sends nothing in clear to an address of a strict CIDR that nobody has published.
            let isRefused =
                other.strict && !other.withdrawing && endpoints[destination] == nil && isInStrictCIDR(destination)
            return Forecast(isRefused ? .dropUnknownPeer : .passUnprotected, .destinationNotHere, slot: slot)
        }
        if other.withdrawing || target.withdrawing { return Forecast(.passWithdrawing, .withdrawing, slot: slot) }
        return Forecast(other.strict || target.strict ? .dropCleartext : .passCleartext, .cleartext, slot: slot)
    }

    /// Epochs whose packets from a peer can be decrypted, ascending.
    public func receiving(slot: UInt32) -> [Epoch] {
        associations.filter { $0.key.slot == slot && $0.key.direction == .receive }.map(\.value.epoch).sorted()
    }

    /// Whether an address that nobody has published is strict.
    public func isInStrictCIDR(_ address: IPAddress) -> Bool { strictCIDRs.contains { $0.contains(address) } }
}

extension EndpointEntry {
    /// Of the other node; nil: on this one.
    public var slot: UInt32? {
        if case .remote(let slot) = place { return slot }
        return nil
    }
}

internal import Datapath
internal import Keys
internal import Netlink

/// A datapath for pods that were found by their addresses.
///
/// Before and after it attaches programs to an interface, it makes sure that this is the pod's: between finding and attaching, a process
/// number may have become another process's. What turns out to be somebody else's is let go again.
///
/// And a pod whose namespace cannot be found, but whose interface is still there, is not taken for gone: its programs stay.
struct ConfirmedDatapath: DatapathControl {
    let base: any DatapathControl
    /// Whether an interface is the pod's, looked at anew.
    let confirms: @Sendable (PodInterface) -> Bool
    /// Whether the interface that a pod's programs are attached to is still there.
    let isLive: @Sendable (String) -> Bool
    /// Called after a protected address has come or gone.
    var endpointsChanged: @Sendable (IPAddress) -> Void = { _ in }

    func attach(_ pod: PodInterface) throws(DatapathError) -> Attachment {
        let wrong = "\(pod.interface) in \(pod.networkNamespace) does not have the addresses of pod \(pod.name)"
        let stays = "; but the interface that its programs are attached to is still there: they stay"
        // Before anything is touched: attaching elsewhere would take the programs away from where they are.
        guard confirms(pod) else {
            throw isLive(pod.name) ? DatapathError(.failed, wrong + stays) : DatapathError(.interfaceGone, wrong)
        }
        let attachment: Attachment
        do throws(DatapathError) {
            attachment = try base.attach(pod)
        } catch {
            guard error.code == .interfaceGone, isLive(pod.name) else { throw error }
            throw DatapathError(.failed, error.message + stays)
        }
        guard confirms(pod) else {
            try base.detach(name: pod.name)
            throw DatapathError(.interfaceGone, wrong)
        }
        return attachment
    }

    func state() throws(DatapathError) -> DatapathState { try base.state() }
    func setEndpoint(_ address: IPAddress, _ endpoint: EndpointEntry) throws(DatapathError) {
        try base.setEndpoint(address, endpoint)
        endpointsChanged(address)
    }
    func removeEndpoint(_ address: IPAddress) throws(DatapathError) {
        try base.removeEndpoint(address)
        endpointsChanged(address)
    }
    func setPeer(slot: UInt32, _ peer: PeerEntry) throws(DatapathError) { try base.setPeer(slot: slot, peer) }
    func removePeer(slot: UInt32) throws(DatapathError) { try base.removePeer(slot: slot) }
    func setStrictCIDRs(_ prefixes: Set<IPPrefix>) throws(DatapathError) { try base.setStrictCIDRs(prefixes) }
    func setStrictEtherType(_ strict: Bool) throws(DatapathError) { try base.setStrictEtherType(strict) }
    func install(_ key: AssociationKey, at id: AssociationID) throws(DatapathError) { try base.install(key, at: id) }
    func removeAssociation(_ id: AssociationID) throws(DatapathError) { try base.removeAssociation(id) }
    func setSending(epoch: Epoch) throws(DatapathError) { try base.setSending(epoch: epoch) }
    func setEpochFloor(_ epoch: Epoch) throws(DatapathError) { try base.setEpochFloor(epoch) }
    func renewIncarnation() throws(DatapathError) -> Incarnation { try base.renewIncarnation() }
    func detach(name: String) throws(DatapathError) { try base.detach(name: name) }
}

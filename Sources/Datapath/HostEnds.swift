internal import BPF
internal import Netlink

/// Devices by which packets of protected pods come into the host's namespace: the map `host_ends`, which `xe_local` looks at.
///
/// It is always made anew from what is attached: the host's ends on which a pinned link of ours sits. The kernel takes a device out of
/// the map when it goes, so that one which gets its index later is not in it.
struct HostEnds: Sendable {
    let pins: Pins

    /// Makes the map what it should be. `arriving` are host's ends whose links are about to be attached.
    ///
    /// Nothing happens when there is no such map: programs of an earlier build, which do not look at it.
    func refresh(arriving: Set<Int32> = []) throws(DatapathError) {
        do {
            guard let map = try open() else { return }
            let attached = try attached()
            let wanted = try Self.sources(of: attached.union(arriving))
            let present = Set(try map.keys(as: Int32.self))
            for index in wanted.subtracting(present) { try map.update(index, index) }
            // What is attached and not to be seen is going, or it is we who are in another namespace: not ours to judge.
            for index in present.subtracting(wanted).subtracting(attached) { try map.delete(index) }
        } catch let error as DatapathError {
            throw error
        } catch {
            throw DatapathError(.failed, "note which devices lead to protected pods: \(error)")
        }
    }

    /// What the map holds; nil when there is no map.
    func present() -> Set<Int32>? {
        guard let map = try? open(), let keys = try? map.keys(as: Int32.self) else { return nil }
        return Set(keys)
    }

    private func open() throws(BPFError) -> BPFMap? {
        let path = pins.map(KernelMaps.hostEndsName)
        return Files.exists(path) ? try BPFMap(pinned: path) : nil
    }

    /// Host's ends that hold a link of ours and are still there.
    private func attached() throws(DatapathError) -> Set<Int32> {
        var indices: Set<Int32> = []
        for pod in try pins.linkedPods() {
            if let link = try? BPFLink(pinned: pins.link(.encrypt, pod: pod)), let info = try? link.info(),
                info.interfaceIndex != 0
            {
                indices.insert(info.interfaceIndex)
            }
        }
        return indices
    }

    /// The devices that the kernel may name as the one by which a packet came in at one of `ends`: it, and the bridge that it belongs
    /// to, when the packet is for the bridge's own address and is routed from there. Only a bridge of veths and nothing else:
    /// if it has a port to the network, what comes from there is routed under the bridge's name, too.
    static func sources(of ends: Set<Int32>) throws(NetlinkError) -> Set<Int32> {
        if ends.isEmpty { return [] }
        var socket = try RouteSocket()
        return sources(of: ends, among: try socket.links())
    }

    static func sources(of ends: Set<Int32>, among links: [Link]) -> Set<Int32> {
        let masters = Set(links.compactMap { ends.contains($0.index) ? $0.masterIndex : nil })
        let open = Set(links.compactMap { $0.kind == "veth" ? nil : $0.masterIndex })
        // A device that is not listed has gone, or is not in this process's namespace.
        return ends.intersection(links.map(\.index)).union(masters.subtracting(open))
    }
}

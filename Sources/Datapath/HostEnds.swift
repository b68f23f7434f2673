internal import BPF
internal import Glibc
internal import Netlink

/// Devices by which packets of protected pods come into the host's namespace: the map `host_ends`, which `xe_local` looks at.
///
/// It is always made anew from what is attached: the host's ends on which a pinned link of ours sits. The kernel takes a device out of
/// the map when it goes, so that one which gets its index later is not in it.
struct HostEnds: Sendable {
    let pins: Pins

    /// Makes the map what it should be. `arriving` are host's ends whose links are about to be attached. Returns the bridges of pods that
    /// are not in the map, because they lead elsewhere, too.
    ///
    /// Nothing happens when there is no such map: programs of an earlier build, which do not look at it.
    @discardableResult
    func refresh(arriving: Set<Int32> = []) throws(DatapathError) -> [OpenBridge] {
        do {
            guard let map = try open() else { return [] }
            let attached = try attached()
            let survey = try Survey(of: attached.union(arriving))
            let present = Set(try map.keys(as: Int32.self))
            for index in survey.sources.subtracting(present) { try map.update(index, index) }
            // What is attached and not to be seen is going, or it is we who are in another namespace: not ours to judge.
            for index in present.subtracting(survey.sources).subtracting(attached) { try map.delete(index) }
            return survey.openBridges
        } catch let error as DatapathError {
            throw error
        } catch {
            throw DatapathError(.failed, "note which devices lead to protected pods: \(error)")
        }
    }

    /// The bridges of pods that lead elsewhere, too; none when they cannot be looked at, such as from another namespace.
    func openBridges() -> [OpenBridge] {
        guard let attached = try? attached(), let survey = try? Survey(of: attached) else { return [] }
        return survey.openBridges
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
}

/// A bridge that protected pods are ports of and that leads elsewhere, too. What is routed from it may have come from the network or from
/// another pod, so that it is not taken for what a protected pod has sent.
public struct OpenBridge: Sendable, Hashable, Codable {
    /// Such as cni0.
    public var name: String
    /// What makes it one.
    public var reason: String

    /// Makes a value of its parts.
    public init(name: String, reason: String) {
        self.name = name
        self.reason = reason
    }
}

extension HostEnds {
    /// Devices around protected pods, as the kernel has them at one moment.
    struct Survey {
        /// The devices that the kernel may name as the one by which a packet of a pod came in: the host's end, and the bridge that it
        /// belongs to, when the packet is for the bridge's own address and is routed from there. Only a bridge of protected pods and
        /// nothing else: what comes by any other port is routed under the bridge's name, too.
        private(set) var sources: Set<Int32> = []
        /// The bridges that are not among them, by name.
        private(set) var openBridges: [OpenBridge] = []

        /// Looks around in the calling thread's network namespace.
        init(of ends: Set<Int32>) throws(NetlinkError) {
            if ends.isEmpty { return }
            var socket = try RouteSocket()
            let links = try socket.links()
            // A device that is not listed has gone, or is not in this process's namespace.
            sources = ends.intersection(links.map(\.index))
            let masters = Set(links.compactMap { ends.contains($0.index) ? $0.masterIndex : nil })
            if masters.isEmpty { return }
            let uplinks = Self.uplinks(try socket.routes())
            for master in links where masters.contains(master.index) {
                let ports = links.filter { $0.masterIndex == master.index }
                if let reason = Self.whyOpen(master, ports, ends, uplinks) {
                    openBridges.append(OpenBridge(name: master.name, reason: reason))
                } else {
                    sources.insert(master.index)
                }
            }
            openBridges.sort { $0.name < $1.name }
        }

        /// Devices by which other networks are reached: no pod is a router of its node.
        private static func uplinks(_ routes: [Route]) -> Set<Int32> {
            routes.reduce(into: []) { uplinks, route in
                if route.isUnicast, route.leadsOut { uplinks.formUnion(route.interfaceIndices) }
            }
        }

        /// Why a bridge does not lead to protected pods alone; nil: it does.
        ///
        /// What is routed from a bridge has the bridge's name, whichever port it came by. So every port must be the host's end of a
        /// protected pod: another pod can say that it is its neighbour as well as somebody in the network can.
        private static func whyOpen(
            _ bridge: Link, _ ports: [Link], _ ends: Set<Int32>, _ uplinks: Set<Int32>
        ) -> String? {
            if uplinks.contains(bridge.index) { return "the node itself reaches the network by it" }
            let others = ports.filter { !ends.contains($0.index) }
            if let port = others.first(where: { $0.kind != "veth" }) { return "its port \(port.name) is no veth" }
            if let port = others.first(where: { uplinks.contains($0.index) }) {
                return "the node itself reaches the network by its port \(port.name)"
            }
            return others.first.map { "its port \($0.name) leads to no protected pod" }
        }
    }
}

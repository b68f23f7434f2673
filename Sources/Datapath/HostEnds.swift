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

/// A bridge that protected pods are ports of and that leads elsewhere, too. What is routed from it may have come from the network, so
/// that it is not taken for what a pod has sent.
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
        /// belongs to, when the packet is for the bridge's own address and is routed from there. Only a bridge of pods and nothing else:
        /// if it has a port to the network, what comes from there is routed under the bridge's name, too.
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
                if let reason = Self.whyOpen(master, ports, ends, uplinks, &socket) {
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

        /// Why a bridge does not lead to pods alone; nil: it does, as far as can be seen.
        ///
        /// That all ports are veths is not enough: where a node is a container itself, its way to the network is a veth as well.
        private static func whyOpen(
            _ bridge: Link, _ ports: [Link], _ ends: Set<Int32>, _ uplinks: Set<Int32>, _ socket: inout RouteSocket
        ) -> String? {
            if uplinks.contains(bridge.index) { return "the node itself reaches the network by it" }
            for port in ports where !ends.contains(port.index) {
                guard port.kind == "veth" else { return "its port \(port.name) is no veth" }
                if uplinks.contains(port.index) {
                    return "the node itself reaches the network by its port \(port.name)"
                }
                guard let peerIndex = port.peerIndex else { continue }
                guard let namespace = port.peerNamespaceID else {
                    return "the other end of its port \(port.name) is in the host's own network"
                }
                do throws(NetlinkError) {
                    // The other end of a pod's veth is its interface; that of an uplink is a port of something in turn.
                    if let peer = try socket.link(index: peerIndex, namespaceID: namespace), peer.masterIndex != nil {
                        return "the other end of its port \(port.name) is a port of another bridge"
                    }
                } catch {
                    // Its namespace is going, or another one got its number: no packet comes from there.
                    guard [EINVAL, ENOENT].contains(error.errno) else {
                        return "the other end of its port \(port.name) cannot be looked at: \(error)"
                    }
                }
            }
            return nil
        }
    }
}

internal import BPF
internal import BPFObjects
internal import Netlink

/// A pod's interface, found and looked at: both ends of its veth.
struct PodDevice: ~Copyable {
    let pod: PodInterface
    let namespace: NetworkNamespace
    let podIndex: Int32
    let hostIndex: Int32
    /// Of the pod's end, bytes.
    let mtu: UInt32

    /// Finds the interface in its namespace and the host's end in ours. Throws `.interfaceGone` when namespace or interface are not
    /// there, and `.failed` when the interface is none that we can attach to.
    init(_ pod: PodInterface) throws(DatapathError) {
        let namespace: NetworkNamespace
        do {
            namespace = try NetworkNamespace(path: pod.networkNamespace)
        } catch {
            throw DatapathError(.interfaceGone, "pod \(pod.name): \(error)")
        }
        let link = try PodDevice.inside(namespace, pod.name) { () throws(NetlinkError) in
            var routes = try RouteSocket()
            return try routes.link(name: pod.interface)
        }
        guard let link else {
            throw DatapathError(
                .interfaceGone, "pod \(pod.name): no interface \(pod.interface) in \(pod.networkNamespace)")
        }
        guard link.kind == "veth", let peerIndex = link.peerIndex else {
            throw DatapathError(
                .failed,
                "pod \(pod.name): interface \(pod.interface) is of kind \(link.kind ?? "hardware"); only veth is supported"
            )
        }
        let host: Link?
        let namespaceID: Int32?
        do {
            var routes = try RouteSocket()
            host = try routes.link(index: peerIndex)
            namespaceID = try routes.namespaceID(descriptor: namespace.fd)
        } catch {
            throw DatapathError(.failed, "pod \(pod.name): \(error)")
        }
        // Indices repeat between namespaces: the host's end must point back, into this very namespace.
        guard let host, host.kind == "veth", host.peerIndex == link.index, host.peerNamespaceID == namespaceID,
            namespaceID != nil
        else {
            throw DatapathError(
                .failed,
                "pod \(pod.name): the other end of \(pod.interface) is not in this process's network namespace; run on the host's network"
            )
        }
        self.pod = pod
        self.namespace = namespace
        podIndex = link.index
        hostIndex = host.index
        mtu = link.mtu
    }

    /// Runs calls of netlink inside of a pod's namespace.
    static func inside<R>(
        _ namespace: borrowing NetworkNamespace, _ pod: String, _ body: () throws(NetlinkError) -> R
    ) throws(DatapathError) -> R {
        let outcome: Result<R, NetlinkError>
        do {
            outcome = try namespace.run(body)
        } catch {
            throw DatapathError(.failed, "pod \(pod): \(error)")
        }
        do {
            return try outcome.get()
        } catch {
            throw DatapathError(.failed, "pod \(pod): \(error)")
        }
    }
}

// MARK: - Offloads

extension PodDevice {
    /// Offloads that leave work for later than encryption: a checksum completed over ciphertext is wrong, and a packet that is to
    /// be cut into segments cannot be encrypted as one.
    static func breaksEncryption(_ feature: String) -> Bool {
        feature.hasPrefix("tx-checksum-") || (feature.hasPrefix("tx-") && feature.hasSuffix("-segmentation"))
            || feature == "tx-gso-list"
    }

    /// Turns such offloads off. `record` is called with what will be changed before it is changed.
    borrowing func turnOffloadsOff(record: ([String]) throws(DatapathError) -> Void) throws(DatapathError) {
        let index = podIndex
        let features = try PodDevice.inside(namespace, pod.name) { () throws(NetlinkError) in
            var ethtool = try EthtoolSocket()
            return try ethtool.features(interfaceIndex: index)
        }
        let on = features.filter { PodDevice.breaksEncryption($0.key) && $0.value.isWanted && $0.value.isChangeable }
            .keys.sorted()
        if on.isEmpty { return }
        try record(on)
        try PodDevice.inside(namespace, pod.name) { () throws(NetlinkError) in
            var ethtool = try EthtoolSocket()
            try ethtool.setFeatures(Dictionary(uniqueKeysWithValues: on.map { ($0, false) }), interfaceIndex: index)
        }
    }
}

// MARK: - Route MTU

extension PodDevice {
    /// What a route's packets may measure, so that both framings fit into the device's MTU; nil when IPv6's least MTU of 1280 does
    /// not fit.
    static func routeMTU(device: UInt32, isIPv4: Bool) -> UInt32? {
        let room = UInt32(isIPv4 ? XE_TUNNEL_LEN_V4 : XE_TUNNEL_LEN_V6)
        let least: UInt32 = isIPv4 ? 68 : 1280
        return device >= least + room ? device - room : nil
    }

    /// Lowers the MTU metric of all routes over the interface that have a higher one or none. `record` is called with what will be
    /// changed before it is changed.
    borrowing func lowerRouteMTUs(
        record: ([AttachmentRecord.ChangedRoute]) throws(DatapathError) -> Void
    ) throws(DatapathError) {
        let index = podIndex
        let routes = try PodDevice.inside(namespace, pod.name) { () throws(NetlinkError) in
            var socket = try RouteSocket()
            return try socket.routes()
        }.filter { $0.isUnicast && $0.interfaceIndices.contains(index) }
        var changes: [(route: Route, change: AttachmentRecord.ChangedRoute)] = []
        for route in routes {
            let destination = route.identity.destination
            guard let target = PodDevice.routeMTU(device: mtu, isIPv4: destination.address.isIPv4) else {
                if destination.address.isLinkLocal { continue }
                throw DatapathError(
                    .failed,
                    "pod \(pod.name): interface \(pod.interface) has an MTU of \(mtu), too small for \(destination): IPv6 needs 1280 and encryption \(XE_TUNNEL_LEN_V6) more, IPv4 68 and \(XE_TUNNEL_LEN_V4)"
                )
            }
            if let present = route.mtu, present != 0, present <= target { continue }
            let previous = route.mtu == 0 ? nil : route.mtu
            changes.append((route, .init(route: route.identity, previous: previous, applied: target)))
        }
        if changes.isEmpty { return }
        try record(changes.map(\.change))
        try PodDevice.inside(namespace, pod.name) { () throws(NetlinkError) in
            var socket = try RouteSocket()
            for (route, change) in changes {
                do throws(NetlinkError) {
                    try socket.setMTU(change.applied, of: route)
                } catch  where error.errno == 2 || error.errno == 3 {
                    // ENOENT, ESRCH: the route went away meanwhile.
                }
            }
        }
    }
}

// MARK: - Putting back

extension AttachmentRecord {
    /// Puts offloads and route MTUs back. Nothing happens when the namespace or the interface has gone.
    func putBack() throws(DatapathError) {
        guard let namespace = try? NetworkNamespace(path: pod.networkNamespace), namespace.identity == self.namespace
        else {
            return
        }
        let index = podIndex
        try PodDevice.inside(namespace, pod.name) { () throws(NetlinkError) in
            var socket = try RouteSocket()
            guard try socket.link(index: index) != nil else { return }
            let present = try socket.routes()
            for changed in routes {
                // One that somebody else has changed since is theirs.
                guard let route = present.first(where: { $0.identity == changed.route }), route.mtu == changed.applied
                else {
                    continue
                }
                do throws(NetlinkError) {
                    try socket.setMTU(changed.previous, of: route)
                } catch  where error.errno == 2 || error.errno == 3 {
                    // ENOENT, ESRCH: the route went away meanwhile.
                }
            }
            var ethtool = try EthtoolSocket()
            try ethtool.setFeatures(
                Dictionary(features.map { ($0, true) }, uniquingKeysWith: { first, _ in first }), interfaceIndex: index)
        }
    }
}

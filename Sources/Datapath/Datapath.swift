internal import BPF
internal import BPFObjects
internal import Glibc
public import Keys
public import Netlink
internal import Synchronization

/// The node's datapath: everything is pinned, so traffic goes on when this process ends, however it ends. One process at a time.
public final class Datapath: DatapathControl {
    /// As it was opened.
    public let options: Options
    /// What is not as asked for, in sentences for the log.
    public let warnings: [String]
    /// False when the pins of an earlier process were picked up.
    public let isFresh: Bool
    /// Replaces addresses of services; nil: it was not asked for, or cannot be.
    public let balancer: SocketLoadBalancer?
    /// Why addresses of services cannot be replaced.
    public let balancerFailure: String?

    private let lock: FolderLock
    private let tables: Tables
    private let attacher: Attacher
    private let programs: Attacher.Programs
    /// One attachment is changed at a time.
    private let attaching = Mutex<Void>(())

    /// Loads the programs and pins them, or picks up the pins of an earlier process without disturbing traffic. What a process left
    /// that was killed on the way is continued or cleaned.
    public init(options: Options) throws(DatapathError) {
        try options.validate()
        try KernelRequirements.check()
        try KernelRequirements.checkFileSystem(options.pinPath)
        try Files.makeFolder(options.pinPath)
        let lock = try FolderLock(options.pinPath)
        let attacher = Attacher(options: options)
        let opened = try Opening.open(options: options, attacher: attacher)
        // What can do without it goes on.
        var failure: String?
        var balancer: SocketLoadBalancer?
        do throws(DatapathError) {
            if let sockets = options.sockets {
                balancer = try SocketLoadBalancer(pinPath: options.pinPath, cgroup: sockets.cgroup)
                try balancer?.setPods(attacher.presentPods())
            }
        } catch {
            (failure, balancer) = (error.message, nil)
        }
        self.balancer = balancer
        balancerFailure = failure
        if balancer == nil {
            try SocketLoadBalancer.remove(pinPath: options.pinPath)
            for address in try opened.tables.serviceAddresses() {
                try opened.tables.setServiceAddress(address, refused: false)
            }
        }
        self.options = options
        self.lock = lock
        self.attacher = attacher
        isFresh = opened.isFresh
        warnings = opened.warnings
        tables = opened.tables
        programs = opened.takePrograms()
    }

    /// Removes everything of ours from the kernel and from pods, whatever state it is in. Nothing happens when nothing is there.
    ///
    /// Needs the lock: a running daemon must be stopped first.
    public static func removeAll(pinPath: String, stateDirectory: String) throws(DatapathError) {
        let attacher = Attacher(options: Options(nodeID: 1, pinPath: pinPath, stateDirectory: stateDirectory))
        let lock = Files.exists(pinPath) ? try FolderLock(pinPath) : nil
        let names = try attacher.names()
        // From all pods first: while the pods go one by one, those that are left would refuse what the others send.
        for name in names { try attacher.release(.local, pod: name) }
        for name in names { try attacher.detach(name: name) }
        try Files.removeFolder(pinPath)
        try Files.removeFolder(attacher.records.path)
        withExtendedLifetime(lock) {}
    }
}

// MARK: - DatapathControl

extension Datapath {
    /// What the kernel holds. Also forgets the replay windows of keys that were removed, at most every five seconds, and looks
    /// again at the bridges that pods are ports of.
    public func state() throws(DatapathError) -> DatapathState {
        try tables.sweepWindows()
        let openBridges = try exclusively { () throws(DatapathError) in try attacher.hostEnds.refresh() }
        var state = try tables.state()
        state.openBridges = openBridges
        state.attachments = try attacher.attachments(programIDs: try programIDs())
        if let balancer {
            for name in state.attachments.keys where !balancer.hasPod(name) {
                state.attachments[name]?.isWhole = false
            }
        }
        return state
    }

    /// Adds or replaces a protected address.
    public func setEndpoint(_ address: IPAddress, _ endpoint: EndpointEntry) throws(DatapathError) {
        try tables.setEndpoint(address, endpoint)
    }

    /// Removes a protected address.
    public func removeEndpoint(_ address: IPAddress) throws(DatapathError) { try tables.removeEndpoint(address) }

    /// Fills the slot of a peer, or replaces its values.
    public func setPeer(slot: UInt32, _ peer: PeerEntry) throws(DatapathError) { try tables.setPeer(slot: slot, peer) }

    /// Frees a slot; its keys must have been removed before.
    public func removePeer(slot: UInt32) throws(DatapathError) { try tables.removePeer(slot: slot) }

    /// Makes the set of strict CIDRs exactly this.
    public func setStrictCIDRs(_ prefixes: Set<IPPrefix>) throws(DatapathError) { try tables.setStrictCIDRs(prefixes) }

    /// Whether frames that are neither IP nor ARP are dropped.
    public func setStrictEtherType(_ strict: Bool) throws(DatapathError) { try tables.setStrictEtherType(strict) }

    /// Installs a key, in place of another one. See `DatapathControl.install`.
    public func install(_ key: AssociationKey, at id: AssociationID) throws(DatapathError) {
        try tables.install(key, at: id)
    }

    /// Removes a key.
    public func removeAssociation(_ id: AssociationID) throws(DatapathError) { try tables.removeAssociation(id) }

    /// The epoch that senders use from now on; 0 stops sending.
    public func setSending(epoch: Epoch) throws(DatapathError) { try tables.setSending(epoch: epoch) }

    /// Refuses keys of lower epochs from now on.
    public func setEpochFloor(_ epoch: Epoch) throws(DatapathError) { try tables.setEpochFloor(epoch) }

    /// Removes every key and window and draws a new incarnation.
    public func renewIncarnation() throws(DatapathError) -> Incarnation {
        try tables.renewIncarnation()
    }

    /// Attaches a pod, or repairs what is missing.
    public func attach(_ pod: PodInterface) throws(DatapathError) -> Attachment {
        try exclusively { () throws(DatapathError) in
            let attachment = try attacher.attach(pod, programs)
            try balancer?.addPod(pod.name, namespace: pod.networkNamespace)
            return attachment
        }
    }

    /// Undoes `attach`.
    public func detach(name: String) throws(DatapathError) {
        try exclusively { () throws(DatapathError) in
            try attacher.detach(name: name)
            try balancer?.removePod(name)
        }
    }

    /// Whether the interface that a pod's programs are attached to is still there: also when its namespace cannot be found.
    public func hasLiveLinks(name: String) -> Bool { attacher.hasLiveLinks(name: name) }

    private func exclusively<R: Sendable>(_ body: () throws(DatapathError) -> R) throws(DatapathError) -> R {
        let outcome = attaching.withLock { _ -> Result<R, DatapathError> in
            do throws(DatapathError) {
                return .success(try body())
            } catch {
                return .failure(error)
            }
        }
        return try outcome.get()
    }

    private func programIDs() throws(DatapathError) -> [PodHook: UInt32] {
        var ids: [PodHook: UInt32] = [:]
        do {
            for hook in PodHook.allCases { ids[hook] = try programs.id(hook) }  // nil: it has no such program
        } catch {
            throw DatapathError(.failed, error.description)
        }
        return ids
    }
}

// MARK: - Looking

extension Datapath {
    /// Verdicts and peers' counters, summed over CPUs.
    public func counters() throws(DatapathError) -> Counters { try tables.counters() }

    /// Whether the kernel knows an address as a protected pod's.
    public func hasEndpoint(_ address: IPAddress) throws(DatapathError) -> Bool { try tables.hasEndpoint(address) }

    /// Addresses of services that strict pods' packets are dropped to.
    public func serviceAddresses() throws(DatapathError) -> Set<IPAddress> { try tables.serviceAddresses() }

    /// Whether strict pods' packets to this address of a service are dropped: what no socket has replaced.
    public func setServiceAddress(_ address: IPAddress, refused: Bool) throws(DatapathError) {
        try tables.setServiceAddress(address, refused: refused)
    }

    /// How many replay windows the kernel holds. Walks them, a system call each.
    public func windowCount() throws(DatapathError) -> Int { try tables.windowCount() }

    /// Drops as they happen; for one consumer.
    public func dropEvents() throws(DatapathError) -> DropEvents { try tables.dropEvents() }
}

internal import BPF
internal import BPFObjects
internal import Glibc

/// What a node's kernel holds, read from the pins alone: works without the daemon and changes nothing. Needs root.
public struct DatapathView: Sendable {
    private let tables: Tables
    private let attacher: Attacher
    private let programIDs: [PodHook: UInt32]
    /// The programs' build, 16 hexadecimal digits; builds with the same source and compiler are equal.
    public let build: String
    /// Whether `build` is what this very binary brings.
    public let isOurBuild: Bool

    /// Opens the pins of a datapath. Throws a sentence that says what to do when nothing is loaded.
    public init(pinPath: String, stateDirectory: String) throws(DatapathError) {
        let attacher = Attacher(options: Datapath.Options(nodeID: 1, pinPath: pinPath, stateDirectory: stateDirectory))
        let pins = attacher.pins
        guard geteuid() == 0 || access(pinPath, R_OK | X_OK) == 0 || errno == ENOENT else {
            throw DatapathError(.failed, "\(pinPath) cannot be read: run this command as root")
        }
        let builds = try pins.completeBuilds()
        guard let build = builds.first(where: { $0 == Pins.embeddedBuild }) ?? builds.first,
            pins.hasSharedMaps(for: build)
        else {
            throw DatapathError(
                .failed,
                "nothing is loaded: there are no pins under \(pinPath). Start ebpf-xdp-keymgr on this node, or give its pin path with --pin-path"
            )
        }
        do {
            let maps = try pins.openMaps(build: build)
            let layout = try maps.config.lookup(UInt32(0), as: xe_config.self)?.layout ?? 0
            guard layout == UInt32(XE_LAYOUT) else {
                throw DatapathError(
                    .failed,
                    "the pinned maps have layout \(layout) and this program reads \(XE_LAYOUT): use the version that runs here"
                )
            }
            tables = Tables(
                maps: maps, install: try pins.openProgram(.install, build: build),
                remove: try pins.openProgram(.remove, build: build))
            var ids: [PodHook: UInt32] = [:]
            for hook in pins.hooks(build: build) {
                ids[hook] = try pins.openProgram(hook.program, build: build).info().id
            }
            programIDs = ids
        } catch let error as DatapathError {
            throw error
        } catch {
            throw DatapathError(.failed, "\(error)")
        }
        self.attacher = attacher
        self.build = build
        isOurBuild = build == Pins.embeddedBuild
    }

    /// Everything that the kernel holds.
    public func state() throws(DatapathError) -> DatapathState {
        var state = try tables.state()
        state.serviceAddresses = try tables.serviceAddresses()
        state.attachments = try attacher.attachments(programIDs: programIDs)
        state.openBridges = attacher.hostEnds.openBridges()
        return state
    }

    /// Verdicts and peers' counters, summed over CPUs.
    public func counters() throws(DatapathError) -> Counters { try tables.counters() }

    /// Services whose addresses are replaced at sockets; nil: they are not.
    public func sockets() throws(DatapathError) -> SocketLoadBalancer.View? {
        try SocketLoadBalancer.view(pinPath: attacher.pins.root)
    }

    /// Who is behind the services whose addresses are replaced at sockets.
    public func services() throws(DatapathError) -> [ServiceAddress: ServiceBackends] {
        try SocketLoadBalancer.services(pinPath: attacher.pins.root)
    }

    /// Other nodes, by slot.
    public func peers() throws(DatapathError) -> [UInt32: PeerEntry] { try tables.peers() }

    /// Replay window in packets.
    public func window() throws(DatapathError) -> UInt32 { try tables.config().window }

    /// How many replay windows the kernel holds. Walks them, a system call each.
    public func windowCount() throws(DatapathError) -> Int { try tables.windowCount() }

    /// Drops as they happen; for one consumer in the whole system.
    public func dropEvents() throws(DatapathError) -> DropEvents { try tables.dropEvents() }
}

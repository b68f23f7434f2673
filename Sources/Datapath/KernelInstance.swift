public import BPF
internal import BPFObjects
public import Keys
public import Netlink

/// The kernel's programs in maps of their own: nothing is pinned or attached, and everything ends with this value. For known
/// answers, benchmarks and tests; a node's traffic goes through a `Datapath`.
public final class KernelInstance: Sendable {
    let tables: Tables
    private let hostEnds: BPFMap
    private let scratch: BPFMap
    private let programs: [KernelProgram: Loaded]

    /// Holds a program in a dictionary, which takes copyable values only.
    private final class Loaded: Sendable {
        let program: BPFProgram
        init(_ program: consuming BPFProgram) { self.program = program }
    }

    /// Loads the embedded object with small maps.
    ///
    /// - Parameters:
    ///   - programs: which to load beside those that install and remove keys; fewer are loaded faster.
    ///   - options: node id, window and sizes; the paths are not used.
    public init(
        programs: [KernelProgram],
        options: Datapath.Options = Datapath.Options(
            nodeID: 1, capacity: Datapath.Capacity(peers: 63, endpoints: 1024, strictCIDRs: 64, windows: 1024))
    ) throws(DatapathError) {
        try KernelRequirements.check()
        let object = try loadObject(options: options, programs: programs + [.install, .remove])
        do {
            tables = Tables(
                maps: try KernelMaps { (name) throws(BPFError) in try object.map(name) },
                install: try object.program(KernelProgram.install.rawValue),
                remove: try object.program(KernelProgram.remove.rawValue))
            hostEnds = try object.map(KernelMaps.hostEndsName)
            scratch = try object.map("scratch")
            var loaded: [KernelProgram: Loaded] = [:]
            for program in programs { loaded[program] = Loaded(try object.program(program.rawValue)) }
            self.programs = loaded
        } catch {
            throw DatapathError(.failed, error.description)
        }
    }
}

// MARK: - What a datapath does

extension KernelInstance {
    /// As `DatapathControl.setEndpoint`.
    public func setEndpoint(_ address: IPAddress, _ endpoint: EndpointEntry) throws(DatapathError) {
        try tables.setEndpoint(address, endpoint)
    }

    /// As `DatapathControl.removeEndpoint`.
    public func removeEndpoint(_ address: IPAddress) throws(DatapathError) { try tables.removeEndpoint(address) }

    /// As `DatapathControl.setPeer`.
    public func setPeer(slot: UInt32, _ peer: PeerEntry) throws(DatapathError) { try tables.setPeer(slot: slot, peer) }

    /// As `DatapathControl.removePeer`.
    public func removePeer(slot: UInt32) throws(DatapathError) { try tables.removePeer(slot: slot) }

    /// As `DatapathControl.setStrictCIDRs`.
    public func setStrictCIDRs(_ prefixes: Set<IPPrefix>) throws(DatapathError) { try tables.setStrictCIDRs(prefixes) }

    /// As `DatapathControl.setStrictEtherType`.
    public func setStrictEtherType(_ strict: Bool) throws(DatapathError) { try tables.setStrictEtherType(strict) }

    /// As `DatapathControl.install`.
    public func install(_ key: AssociationKey, at id: AssociationID) throws(DatapathError) {
        try tables.install(key, at: id)
    }

    /// As `DatapathControl.removeAssociation`.
    public func removeAssociation(_ id: AssociationID) throws(DatapathError) { try tables.removeAssociation(id) }

    /// As `DatapathControl.setSending`.
    public func setSending(epoch: Epoch) throws(DatapathError) { try tables.setSending(epoch: epoch) }

    /// As `DatapathControl.setEpochFloor`.
    public func setEpochFloor(_ epoch: Epoch) throws(DatapathError) { try tables.setEpochFloor(epoch) }

    /// As `DatapathControl.renewIncarnation`.
    public func renewIncarnation() throws(DatapathError) -> Incarnation { try tables.renewIncarnation() }

    /// As `DatapathControl.state`, without attachments.
    public func state() throws(DatapathError) -> DatapathState {
        var state = try tables.state()
        state.serviceAddresses = try tables.serviceAddresses()
        return state
    }

    /// As `Datapath.setServiceAddress`.
    public func setServiceAddress(_ address: IPAddress, refused: Bool) throws(DatapathError) {
        try tables.setServiceAddress(address, refused: refused)
    }

    /// Takes a device of the calling thread's namespace for one by which packets of this node's protected pods come.
    public func setHostEnd(_ index: Int32) throws(DatapathError) {
        do {
            try hostEnds.update(index, index)
        } catch {
            throw DatapathError(.failed, error.description)
        }
    }

    /// As `Datapath.counters`.
    public func counters() throws(DatapathError) -> Counters { try tables.counters() }

    /// Forgets the replay windows of keys that are not installed.
    public func sweepWindows() throws(DatapathError) { try tables.sweepNow() }

    /// As `Datapath.dropEvents`.
    public func dropEvents() throws(DatapathError) -> DropEvents { try tables.dropEvents() }
}

// MARK: - Running programs

extension KernelInstance {
    /// Removes the key at `id` and puts another one there, which may have been in use before: for known answers only, where nonces
    /// are the caller's own.
    func replaceKnownAnswerKey(_ key: AssociationKey, at id: AssociationID) throws(DatapathError) {
        try tables.removeAssociation(id)
        try tables.forgetKeyUses()
        try tables.install(key, at: id)
    }
}

extension KernelInstance {
    /// What became of one packet.
    public struct Judgement: Sendable {
        /// What the program counted; nil when it counted nothing or more than one.
        public let verdict: Verdict?
        /// What the program returned: XDP_* or TCX_*.
        public let action: UInt32
        /// The frame afterwards.
        public let frame: [UInt8]
        /// What an XDP program has put in front of it for the guard.
        public let metadata: [UInt8]
        /// How long the program ran, in nanoseconds.
        public let nanoseconds: UInt32
    }

    /// Runs a program on a frame, which begins with the Ethernet header. Metadata that the program adds is not part of the answer.
    /// One run at a time: verdicts are told apart by their counters.
    ///
    /// - Parameter device: by which the frame came into the namespace; for tc programs.
    public func judge(
        _ frame: [UInt8], with program: KernelProgram, arrivingFrom device: UInt32? = nil
    ) throws(DatapathError) -> Judgement {
        let before = try tables.verdicts()
        let run = try run(program, packet: frame, arrivingFrom: device)
        let after = try tables.verdicts()
        let counted = after.filter { $0.value.packets != before[$0.key]?.packets }
        return Judgement(
            verdict: counted.count == 1 ? counted.first?.key : nil, action: run.action, frame: run.packet,
            metadata: run.metadata, nanoseconds: run.nanoseconds)
    }

    /// Runs a program on bytes.
    public func run(
        _ program: KernelProgram, packet: [UInt8], arrivingFrom device: UInt32? = nil, repeating: Int32 = 1
    ) throws(DatapathError) -> BPFProgram.PacketRun {
        guard let loaded = programs[program] else {
            throw DatapathError(.failed, "the program \(program.rawValue) was not loaded")
        }
        do {
            if let device {
                return try loaded.program.run(packet: packet, arrivingFrom: device, repeating: repeating)
            }
            // With a device (0: any), metadata is told apart from the frame.
            let puts = program == .encrypt || program == .decrypt
            return try loaded.program.run(packet: packet, interfaceIndex: puts ? 0 : nil, repeating: repeating)
        } catch {
            throw DatapathError(.failed, error.description)
        }
    }

    /// The programs' working memory, of all CPUs, as the last packets have left it.
    func leftovers() throws(DatapathError) -> [UInt8] {
        do {
            return try scratch.lookupPerCPU(UInt32(0)) ?? []
        } catch {
            throw DatapathError(.failed, error.description)
        }
    }

    /// What the kernel says of a program: instructions verified, bytes of native code.
    public func info(of program: KernelProgram) throws(DatapathError) -> BPFProgram.Info {
        guard let loaded = programs[program] else {
            throw DatapathError(.failed, "the program \(program.rawValue) was not loaded")
        }
        do {
            return try loaded.program.info()
        } catch {
            throw DatapathError(.failed, error.description)
        }
    }
}

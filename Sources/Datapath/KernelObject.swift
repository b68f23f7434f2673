internal import BPF
internal import BPFObjects

/// The maps of bpf/maps.bpf.h that user space works with.
struct KernelMaps: ~Copyable, Sendable {
    let config: BPFMap
    let endpoints: BPFMap
    let peers: BPFMap
    let associations: BPFMap
    let lanes: BPFMap
    let windows: BPFMap
    let strictCIDRs: BPFMap
    let verdicts: BPFMap
    let events: BPFMap
    let keyUses: BPFMap
    /// nil: an earlier build, which has none.
    let serviceAddresses: BPFMap?

    /// Names in the source of the maps that all builds of the programs share. `associations` is each build's own, and what is not
    /// named here is scratch.
    static let shared = [
        "config", "endpoints", "peers", "lanes", "windows", "strict_cidrs", "verdicts", "events", "key_uses", "spis",
        hostEndsName, serviceAddressesName,
    ]
    /// Those of them that an earlier build may not have; its upgrade makes them.
    static let added: Set<String> = [hostEndsName, serviceAddressesName]
    /// Devices that lead to protected pods: see `HostEnds`.
    static let hostEndsName = "host_ends"
    /// Addresses of services that lead to protected pods.
    static let serviceAddressesName = "service_addresses"
    /// Each build's own, because the kernel ties the kptrs in it to the object that declared them.
    static let associationsName = "associations"
    /// Where programs find the associations of the build before them.
    static let earlierName = "earlier"

    /// Gets each by its name in the source.
    init(_ open: (String) throws(BPFError) -> BPFMap) throws(BPFError) {
        // Locals first: a value that owns descriptors cannot be left half made.
        let config = try open("config")
        let endpoints = try open("endpoints")
        let peers = try open("peers")
        let associations = try open("associations")
        let lanes = try open("lanes")
        let windows = try open("windows")
        let strictCIDRs = try open("strict_cidrs")
        let verdicts = try open("verdicts")
        let events = try open("events")
        let keyUses = try open("key_uses")
        self.config = config
        self.endpoints = endpoints
        self.peers = peers
        self.associations = associations
        self.lanes = lanes
        self.windows = windows
        self.strictCIDRs = strictCIDRs
        self.verdicts = verdicts
        self.events = events
        self.keyUses = keyUses
        serviceAddresses = try? open(Self.serviceAddressesName)
    }
}

/// A program of bpf/encryptor.bpf.c.
public enum KernelProgram: String, Sendable, CaseIterable {
    /// XDP, on the host's end of a pod's veth.
    case encrypt = "xe_encrypt"
    /// XDP, on the pod's interface.
    case decrypt = "xe_decrypt"
    /// tcx, on the pod's interface.
    case `guard` = "xe_guard"
    /// tcx, on the host's end of a pod's veth.
    case local = "xe_local"
    /// Takes a key in; runs once a call.
    case install = "xe_install"
    /// Lets a key go; runs once a call.
    case remove = "xe_remove"
    /// Known answers.
    case gcm = "xe_gcm"
    /// tcx, for devices without XDP.
    case encryptTC = "xe_encrypt_tc"
    /// For benchmarks.
    case floor = "xe_floor"
    /// Takes a cipher over from an earlier build; runs once a call.
    case upgradeCipher = "xe_upgrade_cipher"
    /// Completes what `upgradeCipher` took over.
    case upgradeHashKey = "xe_upgrade_hash_key"

    /// What a node needs, and what is pinned.
    static let pinned: [KernelProgram] = [.encrypt, .decrypt, .guard, .local, .install, .remove]
    /// Those of them that an earlier build may not have.
    static let added: Set<KernelProgram> = [.local]
}

/// Opens the embedded object and loads it: new maps, chosen programs, and `config` written. Nothing is pinned.
func loadObject(
    options: Datapath.Options, programs: [KernelProgram]
) throws(DatapathError) -> BPFObject {
    try options.validate()
    do {
        let object = try BPFObject(.encryptor)
        let slots = options.capacity.peers + 1
        for (map, count) in [
            ("endpoints", options.capacity.endpoints), ("peers", slots), ("associations", slots * 4), ("lanes", slots),
            ("spis", slots * 2), ("key_uses", slots * 16), ("windows", options.capacity.windows),
            ("strict_cidrs", options.capacity.strictCIDRs),
        ] {
            try object.setMaxEntries(count, map: map)
        }
        try setWindow(options.window, object)
        let wanted = Set(programs.map(\.rawValue))
        for name in object.programNames { try object.setAutoload(wanted.contains(name), program: name) }
        try object.load()

        var config = xe_config()
        config.marker = UInt64.random(in: 1 ..< .max)
        config.window = options.window
        config.node_id = options.nodeID
        config.layout = UInt32(XE_LAYOUT)
        fill(&config.incarnation, from: (0..<XE_INCARNATION_LEN).map { _ in UInt8.random(in: .min ... .max) })
        try object.map("config").update(UInt32(0), config)
        return object
    } catch {
        throw KernelRequirements.explain(error)
    }
}

/// Sets the replay window's size, in packets: a constant to the verifier, and the size of the map's values.
func setWindow(_ packets: UInt32, _ object: borrowing BPFObject) throws(BPFError) {
    let groups = packets / UInt32(XE_WINDOW_GROUP) + 1
    let isWhereWeThink = try object.withReadOnlyData { constants in
        // `xe_window_groups` is the first of them, with the value for the standard window.
        guard constants.load(as: UInt32.self) == UInt32(XE_WINDOW_DEFAULT / XE_WINDOW_GROUP) + 1 else { return false }
        constants.storeBytes(of: groups, as: UInt32.self)
        return true
    }
    guard isWhereWeThink else {
        throw BPFError(operation: "set the replay window: the object's constants are in another order", errno: 22)
    }
    try object.setValueSize(8 + 8 * groups, map: "windows")
}

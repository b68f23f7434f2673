internal import BPF
internal import Crypto

/// Where the kernel's objects are pinned: the folder that outlives the daemon.
///
///     maps/NAME                       each map that builds of the programs share
///     programs/BUILD/NAME             the programs, in a folder named for the compiled object that they come from
///     programs/BUILD/associations     the keys, in the map of that build
///     links/POD/{local,guard,decrypt,encrypt}
struct Pins: Sendable {
    let root: String

    var maps: String { "\(root)/maps" }
    var programs: String { "\(root)/programs" }
    var links: String { "\(root)/links" }

    func map(_ name: String) -> String { "\(maps)/\(name)" }
    func build(_ build: String) -> String { "\(programs)/\(build)" }
    func program(_ program: KernelProgram, build: String) -> String { "\(self.build(build))/\(program.rawValue)" }
    func associations(build: String) -> String { "\(self.build(build))/\(KernelMaps.associationsName)" }
    func link(_ hook: PodHook, pod: String) -> String { "\(linkFolder(pod))/\(hook.rawValue)" }

    /// A BPF file system refuses names with dots, so they are written as %2E there; no pod's name has a '%'.
    func linkFolder(_ pod: String) -> String {
        "\(links)/\(pod.split(separator: ".", omittingEmptySubsequences: false).joined(separator: "%2E"))"
    }

    /// The build that is embedded in this binary: 16 hexadecimal digits of the object's SHA-256.
    static let embeddedBuild: String = {
        let digest = SHA256.hash(data: BPFObjectCode.encryptor.bytes)
        return digest.prefix(8).map { byte in
            let digits = String(byte, radix: 16)
            return digits.count == 1 ? "0\(digits)" : digits
        }.joined()
    }()

    /// Builds of which everything is pinned. What was added since an earlier one is not asked of it.
    func completeBuilds() throws(DatapathError) -> [String] {
        try Files.list(programs).filter { build in
            Files.exists(associations(build: build))
                && KernelProgram.pinned.allSatisfy { program in
                    Files.exists(self.program(program, build: build))
                        || (build != Self.embeddedBuild && KernelProgram.added.contains(program))
                }
        }
    }

    /// Whether every map is pinned that a build shares with others.
    func hasSharedMaps(for build: String) -> Bool {
        KernelMaps.shared.allSatisfy { name in
            Files.exists(map(name)) || (build != Self.embeddedBuild && KernelMaps.added.contains(name))
        }
    }

    /// Pods that have a link pinned.
    func linkedPods() throws(DatapathError) -> [String] {
        try Files.list(links).map { folder in
            var name = ""
            var rest = folder[...]
            while let character = rest.first {
                let isDot = rest.hasPrefix("%2E")
                name.append(isDot ? "." : character)
                rest = rest.dropFirst(isDot ? 3 : 1)
            }
            return name
        }
    }

    func openMaps(build: String) throws(BPFError) -> KernelMaps {
        try KernelMaps { (name) throws(BPFError) in
            try BPFMap(pinned: name == KernelMaps.associationsName ? associations(build: build) : map(name))
        }
    }

    /// Pins what belongs to one build, in place of what a killed process may have left of it.
    func pin(_ object: borrowing BPFObject, build: String) throws(DatapathError) {
        try Files.removeFolder(self.build(build))
        try Files.makeFolder(self.build(build))
        do {
            for program in KernelProgram.pinned {
                try object.program(program.rawValue).pin(at: self.program(program, build: build))
            }
            try object.map(KernelMaps.associationsName).pin(at: associations(build: build))
        } catch {
            throw DatapathError(.failed, error.description)
        }
    }

    func openProgram(_ kind: KernelProgram, build: String) throws(BPFError) -> BPFProgram {
        try BPFProgram(pinned: program(kind, build: build))
    }

    /// What a build has to attach; one from before a hook was added has no program for it.
    func hooks(build: String) -> [PodHook] {
        PodHook.allCases.filter { Files.exists(program($0.program, build: build)) }
    }
}

/// Where a program sits at a pod's veth; the raw value is the name of its link's pin. In the order in which they are attached: what
/// must come in verified is refused before our own packets ask peers to answer encrypted.
enum PodHook: String, CaseIterable, Sendable {
    /// tcx egress of the host's end.
    case local
    /// tcx ingress of the pod's interface.
    case `guard`
    /// XDP of the pod's interface.
    case decrypt
    /// XDP of the host's end.
    case encrypt

    /// What runs there.
    var program: KernelProgram {
        switch self {
        case .local: .local
        case .guard: .guard
        case .decrypt: .decrypt
        case .encrypt: .encrypt
        }
    }

    /// At the host's end; otherwise at the pod's.
    var isOnHost: Bool { self == .local || self == .encrypt }
    /// One program a device; tcx has room for others.
    var isXDP: Bool { self == .decrypt || self == .encrypt }
}

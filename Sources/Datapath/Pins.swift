internal import BPF
internal import Crypto

/// Where the kernel's objects are pinned: the folder that outlives the daemon.
///
///     maps/NAME                       each map that user space works with, and those that programs share
///     programs/BUILD/NAME             the programs, in a folder named for the compiled object that they come from
///     links/POD/{encrypt,decrypt,guard}
struct Pins: Sendable {
    let root: String

    var maps: String { "\(root)/maps" }
    var programs: String { "\(root)/programs" }
    var links: String { "\(root)/links" }

    func map(_ name: String) -> String { "\(maps)/\(name)" }
    func program(_ program: KernelProgram, build: String) -> String { "\(programs)/\(build)/\(program.rawValue)" }
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

    /// Builds whose programs are all pinned.
    func completeBuilds() throws(DatapathError) -> [String] {
        try Files.list(programs).filter { build in
            KernelProgram.pinned.allSatisfy { Files.exists(program($0, build: build)) }
        }
    }

    /// Whether every map is pinned that user space opens.
    var hasAllMaps: Bool { KernelMaps.names.allSatisfy { Files.exists(map($0)) } }

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

    func openMaps() throws(BPFError) -> KernelMaps {
        try KernelMaps { (name) throws(BPFError) in try BPFMap(pinned: map(name)) }
    }

    func openProgram(_ kind: KernelProgram, build: String) throws(BPFError) -> BPFProgram {
        try BPFProgram(pinned: program(kind, build: build))
    }
}

/// Where a program sits at a pod's veth; the raw value is the name of its link's pin.
enum PodHook: String, CaseIterable, Sendable {
    /// tcx ingress of the pod's interface.
    case `guard`
    /// XDP of the pod's interface.
    case decrypt
    /// XDP of the host's end.
    case encrypt
}

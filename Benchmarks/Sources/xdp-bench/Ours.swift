import BPF
import FoundationEssentials
import Glibc
import Lab
import Measure

/// The product, as a person would start it: keymgr on both nodes, pods in strict mode.
struct Ours: Candidate {
    enum Engine: String, Sendable {
        case ecb, aead
    }
    let engine: Engine

    var name: String { "ours (\(engine.rawValue))" }
    var note: String {
        switch engine {
        case .ecb: "AES-256-GCM in XDP: AES by the kernel's ecb(aes), GHASH in BPF; strict mode"
        case .aead: "AES-256-GCM in XDP by the optional kernel module; strict mode"
        }
    }

    /// The folder with ebpf-xdp-keymgr and xdp-encryptor.
    let programs: String

    private static var moduleIsLoaded: Bool { access("/sys/module/bpf_crypto_aead", F_OK) == 0 }

    func reasonForAbsence() -> String? {
        for program in ["ebpf-xdp-keymgr", "xdp-encryptor"] where access("\(programs)/\(program)", X_OK) != 0 {
            return "there is no \(program) in \(programs) (make release)"
        }
        // The engine is chosen when a key is installed: the module, where it is loaded.
        switch engine {
        case .ecb: return Self.moduleIsLoaded ? "the kernel module is loaded and takes its place" : nil
        case .aead: return Self.moduleIsLoaded ? nil : "the kernel module is not loaded"
        }
    }

    func start(on lab: Lab) throws -> Running {
        let encryption = try Encryption(lab, programs: programs)
        try encryption.start()
        var running = Running.direct(lab.server.address)
        for node in lab.nodes {
            running.processes[node.number] = [try encryption.daemon(node)]
            running.maps[node.number] = try mapBytes(under: encryption.pins(node))
        }
        return running
    }
}

/// The kernel memory of all maps that are pinned in a folder, as the kernel accounts for it, bytes.
func mapBytes(under folder: String) throws -> Int {
    let names = (try? FileManager.default.subpathsOfDirectory(atPath: folder)) ?? []
    return try names.reduce(0) { sum, name in
        let path = "\(folder)/\(name)"
        // Pins of programs and links look the same from outside, and can be opened as well.
        guard let map = try? BPFMap(pinned: path),
            let kind = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(map.fd)"),
            kind == "anon_inode:bpf-map"
        else { return sum }
        return try sum + memory(of: map)
    }
}

/// The kernel memory of a map, as the kernel accounts for it, bytes.
func memory(of map: borrowing BPFMap) throws -> Int {
    let lines = String(decoding: try bytes(of: "/proc/self/fdinfo/\(map.fd)"), as: UTF8.self).split(separator: "\n")
    let memory = lines.first { $0.hasPrefix("memlock:") }?.split(separator: "\t").last.flatMap { Int($0) }
    guard let memory else { throw LabError("the kernel does not say how much memory map \(map.shape.name) takes") }
    return memory
}

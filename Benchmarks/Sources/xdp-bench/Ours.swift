import BPF
import FoundationEssentials
import Glibc
import Lab
import Measure

/// The product, as a person would start it: keymgr on both nodes, pods in strict mode.
struct Ours: Candidate {
    enum Headers: String, Sendable {
        /// L4 headers are authenticated and can be read.
        case visible
        /// Packets are encrypted as a whole: the tunnel framing.
        case hidden
    }
    var headers = Headers.visible

    var name: String { headers == .hidden ? "ours, hidden headers" : "ours" }
    var note: String {
        "AES-256-GCM in XDP: AES by the kernel's ecb(aes), GHASH in BPF; strict mode"
            + (headers == .hidden ? "; L4 headers encrypted as well" : "")
    }

    /// The folder with ebpf-xdp-keymgr and xdp-encryptor.
    let programs: String

    func reasonForAbsence() -> String? {
        for program in ["ebpf-xdp-keymgr", "xdp-encryptor"] where access("\(programs)/\(program)", X_OK) != 0 {
            return "there is no \(program) in \(programs) (make release)"
        }
        return nil
    }

    func start(on lab: Lab) throws -> Running {
        let encryption = try Encryption(lab, headers: headers.rawValue, programs: programs)
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

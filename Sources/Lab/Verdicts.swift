internal import FoundationEssentials

/// Counters of a node's datapath, by the names in docs/drops.md: read with bpftool from the pinned map, so that the product's own
/// `status` is not asked about itself.
public struct Verdicts: Sendable, Equatable {
    /// Packets by verdict; those at 0 are not in it.
    public var packets: [String: Int]

    /// `enum xe_verdict` of bpf/wire.h.
    public static let names: [Int: String] = [
        0: "encrypted", 1: "decrypted",
        2: "pass_control", 3: "pass_unprotected", 4: "pass_same_node", 5: "pass_cleartext", 6: "pass_unknown_peer",
        7: "pass_ethertype", 8: "pass_withdrawing",
        16: "cleartext", 17: "auth", 18: "replay", 19: "stale", 20: "spoofed", 21: "unknown_peer", 22: "unsupported",
        23: "malformed", 24: "checksum", 25: "no_key", 26: "not_ready", 27: "ethertype", 28: "too_big", 29: "exhausted",
        30: "no_room", 31: "no_window", 32: "service",
        40: "fault_scratch", 41: "fault_cipher", 42: "fault_packet", 43: "fault_map",
    ]

    /// How often a verdict was reached.
    public subscript(_ name: String) -> Int { packets[name, default: 0] }

    /// Those that drop.
    public var drops: [String: Int] {
        let passing = Set(Self.names.filter { $0.key < 16 }.values)
        return packets.filter { !passing.contains($0.key) }
    }

    /// What has been counted since an earlier reading.
    public func since(_ earlier: Verdicts) -> Verdicts {
        var difference: [String: Int] = [:]
        for (name, count) in packets where count != earlier[name] { difference[name] = count - earlier[name] }
        return Verdicts(packets: difference)
    }
}

extension Lab {
    /// The counters of a datapath as they are now.
    public func verdicts(pins: String) throws -> Verdicts {
        struct Entry: Decodable {
            struct Formatted: Decodable {
                struct Value: Decodable {
                    struct Count: Decodable { var packets: Int }
                    var value: Count
                }
                var key: Int
                var values: [Value]
            }
            var formatted: Formatted
        }
        let output = try require(["bpftool", "-j", "map", "dump", "pinned", try pinned("verdicts", pins: pins)])
        var packets: [String: Int] = [:]
        for entry in try JSONDecoder().decode([Entry].self, from: Data(output.utf8)) {
            let count = entry.formatted.values.reduce(0) { $0 + $1.value.packets }
            if count > 0 { packets[Verdicts.names[entry.formatted.key] ?? "verdict \(entry.formatted.key)"] = count }
        }
        return Verdicts(packets: packets)
    }

    /// The path of a pinned map.
    public func pinned(_ map: String, pins: String) throws -> String {
        guard let path = files(under: pins).first(where: { $0.hasSuffix("/" + map) }) else {
            throw LabError("no map \(map) is pinned under \(pins), only \(files(under: pins))")
        }
        return path
    }
}

extension Encryption {
    /// A node's counters as they are now.
    public func verdicts(_ node: Lab.Node) throws -> Verdicts { try lab.verdicts(pins: pins(node)) }

    /// The path of a node's pinned map.
    public func pinned(_ map: String, _ node: Lab.Node) throws -> String { try lab.pinned(map, pins: pins(node)) }

    /// The paths of everything that a node has pinned.
    public func allPins(_ node: Lab.Node) -> [String] { files(under: pins(node)) }
}

/// Paths of the files in a folder and all folders in it.
func files(under folder: String) -> [String] {
    entries(of: folder).sorted().flatMap { name -> [String] in
        let path = folder + "/" + name
        return isDirectory(path) ? files(under: path) : [path]
    }
}

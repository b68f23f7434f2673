import Agent
import ArgumentParser
import Datapath
import FoundationEssentials
import Keys

/// Where this node's kernel and its daemon are looked at.
struct NodeOptions: ParsableArguments {
    @Option(help: "Folder of the pins.")
    var pinPath = "/sys/fs/bpf/xdp-encryptor"

    @Option(help: "Folder of the daemon's records.")
    var stateDirectory = "/run/xdp-encryptor"

    /// What the kernel holds.
    func view() throws(DatapathError) -> DatapathView {
        try DatapathView(pinPath: pinPath, stateDirectory: stateDirectory)
    }

    /// What the daemon wrote last, if anything.
    var agent: AgentStatus? { AgentStatus.read(runtimeDirectory: stateDirectory) }
}

/// How an answer is written.
enum OutputFormat: String, ExpressibleByArgument, CaseIterable {
    case text, json
}

/// Writes a value as JSON for programs: indented, keys sorted.
func writeJSON(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    try writeAll([UInt8](encoder.encode(value)) + [UInt8(ascii: "\n")])
}

/// The same in one line, for streams.
func writeJSONLine(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    try writeAll([UInt8](encoder.encode(value)) + [UInt8(ascii: "\n")])
}

/// Rows as lines, columns as wide as their widest value.
func columns(_ rows: [[String]]) -> [String] {
    let count = rows.map(\.count).max() ?? 0
    let widths = (0..<count).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
    return rows.map { row in
        let cells = zip(row, widths).map { $0 + String(repeating: " ", count: $1 - $0.count) }
        return String(cells.joined(separator: "  ").reversed().drop { $0 == " " }.reversed())
    }
}

extension AgentStatus {
    /// A pod of this node by its UID.
    func pod(_ name: String) -> PodStatus? { pods?.first { $0.name == name } }

    /// The name of another node.
    func node(_ id: NodeID) -> String? { peers.first { $0.nodeID == id }?.name }
}

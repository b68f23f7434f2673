internal import Cluster
internal import FoundationEssentials

/// The plugins of a node's network, as a .conflist file names them: with ours at the end, or without it. Pure.
///
/// github.com/containernetworking/cni, SPEC.md, "Network configuration format". Keys and values that are not ours stay as they are;
/// keys come out sorted.
struct CNIChain {
    /// The name under which runtimes start our plugin.
    static let pluginType = "xdp-encryptor-cni"
    /// Of the specification, that our plugin speaks.
    static let versions = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]

    private var list: [String: JSONTree]
    private var plugins: [JSONTree]

    /// Reads a file. Throws why nothing can be chained in it, as a sentence that begins after its name.
    init(_ text: [UInt8]) throws(FileError) {
        guard let tree = try? JSONDecoder().decode(JSONTree.self, from: Data(text)), case .object(let list) = tree else {
            throw FileError("is not a JSON object")
        }
        guard case .list(let plugins)? = list["plugins"] else {
            guard list["type"] != nil else { throw FileError("has no list of plugins") }
            throw FileError(
                "is the configuration of a single plugin, and nothing can be chained to that; make it a .conflist, as {\"cniVersion\": ..., \"name\": ..., \"plugins\": [it]}"
            )
        }
        guard plugins.contains(where: { Self.type(of: $0) != nil && !Self.isOurs($0) }) else {
            throw FileError("has no plugin that makes the pod's interface")
        }
        self.list = list
        self.plugins = plugins
    }

    /// Whether our plugin is in it.
    var hasOurs: Bool { plugins.contains(where: Self.isOurs) }

    /// The file with our plugin behind the others; nil when it is there as wanted already. `settings` are keys beside `type`.
    ///
    /// Where it stands already it stays, so that plugins that were chained behind it later stay there.
    func adding(_ settings: [String: JSONTree]) throws(FileError) -> [UInt8]? {
        let version: String
        if case .text(let text)? = list["cniVersion"] { version = text } else { version = "0.1.0" }
        guard Self.versions.contains(version) else {
            throw FileError(
                "is of CNI version \(version), which our plugin does not speak (\(Self.versions.joined(separator: ", "))): pods would not start"
            )
        }
        let wanted = JSONTree.object(settings.merging(["type": .text(Self.pluginType)]) { $1 })
        var changed = plugins.filter { !Self.isOurs($0) }
        let place = plugins.firstIndex(where: Self.isOurs) ?? changed.count
        // Behind the first plugin at least: there is no interface before it.
        changed.insert(wanted, at: min(max(place, 1), changed.count))
        return changed == plugins ? nil : text(changed)
    }

    /// The file without our plugin; nil when it is not there.
    func removing() -> [UInt8]? { hasOurs ? text(plugins.filter { !Self.isOurs($0) }) : nil }

    private func text(_ plugins: [JSONTree]) -> [UInt8]? {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        let whole = JSONTree.object(list.merging(["plugins": .list(plugins)]) { $1 })
        return (try? encoder.encode(whole)).map { Array($0) + [UInt8(ascii: "\n")] }
    }

    private static func type(of plugin: JSONTree) -> String? {
        guard case .object(let members) = plugin, case .text(let type)? = members["type"] else { return nil }
        return type
    }

    private static func isOurs(_ plugin: JSONTree) -> Bool { type(of: plugin) == pluginType }
}

/// Any JSON, for files of others that are read, changed and written.
enum JSONTree: Sendable, Hashable, Codable {
    case null
    case flag(Bool)
    case integer(Int64)
    case number(Double)
    case text(String)
    case list([JSONTree])
    case object([String: JSONTree])

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .flag(value)
        } else if let value = try? container.decode(Int64.self) {
            self = .integer(value)
        } else if let value = try? container.decode(Double.self) {
            self = .number(value)
        } else if let value = try? container.decode(String.self) {
            self = .text(value)
        } else if let value = try? container.decode([JSONTree].self) {
            self = .list(value)
        } else {
            self = .object(try container.decode([String: JSONTree].self))
        }
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .flag(let value): try container.encode(value)
        case .integer(let value): try container.encode(value)
        case .number(let value): try container.encode(value)
        case .text(let value): try container.encode(value)
        case .list(let value): try container.encode(value)
        case .object(let value): try container.encode(value)
        }
    }
}

internal import Cluster
internal import FoundationEssentials

/// A network configuration list (CNI's SPEC.md, "Network configuration format"): the plugins of a network, in their order. Edited as text,
/// so that what is not ours stays as it is written.
struct CNIList {
    private struct Shape: Codable {
        struct Plugin: Codable { var type: String? }
        var cniVersion: String?
        var type: String?
        var plugins: [Plugin]?
    }

    private let path: String
    private let text: [UInt8]
    private let version: String
    private let types: [String?]
    private let elements: [ArraySlice<UInt8>]
    /// Where the list of plugins stands in `text`.
    private let place: Range<Int>

    /// Reads a file. Throws when nothing can be chained in it.
    init(_ path: String) throws(FileError) {
        let text = try AtomicFile.read(path)
        guard let shape = try? JSONDecoder().decode(Shape.self, from: Data(text)) else {
            throw FileError("\(path) is no list of CNI plugins")
        }
        guard let plugins = shape.plugins, let raw = rawMember("plugins", of: text),
            let elements = rawElements(of: Array(raw)), elements.count == plugins.count
        else {
            throw FileError(
                shape.type == nil
                    ? "\(path) is no list of CNI plugins"
                    : "\(path), which the runtime uses, is the configuration of a single plugin, and nothing can be chained to that; make it a .conflist: {\"cniVersion\": ..., \"name\": ..., \"plugins\": [it]}"
            )
        }
        self.path = path
        self.text = text
        version = shape.cniVersion ?? "0.1.0"
        types = plugins.map(\.type)
        self.elements = elements
        place = raw.startIndex..<raw.endIndex
    }

    /// The text with this entry; nil when it is there already. An entry of ours stays where it is, so that plugins that were chained
    /// behind it stay behind it; but it is never the first, before which there is no interface.
    func adding(_ entry: [UInt8]) throws(FileError) -> [UInt8]? {
        guard CNIPlugin.versions.contains(version) else {
            throw FileError(
                "\(path) is of CNI version \(version), which the plugin does not speak (\(CNIPlugin.versions.joined(separator: ", "))): no pod would start"
            )
        }
        var wanted = others
        guard !wanted.isEmpty else { throw FileError("\(path) has no plugin that makes the pod's interface") }
        let before = types.firstIndex(of: CNIInstallation.type) ?? wanted.count
        wanted.insert(entry[...], at: min(max(before, 1), wanted.count))
        return replaced(by: wanted)
    }

    /// The text without entries of ours; nil when there is none.
    func removing() -> [UInt8]? { replaced(by: others) }

    private var others: [ArraySlice<UInt8>] {
        zip(elements, types).filter { $0.1 != CNIInstallation.type }.map(\.0)
    }

    private func replaced(by wanted: [ArraySlice<UInt8>]) -> [UInt8]? {
        if wanted.map({ Array($0) }) == elements.map({ Array($0) }) { return nil }
        let joined = Array(wanted.joined(separator: [UInt8(ascii: ","), UInt8(ascii: "\n")]))
        return Array(text[..<place.lowerBound]) + [UInt8(ascii: "[")] + joined + [UInt8(ascii: "]")]
            + Array(text[place.upperBound...])
    }
}

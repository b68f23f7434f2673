/// Prometheus' text format, version 0.0.4.
public struct MetricsText: Sendable {
    /// The text so far.
    public private(set) var text = ""
    private let prefix: String

    /// What kind of number it is.
    public enum Kind: String, Sendable {
        /// Goes up and down.
        case gauge
        /// Goes up.
        case counter
    }

    /// Every name begins with the prefix, such as `xdp_encryptor_`.
    public init(prefix: String) {
        self.prefix = prefix
    }

    /// A metric with one value.
    public mutating func add(_ kind: Kind, _ name: String, _ help: String, _ value: some BinaryInteger) {
        add(kind, name, help, [([:], Double(value))])
    }

    /// A metric with values by labels.
    public mutating func add(
        _ kind: Kind, _ name: String, _ help: String, _ values: [(labels: [String: String], value: Double)]
    ) {
        guard !values.isEmpty else { return }
        text +=
            "# HELP \(prefix)\(name) \(Self.escaped(help, quotes: false))\n# TYPE \(prefix)\(name) \(kind.rawValue)\n"
        for (labels, value) in values {
            text += "\(prefix)\(name)"
            if !labels.isEmpty {
                text += "{"
                text += labels.sorted { $0.key < $1.key }.map {
                    "\($0.key)=\"\(Self.escaped($0.value, quotes: true))\""
                }.joined(separator: ",")
                text += "}"
            }
            text += " \(Self.number(value))\n"
        }
    }

    private static func number(_ value: Double) -> String {
        value == value.rounded() && abs(value) < 1e15 ? String(Int64(value)) : String(value)
    }

    private static func escaped(_ text: String, quotes: Bool) -> String {
        var escaped = ""
        for character in text.unicodeScalars {
            switch character {
            case "\\": escaped += "\\\\"
            case "\n": escaped += "\\n"
            case "\"" where quotes: escaped += "\\\""
            default: escaped.unicodeScalars.append(character)
            }
        }
        return escaped
    }
}

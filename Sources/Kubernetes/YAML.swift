internal import CYAML

/// A YAML document (and so JSON, too), as far as kubeconfig files need it: scalars stay text.
enum YAML {
    case scalar(String)
    case list([YAML])
    case map([(key: String, value: YAML)])

    /// Why a text is no YAML.
    struct Problem: Error {
        /// Completes "... is not valid YAML: ".
        var message: String
    }

    /// Reads the first document of a text. Aliases are followed, as deep and as often as a sane file does.
    init(_ text: [UInt8]) throws(Problem) {
        var parser = yaml_parser_t()
        guard yaml_parser_initialize(&parser) == 1 else { throw Problem(message: "out of memory") }
        defer { yaml_parser_delete(&parser) }
        var result: Result<YAML, Problem> = .failure(Problem(message: "it is empty"))
        text.withUnsafeBufferPointer { text in
            yaml_parser_set_input_string(&parser, text.baseAddress, text.count)
            var document = yaml_document_t()
            guard yaml_parser_load(&parser, &document) == 1 else {
                let why = parser.problem.map { String(cString: $0) } ?? "cannot be read"
                result = .failure(Problem(message: "line \(parser.problem_mark.line + 1): \(why)"))
                return
            }
            defer { yaml_document_delete(&document) }
            guard let root = yaml_document_get_root_node(&document) else { return }
            var budget = 100_000
            result = Self.convert(root, &document, depth: 0, &budget)
        }
        self = try result.get()
    }

    private static func convert(
        _ node: UnsafeMutablePointer<yaml_node_t>, _ document: inout yaml_document_t, depth: Int, _ budget: inout Int
    ) -> Result<YAML, Problem> {
        budget -= 1
        guard depth < 64, budget > 0 else {
            return .failure(Problem(message: "it is nested too deeply, or refers to itself"))
        }
        switch node.pointee.type {
        case YAML_SCALAR_NODE:
            let scalar = node.pointee.data.scalar
            let bytes = UnsafeBufferPointer(start: scalar.value, count: scalar.length)
            return .success(.scalar(String(decoding: bytes, as: UTF8.self)))
        case YAML_SEQUENCE_NODE:
            var list: [YAML] = []
            var item = node.pointee.data.sequence.items.start
            while let current = item, current < node.pointee.data.sequence.items.top {
                guard let child = yaml_document_get_node(&document, current.pointee) else { break }
                switch convert(child, &document, depth: depth + 1, &budget) {
                case .success(let value): list.append(value)
                case .failure(let problem): return .failure(problem)
                }
                item = current + 1
            }
            return .success(.list(list))
        case YAML_MAPPING_NODE:
            var map: [(key: String, value: YAML)] = []
            var pair = node.pointee.data.mapping.pairs.start
            while let current = pair, current < node.pointee.data.mapping.pairs.top {
                guard let key = yaml_document_get_node(&document, current.pointee.key),
                    let value = yaml_document_get_node(&document, current.pointee.value)
                else { break }
                guard case .success(.scalar(let name)) = convert(key, &document, depth: depth + 1, &budget) else {
                    return .failure(Problem(message: "a key is not text"))
                }
                switch convert(value, &document, depth: depth + 1, &budget) {
                case .success(let value): map.append((name, value))
                case .failure(let problem): return .failure(problem)
                }
                pair = current + 1
            }
            return .success(.map(map))
        default:
            return .success(.scalar(""))
        }
    }

    /// A value of a map; nil when there is none, or when it is null.
    subscript(_ key: String) -> YAML? {
        guard case .map(let map) = self, let value = map.first(where: { $0.key == key })?.value else { return nil }
        if case .scalar(let text) = value, text == "" || text == "null" || text == "~" { return nil }
        return value
    }

    /// The text of a scalar.
    var text: String? {
        if case .scalar(let text) = self { text } else { nil }
    }

    /// The items of a list.
    var items: [YAML] {
        if case .list(let items) = self { items } else { [] }
    }
}

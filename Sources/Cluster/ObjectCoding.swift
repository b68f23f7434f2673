internal import FoundationEssentials

/// Reads and writes objects as JSON. Wrong types and values are errors that name the key and what was expected; unknown keys are
/// reported and ignored, so that a newer writer does not stop an older reader.
public enum ObjectCoding {
    /// Why bytes are no such object. For people; the file is named by who knows it.
    public struct Problem: Error, CustomStringConvertible {
        /// The key and what was expected.
        public var description: String
    }

    /// Decodes and checks.
    public static func decode<Object: Checked>(
        _ type: Object.Type, from bytes: [UInt8]
    ) throws(Problem) -> (object: Object, unknownKeys: [String]) {
        let data = Data(bytes)
        let object: Object
        do {
            object = try JSONDecoder().decode(type, from: data)
        } catch let error as DecodingError {
            throw Problem(description: describe(error, bytes: bytes))
        } catch {
            throw Problem(description: "is not valid JSON")
        }
        do throws(InvalidValue) {
            try object.check()
        } catch {
            throw Problem(description: "\(error.key): \(error.problem)")
        }
        // A default that somebody has written out is no unknown key.
        let encoder = JSONEncoder()
        if let key = CodingUserInfoKey.writesDefaults { encoder.userInfo[key] = true }
        guard let given = try? JSONDecoder().decode(JSONValue.self, from: data),
            let known = try? JSONDecoder().decode(JSONValue.self, from: encoder.encode(object))
        else { return (object, []) }
        return (object, given.keys(unknownTo: known))
    }

    /// Encodes for people: indented, keys sorted, a line end at the end.
    public static func encode(_ object: some Encodable) throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return Array(try encoder.encode(object)) + [UInt8(ascii: "\n")]
    }

    private static func describe(_ error: DecodingError, bytes: [UInt8]) -> String {
        func path(_ context: DecodingError.Context, _ last: (any CodingKey)? = nil) -> String {
            let keys = context.codingPath + (last.map { [$0] } ?? [])
            let text = keys.reduce(into: "") { text, key in
                if let index = key.intValue {
                    text += "[\(index)]"
                } else {
                    text += text.isEmpty ? key.stringValue : ".\(key.stringValue)"
                }
            }
            return text.isEmpty ? "" : "\(text): "
        }
        switch error {
        case .typeMismatch(let type, let context):
            return "\(path(context))expected \(name(of: type))"
        case .valueNotFound(let type, let context):
            return "\(path(context))is null; expected \(name(of: type))"
        case .keyNotFound(let key, let context):
            return "\(path(context, key))is missing"
        case .dataCorrupted(let context):
            if context.codingPath.isEmpty, bytes.isEmpty { return "is empty" }
            // Numbers that do not fit come without a path.
            if context.codingPath.isEmpty, let value = try? JSONDecoder().decode(JSONValue.self, from: Data(bytes)),
                let (key, number) = value.oddNumber
            {
                return "\(key): \(number) is out of range; expected a whole number that fits"
            }
            if context.codingPath.isEmpty { return "is not valid JSON; is it half written?" }
            return "\(path(context))\(context.debugDescription)"
        @unknown default:
            return "is not valid"
        }
    }

    private static func name(of type: any Any.Type) -> String {
        if type == String.self { return "text" }
        if type == Bool.self { return "true or false" }
        if type is any FixedWidthInteger.Type { return "a whole number that fits into \(type)" }
        if type is any Collection.Type, "\(type)".hasPrefix("Array") { return "a list" }
        return "an object"
    }
}

extension CodingUserInfoKey {
    fileprivate static let writesDefaults = CodingUserInfoKey(rawValue: "writesDefaults")
}

extension Encoder {
    /// Values that are left out elsewhere, because they are the default, are written.
    var writesDefaults: Bool { CodingUserInfoKey.writesDefaults.map { userInfo[$0] != nil } ?? false }
}

/// Any JSON value, as far as it matters for messages.
private enum JSONValue: Decodable {
    case object([String: JSONValue])
    case list([JSONValue])
    case null
    case number(Double)
    case other

    init(from decoder: any Decoder) throws {
        if let object = try? decoder.singleValueContainer().decode([String: JSONValue].self) {
            self = .object(object)
        } else if let list = try? decoder.singleValueContainer().decode([JSONValue].self) {
            self = .list(list)
        } else if (try? decoder.singleValueContainer().decodeNil()) == true {
            self = .null
        } else if let number = try? decoder.singleValueContainer().decode(Double.self) {
            self = .number(number)
        } else {
            self = .other
        }
    }

    /// A number that no whole-number field takes, with the path to it.
    var oddNumber: (key: String, number: String)? {
        func inside(_ children: [(String, JSONValue)]) -> (String, String)? {
            for (key, value) in children {
                if let (rest, number) = value.oddNumber {
                    return (rest.isEmpty || rest.hasPrefix("[") ? key + rest : "\(key).\(rest)", number)
                }
            }
            return nil
        }
        switch self {
        case .object(let object): return inside(object.sorted { $0.key < $1.key }.map { ($0.key, $0.value) })
        case .list(let list): return inside(list.enumerated().map { ("[\($0.offset)]", $0.element) })
        case .number(let number):
            if number >= 0, number <= Double(UInt32.max), number == number.rounded() { return nil }
            return ("", number == number.rounded() && abs(number) < 1e15 ? "\(Int64(number))" : "\(number)")
        case .null, .other: return nil
        }
    }

    /// Keys with a value here that do not come up in what was understood.
    func keys(unknownTo known: JSONValue) -> [String] {
        switch (self, known) {
        case (.object(let given), .object(let known)):
            given.sorted { $0.key < $1.key }.flatMap { key, value -> [String] in
                if case .null = value { return [] }
                guard let counterpart = known[key] else { return [key] }
                return value.keys(unknownTo: counterpart).map { $0.hasPrefix("[") ? key + $0 : "\(key).\($0)" }
            }
        case (.list(let given), .list(let known)) where given.count == known.count:
            zip(given, known).enumerated().flatMap { index, pair in
                pair.0.keys(unknownTo: pair.1).map { "[\(index)].\($0)" }
            }
        default: []
        }
    }
}

/// A value of a configuration that is one of a few words. A word that is none of them is an error that names those that are.
public protocol Choice: RawRepresentable, CaseIterable, Codable where RawValue == String {}

extension Choice {
    /// Reads the word.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let word = try container.decode(String.self)
        guard let value = Self(rawValue: word) else {
            let words = Self.allCases.map(\.rawValue).joined(separator: ", ")
            throw DecodingError.dataCorruptedError(
                in: container, debugDescription: "\"\(word)\" is not known; expected one of \(words)")
        }
        self = value
    }
}

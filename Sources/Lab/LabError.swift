/// Something in the lab did not come about.
public struct LabError: Error, Sendable, CustomStringConvertible {
    /// What was tried, what happened, and what the programs involved said.
    public let description: String

    /// Makes an error of a sentence.
    public init(_ description: String) {
        self.description = description
    }
}

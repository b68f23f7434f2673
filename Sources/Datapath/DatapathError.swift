/// What went wrong between the agent and the kernel.
public struct DatapathError: Error, Sendable {
    /// The kinds that callers answer differently.
    public enum Code: Sendable, Hashable {
        /// The key was in use earlier: renew the incarnation.
        case keyUsedBefore
        /// The kernel cannot run the datapath; the message says what is missing.
        case unsupportedKernel
        /// The pod's namespace or interface is not there.
        case interfaceGone
        /// Everything else.
        case failed
    }
    /// The kind.
    public let code: Code
    /// What happened, why, and what to do.
    public let message: String

    /// Makes an error of a kind with a message for people.
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
}

extension DatapathError: CustomStringConvertible {
    /// The message.
    public var description: String { message }
}

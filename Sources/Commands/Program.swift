public import ArgumentParser
internal import Glibc

/// A program that people and init systems start: what it says on standard error, and how it ends.
public struct Program: Sendable {
    /// Stands before every line.
    public let name: String

    /// Makes a value.
    public init(_ name: String) {
        self.name = name
    }

    /// Writes a line to standard error.
    public func say(_ line: String) {
        let bytes = Array("\(name): \(line)\n".utf8)
        _ = write(STDERR_FILENO, bytes, bytes.count)
    }

    /// Says what went wrong and ends with status 1.
    public func failure(_ sentence: String) -> ExitCode { end(1, sentence) }

    /// Says who is in the way and ends with status 75, EX_TEMPFAIL of sysexits.h.
    public func running(_ sentence: String) -> ExitCode { end(75, sentence) }

    /// Says what is wrong with the configuration and ends with status 78, EX_CONFIG of sysexits.h: systemd does not restart us for it.
    public func configuration(_ sentence: String) -> ExitCode { end(78, sentence) }

    private func end(_ code: Int32, _ sentence: String) -> ExitCode {
        say("error: \(sentence)")
        return ExitCode(code)
    }

    /// The process's environment: the platforms say in it where identities come from.
    public static var environment: [String: String] {
        var values: [String: String] = [:]
        var next = environ
        while let entry = next.pointee {
            let text = String(cString: entry)
            if let equals = text.firstIndex(of: "=") {
                values[String(text[..<equals])] = String(text[text.index(after: equals)...])
            }
            next += 1
        }
        return values
    }
}

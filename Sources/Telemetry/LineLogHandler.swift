internal import Cluster
internal import Glibc
public import Logging

/// Logs as logfmt, one line an event, on standard error: time=... level=... msg="..." key=value.
public struct LineLogHandler: LogHandler {
    /// Less severe events are left out.
    public var logLevel: Logger.Level
    /// Goes with every event.
    public var metadata: Logger.Metadata = [:]
    /// Not used.
    public var metadataProvider: Logger.MetadataProvider?

    /// Makes a handler.
    public init(level: Logger.Level) {
        logLevel = level
    }

    /// A value of `metadata`.
    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    /// Writes a line.
    public func log(event: LogEvent) {
        var line = "time=\(Timestamp.now()) level=\(event.level.rawValue) msg=\(Self.quoted(event.message.description))"
        let all = metadata.merging(event.metadata ?? [:]) { $1 }
        for (key, value) in all.sorted(by: { $0.key < $1.key }) { line += " \(key)=\(Self.quoted(value.description))" }
        if let error = event.error { line += " error=\(Self.quoted("\(error)"))" }
        let bytes = Array((line + "\n").utf8)
        // One write: lines of several processes do not mix.
        _ = write(2, bytes, bytes.count)
    }

    /// As it is when it is a plain word; else in quotes, with control characters, quotes and backslashes escaped: text of files and
    /// of other machines cannot make lines of its own.
    static func quoted(_ text: String) -> String {
        let isPlain =
            !text.isEmpty
            && text.utf8.allSatisfy {
                $0 > 0x20 && $0 < 0x7f && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "=")
                    && $0 != UInt8(ascii: "\\")
            }
        if isPlain { return text }
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": quoted += "\\\""
            case "\\": quoted += "\\\\"
            case "\n": quoted += "\\n"
            case _
            where scalar.value < 0x20 || (0x7f...0x9f).contains(scalar.value)
                || (0x2028...0x202e).contains(scalar.value):
                quoted += "\\u{\(String(scalar.value, radix: 16))}"
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }
}

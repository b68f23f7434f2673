import Glibc
import Testing

/// Loading programs needs root; the reason is shown for skipped tests.
let isRoot = geteuid() == 0
let needsRoot: Comment = "needs root: it loads BPF programs into the kernel"

/// The package's root: Tests/DatapathTests/Support.swift is two folders below it.
let packageRoot: String = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")

extension String {
    /// Reads a file of the package by its path from the package's root.
    init(contentsOfSource path: String) throws {
        try self.init(contentsOfFile: "\(packageRoot)/\(path)")
    }

    /// Reads a file.
    init(contentsOfFile path: String) throws {
        let file = try #require(fopen(path, "re"), "\(path) cannot be opened")
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while case let count = fread(&buffer, 1, buffer.count, file), count > 0 { bytes += buffer[..<count] }
        self = String(decoding: bytes, as: UTF8.self)
    }
}

/// Runs a shell command and returns its standard output, or nil when it failed.
@discardableResult
func shell(_ line: String) -> String? {
    guard let pipe = popen(line, "re") else { return nil }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 14)
    while case let count = fread(&buffer, 1, buffer.count, pipe), count > 0 { bytes += buffer[..<count] }
    return pclose(pipe) == 0 ? String(decoding: bytes, as: UTF8.self) : nil
}

/// Every 8 bytes in a row of something, to look many of them up.
struct Octets {
    private var words: Set<UInt64> = []

    init(_ bytes: [UInt8]) {
        words.reserveCapacity(bytes.count)
        var word: UInt64 = 0
        for (index, byte) in bytes.enumerated() {
            word = word << 8 | UInt64(byte)
            if index >= 7 { words.insert(word) }
        }
    }

    /// Whether the 8 bytes are there.
    func contains(_ bytes: ArraySlice<UInt8>) -> Bool {
        words.contains(bytes.prefix(8).reduce(0) { $0 << 8 | UInt64($1) })
    }
}

internal import Glibc

/// A tcpdump that writes what passes a device to a file.
public final class Capture: Sendable {
    /// A classic pcap file of whole frames.
    public let path: String
    private let lab: Lab
    private let process: ChildProcess
    private let namespace: Namespace
    private let interface: String

    /// Starts to capture. Returns once tcpdump listens.
    public init(_ lab: Lab, in namespace: Namespace, interface: String, name: String = "capture") throws {
        path = "\(lab.directory)/\(name).pcap"
        self.lab = lab
        self.namespace = namespace
        self.interface = interface
        // -Z root: tcpdump would drop to a user that cannot write here. In immediate mode each frame takes a slot of the snapshot
        // length: 9 KiB are more than any frame on the link, and 256 MiB of them outlast a burst. (The default length, 256 KiB, left
        // room for some hundred frames, and a busy machine lost some.)
        process = try lab.start(
            [
                "tcpdump", "-i", interface, "-w", path, "-s", "9216", "-n", "-U", "-B", "262144", "-Z", "root",
                "--immediate-mode",
            ],
            in: namespace)
        try wait(for: "tcpdump to listen on \(interface); it says: \(process.errors)", until: .seconds(10)) {
            guard process.isRunning else { throw LabError("tcpdump ended: \(process.errors)") }
            return process.errors.contains("listening on")
        }
    }

    /// Stops to capture. Sends a frame of its own last and waits until that has been written, so that the file holds all that came
    /// before. Throws when the kernel had to drop packets: what is not in the file cannot be vouched for.
    public func finish() throws {
        let token = "\(lab.name) end of \(path)"
        let before = fileSize(path)
        try lab.require(
            [Python.interpreter, try Python.script("sentinel.py"), interface, token], in: namespace)
        let bytes = Array(token.utf8)
        var searched = before  // what was written before the frame was sent need not be looked through
        try wait(for: "the last frame to be in \(path)", until: .seconds(30)) {
            let fresh = try readBytes(path, from: max(0, searched - bytes.count))
            searched = max(0, searched - bytes.count) + fresh.count
            return fresh.contains(bytes)
        }
        let outcome = process.stop(SIGINT, patience: 30)
        // tcpdump may end without its summary; that the last frame is there was seen above.
        let summary = "packets dropped by kernel"
        guard !outcome.errors.contains(summary) || outcome.errors.contains("\n0 \(summary)") else {
            throw LabError("the capture on \(interface) is not complete: \(outcome.errors)")
        }
    }
}

extension Array where Element: Equatable {
    /// `other` is somewhere in it, in one piece.
    func contains(_ other: [Element]) -> Bool {
        guard let first = other.first, count >= other.count else { return other.isEmpty }
        for start in 0...(count - other.count) where self[start] == first {
            if self[start..<(start + other.count)].elementsEqual(other) { return true }
        }
        return false
    }
}

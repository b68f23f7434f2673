public import Cluster
internal import Glibc
internal import KMS
internal import FoundationEssentials

/// What the daemon keeps until the next boot: the lock, its node object as published, leases, and status for people.
public struct RuntimeDirectory: Sendable {
    /// The directory.
    public let path: String

    /// Makes the directory (mode 0750) if it is not there; its parent must be.
    public init(path: String) throws(FileError) {
        self.path = path
        guard mkdir(path, 0o750) == 0 || errno == EEXIST else { throw FileError("make", path, errno: errno) }
    }

    /// The node object that was published last, if it was.
    var published: EncryptionNode? {
        guard let bytes = try? AtomicFile.read("\(path)/node.json"),
            let decoded = try? ObjectCoding.decode(EncryptionNode.self, from: bytes)
        else { return nil }
        return decoded.object
    }

    /// Tells what is in the file from what is not, by a hash: without what is never read from it, which revisions of other nodes' lists are in
    /// force. That alone is no reason to write it again, and changes all the time in a large cluster.
    static func mark(_ node: EncryptionNode) -> Int {
        var hasher = Hasher()
        var own = node
        own.applied = [:]
        hasher.combine(own)
        var sum = 0
        for (name, applied) in node.applied {
            var one = Hasher()
            one.combine(name)
            one.combine(applied.incarnation)
            one.combine(applied.epochs)
            // In whatever order they come.
            sum &+= one.finalize()
        }
        hasher.combine(sum)
        return hasher.finalize()
    }

    func write(_ node: EncryptionNode) throws {
        try AtomicFile.write(Self.encode(node), to: "\(path)/node.json")
    }

    static func encode(_ node: EncryptionNode) throws -> [UInt8] {
        var head = node
        head.applied = [:]
        return try encode(head, at: "\"applied\":{", node.applied.keys.sorted()) { name, encoder in
            try encoder.encode(name) + Data(":".utf8) + encoder.encode(node.applied[name])
        }
    }

    func write(_ status: AgentStatus) throws {
        try AtomicFile.write(Self.encode(status), to: "\(path)/\(AgentStatus.file)")
    }

    static func encode(_ status: AgentStatus) throws -> [UInt8] {
        var head = status
        head.peers = []
        return try encode(head, at: "\"peers\":[", status.peers) { peer, encoder in try encoder.encode(peer) }
    }

    /// An object with a line for each of thousands of parts: an encoder of the whole would hold every member of every part several times over.
    ///
    /// - Parameter place: Where the parts go; the same may stand in texts, in which quotation marks are escaped.
    private static func encode<Part>(
        _ head: some Encodable, at place: String, _ parts: [Part], part: (Part, JSONEncoder) throws -> Data
    ) throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let whole = try encoder.encode(head)
        guard let found = whole.firstRange(of: Array(place.utf8)) else {
            preconditionFailure("no member \(place) in an object that has it")
        }
        var bytes = Array(whole[..<found.upperBound])
        for (index, element) in parts.enumerated() {
            bytes += (index == 0 ? "\n" : ",\n").utf8
            bytes += try part(element, encoder)
        }
        return bytes + whole[found.upperBound...]
    }

    /// Leases of this boot: their times are the boot's clock.
    var leases: [DEKLifecycle.Lease] {
        guard let bytes = try? AtomicFile.read("\(path)/leases.json"),
            let record = try? JSONDecoder().decode(Leases.self, from: Data(bytes)), record.boot == Self.boot
        else { return [] }
        return record.leases
    }

    func write(_ leases: [DEKLifecycle.Lease]) throws {
        try AtomicFile.write(
            ObjectCoding.encode(Leases(boot: Self.boot, leases: leases)), to: "\(path)/leases.json", mode: 0o600)
    }

    private struct Leases: Codable {
        var boot: String
        var leases: [DEKLifecycle.Lease]
    }

    private static let boot: String = {
        // Files of procfs tell no size.
        guard let file = fopen("/proc/sys/kernel/random/boot_id", "re") else { return "unknown" }
        defer { fclose(file) }
        var buffer = [UInt8](repeating: 0, count: 36)
        let count = fread(&buffer, 1, buffer.count, file)
        return String(decoding: buffer[..<count], as: UTF8.self)
    }()
}

/// The right to be the one daemon that works on a node's pins: held as long as this value lives, and let go of by the kernel when
/// the process ends, however it ends.
public struct RuntimeLock: ~Copyable, Sendable {
    private let fd: Int32

    /// Somebody else holds the lock. For people.
    public struct Held: Error, CustomStringConvertible {
        /// Who, and what to do.
        public let description: String
    }

    /// Takes the lock, or throws ``Held`` with who holds it. Another error is a file's.
    public init(_ directory: RuntimeDirectory) throws {
        let path = "\(directory.path)/lock"
        let fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o640)
        guard fd >= 0 else { throw FileError("open", path, errno: errno) }
        guard flock(fd, LOCK_EX | LOCK_NB) == 0 else {
            let error = errno
            defer { close(fd) }
            guard error == EWOULDBLOCK else { throw FileError("lock", path, errno: error) }
            var buffer = [UInt8](repeating: 0, count: 16)
            let count = max(0, pread(fd, &buffer, buffer.count, 0))
            let holder = String(decoding: buffer[..<count], as: UTF8.self)
            throw Held(
                description:
                    "another ebpf-xdp-keymgr\(holder.isEmpty ? "" : " (process \(holder))") works with \(directory.path); stop it first, or give this one a runtimeDirectory and a pinPath of its own"
            )
        }
        self.fd = fd
        let text = Array("\(getpid())".utf8)
        ftruncate(fd, 0)
        _ = pwrite(fd, text, text.count, 0)
    }

    deinit { close(fd) }
}

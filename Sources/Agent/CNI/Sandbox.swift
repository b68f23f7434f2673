public import Cluster
public import Datapath
internal import Glibc
public import Netlink
internal import Synchronization

/// A pod's network as the CNI plugin has told of it, from before the pod starts until it is gone.
public struct Sandbox: Sendable, Hashable, Codable {
    /// The container runtime's id of the sandbox.
    public var containerID: String
    /// The pod's interface in its namespace, such as eth0.
    public var interface: String
    /// The pod's UID: the name of its endpoint.
    public var uid: String
    /// The pod's namespace in Kubernetes.
    public var podNamespace: String
    /// The pod's name.
    public var podName: String
    /// Path of its network namespace.
    public var networkNamespace: String
    /// Which namespace that is.
    public var identity: NamespaceIdentity
    /// What the plugins before ours have given it.
    public var addresses: [IPAddress]
    /// Its protection was decided on before it stood in our EncryptionNode's spec, and is held up until it does; nil: it was not.
    public var protection: Mode?
    /// When it was added.
    public var added: Timestamp

    /// Makes a value of its parts.
    public init(
        containerID: String, interface: String, uid: String, podNamespace: String, podName: String,
        networkNamespace: String, identity: NamespaceIdentity, addresses: [IPAddress], protection: Mode?,
        added: Timestamp
    ) {
        self.containerID = containerID
        self.interface = interface
        self.uid = uid
        self.podNamespace = podNamespace
        self.podName = podName
        self.networkNamespace = networkNamespace
        self.identity = identity
        self.addresses = addresses
        self.protection = protection
        self.added = added
    }

    /// For people: namespace/name.
    public var label: String { "\(podNamespace)/\(podName)" }

    /// Names its file.
    var key: String { "\(containerID).\(interface)" }
}

extension Sandbox: Checked {
    /// Throws for the first value that cannot be.
    public func check() throws(InvalidValue) {
        try checkName(containerID, "containerID")
        try checkName(uid, "uid")
        guard (1...15).contains(interface.utf8.count), isName(interface) else {
            throw InvalidValue("interface", "\"\(interface)\" is no interface name")
        }
        guard !addresses.isEmpty else { throw InvalidValue("addresses", "is empty; expected one address or more") }
    }
}

/// The sandboxes of this node, each in a file of its own in the runtime directory, so that a restart of the daemon forgets none.
final class SandboxStore: Sendable {
    private let folder: String
    private let all: Mutex<[String: Sandbox]>

    /// Reads what is there. Sandboxes whose namespace has gone, while nobody listened, are forgotten.
    ///
    /// - Parameter isLive: Whether the interface that a pod's programs are attached to is still there: then its namespace is, too, even
    ///   if it cannot be seen.
    init(folder: String, isLive: (_ uid: String) -> Bool = { _ in false }) throws(FileError) {
        self.folder = folder
        guard mkdir(folder, 0o700) == 0 || errno == EEXIST else { throw FileError("make", folder, errno: errno) }
        var found: [String: Sandbox] = [:]
        guard let directory = opendir(folder) else { throw FileError("list", folder, errno: errno) }
        defer { closedir(directory) }
        while let entry = readdir(directory) {
            let file = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            guard file.hasSuffix(".json"), !file.hasPrefix(".") else { continue }
            let path = "\(folder)/\(file)"
            // What cannot be read protects nobody and names nobody: its pod is still found by its address.
            guard let bytes = try? AtomicFile.read(path),
                let sandbox = try? ObjectCoding.decode(Sandbox.self, from: bytes).object
            else { continue }
            if NamespaceIdentity(path: sandbox.networkNamespace) == sandbox.identity || isLive(sandbox.uid) {
                found[sandbox.key] = sandbox
            } else {
                unlink(path)
            }
        }
        all = Mutex(found)
    }

    /// All of them. Of several of one pod the newest comes last.
    var sandboxes: [Sandbox] {
        all.withLock { $0.values.sorted { ($0.added, $0.key) < ($1.added, $1.key) } }
    }

    /// One of them.
    func sandbox(containerID: String, interface: String) -> Sandbox? {
        all.withLock { $0["\(containerID).\(interface)"] }
    }

    /// Adds or replaces one; it is on disk when this returns.
    func add(_ sandbox: Sandbox) throws {
        try AtomicFile.write(ObjectCoding.encode(sandbox), to: path(sandbox.key), mode: 0o600)
        all.withLock { $0[sandbox.key] = sandbox }
    }

    /// Forgets one. Returns whether there was one.
    @discardableResult func remove(containerID: String, interface: String) -> Bool {
        remove("\(containerID).\(interface)")
    }

    /// Forgets all but these (container id and interface).
    func keep(only valid: Set<String>) {
        let gone = all.withLock { all in all.keys.filter { !valid.contains($0) } }
        for key in gone { _ = remove(key) }
    }

    private func remove(_ key: String) -> Bool {
        unlink(path(key))
        return all.withLock { $0.removeValue(forKey: key) } != nil
    }

    /// Its pod stands in the spec now, or has been decided about otherwise.
    func release(_ sandbox: Sandbox) {
        var sandbox = sandbox
        sandbox.protection = nil
        // Not on disk: after a restart it is released again.
        guard (try? add(sandbox)) != nil else { return all.withLock { $0[sandbox.key] = sandbox } }
    }

    private func path(_ key: String) -> String { "\(folder)/\(key).json" }
}

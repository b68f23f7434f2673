internal import FoundationEssentials
public import Glibc
internal import Synchronization

/// The product, running on a lab: a cluster directory, a KEK file of provider `local` (or a KMS), and a keymgr on each node, all of
/// them started as a person would start them.
public final class Encryption: Sendable {
    /// The lab that it runs on.
    public let lab: Lab
    /// The cluster directory that the nodes share.
    public let cluster: String
    /// The KEK file.
    public let kek: String
    /// What the decoder needs to know; see `refreshKeys`.
    public let keys: String
    /// Where the programs are: ebpf-xdp-keymgr and xdp-encryptor.
    public let programs: String

    private let servers: KMSServers?
    private let leaseSeconds: Int?
    private let daemons = Mutex<[Int: ChildProcess]>([:])

    /// What a node says of itself in the cluster directory, as far as the lab cares.
    public struct NodeObject: Decodable, Sendable {
        /// The node's number.
        public var id: UInt32
        /// Hexadecimal.
        public var incarnation: String
        /// Counts up with its endpoints.
        public var revision: UInt32
        /// What it has attached.
        public var endpoints: [Endpoint]
        /// For which it can receive.
        public var epochs: [UInt32]
        /// That it sends with.
        public var sending: UInt32
        /// What it has applied of others.
        public var applied: [String: Acknowledgement]

        /// A published endpoint.
        public struct Endpoint: Decodable, Sendable {
            /// Its name.
            public var name: String
            /// `ready` or `withdrawing`.
            public var state: String
        }
        /// Of another node's list.
        public struct Acknowledgement: Decodable, Sendable {
            /// The incarnation that it is about.
            public var incarnation: String
            /// The revision that is in force.
            public var revision: UInt32
        }
    }

    /// Makes a cluster of the lab's nodes and pods, with one epoch, and starts nothing yet.
    ///
    /// - Parameters:
    ///   - mode: `strict` or `permissive`, of all endpoints.
    ///   - headers: `visible` or `hidden`, of all endpoints.
    ///   - programs: the folder with ebpf-xdp-keymgr and xdp-encryptor; nil looks for it.
    ///   - servers: The KMS; nil for a KEK file.
    ///   - leaseSeconds: How long a node may use a DEK without having been let unwrap it again; nil for the default.
    public init(
        _ lab: Lab, mode: String = "strict", headers: String = "visible", acknowledgeWithinSeconds: Int = 5,
        drainSeconds: Int = 1, programs: String? = nil, servers: KMSServers? = nil, leaseSeconds: Int? = nil
    ) throws {
        self.lab = lab
        self.leaseSeconds = leaseSeconds
        self.servers = servers
        cluster = lab.directory + "/cluster"
        kek = lab.directory + "/kek"
        keys = lab.directory + "/keys.json"
        self.programs = try programs ?? Self.findPrograms()
        for folder in [lab.pins, cluster, cluster + "/nodes", cluster + "/endpoints", cluster + "/epochs"] {
            guard mkdir(folder, 0o700) == 0 else {
                throw LabError("cannot make \(folder): \(String(cString: strerror(errno)))")
            }
        }
        try writeFile(
            cluster + "/cluster.json",
            """
            {"id": "\(Self.randomID())", "strictCIDRs": ["10.200.0.0/13", "fd00:200::/24"],
             "acknowledgeWithinSeconds": \(acknowledgeWithinSeconds), "drainSeconds": \(drainSeconds)}

            """)
        for pod in lab.pods { try publish(pod, mode: mode, headers: headers) }
        if let servers {
            try servers.connect(lab)
        } else {
            try tool("keys", "init", "--kek-file", kek)
        }
        try writeWriterConfiguration()
        try openEpoch()
    }

    /// The folder with both programs: beside this one, or the repository's debug build.
    static func findPrograms() throws -> String {
        var buffer = [CChar](repeating: 0, count: 4096)
        let length = readlink("/proc/self/exe", &buffer, buffer.count - 1)
        let own = String(decoding: buffer[..<max(0, length)].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        var folders = [String(own[..<(own.lastIndex(of: "/") ?? own.startIndex)])]
        if let root = Python.repository { folders += [root + "/.build/debug", root + "/.build/release"] }
        for folder in folders where access(folder + "/ebpf-xdp-keymgr", X_OK) == 0 {
            return folder
        }
        throw LabError(
            "cannot find the program ebpf-xdp-keymgr in \(folders.joined(separator: " or ")); run swift build")
    }

    private static func randomID() -> String {
        (0..<16).map { _ in
            let byte = UInt8.random(in: 0...255)
            return (byte < 16 ? "0" : "") + String(byte, radix: 16)
        }.joined()
    }

    /// Writes a pod's endpoint object.
    public func publish(_ pod: Lab.Pod, mode: String = "strict", headers: String = "visible") throws {
        try writeFile(
            "\(cluster)/endpoints/.\(pod.name).new",
            """
            {"addresses": ["\(pod.address)", "\(pod.address6)"], "node": "node-\(pod.node)", "mode": "\(mode)", "headers": "\(headers)",
             "networkNamespace": "\(pod.namespace.path)", "interface": "\(pod.interface)"}

            """)
        rename("\(cluster)/endpoints/.\(pod.name).new", "\(cluster)/endpoints/\(pod.name).json")
    }

    /// Withdraws a pod's endpoint object.
    public func withdraw(_ pod: Lab.Pod) {
        unlink("\(cluster)/endpoints/\(pod.name).json")
    }

    /// Runs the command line tool.
    @discardableResult
    public func tool(_ arguments: String..., in namespace: Namespace? = nil) throws -> String {
        try lab.require([programs + "/xdp-encryptor"] + arguments, in: namespace)
    }

    /// Opens the next epoch.
    public func openEpoch() throws {
        try tool("epoch", "open", "--cluster-directory", cluster, "--config", writerConfiguration)
    }

    /// Starts the program that makes epochs by itself; it asks for the KEK's version every second.
    public func startWriter() throws -> ChildProcess {
        try lab.start([
            programs + "/xdp-encryptor", "epoch", "watch", "--cluster-directory", cluster, "--config",
            writerConfiguration,
            "--poll-interval", "1",
        ])
    }

    /// Rotates the KEK in its KMS.
    public func rotateKEK() throws {
        guard let servers else { throw LabError("the KEK is in a file: put a new line before the others to rotate it") }
        try servers.rotate(lab)
    }

    private var writerConfiguration: String { lab.directory + "/writer.json" }

    private func writeWriterConfiguration() throws {
        try writeFile(
            writerConfiguration,
            """
            {"node": "writer", "nodeID": 16777215, "clusterDirectory": "\(cluster)", "kms": \(section(kek: kek))}

            """)
    }

    /// The `kms` section of a configuration.
    private func section(kek: String) -> String {
        let lease = leaseSeconds.map { "\"leaseSeconds\": \($0), " } ?? ""
        guard let servers else { return "{\(lease)\"provider\": \"local\", \"local\": {\"kekFile\": \"\(kek)\"}}" }
        return "{\(lease)" + servers.section.dropFirst()
    }

    /// Unwraps the DEKs for the decoder, in Python: nothing in the product can export one.
    public func refreshKeys() throws {
        try lab.require(
            [
                Python.interpreter, try Python.script("cluster_keys.py"), "--cluster", cluster, "--output", keys,
            ] + (servers.map { ["--kms", $0.control] } ?? ["--kek", kek]))
    }

    // MARK: nodes

    /// Where a node's pins are.
    public func pins(_ node: Lab.Node) -> String { "\(lab.pins)/n\(node.number)" }

    /// A node's configuration file.
    public func configuration(_ node: Lab.Node) -> String { "\(lab.directory)/node-\(node.number).json" }

    /// Starts a node's keymgr, with another KEK file than the cluster's if asked to.
    public func start(_ node: Lab.Node, kek: String? = nil) throws {
        let runtime = "\(lab.directory)/run-\(node.number)"
        mkdir(runtime, 0o700)
        try writeFile(
            configuration(node),
            """
            {"node": "node-\(node.number)", "nodeID": \(node.number), "clusterDirectory": "\(cluster)",
             "pinPath": "\(pins(node))", "runtimeDirectory": "\(runtime)",
             "kms": \(section(kek: kek ?? self.kek))}

            """)
        let daemon = try lab.start(
            [programs + "/ebpf-xdp-keymgr", "run", "--config", configuration(node)], in: node.namespace)
        daemons.withLock { $0[node.number] = daemon }
    }

    /// Starts every node's keymgr and waits until all pods talk encrypted to all others.
    public func start(seconds: Double = 30) throws {
        for node in lab.nodes { try start(node) }
        try waitUntilReady(.seconds(seconds))
        try waitUntilConnected(.seconds(seconds))
    }

    /// Waits until a ping from each node's first pod to each other's is answered, encrypted both ways. What a node has published is known to
    /// its peers a moment later: a strict pod sends nothing before (`not_ready`), a permissive one sends in clear.
    private func waitUntilConnected(_ deadline: Deadline) throws {
        let pods = lab.nodes.compactMap(\.pods.first)
        for (number, pod) in pods.enumerated() {
            for other in pods.dropFirst(number + 1) {
                try wait(for: "\(other.name) to answer \(pod.name); \(report)", until: deadline) {
                    let nodes = lab.nodes.filter { [pod.node, other.node].contains($0.number) }
                    let before = try nodes.map { try verdicts($0) }
                    guard try lab.run(["ping", "-q", "-c", "1", "-W", "1", other.address], in: pod.namespace).succeeded
                    else { return false }
                    return try zip(nodes, before).allSatisfy { node, earlier in
                        try verdicts(node).since(earlier)["pass_cleartext"] == 0
                    }
                }
            }
        }
    }

    /// A node's running keymgr.
    public func daemon(_ node: Lab.Node) throws -> ChildProcess {
        guard let daemon = daemons.withLock({ $0[node.number] }) else {
            throw LabError("no keymgr runs on node \(node.number)")
        }
        return daemon
    }

    /// Stops a node's keymgr with a signal; its datapath stays.
    @discardableResult
    public func stop(_ node: Lab.Node, _ signal: Int32 = SIGTERM) throws -> Outcome {
        let daemon = try daemon(node)
        daemons.withLock { $0[node.number] = nil }
        return lab.stop(daemon, signal)
    }

    /// What a node has published; nil when there is nothing yet.
    public func object(_ node: Lab.Node) throws -> NodeObject? {
        guard let bytes = try? readBytes("\(cluster)/nodes/node-\(node.number).json") else { return nil }
        return try? JSONDecoder().decode(NodeObject.self, from: Data(bytes))
    }

    /// Waits until every node sends with an epoch of at least `epoch`, has attached its pods, and has applied the lists of all others.
    public func waitUntilReady(_ deadline: Deadline, epoch: UInt32 = 1) throws {
        try wait(for: "all nodes to be ready; \(report)", until: deadline) {
            for node in lab.nodes {
                if let daemon = daemons.withLock({ $0[node.number] }), !daemon.isRunning {
                    throw LabError("keymgr of node \(node.number) ended: \(daemon.errors)\(daemon.output)")
                }
            }
            let objects = try lab.nodes.map { try object($0) }
            for (node, object) in zip(lab.nodes, objects) {
                guard let object, object.sending >= epoch,
                    object.endpoints.filter({ $0.state == "ready" }).count == node.pods.count
                else { return false }
                for (other, theirs) in zip(lab.nodes, objects) where other.number != node.number {
                    guard let theirs, let applied = object.applied["node-\(other.number)"],
                        applied.incarnation == theirs.incarnation, applied.revision == theirs.revision
                    else { return false }
                }
            }
            return true
        }
    }

    /// Opens the next epoch, number `epoch`, and waits until all nodes send with it and the one before has gone.
    public func rotate(to epoch: UInt32) throws {
        try openEpoch()
        try waitUntilReady(.seconds(30), epoch: epoch)
        try refreshKeys()
        try wait(for: "epoch \(epoch - 1) to go; \(report)", until: .seconds(30)) {
            try lab.nodes.allSatisfy { try object($0)?.epochs == [epoch] }
        }
    }

    /// What the nodes say, for messages.
    private var report: String {
        lab.nodes.map { node in
            let published = (try? readFile("\(cluster)/nodes/node-\(node.number).json")) ?? "nothing"
            let said = daemons.withLock { $0[node.number] }.map { $0.errors + $0.output } ?? "is not running"
            return "node \(node.number) has published \(published) and its keymgr says: \(said.suffix(2000))"
        }.joined(separator: "\n")
    }

    /// Removes the datapath of every node. For tear-down: errors do not matter.
    public func detach(_ node: Lab.Node) throws -> Outcome {
        try lab.run([programs + "/ebpf-xdp-keymgr", "detach", "--config", configuration(node)], in: node.namespace)
    }
}

public import Glibc
internal import Synchronization

/// Nodes with pods, made of network namespaces and veth pairs:
///
///     pod 1                node 1                  node 2                pod 2
///     eth0 ─────────── pod0 │ link0 ─────────── link0 │ pod0 ─────────── eth0
///     10.201.1.2        10.201.1.1  10.201.0.1  10.201.0.2  10.201.2.1        10.201.2.2
///     fd00:201:1::2                                                      fd00:201:2::2
///
/// With more than two nodes, a bridge in a namespace of its own joins them. A second pod of a node is in 10.202/16 and
/// fd00:202::/32, and so on. Nodes forward, and check source addresses (rp_filter) as real ones do.
///
/// Needs root. Names carry our process id, so that several labs can be up at the same time.
public final class Lab: Sendable {
    /// What a lab looks like.
    public struct Plan: Sendable {
        /// How many nodes there are: 2 to 9.
        public var nodes = 2
        /// How many pods each has: 1 to 9.
        public var podsPerNode = 1
        /// Of all devices, bytes.
        public var mtu = 1500

        /// Two nodes with a pod each, MTU 1500.
        public init(nodes: Int = 2, podsPerNode: Int = 1, mtu: Int = 1500) {
            self.nodes = nodes
            self.podsPerNode = podsPerNode
            self.mtu = mtu
        }
    }

    /// A machine.
    public struct Node: Sendable {
        /// From 1.
        public let number: Int
        /// Where its interfaces are.
        public let namespace: Namespace
        /// The device towards the other nodes.
        public let uplink = "link0"
        /// Its pods.
        public let pods: [Pod]
        /// Its addresses on the link.
        public var address: String { "10.201.0.\(number)" }
        /// The IPv6 one.
        public var address6: String { "fd00:201::\(number)" }
    }

    /// A pod on a node.
    public struct Pod: Sendable {
        /// Its node.
        public let node: Int
        /// From 0 on each node.
        public let index: Int
        /// Where its end of the veth pair is.
        public let namespace: Namespace
        /// Its device.
        public let interface = "eth0"
        /// The host's end of its veth pair.
        public var hostInterface: String { "pod\(index)" }
        /// Unique in the lab.
        public var name: String { "pod-\(node)-\(index)" }
        /// Its IPv4 address.
        public var address: String { "10.\(201 + index).\(node).2" }
        /// Its IPv6 address.
        public var address6: String { "fd00:\(201 + index):\(node)::2" }
        /// The address of the asked-for family: 4 or 6.
        public func address(family: Int) -> String { family == 6 ? address6 : address }
    }

    /// Prefix of its namespaces, of its directory, and of its pins.
    public let name: String
    /// For files: private to us, gone afterwards.
    public let directory: String
    /// Where the BPF pins of its nodes are.
    public let pins: String
    /// What it looks like.
    public let plan: Plan
    /// Machines, in the order of their numbers.
    public let nodes: [Node]

    private let bridge: Namespace?
    private let processes = Mutex<[ChildProcess]>([])
    private let cleanup = Mutex<Int?>(nil)
    private let counter = Mutex(0)

    private static let prefix = "xelab"
    private static let serial = Mutex(0)

    /// All pods of all nodes.
    public var pods: [Pod] { nodes.flatMap(\.pods) }

    /// Brings a lab up. Whatever happens, it is gone when the process ends; `tearDown` ends it before.
    public init(_ plan: Plan = Plan()) throws {
        guard geteuid() == 0 else {
            throw LabError("network namespaces and BPF programs need root; run this again as root")
        }
        precondition((2...9).contains(plan.nodes) && (1...9).contains(plan.podsPerNode))
        let serial = Self.serial.withLock { serial in
            serial += 1
            return serial
        }
        let name = "\(Self.prefix)\(getpid())x\(serial)"
        self.name = name
        self.plan = plan
        directory = "/tmp/\(name)"
        pins = "/sys/fs/bpf/\(name)"
        nodes = (1...plan.nodes).map { number in
            Node(
                number: number, namespace: Namespace(name: "\(name)-n\(number)"),
                pods: (0..<plan.podsPerNode).map { index in
                    Pod(node: number, index: index, namespace: Namespace(name: "\(name)-p\(number)\(index)"))
                })
        }
        bridge = plan.nodes > 2 ? Namespace(name: "\(name)-br") : nil
        Self.removeAbandoned()

        cleanup.withLock { $0 = Cleanup.shared.add { [self] in clear() } }
        do {
            guard mkdir(directory, 0o700) == 0 else {
                throw LabError("cannot make \(directory): \(String(cString: strerror(errno)))")
            }
            let script = directory + "/topology.sh"
            try writeFile(script, topology)
            let outcome = try run(["sh", "-eu", script])
            guard outcome.succeeded else { throw LabError("cannot make the lab's network: \(outcome.errors)") }
        } catch {
            tearDown()
            throw error
        }
    }

    /// Brings a lab up, runs the closure with it, and tears it down, also when the closure throws.
    public static func with<R>(_ plan: Plan = Plan(), _ body: (Lab) throws -> R) throws -> R {
        let lab = try Lab(plan)
        defer { lab.tearDown() }
        return try body(lab)
    }

    /// Stops everything and removes every trace. May be called more than once.
    public func tearDown() {
        let token = cleanup.withLock { token in
            defer { token = nil }
            return token
        }
        if let token { Cleanup.shared.run(token) }
    }

    /// Lets it stay after the process has ended; the next lab of anyone removes it then.
    public func keep() {
        cleanup.withLock { $0 = nil }
    }

    private func clear() {
        for process in processes.withLock({ $0 }) where process.isRunning { process.signal(SIGKILL) }
        Self.remove(
            namespaces: nodes.flatMap { [$0.namespace] + $0.pods.map(\.namespace) } + (bridge.map { [$0] } ?? []),
            trees: [pins, directory])
    }

    private static func remove(namespaces: [Namespace], trees: [String]) {
        for namespace in namespaces { namespace.remove() }
        for tree in trees { removeTree(tree) }
    }

    /// Removes what labs left whose process was killed.
    public static func removeAbandoned() {
        func owner(_ entry: String) -> Int32? {
            guard entry.hasPrefix(prefix) else { return nil }
            return Int32(entry.dropFirst(prefix.count).prefix { $0.isNumber })
        }
        func abandoned(_ folder: String) -> [String] {
            entries(of: folder).filter { entry in
                guard let pid = owner(entry) else { return false }
                return kill(pid, 0) != 0 && errno == ESRCH
            }
        }
        remove(
            namespaces: abandoned("/run/netns").map { Namespace(name: $0) },
            trees: abandoned("/sys/fs/bpf").map { "/sys/fs/bpf/" + $0 } + abandoned("/tmp").map { "/tmp/" + $0 })
    }

    /// Shell commands that make the namespaces, devices, addresses and routes.
    private var topology: String {
        var lines: [String] = []
        func namespace(_ space: Namespace) {
            lines.append("ip netns add \(space.name)")
            lines.append("ip -n \(space.name) link set lo up")
            lines.append("nsenter --net=\(space.path) sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0")
        }
        let mtu = plan.mtu
        for node in nodes {
            let host = node.namespace
            namespace(host)
            lines.append(
                "nsenter --net=\(host.path) sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1"
                    + " net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1")
            for pod in node.pods {
                let inside = pod.namespace
                let prefix = "10.\(201 + pod.index).\(node.number)"
                let prefix6 = "fd00:\(201 + pod.index):\(node.number)"
                namespace(inside)
                lines.append(
                    "ip -n \(host.name) link add \(pod.hostInterface) mtu \(mtu) type veth"
                        + " peer name \(pod.interface) netns \(inside.name) mtu \(mtu)")
                lines.append("ip -n \(host.name) addr add \(prefix).1/24 dev \(pod.hostInterface)")
                lines.append("ip -n \(host.name) addr add \(prefix6)::1/64 dev \(pod.hostInterface) nodad")
                lines.append("ip -n \(inside.name) addr add \(prefix).2/24 dev \(pod.interface)")
                lines.append("ip -n \(inside.name) addr add \(prefix6)::2/64 dev \(pod.interface) nodad")
                lines.append("ip -n \(host.name) link set \(pod.hostInterface) up")
                lines.append("ip -n \(inside.name) link set \(pod.interface) up")
                lines.append("ip -n \(inside.name) route add default via \(prefix).1")
                lines.append("ip -n \(inside.name) -6 route add default via \(prefix6)::1")
            }
        }
        if let bridge {
            namespace(bridge)
            lines.append("ip -n \(bridge.name) link add br0 mtu \(mtu) type bridge mcast_snooping 0")
            lines.append("ip -n \(bridge.name) link set br0 up")
            for node in nodes {
                lines.append(
                    "ip -n \(bridge.name) link add port\(node.number) mtu \(mtu) type veth"
                        + " peer name \(node.uplink) netns \(node.namespace.name) mtu \(mtu)")
                lines.append("ip -n \(bridge.name) link set port\(node.number) master br0 up")
            }
        } else {
            lines.append(
                "ip -n \(nodes[0].namespace.name) link add \(nodes[0].uplink) mtu \(mtu) type veth"
                    + " peer name \(nodes[1].uplink) netns \(nodes[1].namespace.name) mtu \(mtu)")
        }
        for node in nodes {
            lines.append("ip -n \(node.namespace.name) addr add \(node.address)/24 dev \(node.uplink)")
            lines.append("ip -n \(node.namespace.name) addr add \(node.address6)/64 dev \(node.uplink) nodad")
            lines.append("ip -n \(node.namespace.name) link set \(node.uplink) up")
        }
        for node in nodes {
            for other in nodes where other.number != node.number {
                for pod in other.pods {
                    let index = 201 + pod.index
                    lines.append(
                        "ip -n \(node.namespace.name) route add 10.\(index).\(other.number).0/24 via \(other.address)")
                    lines.append(
                        "ip -n \(node.namespace.name) -6 route add fd00:\(index):\(other.number)::/64 via \(other.address6)")
                }
            }
        }
        return lines.joined(separator: "\n") + "\n"
    }

    // MARK: programs

    /// Starts a program in a namespace (nil: our own). It is killed when the lab ends.
    public func start(
        _ command: [String], in namespace: Namespace? = nil, environment: [String: String] = [:], input: String? = nil
    ) throws -> ChildProcess {
        let number = counter.withLock { counter in
            counter += 1
            return counter
        }
        let program = (command.first ?? "").split(separator: "/").last ?? ""
        let process = try ChildProcess(
            namespace?.entering(command) ?? command, environment: environment, input: input,
            log: "\(directory)/\(number)-\(program)")
        processes.withLock { $0.append(process) }
        return process
    }

    /// Runs a program in a namespace (nil: our own) to its end.
    @discardableResult
    public func run(
        _ command: [String], in namespace: Namespace? = nil, environment: [String: String] = [:], input: String? = nil,
        seconds: Double = 30
    ) throws -> Outcome {
        let process = try start(command, in: namespace, environment: environment, input: input)
        defer { processes.withLock { $0.removeAll { $0 === process } } }
        return try process.wait(until: .seconds(seconds))
    }

    /// Like `run`, but throws what the program says unless it exits with 0. Returns its standard output.
    @discardableResult
    public func require(
        _ command: [String], in namespace: Namespace? = nil, environment: [String: String] = [:], input: String? = nil,
        seconds: Double = 30
    ) throws -> String {
        let outcome = try run(command, in: namespace, environment: environment, input: input, seconds: seconds)
        guard outcome.succeeded else {
            throw LabError(
                "\(command.joined(separator: " ")) ended with status \(outcome.status): \(outcome.errors)\(outcome.output)")
        }
        return outcome.output
    }

    /// Stops a program that `start` started, with `signal`; kills it when that does not help.
    @discardableResult
    public func stop(_ process: ChildProcess, _ signal: Int32 = SIGTERM) -> Outcome {
        processes.withLock { $0.removeAll { $0 === process } }
        return process.stop(signal)
    }

    /// Writes a file into the lab's directory and returns its path.
    public func write(_ name: String, _ text: String) throws -> String {
        let path = directory + "/" + name
        try writeFile(path, text)
        return path
    }
}

/// Names in a folder, without "." and "..".
func entries(of folder: String) -> [String] {
    guard let directory = opendir(folder) else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
            $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name != "." && name != ".." { names.append(name) }
    }
    return names
}

/// Removes a file or a folder with all that is in it; does not follow links.
func removeTree(_ path: String) {
    var status = stat()
    guard lstat(path, &status) == 0 else { return }
    if status.st_mode & S_IFMT == S_IFDIR {
        for entry in entries(of: path) { removeTree(path + "/" + entry) }
        rmdir(path)
    } else {
        unlink(path)
    }
}

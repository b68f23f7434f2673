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
    private let cleanup = Mutex<Int?>(nil)
    private let counter = Mutex(0)

    private static let prefix = "xelab"
    private static let variable = "XE_LAB"
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

    private func clear() { Self.remove(name) }

    /// Ends every process of a lab and removes all that carries its name.
    private static func remove(_ name: String) {
        let deadline = Deadline.seconds(5)
        while true {
            let running = processes(of: name)
            guard !running.isEmpty && !deadline.hasPassed else { break }
            for pid in running { kill(pid, SIGKILL) }
            usleep(2000)
        }
        for entry in entries(of: "/run/netns") where entry.hasPrefix(name + "-") { Namespace(name: entry).remove() }
        removeTree("/sys/fs/bpf/" + name)
        removeTree("/tmp/" + name)
    }

    /// Every process that a lab started, and what those started: told by a variable in their environment.
    private static func processes(of name: String) -> [Int32] {
        let variable = Array("\(variable)=\(name)".utf8)
        // Programs that write their title over their environment, as nginx does, are known by their network namespace.
        let namespaces = entries(of: "/run/netns").filter { $0.hasPrefix(name + "-") }
            .compactMap { inode("/run/netns/" + $0) }
        return entries(of: "/proc").compactMap { Int32($0) }.filter { pid in
            if let namespace = inode("/proc/\(pid)/ns/net"), namespaces.contains(namespace) { return true }
            guard let environment = try? readBytes("/proc/\(pid)/environ") else { return false }
            return environment.split(separator: 0).contains { $0.elementsEqual(variable) }
        }
    }

    /// Removes what labs left whose process was killed.
    public static func removeAbandoned() {
        let found = ["/run/netns", "/sys/fs/bpf", "/tmp"].flatMap { entries(of: $0) }.compactMap { entry -> String? in
            guard entry.hasPrefix(prefix), let name = entry.split(separator: "-").first,
                let pid = Int32(name.dropFirst(prefix.count).prefix { $0.isNumber })
            else { return nil }
            return kill(pid, 0) != 0 && errno == ESRCH ? String(name) : nil
        }
        for name in Set(found) { remove(name) }
    }

    /// Shell commands that make the namespaces, devices, addresses and routes.
    private var topology: String {
        var lines: [String] = []
        let mtu = plan.mtu
        for node in nodes {
            let host = node.namespace
            lines += commands(for: host)
            lines.append(
                "nsenter --net=\(host.path) sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1"
                    + " net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1")
            // Without a word: ICMP errors of the node's would be packets that nobody has asked for.
            lines.append("ip -n \(host.name) route add blackhole default")
            lines.append("ip -n \(host.name) -6 route add blackhole default")
            for pod in node.pods { lines += commands(for: pod, on: host) }
        }
        if let bridge {
            lines += commands(for: bridge)
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
                        "ip -n \(node.namespace.name) -6 route add fd00:\(index):\(other.number)::/64 via \(other.address6)"
                    )
                }
            }
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private func commands(for namespace: Namespace) -> [String] {
        [
            "ip netns add \(namespace.name)",
            "ip -n \(namespace.name) link set lo up",
            "nsenter --net=\(namespace.path) sysctl -qw"
                + " net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0",
        ]
    }

    private func commands(for pod: Pod, on host: Namespace) -> [String] {
        let inside = pod.namespace
        let prefix = "10.\(201 + pod.index).\(pod.node)"
        let prefix6 = "fd00:\(201 + pod.index):\(pod.node)"
        return commands(for: inside) + [
            "ip -n \(host.name) link add \(pod.hostInterface) mtu \(plan.mtu) type veth"
                + " peer name \(pod.interface) netns \(inside.name) mtu \(plan.mtu)",
            "ip -n \(host.name) addr add \(prefix).1/24 dev \(pod.hostInterface)",
            "ip -n \(host.name) addr add \(prefix6)::1/64 dev \(pod.hostInterface) nodad",
            "ip -n \(inside.name) addr add \(prefix).2/24 dev \(pod.interface)",
            "ip -n \(inside.name) addr add \(prefix6)::2/64 dev \(pod.interface) nodad",
            "ip -n \(host.name) link set \(pod.hostInterface) up",
            "ip -n \(inside.name) link set \(pod.interface) up",
            "ip -n \(inside.name) route add default via \(prefix).1",
            "ip -n \(inside.name) -6 route add default via \(prefix6)::1",
        ]
    }

    /// Makes a pod again whose namespace was removed: same name and addresses, new namespace and devices.
    public func addPod(_ pod: Pod) throws {
        let host = nodes[pod.node - 1].namespace
        let script = try write("pod.sh", commands(for: pod, on: host).joined(separator: "\n") + "\n")
        try require(["sh", "-eu", script])
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
            namespace?.entering(command) ?? command,
            environment: environment.merging([Self.variable: name]) { $1 }, input: input,
            log: "\(directory)/\(number)-\(program)")
        return process
    }

    /// Runs a program in a namespace (nil: our own) to its end.
    @discardableResult
    public func run(
        _ command: [String], in namespace: Namespace? = nil, environment: [String: String] = [:], input: String? = nil,
        seconds: Double = 30
    ) throws -> Outcome {
        let process = try start(command, in: namespace, environment: environment, input: input)
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
                "\(command.joined(separator: " ")) ended with status \(outcome.status): \(outcome.errors)\(outcome.output)"
            )
        }
        return outcome.output
    }

    /// Stops a program that `start` started, with `signal`; kills it when that does not help.
    @discardableResult
    public func stop(_ process: ChildProcess, _ signal: Int32 = SIGTERM) -> Outcome {
        process.stop(signal)
    }

    /// Writes a file into the lab's directory and returns its path.
    public func write(_ name: String, _ text: String) throws -> String {
        let path = directory + "/" + name
        try writeFile(path, text)
        return path
    }
}

/// What tells namespaces apart; nil when the path is not there.
private func inode(_ path: String) -> [UInt]? {
    var status = stat()
    return stat(path, &status) == 0 ? [UInt(status.st_dev), UInt(status.st_ino)] : nil
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

func isDirectory(_ path: String) -> Bool {
    var status = stat()
    return lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
}

extension Lab {
    /// The MAC address of a device, such as 02:00:00:00:00:0a.
    public func hardwareAddress(of interface: String, in namespace: Namespace) throws -> String {
        let output = try require(["ip", "-o", "link", "show", "dev", interface], in: namespace)
        let words = output.split(whereSeparator: \.isWhitespace)
        guard let at = words.firstIndex(of: "link/ether"), at + 1 < words.count else {
            throw LabError("\(interface) in \(namespace.name) has no hardware address: \(output)")
        }
        return String(words[at + 1])
    }
}

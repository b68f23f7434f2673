import BPF
import Glibc
import Netlink
import Testing

@testable import Datapath

/// Services at sockets: a pod, a service's address that nothing answers at, and servers on the pod's node behind it.
@Suite(.serialized, .enabled(if: isRoot, needsRoot))
struct SocketTests {
    /// A node whose pod's sockets are balanced.
    private struct Bench {
        let node: TestNode
        let options: Datapath.Options

        init() throws {
            node = try TestNode()
            for line in [
                "ip -n \(node.node) addr add 10.8.0.3/24 dev host0",
                "ip -n \(node.node) addr add fd08::1/64 dev host0 nodad",
            ] {
                try #require(shell(line) != nil, "\(line)")
            }
            var options = node.options
            options.sockets = .init(cgroup: try Cgroup.root())
            self.options = options
        }

        /// Runs where the daemon does, with the pod attached.
        func run(_ body: (Datapath) throws -> Void) throws {
            try node.inNode {
                let datapath = try Datapath(options: options)
                _ = try datapath.attach(node.pod)
                try body(datapath)
            }
        }

        @discardableResult
        func inPod<R>(_ body: () throws -> R) throws -> R {
            try NetworkNamespace.run(path: "/run/netns/\(node.podNamespace)", body).get()
        }
    }

    private let web = ServiceAddress(address: try! IPAddress("10.96.0.1"), port: 80, transport: .tcp)
    private let web6 = ServiceAddress(address: try! IPAddress("fd96::1"), port: 80, transport: .tcp)
    private let names = ServiceAddress(address: try! IPAddress("10.96.0.2"), port: 53, transport: .udp)
    private let names6 = ServiceAddress(address: try! IPAddress("fd96::2"), port: 53, transport: .udp)

    private func backend(_ address: String, _ port: UInt16) throws -> ServiceBackend {
        ServiceBackend(address: try IPAddress(address), port: port)
    }

    @Test("TCP by IPv4, by IPv6, and by IPv4 from an IPv6 socket: the pod is reached, and the service is seen")
    func connections() throws {
        let bench = try Bench()
        try bench.run { datapath in
            let servers = try [TestSocket.listening("10.8.0.1", 8080), TestSocket.listening("fd08::1", 8080)]
            let balancer = try #require(datapath.balancer)
            try balancer.set(web, ServiceBackends([backend("10.8.0.1", 8080)]))
            try balancer.set(web6, ServiceBackends([backend("fd08::1", 8080)]))
            for (address, target, server) in [
                ("10.96.0.1", "10.96.0.1:80", 0), ("fd96::1", "[fd96::1]:80", 1),
                ("::ffff:10.96.0.1", "[::ffff:10.96.0.1]:80", 0),
            ] {
                let client = try bench.inPod {
                    let client = try TestSocket(address, SOCK_STREAM)
                    try client.connect(address, 80)
                    #expect(try client.peer() == target)
                    return client
                }
                #expect(try servers[server].accept(), "\(address)")
                withExtendedLifetime(client) {}
            }
            #expect(try SocketLoadBalancer.view(pinPath: bench.options.pinPath)?.connections == 3)
            // Another port, another protocol: no service of ours.
            try bench.inPod {
                #expect(throws: POSIXFailure.self) {
                    try TestSocket("10.96.0.1", SOCK_STREAM).connect("10.96.0.1", 81, patience: 0.2)
                }
                try TestSocket("10.96.0.1", SOCK_DGRAM).connect("10.96.0.1", 80)
            }
            #expect(try SocketLoadBalancer.view(pinPath: bench.options.pinPath)?.connections == 3)
        }
    }

    @Test("UDP, with and without a connection: answers come from the service", arguments: [true, false])
    func datagrams(isConnected: Bool) throws {
        let bench = try Bench()
        try bench.run { datapath in
            let balancer = try #require(datapath.balancer)
            try balancer.set(names, ServiceBackends([backend("10.8.0.1", 5353), backend("10.8.0.3", 5353)]))
            try balancer.set(names6, ServiceBackends([backend("fd08::1", 5353)]))
            let servers = try ["10.8.0.1", "10.8.0.3", "fd08::1"].map { address in
                let server = try TestSocket(address, SOCK_DGRAM)
                try server.bind(address, 5353)
                return server
            }
            for (address, seen) in [
                ("10.96.0.2", "10.96.0.2:53"), ("fd96::2", "[fd96::2]:53"),
                ("::ffff:10.96.0.2", "[::ffff:10.96.0.2]:53"),
            ] {
                let client = try bench.inPod { () throws in
                    let client = try TestSocket(address, SOCK_DGRAM)
                    if isConnected { try client.connect(address, 53) }
                    return client
                }
                // The same server every time: it may keep state about the client.
                var answering: Set<Int> = []
                for _ in 0..<8 {
                    try bench.inPod { try isConnected ? client.send() : client.send(to: address, 53) }
                    let place = try #require(TestSocket.firstReadable(servers), "\(address)")
                    answering.insert(place)
                    try servers[place].answer()
                    let source = try client.receive()
                    #expect(source == seen)
                    let peer = isConnected ? try client.peer() : seen
                    #expect(peer == seen)
                }
                #expect(answering.count == 1, "\(address): \(answering)")
            }
        }
    }

    @Test("One socket that speaks with many services gets each answer from the right one")
    func manyServices() throws {
        let bench = try Bench()
        try bench.run { datapath in
            let balancer = try #require(datapath.balancer)
            var servers: [TestSocket] = []
            for number in 0..<8 {
                let server = try TestSocket("10.8.0.1", SOCK_DGRAM)
                try server.bind("10.8.0.1", UInt16(6000 + number))
                servers.append(server)
                try balancer.set(
                    ServiceAddress(address: try IPAddress("10.96.1.\(number)"), port: 53, transport: .udp),
                    ServiceBackends([backend("10.8.0.1", UInt16(6000 + number))]))
            }
            let client = try bench.inPod { try TestSocket("10.96.1.0", SOCK_DGRAM) }
            for number in [0, 1, 2, 3, 4, 5, 6, 7, 0, 3, 7] {
                try bench.inPod { try client.send(to: "10.96.1.\(number)", 53) }
                let place = try #require(TestSocket.firstReadable(servers))
                #expect(place == number)
                try servers[place].answer()
                #expect(try client.receive() == "10.96.1.\(number):53")
            }
        }
    }

    @Test("A socket keeps its pod as long as that is behind the service, and sees the service that it has asked last")
    func memory() throws {
        let bench = try Bench()
        try bench.run { datapath in
            let balancer = try #require(datapath.balancer)
            let servers = try (0..<4).map { number in
                let server = try TestSocket("10.8.0.1", SOCK_DGRAM)
                try server.bind("10.8.0.1", UInt16(6000 + number))
                return server
            }
            let pods = try (0..<4).map { try backend("10.8.0.1", UInt16(6000 + $0)) }
            let client = try bench.inPod { try TestSocket("10.96.0.2", SOCK_DGRAM) }
            /// Which server was asked, and whom the answer is from.
            func ask(_ address: String, _ port: UInt16 = 53) throws -> String {
                try bench.inPod { try client.send(to: address, port) }
                let place = try #require(TestSocket.firstReadable(servers))
                try servers[place].answer()
                return "\(place) \(try client.receive())"
            }
            // Others come and go before and behind it.
            for set in [[2], [2, 3], [0, 1, 2, 3], [0, 2], [2]] {
                try balancer.set(names, ServiceBackends(set.map { pods[$0] }))
                for _ in 0..<8 {
                    let answer = try ask("10.96.0.2")
                    #expect(answer == "2 10.96.0.2:53", "\(set)")
                }
            }
            try balancer.set(names, ServiceBackends([pods[1]]))
            #expect(try ask("10.96.0.2") == "1 10.96.0.2:53")
            // The same pod behind two services, and by itself.
            let again = ServiceAddress(address: try IPAddress("10.96.0.5"), port: 53, transport: .udp)
            try balancer.set(names, ServiceBackends([pods[0]]))
            try balancer.set(again, ServiceBackends([pods[0]]))
            for (address, port) in [
                ("10.96.0.2", 53), ("10.96.0.5", 53), ("10.96.0.2", 53), ("10.8.0.1", 6000), ("10.96.0.5", 53),
            ] as [(String, UInt16)] {
                let answer = try ask(address, port)
                #expect(answer == "0 \(address):\(port)")
            }
        }
    }

    @Test func thoseThatStayKeepTheirPlaces() throws {
        let all = try (1...6).map { try backend("10.1.0.\($0)", 80) }
        func order(_ now: [Int], after: [Int]) -> [Int] {
            SocketLoadBalancer.order(now.map { all[$0] }, after: after.map { all[$0] })
                .map { all.firstIndex(of: $0) ?? -1 }
        }
        #expect(order([1, 2], after: []) == [1, 2])
        #expect(order([0, 1, 2, 3], after: [2, 1]) == [2, 1, 0, 3])
        #expect(order([0, 2, 4], after: [4, 3, 2]) == [4, 0, 2])
        #expect(order([2], after: [0, 1, 2]) == [2])
        #expect(order([], after: [0]) == [])
    }

    @Test(
        "Connections are spread; those of a pod to a sticky service are not; a new set counts at once; none leaves the address alone"
    )
    func choice() throws {
        let bench = try Bench()
        try bench.run { datapath in
            let balancer = try #require(datapath.balancer)
            let servers = try [TestSocket.listening("10.8.0.1", 8080), TestSocket.listening("10.8.0.3", 8080)]
            let both = [try backend("10.8.0.1", 8080), try backend("10.8.0.3", 8080)]
            func reached(_ count: Int) throws -> Set<Int> {
                var reached: Set<Int> = []
                for _ in 0..<count {
                    let client = try bench.inPod {
                        let client = try TestSocket("10.96.0.1", SOCK_STREAM)
                        try client.connect("10.96.0.1", 80)
                        return client
                    }
                    let place = try #require(TestSocket.firstReadable(servers))
                    #expect(try servers[place].accept())
                    reached.insert(place)
                    withExtendedLifetime(client) {}
                }
                return reached
            }
            try balancer.set(web, ServiceBackends(both))
            #expect(try reached(40) == [0, 1])
            try balancer.set(web, ServiceBackends(both, isSticky: true))
            #expect(try reached(20).count == 1)
            for (place, only) in both.enumerated() {
                try balancer.set(web, ServiceBackends([only]))
                #expect(try reached(5) == [place])
            }
            // Nobody: refused at once, as kube-proxy does.
            try balancer.set(web, ServiceBackends([]))
            try bench.inPod {
                let failure = #expect(throws: POSIXFailure.self) {
                    try TestSocket("10.96.0.1", SOCK_STREAM).connect("10.96.0.1", 80)
                }
                #expect(failure?.code == ECONNREFUSED)
            }
            try balancer.set(web, nil)
            try bench.inPod {
                #expect(throws: POSIXFailure.self) {
                    try TestSocket("10.96.0.1", SOCK_STREAM).connect("10.96.0.1", 80, patience: 0.2)
                }
            }
            let view = try #require(try SocketLoadBalancer.view(pinPath: bench.options.pinPath))
            #expect(view.services == 0 && view.failed == 0 && view.refused == 1)
            // Nothing of earlier sets is left.
            let left = try BPFMap(pinned: "\(bench.options.pinPath)/socketlb/maps/backends")
            #expect(try left.keys(as: UInt64.self).isEmpty)
        }
    }

    @Test("Only sockets of attached pods are concerned, and those of a pod only while it is attached")
    func others() throws {
        let bench = try Bench()
        try bench.run { datapath in
            let server = try TestSocket.listening("10.8.0.1", 8080)
            try #require(datapath.balancer).set(web, ServiceBackends([backend("10.8.0.1", 8080)]))
            // On the node itself there is no way to the service.
            let failure = #expect(throws: POSIXFailure.self) {
                try TestSocket("10.96.0.1", SOCK_STREAM).connect("10.96.0.1", 80)
            }
            #expect(failure?.code == ENETUNREACH)
            func connect(patience: Double = 5) throws {
                try bench.inPod {
                    try TestSocket("10.96.0.1", SOCK_STREAM).connect("10.96.0.1", 80, patience: patience)
                }
                #expect(try server.accept())
            }
            try connect()
            try datapath.detach(name: bench.node.pod.name)
            #expect(throws: POSIXFailure.self) { try connect(patience: 0.3) }
            #expect(try SocketLoadBalancer.view(pinPath: bench.options.pinPath)?.pods == 0)
            #expect(try datapath.attach(bench.node.pod).isWhole)
            try connect()
        }
    }

    @Test("What was set stays without the process, is picked up by the next one, and goes when it is turned off")
    func lifetime() throws {
        let bench = try Bench()
        let backends = ServiceBackends([try backend("10.8.0.1", 8080)], isSticky: true)
        try bench.node.inNode {
            let server = try TestSocket.listening("10.8.0.1", 8080)
            func connect(patience: Double = 5) throws {
                try bench.inPod {
                    try TestSocket("10.96.0.1", SOCK_STREAM).connect("10.96.0.1", 80, patience: patience)
                }
                #expect(try server.accept())
            }
            do {
                let datapath = try Datapath(options: bench.options)
                _ = try datapath.attach(bench.node.pod)
                try #require(datapath.balancer).set(web, backends)
            }
            try connect()
            do {
                let datapath = try Datapath(options: bench.options)
                #expect(datapath.balancer?.addresses == [web])
                #expect(try datapath.state().attachments.values.allSatisfy(\.isWhole))
                try connect()
                // A killed process may have left the half of a set.
                let left = try BPFMap(pinned: "\(bench.options.pinPath)/socketlb/maps/backends")
                #expect(try left.keys(as: UInt64.self).count == 1)
            }
            do {
                let datapath = try Datapath(options: bench.node.options)
                #expect(datapath.balancer == nil)
                #expect(throws: POSIXFailure.self) { try connect(patience: 0.3) }
                #expect(try SocketLoadBalancer.view(pinPath: bench.options.pinPath) == nil)
            }
            do {
                let datapath = try Datapath(options: bench.options)
                // The pod is attached still, so it is balanced from the start.
                try #require(datapath.balancer).set(web, backends)
                try connect()
            }
            try Datapath.removeAll(pinPath: bench.options.pinPath, stateDirectory: bench.options.stateDirectory)
            #expect(throws: POSIXFailure.self) { try connect(patience: 0.3) }
        }
    }

    @Test func placesThatAreNotTheRootAreRefused() throws {
        let bench = try Bench()
        let child = "\(try Cgroup.root())/xdp-encryptor-test-\(bench.node.suffix)"
        try #require(mkdir(child, 0o755) == 0)
        defer { rmdir(child) }
        for (path, reason) in [
            (child, "below the root"), ("/tmp", "no cgroup v2 file system"), ("/no/such/place", "open cgroup"),
        ] {
            #expect(throws: DatapathError.self) { try SocketLoadBalancer.check(cgroup: path) }
            var options = bench.options
            options.sockets = .init(cgroup: path)
            // The datapath does without.
            let datapath = try bench.node.inNode { try Datapath(options: options) }
            #expect(datapath.balancer == nil)
            #expect(datapath.balancerFailure?.contains(reason) == true, "\(datapath.balancerFailure ?? "")")
            #expect(datapath.balancerFailure?.contains("socketLoadBalancing.cgroup") == true)
        }
    }

    @Test func theHierarchyIsFoundAmongTheMounts() {
        let mounts = """
            23 28 0:21 / /proc rw,nosuid - proc proc rw
            31 23 0:26 /../.. /sys/fs/cgroup/other rw - cgroup2 cgroup2 rw
            33 23 0:26 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw
            34 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
            """
        #expect(CgroupRoot.find(mounts: mounts) == "/sys/fs/cgroup/unified")
        #expect(CgroupRoot.find(mounts: mounts + "\n40 23 0:26 / /sys/fs/cgroup ro - cgroup2 x rw") == "/sys/fs/cgroup")
        #expect(CgroupRoot.find(mounts: "") == nil)
    }
}

/// Where the cgroup v2 hierarchy is; mounted for the tests where nobody has done so.
private enum Cgroup {
    static func root() throws -> String {
        if let path = try? CgroupRoot.find() { return path }
        let path = "/tmp/xdp-encryptor-cgroup"
        try #require(shell("mkdir -p \(path) && mount -t cgroup2 none \(path)") != nil, "mount a cgroup v2 file system")
        return path
    }
}

/// A system call that failed.
struct POSIXFailure: Error {
    let code: Int32
}

/// A socket of the namespace that the calling thread is in.
final class TestSocket {
    private let fd: Int32
    private let family: Int32

    init(_ address: String, _ type: __socket_type) throws {
        family = address.contains(":") ? AF_INET6 : AF_INET
        fd = socket(family, Int32(type.rawValue), 0)
        try Self.check(fd)
        var patience = timeval(tv_sec: 5, tv_usec: 0)
        try Self.check(
            setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size)))
    }

    deinit { close(fd) }

    static func listening(_ address: String, _ port: UInt16) throws -> TestSocket {
        let socket = try TestSocket(address, SOCK_STREAM)
        try socket.bind(address, port)
        try check(listen(socket.fd, 64))
        return socket
    }

    private static func check(_ result: some BinaryInteger) throws {
        if result < 0 { throw POSIXFailure(code: errno) }
    }

    private static func with<R>(
        _ address: String, _ port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> R
    ) -> R {
        if address.contains(":") {
            var place = sockaddr_in6()
            place.sin6_family = sa_family_t(AF_INET6)
            place.sin6_port = port.bigEndian
            inet_pton(AF_INET6, address, &place.sin6_addr)
            return withUnsafePointer(to: place) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    body($0, socklen_t(MemoryLayout<sockaddr_in6>.size))
                }
            }
        }
        var place = sockaddr_in()
        place.sin_family = sa_family_t(AF_INET)
        place.sin_port = port.bigEndian
        inet_pton(AF_INET, address, &place.sin_addr)
        return withUnsafePointer(to: place) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
    }

    /// "10.0.0.1:80" or "[fd00::1]:80".
    private static func text(_ call: (UnsafeMutablePointer<sockaddr>, inout socklen_t) throws -> Void) throws -> String
    {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        try withUnsafeMutablePointer(to: &storage) { storage in
            try storage.withMemoryRebound(to: sockaddr.self, capacity: 1) { try call($0, &length) }
        }
        return withUnsafePointer(to: storage) { storage in
            var name = [CChar](repeating: 0, count: 64)
            func read<T>(_ type: T.Type, _ body: (T) -> UInt16) -> UInt16 {
                storage.withMemoryRebound(to: T.self, capacity: 1) { body($0.pointee) }
            }
            let isIPv4 = storage.pointee.ss_family == sa_family_t(AF_INET)
            let port =
                isIPv4
                ? read(sockaddr_in.self) { place in
                    var address = place.sin_addr
                    inet_ntop(AF_INET, &address, &name, 64)
                    return UInt16(bigEndian: place.sin_port)
                }
                : read(sockaddr_in6.self) { place in
                    var address = place.sin6_addr
                    inet_ntop(AF_INET6, &address, &name, 64)
                    return UInt16(bigEndian: place.sin6_port)
                }
            let host = String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            return isIPv4 ? "\(host):\(port)" : "[\(host)]:\(port)"
        }
    }

    func bind(_ address: String, _ port: UInt16) throws {
        var on: Int32 = 1
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, 4)
        try Self.check(Self.with(address, port) { Glibc.bind(fd, $0, $1) })
    }

    /// Connects, or fails after `patience` seconds.
    func connect(_ address: String, _ port: UInt16, patience: Double = 5) throws {
        var limit = timeval(tv_sec: Int(patience), tv_usec: Int(patience * 1e6) % 1_000_000)
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        try Self.check(Self.with(address, port) { Glibc.connect(fd, $0, $1) })
    }

    func peer() throws -> String {
        try Self.text { place, length in try Self.check(getpeername(fd, place, &length)) }
    }

    /// Takes a connection in and lets it go; false: there was none.
    func accept() throws -> Bool {
        let connection = Glibc.accept(fd, nil, nil)
        if connection >= 0 { close(connection) }
        return connection >= 0
    }

    func send() throws { try Self.check(Glibc.send(fd, "hello", 5, 0)) }

    func send(to address: String, _ port: UInt16) throws {
        try Self.check(Self.with(address, port) { sendto(fd, "hello", 5, 0, $0, $1) })
    }

    /// Receives a datagram and says from whom.
    func receive() throws -> String {
        var buffer = [UInt8](repeating: 0, count: 64)
        return try Self.text { place, length in try Self.check(recvfrom(fd, &buffer, 64, 0, place, &length)) }
    }

    /// Sends a datagram back to where it came from.
    func answer() throws {
        var buffer = [UInt8](repeating: 0, count: 64)
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        try withUnsafeMutablePointer(to: &storage) { storage in
            try storage.withMemoryRebound(to: sockaddr.self, capacity: 1) { place in
                let count = recvfrom(fd, &buffer, 64, 0, place, &length)
                try Self.check(count)
                try Self.check(sendto(fd, buffer, count, 0, place, length))
            }
        }
    }

    /// Which of some sockets has something to read within five seconds.
    static func firstReadable(_ sockets: [TestSocket]) -> Int? {
        var polls = sockets.map { pollfd(fd: $0.fd, events: Int16(POLLIN), revents: 0) }
        guard poll(&polls, nfds_t(polls.count), 5000) > 0 else { return nil }
        return polls.firstIndex { $0.revents & Int16(POLLIN) != 0 }
    }
}

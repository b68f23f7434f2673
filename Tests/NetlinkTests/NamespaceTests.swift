import BPF
import CSys
import Glibc
import Testing

@testable import Netlink

private let isRoot = geteuid() == 0
private let needsRoot: Comment = "needs root: it makes network namespaces"

/// Runs a command and waits; its output goes to the test's. Returns the exit status, 127 when it could not start.
@discardableResult
private func command(_ line: String) -> Int32 {
    var arguments: [UnsafeMutablePointer<CChar>?] = line.split(separator: " ").map { strdup(String($0)) }
    arguments.append(nil)
    defer { for argument in arguments { free(argument) } }
    var child = pid_t()
    guard let program = arguments[0], posix_spawnp(&child, program, nil, nil, arguments, environ) == 0 else {
        return 127
    }
    var status: Int32 = 0
    while waitpid(child, &status, 0) < 0 { guard errno == EINTR else { return 127 } }
    return (status >> 8) & 0xff
}

/// Two namespaces with a veth pair: v0 (10.9.0.1, fd09::1) and v1 (10.9.0.2, fd09::2).
private final class Pair {
    let near: String
    let far: String

    init() throws {
        let suffix = "\(getpid())-\(UInt32.random(in: 0..<1 << 24))"
        near = "base-na-\(suffix)"
        far = "base-nb-\(suffix)"
        for line in [
            "ip netns add \(near)", "ip netns add \(far)",
            "ip -n \(near) link add v0 mtu 1500 type veth peer name v1 netns \(far)",
            "ip -n \(near) addr add 10.9.0.1/24 dev v0", "ip -n \(near) addr add fd09::1/64 dev v0 nodad",
            "ip -n \(far) addr add 10.9.0.2/24 dev v1", "ip -n \(far) addr add fd09::2/64 dev v1 nodad",
            "ip -n \(near) link set v0 up", "ip -n \(far) link set v1 up",
        ] {
            try #require(command(line) == 0, "\(line)")
        }
    }

    deinit { for name in [near, far] { command("ip netns del \(name)") } }

    func inNear<R>(_ body: () throws(NetlinkError) -> R) throws -> R {
        try NetworkNamespace.run(path: "/run/netns/\(near)", body).get()
    }
}

@Suite(.enabled(if: isRoot, needsRoot))
struct NamespaceTests {
    @Test func linksNameTheirPeers() throws {
        let pair = try Pair()
        let (near, missing, id) = try pair.inNear { () throws(NetlinkError) in
            var routes = try RouteSocket()
            let link = try routes.link(name: "v0")
            let far = open("/run/netns/\(pair.far)", O_RDONLY | O_CLOEXEC)
            defer { close(far) }
            return (link, try routes.link(name: "none"), try routes.namespaceID(descriptor: far))
        }
        let far = try NetworkNamespace.run(path: "/run/netns/\(pair.far)") { () throws(NetlinkError) in
            var routes = try RouteSocket()
            return try routes.link(name: "v1")
        }.get()
        let v0 = try #require(near)
        let v1 = try #require(far)
        #expect(missing == nil)
        #expect(v0.kind == "veth")
        #expect(v0.mtu == 1500)
        #expect(v0.isUp)
        #expect(v0.peerIndex == v1.index)
        #expect(v1.peerIndex == v0.index)
        #expect(v0.peerNamespaceID != nil)
        #expect(v0.peerNamespaceID == id)
    }

    @Test func addressesOfADevice() throws {
        let pair = try Pair()
        let addresses = try pair.inNear { () throws(NetlinkError) -> [RouteSocket.Address] in
            var routes = try RouteSocket()
            return try routes.addresses(interfaceIndex: routes.link(name: "v0")?.index ?? 0)
        }
        let texts = Set(addresses.map { "\($0.address)/\($0.prefixLength)" })
        #expect(texts.isSuperset(of: ["10.9.0.1/24", "fd09::1/64"]))
        #expect(!texts.contains("127.0.0.1/8"))
    }

    /// Everything that `ip route` shows of every route must come through the change and back unharmed.
    @Test func routeMTUChangesAndNothingElse() throws {
        let pair = try Pair()
        for route in [
            "default via 10.9.0.2", "10.20.0.0/16 via 10.9.0.2 src 10.9.0.1 metric 7 proto static",
            "10.21.0.0/16 via 10.9.0.2 advmss 1000 window 70000 initcwnd 20 mtu lock 1300 rto_min 50ms",
            "10.22.0.0/16 via 10.9.0.2 table 99", "10.23.0.0/16 dev v0 scope link tos 0x10",
            "10.24.0.0/16 nexthop via 10.9.0.2 dev v0 weight 3 nexthop via 10.9.0.3 dev v0 weight 1",
            "10.25.0.0/16 via 10.9.77.1 dev v0 onlink", "10.26.0.0/16 via inet6 fd09::2 dev v0",
            "unreachable 10.27.0.0/16",
        ] {
            try #require(command("ip -n \(pair.near) route add \(route)") == 0, "\(route)")
        }
        for route in [
            "default via fd09::2", "fd20::/16 via fd09::2 metric 7 pref high expires 3000",
            "fd21::/16 via fd09::2 mtu 1400 advmss 1000 hoplimit 9",
            "fd24::/16 nexthop via fd09::2 dev v0 weight 3 nexthop via fd09::3 dev v0",
        ] {
            try #require(command("ip -n \(pair.near) -6 route add \(route)") == 0, "\(route)")
        }
        try #require(command("ip -n \(pair.near) nexthop add id 5 via 10.9.0.2 dev v0") == 0)
        try #require(command("ip -n \(pair.near) route add 10.28.0.0/16 nhid 5") == 0)

        func show() throws -> [String] {
            var lines: [String] = []
            for family in ["-4", "-6"] {
                let pipe = try #require(
                    popen("ip -n \(pair.near) \(family) route show table all | sed 's/expires [0-9]*sec//'", "r"))
                defer { pclose(pipe) }
                var buffer = [CChar](repeating: 0, count: 1024)
                while fgets(&buffer, Int32(buffer.count), pipe) != nil {
                    let line = buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
                    lines.append(String(decoding: line, as: UTF8.self).filter { $0 != "\n" })
                }
            }
            return lines.sorted()
        }
        let before = try show()
        let changed = try pair.inNear { () throws(NetlinkError) -> [(Route.Identity, UInt32?)] in
            var routes = try RouteSocket()
            let index = try routes.link(name: "v0")?.index ?? 0
            var changed: [(Route.Identity, UInt32?)] = []
            for route in try routes.routes() where route.isUnicast && route.interfaceIndices.contains(index) {
                try routes.setMTU(1234, of: route)
                changed.append((route.identity, route.mtu))
            }
            return changed
        }
        // 11 made here that are unicast and IPv4 or IPv6, the two connected ones, and the link-local one.
        #expect(changed.count == 8 + 4 + 1 + 2 + 1)
        let during = try show()
        #expect(during.count == before.count)
        #expect(during.filter { $0.contains("mtu 1234") || $0.contains("mtu lock 1234") }.count >= changed.count)
        #expect(during.contains { $0.contains("10.27.0.0/16") && !$0.contains("mtu") })

        let missing = try pair.inNear { () throws(NetlinkError) -> Int in
            var routes = try RouteSocket()
            let present = try routes.routes()
            var missing = 0
            for (identity, mtu) in changed {
                guard let route = present.first(where: { $0.identity == identity }) else {
                    missing += 1
                    continue
                }
                try routes.setMTU(mtu, of: route)
            }
            return missing
        }
        #expect(missing == 0)
        let after = try show()
        #expect(after.filter { !before.contains($0) } == [])
        #expect(before.filter { !after.contains($0) } == [])
    }

    @Test func refusalsCarryTheKernelsWords() throws {
        let pair = try Pair()
        #expect {
            try pair.inNear { () throws(NetlinkError) in
                var routes = try RouteSocket()
                let route = try routes.routes().first { $0.isUnicast }
                guard let route else { return }
                // A device must exist for its features to be set.
                try routes.setMTU(1400, of: route)
                var ethtool = try EthtoolSocket()
                try ethtool.setFeatures(["no-such-feature": true], interfaceIndex: routes.link(name: "v0")?.index ?? 0)
            }
        } throws: {
            "\($0)".contains("set features of interface") && "\($0)".contains("bit name not found")
        }
    }

    @Test func failedDumpsAreErrors() throws {
        let pair = try Pair()
        #expect {
            try pair.inNear { () throws(NetlinkError) in
                var payload = Payload()
                var header = rtmsg()
                header.rtm_family = UInt8(AF_INET)
                // No filter that a dump has.
                header.rtm_src_len = 8
                payload.append(header)
                _ = try NetlinkSocket(family: NETLINK_ROUTE).exchange(
                    type: UInt16(RTM_GETROUTE), flags: NLM_F_DUMP, payload: payload.bytes, operation: "list routes")
            }
        } throws: {
            ($0 as? NetlinkError)?.errno == EINVAL && ($0 as? NetlinkError)?.reason != nil
        }
    }

    /// A process in the pod's namespace answers before the kernel does.
    @Test func onlyTheKernelIsBelieved() throws {
        let pair = try Pair()
        let link = try pair.inNear { () throws(NetlinkError) -> Link? in
            let socket = try NetlinkSocket(family: NETLINK_ROUTE)
            var routes = RouteSocket(transport: socket)
            // Its first request gives the socket its address.
            _ = try routes.link(name: "v0")
            #expect(forge(to: socket.fd, sequence: 2))
            return try routes.link(name: "v0")
        }
        #expect(link?.mtu == 1500)
    }

    /// Sends a link and an acknowledgement that are not the kernel's.
    private func forge(to fd: Int32, sequence: UInt32) -> Bool {
        var address = sockaddr_nl()
        var size = socklen_t(MemoryLayout<sockaddr_nl>.size)
        let forger = socket(AF_NETLINK, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), NETLINK_ROUTE)
        defer { close(forger) }
        var payload = Payload()
        payload.append(nlmsghdr(nlmsg_len: 40, nlmsg_type: 16, nlmsg_flags: 0, nlmsg_seq: sequence, nlmsg_pid: 0))
        payload.append(ifinfomsg())
        payload.attribute(Int32(IFLA_MTU), UInt32(68))
        payload.append(nlmsghdr(nlmsg_len: 36, nlmsg_type: 2, nlmsg_flags: 0, nlmsg_seq: sequence, nlmsg_pid: 0))
        for _ in 0..<5 { payload.append(UInt32(0)) }
        return withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                getsockname(fd, address, &size) == 0
                    && sendto(forger, payload.bytes, payload.bytes.count, 0, address, size) == payload.bytes.count
            }
        }
    }

    @Test func featuresGoOffAndBack() throws {
        let pair = try Pair()
        try pair.inNear { () throws(NetlinkError) in
            var routes = try RouteSocket()
            let index = try routes.link(name: "v0")?.index ?? 0
            var ethtool = try EthtoolSocket()
            let before = try ethtool.features(interfaceIndex: index)
            #expect(before.count > 40)
            #expect(
                before["tx-checksum-ip-generic"] == DeviceFeature(isActive: true, isWanted: true, isChangeable: true))
            #expect(before["tx-tcp-segmentation"]?.isActive == true)
            #expect(before["loopback"]?.isChangeable == false)
            try ethtool.setFeatures(
                ["tx-checksum-ip-generic": false, "tx-tcp-segmentation": false], interfaceIndex: index)
            let during = try ethtool.features(interfaceIndex: index)
            #expect(during["tx-checksum-ip-generic"]?.isActive == false)
            #expect(during["tx-tcp-segmentation"]?.isWanted == false)
            #expect(during["rx-gro"] == before["rx-gro"])
            try ethtool.setFeatures(
                ["tx-checksum-ip-generic": true, "tx-tcp-segmentation": true], interfaceIndex: index)
            #expect(try ethtool.features(interfaceIndex: index) == before)
        }
    }
}

import BPF
import Glibc
import Keys
import Netlink
import Testing

@testable import Datapath

/// Packets under the address of a pod of this node: only what has come out of one may carry it.
@Suite(.serialized, .enabled(if: isRoot, needsRoot))
struct LocalTests {
    let strict: Nodes
    let permissive: Nodes
    /// Devices of every namespace: the loopback stands for the host's end of a pod, and there is none with the other number.
    static let ours: UInt32 = 1
    static let other: UInt32 = 0x7fff_fff0

    init() throws {
        strict = try Nodes()
        permissive = try Nodes(strict: false)
        for nodes in [strict, permissive] { try nodes.receiver.setHostEnd(Int32(Self.ours)) }
    }

    private func neighbour(_ family: Frames.Family) throws -> IPAddress {
        try IPAddress(family == .ipv4 ? "10.9.2.3" : "fd00:9:2::3")
    }

    /// From the other pod of the receiving node to the first.
    private func frame(_ family: Frames.Family, _ l4: Frames.L4 = .tcp, vlans: Int = 0, payload: Int = 100) throws
        -> [UInt8]
    {
        Frames.plain(
            l4, family, payload: Frames.payload(payload), from: try neighbour(family), to: family.pod(2), vlans: vlans)
    }

    private func judge(_ nodes: Nodes, _ frame: [UInt8], from device: UInt32) throws -> Verdict? {
        let judged = try nodes.receiver.judge(frame, with: .local, arrivingFrom: device)
        let isDropped = judged.verdict?.outcome == .dropped
        #expect(judged.action == (isDropped ? tcxDrop : tcxNext), "\(String(describing: judged.verdict))")
        #expect(judged.frame == frame)
        return judged.verdict
    }

    @Test(arguments: Frames.Family.allCases, [0, 1, 2])
    func onlyWhatCameOutOfAPod(family: Frames.Family, vlans: Int) throws {
        for (nodes, isStrict) in [(strict, true), (permissive, false)] {
            try nodes.receiver.setEndpoint(
                try neighbour(family), EndpointEntry(place: .local(since: 1, until: 0), strict: isStrict))
            for l4 in Frames.L4.allCases {
                for payload in [0, 1, 100, 1300] {
                    let forged = try frame(family, l4, vlans: vlans, payload: payload)
                    #expect(try judge(nodes, forged, from: Self.ours) == nil)
                    for device in [0, Self.other] {
                        #expect(
                            try judge(nodes, forged, from: device) == (isStrict ? .dropSpoofed : .passCleartext),
                            "\(l4) \(payload) by \(device)")
                    }
                }
            }
            // Whoever else it is from: that is for the pod's own programs.
            for source in [family.pod(1), try IPAddress(family == .ipv4 ? "192.0.2.9" : "2001:db8::9")] {
                let packet = Frames.plain(
                    .udp, family, payload: Frames.payload(64), from: source, to: family.pod(2), vlans: vlans)
                for device in [0, Self.ours, Self.other] { #expect(try judge(nodes, packet, from: device) == nil) }
            }
        }
    }

    @Test func strictIsWhereEitherEndIs() throws {
        let family = Frames.Family.ipv4
        let packet = try frame(family)
        for (sourceIsStrict, destinationIsStrict) in [(true, false), (false, true), (true, true), (false, false)] {
            func entry(_ strict: Bool, withdrawing: Bool = false) -> EndpointEntry {
                EndpointEntry(place: .local(since: 1, until: 0), strict: strict, withdrawing: withdrawing)
            }
            try strict.receiver.setEndpoint(try neighbour(family), entry(sourceIsStrict))
            try strict.receiver.setEndpoint(family.pod(2), entry(destinationIsStrict))
            let refused = sourceIsStrict || destinationIsStrict
            #expect(try judge(strict, packet, from: Self.other) == (refused ? .dropSpoofed : .passCleartext))
            // The guard of a pod that XDP was bypassed at has no device to go by: nothing that is not marked.
            let guarded = try strict.receiver.judge(packet, with: .guard)
            #expect(guarded.verdict == (refused ? .dropSpoofed : .passCleartext))
            try strict.receiver.setEndpoint(try neighbour(family), entry(sourceIsStrict, withdrawing: true))
            #expect(try judge(strict, packet, from: Self.other) == .passWithdrawing)
        }
        // To an address of the pod's that nobody has listed.
        try strict.receiver.setEndpoint(
            try neighbour(family), EndpointEntry(place: .local(since: 1, until: 0), strict: true))
        let unlisted = Frames.plain(
            .udp, family, payload: Frames.payload(64), from: try neighbour(family), to: try IPAddress("10.9.2.99"))
        #expect(try judge(strict, unlisted, from: Self.other) == .dropSpoofed)
        #expect(try judge(strict, unlisted, from: Self.ours) == nil)
    }

    @Test func whatIsNoPlainPacket() throws {
        let family = Frames.Family.ipv4
        for family in Frames.Family.allCases {
            try strict.receiver.setEndpoint(
                try neighbour(family), EndpointEntry(place: .local(since: 1, until: 0), strict: true))
        }
        let ip = Frames.etherLength
        var fragment = try frame(family)
        fragment[ip + 6] = 0x20
        var options = try frame(family)
        options[ip] = 0x46
        var sctp = try frame(family)
        sctp[ip + 9] = 132
        var extended = try frame(.ipv6)
        extended[ip + 6] = 44
        for forged in [fragment, options, sctp, extended] {
            #expect(try judge(strict, forged, from: Self.other) == .dropSpoofed)
        }
        // Malformed, and what keeps links up: the pod's own programs know what to do with it.
        var version = try frame(family)
        version[ip] = 0x55
        var long = try frame(family)
        long[ip + 2] = 0xff
        let arp = Array(try frame(family)[..<12]) + [0x08, 0x06] + [UInt8](repeating: 0, count: 28)
        var advertisement = Frames.plain(
            .echo, .ipv6, payload: Frames.payload(24), from: try neighbour(.ipv6), to: Frames.Family.ipv6.pod(2),
            timeToLive: 255)
        advertisement[ip + 40] = 136
        for frame in [version, long, arp, Frames.withChecksums(advertisement, .echo, .ipv6)] {
            #expect(try judge(strict, frame, from: Self.other) == nil)
        }
    }

    /// The two marks are secrets of each load and never equal. What leaves in clear is marked whatever its destination is, as it may
    /// come back to a pod of this node from behind a service's address.
    @Test func marks() throws {
        let family = Frames.Family.ipv4
        let stranger = try IPAddress("192.0.2.9")
        var seen: [[UInt8]] = [[UInt8](repeating: 0, count: 8)]
        for _ in 0..<2 {
            let node = try KernelInstance(programs: [.encrypt, .decrypt])
            for address in [family.pod(2), try neighbour(family)] {
                try node.setEndpoint(address, EndpointEntry(place: .local(since: 1, until: 0), strict: true))
            }
            func mark(_ program: KernelProgram, from source: IPAddress, to destination: IPAddress) throws -> [UInt8] {
                let packet = Frames.plain(.udp, family, payload: Frames.payload(64), from: source, to: destination)
                let judged = try node.judge(packet, with: program)
                #expect(judged.action == xdpPass)
                #expect(judged.frame == packet)
                return judged.metadata
            }
            let left = try mark(.encrypt, from: try neighbour(family), to: family.pod(2))
            #expect(try mark(.encrypt, from: family.pod(2), to: stranger) == left)
            // Not from an address of ours, but out of a pod: a mark that came along with it must not stay.
            #expect(try mark(.encrypt, from: stranger, to: family.pod(2)) == left)
            let judged = try mark(.decrypt, from: stranger, to: family.pod(2))
            #expect(try mark(.decrypt, from: try neighbour(family), to: family.pod(2)) == judged)
            seen += [left, judged]
        }
        #expect(seen.allSatisfy { $0.count == 8 })
        #expect(Set(seen).count == 5)
    }

    @Test func bridges() throws {
        let node = try TestNode()
        try node.inNode {
            for line in [
                "link add br0 type bridge", "link add br1 type bridge",
                // Kernels have one or the other.
                "link add lan0 type dummy 2> /dev/null || ip -n \(node.node) link add lan0 type vxlan id 4 dstport 4789",
                "link add other0 type veth peer name other1 netns \(node.podNamespace)", "link set lan0 master br1",
            ] {
                try #require(shell("ip -n \(node.node) \(line)") != nil, "\(line)")
            }
            func index(_ name: String) -> Int32 { Int32(if_nametoindex(name)) }
            let datapath = try Datapath(options: node.options)
            let hostEnds = HostEnds(pins: Pins(root: node.options.pinPath))
            #expect(hostEnds.present() == [])
            _ = try datapath.attach(node.pod)
            let host = index("host0")
            #expect(hostEnds.present() == [host])
            // What is routed from a bridge has the bridge's name.
            for (bridge, expected) in [("br0", [host, index("br0")]), ("br1", [host])] {
                try #require(shell("ip -n \(node.node) link set host0 master \(bridge)") != nil)
                #expect(try datapath.attach(node.pod).isWhole)
                #expect(hostEnds.present() == Set(expected), "\(bridge)")
            }
            // A port to the network comes later, or to a pod that is not protected: noticed at the next look.
            try #require(shell("ip -n \(node.node) link set host0 master br0") != nil)
            for (port, reason) in [("lan0", "is no veth"), ("other0", "leads to no protected pod")] {
                #expect(try datapath.state().openBridges == [])
                #expect(hostEnds.present() == [host, index("br0")])
                try #require(shell("ip -n \(node.node) link set \(port) master br0") != nil)
                let open = try datapath.state().openBridges
                #expect(open == [OpenBridge(name: "br0", reason: "its port \(port) \(reason)")])
                #expect(hostEnds.present() == [host])
                #expect(hostEnds.openBridges() == open)
                try #require(shell("ip -n \(node.node) link set \(port) nomaster") != nil)
            }
            // The node's own way to the network.
            try #require(shell("ip -n \(node.node) addr add 10.9.0.1/24 dev br0") != nil)
            try #require(shell("ip -n \(node.node) link set br0 up") != nil)
            for (add, delete) in [
                ("route add default via 10.9.0.254 dev br0", "route del default"),
                (
                    "route add 10.50.0.0/16 nexthop via 10.9.0.253 nexthop via 10.9.0.254",
                    "route del 10.50.0.0/16"
                ),
            ] {
                try #require(shell("ip -n \(node.node) \(add)") != nil, "\(add)")
                let reason = "the node itself reaches the network by it"
                #expect(try datapath.state().openBridges == [OpenBridge(name: "br0", reason: reason)], "\(add)")
                #expect(hostEnds.present() == [host])
                try #require(shell("ip -n \(node.node) \(delete)") != nil, "\(delete)")
            }
            // A network that is on the bridge itself.
            try #require(shell("ip -n \(node.node) -6 route add fd50::/16 dev br0") != nil)
            #expect(try datapath.state().openBridges == [])
            #expect(hostEnds.present() == [host, index("br0")])
            try datapath.detach(name: node.pod.name)
            #expect(hostEnds.present() == [])
        }
    }

    /// The kernel itself takes a device out when it goes: nobody has to be there for it.
    @Test func anIndexThatComesBackIsNotOurs() throws {
        let node = try TestNode()
        try node.inNode {
            let hostEnds = HostEnds(pins: Pins(root: node.options.pinPath))
            do {
                let datapath = try Datapath(options: node.options)
                _ = try datapath.attach(node.pod)
            }
            let index = Int32(if_nametoindex("host0"))
            #expect(hostEnds.present() == [index])
            for line in [
                "ip -n \(node.node) link del host0",
                "ip -n \(node.node) link add host0 index \(index) type veth peer name eth0 netns \(node.podNamespace)",
            ] {
                try #require(shell(line) != nil, "\(line)")
            }
            #expect(Int32(if_nametoindex("host0")) == index)
            #expect(hostEnds.present() == [])
            // And the next start does not take it for the pod's because of the record.
            let datapath = try Datapath(options: node.options)
            #expect(hostEnds.present() == [])
            #expect(try datapath.state().attachments[node.pod.name]?.isWhole == false)
            #expect(try datapath.attach(node.pod).isWhole)
            #expect(hostEnds.present() == [index])
        }
    }

    /// Gone with the pod, at once, whoever else still holds the link; and from all pods before the first goes.
    @Test func detachTakesTheHookAway() throws {
        let node = try TestNode()
        try node.inNode {
            let path = "\(node.options.pinPath)/links/default%2Eweb-0/local"
            func attached() throws -> BPFLink {
                let datapath = try Datapath(options: node.options)
                _ = try datapath.attach(node.pod)
                let link = try BPFLink(pinned: path)
                #expect(try link.info().interfaceIndex == Int32(if_nametoindex("host0")))
                return link
            }
            var link = try attached()
            do {
                let datapath = try Datapath(options: node.options)
                try datapath.detach(name: node.pod.name)
            }
            #expect(try link.info().interfaceIndex == 0)
            link = try attached()
            try Datapath.removeAll(pinPath: node.options.pinPath, stateDirectory: node.options.stateDirectory)
            #expect(try link.info().interfaceIndex == 0)
        }
    }
}

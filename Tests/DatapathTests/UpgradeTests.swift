import BPF
import Glibc
import Keys
import Netlink
import Secrets
import Testing

@testable import Datapath

/// A new build of the programs takes the place of an earlier one under traffic.
@Suite(.enabled(if: isRoot, needsRoot))
struct UpgradeTests {
    let node: TestNode
    let nodes: Nodes
    private static let earlier = "00000000000000aa"

    init() throws {
        node = try TestNode()
        nodes = try Nodes()
    }

    /// Makes what is pinned look as if it came from another build.
    private func age(_ options: Datapath.Options) throws {
        let folder = "\(options.pinPath)/programs"
        try #require(rename("\(folder)/\(Pins.embeddedBuild)", "\(folder)/\(Self.earlier)") == 0)
    }

    private func fill(_ datapath: Datapath) throws {
        try datapath.setPeer(slot: 1, PeerEntry(nodeID: 2, acknowledged: 1))
        let family = Frames.Family.ipv4
        try datapath.setEndpoint(family.pod(1), EndpointEntry(place: .local(since: 1, until: 0), strict: true))
        try datapath.setEndpoint(family.pod(2), EndpointEntry(place: .remote(slot: 1), strict: true))
        for (direction, key) in [(Direction.send, nodes.key), (.receive, nodes.strangerKey)] {
            try datapath.install(
                AssociationKey(
                    epoch: Nodes.epoch, peerNodeID: 2, spi: direction == .send ? Nodes.spi : Nodes.strangerSPI,
                    keyID: try #require(KeyID(bytes: Array(key.suffix(16)))),
                    key: key.withUnsafeBytes { SecretBytes(copying: $0) }),
                at: AssociationID(slot: 1, direction: direction, epoch: Nodes.epoch))
        }
        try datapath.setSending(epoch: Nodes.epoch)
    }

    /// Encrypts a packet with the pinned program of a build, and lets the other node decrypt it.
    private func send(_ build: String) throws -> Verdict? {
        let program = try BPFProgram(
            pinned: "\(node.options.pinPath)/programs/\(build)/\(KernelProgram.encrypt.rawValue)")
        let run = try program.run(packet: nodes.plain(.udp, .ipv4, 100))
        #expect(run.action == xdpPass)
        return try nodes.receiver.judge(run.packet, with: .decrypt).verdict
    }

    @Test func keysCountersAndLinksGoOver() throws {
        try onCPU(0) {
            let before: DatapathState
            do {
                before = try node.inNode {
                    let datapath = try Datapath(options: node.options)
                    try fill(datapath)
                    _ = try datapath.attach(node.pod)
                    return try datapath.state()
                }
                for _ in 0..<5 {
                    #expect(try send(Pins.embeddedBuild) == .decrypted)
                }
            }
            try age(node.options)
            try node.inNode {
                let datapath = try Datapath(options: node.options)
                #expect(datapath.warnings.isEmpty)
                #expect(!datapath.isFresh)
                #expect(try datapath.state() == before)
                // A key that is there is still known, and one that was in use still does not come back.
                try fill(datapath)
                #expect(try datapath.state() == before)
            }
            // Were a counter to start again, the receiver would call it a replay.
            for _ in 0..<5 {
                #expect(try send(Pins.embeddedBuild) == .decrypted)
            }
            #expect(!node.pins.contains { $0.contains(Self.earlier) })
        }
    }

    /// An earlier build had no program on the host's end that looks at what comes under the address of a pod of this node: the next
    /// start brings it, and knows of every pod before the first of them asks.
    @Test(arguments: [false, true])
    func theHookThatCameLaterIsAdded(cutOff: Bool) throws {
        let pins = Pins(root: node.options.pinPath)
        try node.inNode {
            do {
                let datapath = try Datapath(options: node.options)
                try fill(datapath)
                _ = try datapath.attach(node.pod)
            }
            try age(node.options)
            let local = pins.link(.local, pod: node.pod.name)
            for pin in [local, pins.program(.local, build: Self.earlier), pins.map(KernelMaps.hostEndsName)] {
                try #require(unlink(pin) == 0, "\(pin)")
            }
            // Killed when everything was pinned and nothing attached.
            if cutOff { try Upgrade.load(from: Self.earlier, pins: pins) }
            let datapath = try Datapath(options: node.options)
            #expect(datapath.warnings.isEmpty)
            let host = Int32(if_nametoindex("host0"))
            #expect(HostEnds(pins: pins).present() == [host])
            #expect(!Files.exists(local))
            #expect(try datapath.state().attachments[node.pod.name]?.isWhole == false)
            #expect(try datapath.attach(node.pod).isWhole)
            #expect(try BPFLink(pinned: local).info().interfaceIndex == host)
            #expect(try datapath.state().attachments[node.pod.name]?.isWhole == true)
        }
        #expect(try send(Pins.embeddedBuild) == .decrypted)
        #expect(!node.pins.contains { $0.contains(Self.earlier) })
    }

    /// And where it cannot take over, the earlier build goes on without it.
    @Test func anEarlierBuildStaysWithoutTheHook() throws {
        let pins = Pins(root: node.options.pinPath)
        try node.inNode {
            do {
                let datapath = try Datapath(options: node.options)
                try fill(datapath)
                _ = try datapath.attach(node.pod)
            }
            try age(node.options)
            let other = try TestNode()
            do { _ = try Datapath(options: other.options) }
            for pin in [
                pins.link(.local, pod: node.pod.name), pins.program(.local, build: Self.earlier),
                pins.map(KernelMaps.hostEndsName), pins.map("spis"),
            ] {
                try #require(unlink(pin) == 0, "\(pin)")
            }
            try BPFMap(pinned: Pins(root: other.options.pinPath).map("config")).pin(at: pins.map("spis"))
            let datapath = try Datapath(options: node.options)
            #expect(datapath.warnings.count == 1)
            #expect(try datapath.state().attachments[node.pod.name]?.isWhole == true)
            #expect(try datapath.attach(node.pod).isWhole)
            try datapath.detach(name: node.pod.name)
            #expect(try datapath.state().attachments.isEmpty)
        }
    }

    /// Killed when the new build was pinned and no link, or not every link, held it: both builds work, and the next start finishes.
    @Test func cutBeforeTheLinksWereSwapped() throws {
        try onCPU(0) {
            try node.inNode {
                do {
                    let datapath = try Datapath(options: node.options)
                    try fill(datapath)
                    _ = try datapath.attach(node.pod)
                }
                try age(node.options)
                try Upgrade.load(from: Self.earlier, pins: Pins(root: node.options.pinPath))
            }
            for _ in 0..<3 {
                #expect(try send(Self.earlier) == .decrypted)
                #expect(try send(Pins.embeddedBuild) == .decrypted)
            }
            try node.inNode {
                let datapath = try Datapath(options: node.options)
                #expect(datapath.warnings.isEmpty)
                #expect(try datapath.state().attachments[node.pod.name]?.isWhole == true)
            }
            #expect(!node.pins.contains { $0.contains(Self.earlier) })
            #expect(try send(Pins.embeddedBuild) == .decrypted)
        }
    }

    /// Killed while the new build was being pinned.
    @Test(arguments: ["xe_install", "associations"])
    func cutWhileItWasPinned(missing: String) throws {
        do { try fill(Datapath(options: node.options)) }
        try age(node.options)
        try Upgrade.load(from: Self.earlier, pins: Pins(root: node.options.pinPath))
        try #require(unlink("\(node.options.pinPath)/programs/\(Pins.embeddedBuild)/\(missing)") == 0)
        let datapath = try Datapath(options: node.options)
        #expect(datapath.warnings.isEmpty)
        #expect(try datapath.state().associations.count == 2)
        #expect(!node.pins.contains { $0.contains(Self.earlier) })
    }

    /// What cannot be taken over stays in use.
    @Test func earlierProgramsStayWhenTheNewOnesDoNotFit() throws {
        do { try fill(Datapath(options: node.options)) }
        try age(node.options)
        // A map of another shape in place of one that is shared.
        let other = try TestNode()
        do { _ = try Datapath(options: other.options) }
        let pins = Pins(root: node.options.pinPath)
        try #require(unlink(pins.map("spis")) == 0)
        try BPFMap(pinned: Pins(root: other.options.pinPath).map("config")).pin(at: pins.map("spis"))
        let datapath = try Datapath(options: node.options)
        #expect(datapath.warnings.count == 1)
        #expect(datapath.warnings.first?.contains("stay in use") == true)
        #expect(try datapath.state().associations.count == 2)
        #expect(node.pins.contains { $0.contains(Self.earlier) })
    }
}

import ArgumentParser
import Datapath
import FoundationEssentials
import Keys
import Lab
import Measure
import Secrets

/// `xdp-bench scale`: what packets, memory and keys cost as the cluster grows.
struct ScaleCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scale",
        abstract: "Cost of packets, memory and key installation at 1, 100 and 5,000 peers and 100,000 endpoints.",
        discussion: "Runs the product's own programs by BPF_PROG_TEST_RUN; no packet leaves the process. Needs root.")

    @OptionGroup var options: KernelBenchOptions

    private static let payloads = [64, 1400]

    /// Holds a bench in an array, which takes copyable values only.
    private final class Holder {
        var bench: KernelBench
        init(_ bench: consuming KernelBench) { self.bench = bench }
    }

    func run() throws {
        options.stayOnCPU()
        var report = ScaleReport(date: Date.now.formatted(.iso8601), machine: .current(), runs: options.runs)
        var holders: [Holder] = []
        for (peers, endpoints, frames) in [
            (1, 1, 1), (100, 100, 100), (5000, 5000, 64), (5000, 5000, 5000), (5000, 100_000, 64),
            (5000, 100_000, 8192),
        ] {
            say("\(peers) peers, \(endpoints) endpoints, \(frames) of them busy")
            let before = Self.kernelMemory()
            let holder = Holder(
                try KernelBench.load(options.object, peers: peers, endpoints: endpoints, frames: frames))
            let memory = Self.kernelMemory() - before - frames * 2072
            holders.append(holder)
            report.sizes.append(
                .init(peers: peers, endpoints: endpoints, frames: frames, mapMemory: 0, kernelMemory: max(0, memory)))
        }
        for payload in Self.payloads {
            for holder in holders { try holder.bench.prepare(payload: payload) }
            let repeating = payload < 1000 ? 100_000 : 10_000
            for program in [KernelBench.Program.encrypt, .decrypt] {
                for run in 0...options.runs {
                    for (index, holder) in holders.enumerated() {
                        let time = try holder.bench.packet(program, repeating: repeating)
                        // The first run makes replay windows and warms caches.
                        guard run > 0 else { continue }
                        if program == .encrypt {
                            report.sizes[index].encrypt[payload, default: Spread()].samples.append(time)
                        } else {
                            report.sizes[index].decrypt[payload, default: Spread()].samples.append(time)
                        }
                    }
                }
            }
        }
        for (index, holder) in holders.enumerated() { report.sizes[index].mapMemory = try holder.bench.mapMemory() }
        holders = []
        report.installation = try Self.install(peers: 5000)
        for size in report.sizes where size.endpoints == 100_000 {
            for payload in Self.payloads {
                for (what, mine, one) in [
                    ("encrypt", size.encrypt[payload], report.sizes[0].encrypt[payload]),
                    ("decrypt", size.decrypt[payload], report.sizes[0].decrypt[payload]),
                ] {
                    let ratio = mine?.median.flatMap { mine in one?.median.map { mine / $0 } }
                    report.targets.append(
                        .init(
                            "\(what), \(payload) bytes: 5,000 peers, 100,000 endpoints, \(size.frames) busy / one peer",
                            wanted: 1.15, measured: ratio, atLeast: false))
                }
            }
        }
        try options.finish(report.lines, report)
    }

    /// What the kernel has allocated for itself, bytes, as far as BPF allocates from it.
    private static func kernelMemory() -> Int {
        let text = (try? bytes(of: "/proc/meminfo")).map { String(decoding: $0, as: UTF8.self) } ?? ""
        return text.split(separator: "\n").reduce(0) { sum, line in
            let parts = line.split { $0 == ":" || $0 == " " }
            guard let name = parts.first, ["SUnreclaim", "Percpu", "VmallocUsed"].contains(name), parts.count > 1 else {
                return sum
            }
            return sum + (Int(parts[1]) ?? 0) * 1024
        }
    }

    /// Derives and installs both keys of so many peers, as keymgr does.
    private static func install(peers: Int) throws -> ScaleReport.Installation {
        let capacity = Datapath.Capacity.standard
        let kernel = try KernelInstance(
            programs: [.encrypt, .decrypt], options: .init(nodeID: 0xff_ffff, capacity: capacity))
        let dek = SecretBytes(random: 32)
        let cluster = ClusterID.random()
        let own = NodeIdentity(id: 0xff_ffff, incarnation: .random())
        let clock = ContinuousClock()
        var keys: [(AssociationID, AssociationKey)] = []
        let derivation = try clock.measure {
            for slot in 1...UInt32(peers) {
                let other = NodeIdentity(id: slot, incarnation: .random())
                for direction in Direction.allCases {
                    let (sender, receiver) = direction == .send ? (own, other) : (other, own)
                    let key = try TrafficKey.derive(
                        dek: dek, context: .init(cluster: cluster, epoch: 1, sender: sender, receiver: receiver))
                    keys.append(
                        (
                            AssociationID(slot: slot, direction: direction, epoch: 1),
                            AssociationKey(
                                epoch: 1, peerNodeID: slot, spi: key.spi, keyID: key.keyID, key: key.key)
                        ))
                }
            }
        }
        let installation = try clock.measure {
            for (id, key) in keys { try kernel.install(key, at: id) }
        }
        return .init(peers: peers, derivation: derivation / .seconds(1), installation: installation / .seconds(1))
    }
}

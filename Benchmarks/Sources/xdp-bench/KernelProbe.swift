import BPF
import Glibc
import KubeSim
import Lab
import Measure
import Synchronization

/// Looks into the agent's kernel map until changes of the cluster have arrived there.
final class KernelProbe: Sendable {
    /// `struct xe_address`, network byte order.
    private struct Address: BitwiseCopyable {
        var high: UInt64 = 0
        var low: UInt64 = 0

        init(_ ipv4: UInt32) { low = (0xffff_0000_0000 | UInt64(ipv4)).bigEndian }
        init() {}
    }
    /// `struct xe_endpoint`.
    private struct Endpoint: BitwiseCopyable {
        var words: (UInt32, UInt32, UInt32, UInt32) = (0, 0, 0, 0)
    }

    /// Seconds from a change to its effect, of those that came and of those that went; and what has not arrived yet.
    struct Times {
        var coming: [Double] = []
        var going: [Double] = []
        var waiting: [Simulation.Sample] = []
    }

    private let map: BPFMap
    private let simulation: Simulation
    private let times = Mutex(Times())
    private let isOver = Atomic<Bool>(false)

    init(pins: String, _ simulation: Simulation) throws {
        map = try BPFMap(pinned: pins + "/maps/endpoints")
        self.simulation = simulation
    }

    /// How many addresses the kernel has.
    func count() throws -> Int { try map.entries(keys: Address.self, values: Endpoint.self).count }

    /// Looks until told to stop, some hundred times a second.
    func watch() throws {
        while !isOver.load(ordering: .relaxed) {
            var waiting = times.withLock { $0.waiting } + simulation.takeSamples()
            var arrived: [(Bool, Double)] = []
            waiting = try waiting.filter { sample in
                let isThere = try map.lookup(Address(sample.address), as: Endpoint.self) != nil
                if isThere == sample.isComing { arrived.append((sample.isComing, now() - sample.since)) }
                return isThere != sample.isComing
            }
            times.withLock { times in
                times.waiting = waiting
                for (isComing, seconds) in arrived {
                    if isComing { times.coming.append(seconds) } else { times.going.append(seconds) }
                }
            }
            usleep(5000)
        }
    }

    func stop() -> Times {
        isOver.store(true, ordering: .relaxed)
        return times.withLock { $0 }
    }

    var waiting: Int { times.withLock { $0.waiting.count } }

    private func now() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
}

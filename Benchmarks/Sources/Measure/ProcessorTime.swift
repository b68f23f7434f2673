internal import Glibc

/// How long the machine's CPUs have worked and idled, up to a moment.
public struct ProcessorTime: Sendable {
    /// Seconds that all CPUs together were idle.
    var idle: Double
    /// Seconds that the hypervisor gave to others.
    var stolen: Double
    private var at: ContinuousClock.Instant
    private var processors: Double

    /// Now.
    ///
    /// Idle time is what is read: the kernel measures it exactly, while it only samples (once a tick) who uses the rest. What is
    /// not idle is work, whoever's: of programs, of the kernel for them, of interrupts and softirqs.
    public static func now() -> ProcessorTime {
        let fields = (lines(of: "/proc/stat").first ?? "").split(separator: " ").compactMap { Double($0) }
        let ticks = Double(sysconf(Int32(_SC_CLK_TCK)))
        // cpu user nice system idle iowait irq softirq steal
        return ProcessorTime(
            idle: fields.count > 4 ? (fields[3] + fields[4]) / ticks : 0,
            stolen: fields.count > 7 ? fields[7] / ticks : 0, at: .now,
            processors: Double(sysconf(Int32(_SC_NPROCESSORS_ONLN))))
    }

    /// Seconds between two moments.
    public static func elapsed(from start: ProcessorTime, to end: ProcessorTime) -> Double {
        let duration = (end.at - start.at).components
        return Double(duration.seconds) + Double(duration.attoseconds) / 1e18
    }

    /// Seconds of CPU time that were used between two moments, on all CPUs together.
    public static func used(from start: ProcessorTime, to end: ProcessorTime) -> Double {
        let all = elapsed(from: start, to: end) * start.processors
        return max(0, all - (end.idle - start.idle) - (end.stolen - start.stolen))
    }
}

/// The memory of processes.
public enum ProcessMemory {
    /// Proportional set size of a process and of all its descendants, bytes: what is shared counts by shares.
    public static func proportional(ofTree root: Int32) -> Int {
        tree(root).reduce(0) { sum, pid in
            let line = lines(of: "/proc/\(pid)/smaps_rollup").first { $0.hasPrefix("Pss:") }
            let kilobytes = line?.split(separator: " ").compactMap { Int($0) }.first ?? 0
            return sum + kilobytes * 1024
        }
    }

    private static func tree(_ root: Int32) -> [Int32] {
        let children = lines(of: "/proc/\(root)/task/\(root)/children").flatMap { $0.split(separator: " ") }
        return [root] + children.compactMap { Int32($0) }.flatMap { tree($0) }
    }
}

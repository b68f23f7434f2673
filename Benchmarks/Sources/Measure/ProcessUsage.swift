internal import Glibc

/// What a process has used up to a moment.
public struct ProcessUsage: Sendable {
    /// CPU time of all its threads, seconds.
    public var processorTime: Double
    /// Resident memory, bytes.
    public var resident: Int
    /// The most that it has ever had, bytes.
    public var peak: Int

    /// Of a process that has not begun.
    public static let none = ProcessUsage(processorTime: 0, resident: 0, peak: 0)

    /// Of a process that runs; zeros when there is none.
    public static func now(_ pid: Int32) -> ProcessUsage {
        let ticks = Double(sysconf(Int32(_SC_CLK_TCK)))
        // The name, in parentheses, may hold anything: counted from behind it.
        let text = lines(of: "/proc/\(pid)/stat").first ?? ""
        let fields = text.split(separator: ")").last?.split(separator: " ").map { Double($0) ?? 0 } ?? []
        func memory(_ name: String) -> Int {
            let line = lines(of: "/proc/\(pid)/status").first { $0.hasPrefix(name + ":") }
            return (line?.split { $0 == " " || $0 == "\t" }.compactMap { Int($0) }.first ?? 0) * 1024
        }
        return ProcessUsage(
            processorTime: fields.count > 12 ? (fields[11] + fields[12]) / ticks : 0, resident: memory("VmRSS"),
            peak: memory("VmHWM"))
    }
}

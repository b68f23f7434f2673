/// What was measured, and on what.
public struct Report: Codable, Sendable {
    /// Which benchmark: `rpc`, `packet` or `scale`.
    public var benchmark: String
    /// When it began, ISO 8601.
    public var date: String
    /// What was typed.
    public var command: String
    /// Where it ran.
    public var machine: Machine
    /// Program to version.
    public var versions: [String: String]
    /// Name to value, such as rounds.
    public var settings: [String: Double]
    /// How many CPUs were busy with something else right before each turn: noise in all that follows.
    public var background = Spread()
    /// In the order of the table.
    public var candidates: [Candidate]
    /// What is asked of ours, and whether it holds.
    public var targets: [Target]

    /// One of those that are compared.
    public struct Candidate: Codable, Sendable {
        /// Its name in tables.
        public var name: String
        /// How it is configured, in a line.
        public var note: String
        /// Why it could not be measured; nil when it was.
        public var absent: String?
        /// By workload and metric.
        public var results: [String: [String: Spread]] = [:]

        /// A candidate without results yet.
        public init(name: String, note: String, absent: String? = nil) {
            self.name = name
            self.note = note
            self.absent = absent
        }
    }

    /// Something that is asked of ours.
    public struct Target: Codable, Sendable {
        /// In words.
        public var what: String
        /// The bound.
        public var wanted: Double
        /// What was measured; nil when there is nothing to compare with.
        public var measured: Double?
        /// Measured values must not be lower than the bound; otherwise not higher.
        public var atLeast: Bool
        /// What the same is without any encryption: nothing that encrypts can do better. nil: does not apply, or was not measured.
        public var plain: Double?

        /// A target and what was measured.
        public init(_ what: String, wanted: Double, measured: Double?, atLeast: Bool, plain: Double? = nil) {
            self.what = what
            self.wanted = wanted
            self.measured = measured
            self.atLeast = atLeast
            self.plain = plain
        }

        /// nil: not measured.
        public var holds: Bool? {
            measured.map { atLeast ? $0 >= wanted : $0 <= wanted }
        }
    }

    /// A report without results yet.
    public init(benchmark: String, date: String, command: String, machine: Machine) {
        self.benchmark = benchmark
        self.date = date
        self.command = command
        self.machine = machine
        versions = [:]
        settings = [:]
        candidates = []
        targets = []
    }

    /// Adds a sample.
    public mutating func add(_ value: Double, candidate: String, workload: String, metric: Metric) {
        guard let index = candidates.firstIndex(where: { $0.name == candidate }) else { return }
        candidates[index].results[workload, default: [:]][metric.rawValue, default: Spread()].samples.append(value)
    }

    /// A line about who else used the machine.
    public var noise: String {
        guard let median = background.median, let high = background.high else { return "" }
        let text =
            "Others kept \(number(median, digits: 2)) CPUs busy before the turns (at most \(number(high, digits: 2)))"
        return high < 0.1 ? text + "." : text + ": times and CPU times are too high, most of all where CPUs were short."
    }

    /// The median of what a candidate reached; nil when it was not measured.
    public func median(_ candidate: String, _ workload: String, _ metric: Metric) -> Double? {
        candidates.first { $0.name == candidate }?.results[workload]?[metric.rawValue]?.median
    }
}

/// What is measured. Raw values are the names in JSON.
public enum Metric: String, CaseIterable, Sendable {
    /// Answered requests.
    case requestsPerSecond = "requests_per_second"
    /// Median latency, µs.
    case p50 = "p50_us"
    /// Latency that one request in a hundred exceeds, µs.
    case p99 = "p99_us"
    /// Latency that one request in a thousand exceeds, µs.
    case p999 = "p999_us"
    /// CPU time of the whole machine, kernel and softirq included, for each request, µs.
    case cpuPerRequest = "cpu_us_per_request"
    /// How many CPUs' worth of time was not idle.
    case busyCPUs = "busy_cpus"
    /// Payload.
    case gigabitsPerSecond = "gigabits_per_second"
    /// CPU time of the whole machine for 10^9 bytes of payload, seconds.
    case cpuPerGigabyte = "cpu_seconds_per_gigabyte"
    /// Connections opened, used for one request, and closed.
    case connectionsPerSecond = "connections_per_second"
    /// Of the busier node's processes: proportional set size, MiB.
    case processMemory = "process_memory_mib"
    /// Of the busier node's BPF maps, MiB.
    case mapMemory = "map_memory_mib"

    /// The column's head.
    public var title: String {
        switch self {
        case .requestsPerSecond: "requests/s"
        case .p50: "p50 µs"
        case .p99: "p99 µs"
        case .p999: "p99.9 µs"
        case .cpuPerRequest: "CPU µs/req"
        case .busyCPUs: "CPUs busy"
        case .gigabitsPerSecond: "Gbit/s"
        case .cpuPerGigabyte: "CPU s/GB"
        case .connectionsPerSecond: "connections/s"
        case .processMemory: "processes MiB"
        case .mapMemory: "BPF maps MiB"
        }
    }

    /// Digits after the point.
    public var digits: Int {
        switch self {
        case .requestsPerSecond, .p50, .p99, .p999, .connectionsPerSecond: 0
        case .cpuPerRequest, .processMemory, .mapMemory: 1
        case .busyCPUs, .gigabitsPerSecond, .cpuPerGigabyte: 2
        }
    }

    /// Worth a range in the table beside the median.
    public var showsSpread: Bool {
        switch self {
        case .requestsPerSecond, .gigabitsPerSecond, .connectionsPerSecond: true
        default: false
        }
    }
}

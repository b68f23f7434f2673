/// What `bench-kube` measures: operator and one agent in a cluster that is otherwise simulated.
public struct KubeReport: Codable, Sendable {
    /// Always `kube`.
    public var benchmark = "kube"
    /// When it began, ISO 8601.
    public var date: String
    /// Where it ran.
    public var machine: Machine
    /// Nodes, the agent's own among them.
    public var nodes: Int
    /// Pods at the beginning.
    public var pods: Int
    /// Addresses that were protected at the beginning.
    public var protected = 0
    /// Changes of pods that were wanted in a second.
    public var wantedRate: Int
    /// From the start of the programs until every protected address was in the agent's kernel, seconds.
    public var convergence = 0.0
    /// The same until every pod was annotated, seconds.
    public var annotation = 0.0
    /// What the programs used until then, and while pods came and went.
    public var processes: [Process] = []
    /// Changes of pods by sort.
    public var changes: [String: Int] = [:]
    /// How long pods came and went, seconds.
    public var seconds = 0.0
    /// From an address's arrival at the API server to the agent's kernel, seconds, ascending.
    public var coming: [Double] = []
    /// From a pod's deletion at the API server until the agent's kernel has forgotten the address, seconds, ascending.
    public var going: [Double] = []
    /// Changes that had not arrived when it was over.
    public var lost = 0
    /// Addresses in the agent's kernel at the end, and how many there should be.
    public var kernel = 0
    /// Addresses that there should be in the agent's kernel at the end.
    public var expected = 0
    /// Answered requests while pods came and went, by client, verb and kind.
    public var requests: [String: Int] = [:]
    /// Statuses that simulated keymgrs wrote in that time.
    public var statuses = 0
    /// What all CPUs did in that time, of their number.
    public var busyCPUs = 0.0
    /// What is asked for, and whether it holds.
    public var targets: [Report.Target] = []

    /// A program.
    public struct Process: Codable, Sendable {
        /// Its name.
        public var name: String
        /// When: at the start, or under churn.
        public var phase: String
        /// CPU time in a second.
        public var cores: Double
        /// Resident memory at the end, MiB.
        public var resident: Double
        /// The most of it, MiB.
        public var peak: Double

        /// A measurement.
        public init(name: String, phase: String, from start: ProcessUsage, to end: ProcessUsage, seconds: Double) {
            self.name = name
            self.phase = phase
            cores = (end.processorTime - start.processorTime) / max(seconds, 0.001)
            resident = Double(end.resident) / 1_048_576
            peak = Double(end.peak) / 1_048_576
        }
    }

    /// A report without results yet.
    public init(date: String, machine: Machine, nodes: Int, pods: Int, wantedRate: Int) {
        self.date = date
        self.machine = machine
        self.nodes = nodes
        self.pods = pods
        self.wantedRate = wantedRate
    }

    /// Changes in a second that were made.
    public var rate: Double { Double(changes.values.reduce(0, +)) / max(seconds, 0.001) }

    /// Sets the targets from what was measured.
    public mutating func judge() {
        let all = (coming + going).sorted()
        func process(_ name: String) -> [Process] { processes.filter { $0.name == name } }
        func most(_ name: String) -> Double? { process(name).map(\.peak).max() }
        targets = [
            .init("changes of pods in a second", wanted: Double(wantedRate) * 0.98, measured: rate, atLeast: true),
            .init("operator, resident MiB at most", wanted: 300, measured: most("ebpf-xdp-operator"), atLeast: false),
            .init(
                "operator, cores under churn", wanted: 1,
                measured: process("ebpf-xdp-operator").last?.cores, atLeast: false),
            .init("agent, resident MiB at most", wanted: 64, measured: most("ebpf-xdp-keymgr"), atLeast: false),
            .init(
                "propagation p99, seconds", wanted: 2, measured: lost > 0 ? .infinity : percentile(0.99, ofSorted: all),
                atLeast: false),
        ]
    }

    /// For the terminal.
    public var lines: [String] {
        var lines = [
            "\(number(Double(nodes))) nodes, \(number(Double(pods))) pods, \(number(Double(protected))) protected addresses; \(machine.processors) CPUs, shared by all that runs here",
            "real: ebpf-xdp-operator, one ebpf-xdp-keymgr and its kernel maps. Simulated: API server, other nodes' keymgrs, kubelets, scheduler",
            "",
            "start to everything in the agent's kernel: \(number(convergence, digits: 1)) s; until all pods were annotated: \(number(annotation, digits: 1)) s",
            "",
        ]
        var table = Table(["", "phase", "cores", "resident MiB", "peak MiB"])
        for process in processes {
            table.add([
                process.name, process.phase, number(process.cores, digits: 2), number(process.resident, digits: 1),
                number(process.peak, digits: 1),
            ])
        }
        lines += table.lines
        lines += [
            "all CPUs under churn: \(number(busyCPUs, digits: 2)) busy", "",
            "changes of pods: \(number(rate)) /s for \(number(seconds, digits: 1)) s ("
                + changes.sorted { $0.key < $1.key }.map { "\(number(Double($0.value))) \($0.key)" }.joined(
                    separator: ", ")
                + ")",
        ]
        var times = Table(["until the agent's kernel knows, s", "followed", "p50", "p99", "max"])
        for (name, values) in [("new address", coming), ("deleted pod", going)] {
            times.add(
                [name, number(Double(values.count))]
                    + [percentile(0.5, ofSorted: values), percentile(0.99, ofSorted: values), values.last].map {
                        $0.map { number($0, digits: 2) } ?? "-"
                    })
        }
        lines += times.lines
        lines += [
            "not arrived at the end: \(lost); addresses in the kernel: \(number(Double(kernel))) of \(number(Double(expected)))",
            "",
        ]
        var writes = Table(["requests under churn", "/s"])
        for (what, count) in requests.sorted(by: { $0.key < $1.key }) {
            writes.add([what, number(Double(count) / max(seconds, 0.001), digits: 1)])
        }
        writes.add([
            "simulated keymgrs update encryptionnodes/status",
            number(Double(statuses) / max(seconds, 0.001), digits: 1),
        ])
        lines += writes.lines
        lines += [""] + Report.verdicts(of: targets)
        return lines
    }
}

import ArgumentParser
import FoundationEssentials
import Glibc
import Lab
import Measure

/// `xdp-bench compare`: every candidate does the same work on the same topology, in turns.
struct CompareCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compare",
        abstract: "Ours beside sidecars and WireGuard: RPC, bulk TCP, CPU time, memory.",
        discussion: """
            Needs root. All traffic stays in network namespaces of its own, which are gone afterwards. Progress goes to standard \
            error, the table to standard output.

            EXIT STATUS
              0 everything was measured (whether targets hold or not), 1 something failed (the reason is on standard error)
            """)

    @Option(help: "How often every candidate has its turn.")
    var rounds = 5
    @Option(help: "Length of each measurement.")
    var seconds = 2
    @Option(help: "Requests a second of the measurement at a fixed rate.")
    var rate = 5000
    @Flag(help: "One round, one second each, fewer workloads: a smoke test, not a measurement.")
    var quick = false
    @Option(help: "Only candidates whose names contain one of these words, comma-separated.")
    var only: String?
    @Option(help: "The folder with ebpf-xdp-keymgr and xdp-encryptor.")
    var programs = ".build/release"
    @Option(help: "Write the result to this file, as JSON.")
    var json: String?
    @Option(help: "Write a plot to this file, as SVG.")
    var svg: String?

    func validate() throws {
        guard (1...100).contains(rounds), (1...600).contains(seconds), (1...1_000_000).contains(rate) else {
            throw ValidationError("rounds must be 1 to 100, seconds 1 to 600, rate 1 to 1000000")
        }
    }

    private var ours: Ours { Ours(programs: programs) }

    private var everyone: [any Candidate] {
        [
            Plain(), ours, Ours(headers: .hidden, programs: programs), EnvoyPair(), HAProxyPair(), NginxPair(),
            WireGuard(place: .userSpace), WireGuard(place: .kernel),
        ]
    }

    private var workloads: [Workload] {
        var list: [Workload] = []
        for version in [Workload.Version.http1, .http2] {
            for body in [100, 1024] {
                for connections in [1, 32, 256] where !quick || body == 100 || connections == 32 {
                    list.append(.rpc(version, body: body, connections: connections))
                }
            }
        }
        list += [.memory, .paced(rate: rate, body: 100, connections: 32), .connections(32)]
        for mtu in [1500, 9000] { list += [.bulk(streams: 1, mtu: mtu), .bulk(streams: 8, mtu: mtu)] }
        return list
    }

    func run() throws {
        guard geteuid() == 0 else {
            throw LabError("network namespaces and BPF programs need root; run this again as root")
        }
        let words = only.map { $0.lowercased().split(separator: ",") }
        let candidates = everyone.filter { candidate in
            words?.contains { candidate.name.lowercased().contains($0) } ?? true
        }
        guard !candidates.isEmpty else { throw ValidationError("no candidate's name contains \(only ?? "")") }

        var report = Report(
            benchmark: "rpc", date: Date.now.formatted(.iso8601), command: commandLine, machine: .current())
        report.versions = versions()
        let rounds = quick ? 1 : rounds
        report.settings = ["rounds": Double(rounds), "seconds": Double(quick ? 1 : seconds), "rate": Double(rate)]
        report.candidates = candidates.map {
            Report.Candidate(name: $0.name, note: $0.note, absent: $0.reasonForAbsence())
        }
        for round in 0..<rounds {
            // Each round begins with another candidate, so that none always follows the same one.
            for turn in candidates.indices {
                let candidate = candidates[(turn + round) % candidates.count]
                guard report.candidates.first(where: { $0.name == candidate.name })?.absent == nil else { continue }
                let before = ProcessorTime.now()
                usleep(500_000)
                let now = ProcessorTime.now()
                let busy = ProcessorTime.used(from: before, to: now) / ProcessorTime.elapsed(from: before, to: now)
                report.background.samples.append(busy)
                say(
                    "round \(round + 1) of \(rounds): \(candidate.name) (others keep \(number(busy, digits: 2)) CPUs busy)"
                )
                try measure(candidate, into: &report)
            }
        }
        report.targets = targets(report)
        print(text(report), terminator: "")
        try write(report)
    }

    private var commandLine: String {
        var command = "make bench ROUNDS=\(rounds) SECONDS=\(seconds)"
        if quick { command = "make bench QUICK=1" }
        return command + (only.map { " ONLY=\($0)" } ?? "")
    }

    /// One turn of a candidate: each MTU on a lab of its own.
    private func measure(_ candidate: any Candidate, into report: inout Report) throws {
        for mtu in [1500, 9000] {
            let list = workloads.filter { workload in
                if case .bulk(_, let size) = workload { return size == mtu }
                return mtu == 1500
            }
            do {
                try Lab.with(Lab.Plan(mtu: mtu)) { lab in
                    try Credentials.make(in: lab)
                    try Bench.startApplication(on: lab)
                    let bench = Bench(lab: lab, running: try candidate.start(on: lab), seconds: quick ? 1 : seconds)
                    try bench.waitUntilReady()
                    guard try bench.isReadableOnTheLink() == !candidate.encrypts else {
                        throw LabError("what it sends \(candidate.encrypts ? "can" : "cannot") be read on the link")
                    }
                    for workload in list { measure(workload, candidate, bench, into: &report) }
                }
            } catch {
                // One that does not come up is shown as such, and the others go on.
                say("  \(candidate.name), MTU \(mtu): \(error)")
                if let index = report.candidates.firstIndex(where: { $0.name == candidate.name }),
                    report.candidates[index].results.isEmpty
                {
                    report.candidates[index].absent = "did not come up: \(String("\(error)".prefix(300)))"
                    return
                }
            }
        }
    }

    private func measure(
        _ workload: Workload, _ candidate: any Candidate, _ bench: Bench, into report: inout Report
    ) {
        do {
            let measured = try bench.run(workload)
            for (metric, value) in measured {
                report.add(value, candidate: candidate.name, workload: workload.name, metric: metric)
            }
            let line = workload.metrics.compactMap { metric in
                measured[metric].map { "\(number($0, digits: metric.digits)) \(metric.title)" }
            }
            say("  \(workload.title): \(line.joined(separator: ", "))")
        } catch {
            say("  \(workload.title): failed: \(String("\(error)".prefix(500)))")
        }
    }

    /// What is asked of ours, by the medians of this run.
    private func targets(_ report: Report) -> [Report.Target] {
        let rpc = Workload.rpc(.http1, body: 100, connections: 32).name
        let ours = self.ours.name
        func ratio(of one: String, _ metric: Metric, to other: any Candidate) -> Double? {
            guard let mine = report.median(one, rpc, metric), let theirs = report.median(other.name, rpc, metric),
                theirs > 0
            else { return nil }
            return mine / theirs
        }
        func target(
            _ what: String, _ metric: Metric, to other: any Candidate, wanted: Double, atLeast: Bool
        ) -> Report.Target {
            .init(
                what, wanted: wanted, measured: ratio(of: ours, metric, to: other), atLeast: atLeast,
                plain: ratio(of: Plain().name, metric, to: other))
        }
        var memory: Double?
        if let processes = report.median(ours, Workload.memory.name, .processMemory),
            let maps = report.median(ours, Workload.memory.name, .mapMemory)
        {
            memory = processes + maps
        }
        return [
            target("requests/s: ours / Envoy", .requestsPerSecond, to: EnvoyPair(), wanted: 5, atLeast: true),
            target("requests/s: ours / HAProxy", .requestsPerSecond, to: HAProxyPair(), wanted: 1.3, atLeast: true),
            target(
                "requests/s: ours / wireguard-go", .requestsPerSecond, to: WireGuard(place: .userSpace), wanted: 1.8,
                atLeast: true),
            target("p99: ours / Envoy", .p99, to: EnvoyPair(), wanted: 0.25, atLeast: false),
            target("CPU per request: ours / Envoy", .cpuPerRequest, to: EnvoyPair(), wanted: 0.25, atLeast: false),
            .init("memory of daemon and maps, MiB a node", wanted: 64, measured: memory, atLeast: false),
        ]
    }

    private func text(_ report: Report) -> String {
        var lines = ["\(report.command), \(report.date)", ""] + report.machine.summary
        lines.append(
            "versions "
                + report.versions.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", "))
        lines += [
            "", "Medians of \(number(report.settings["rounds"] ?? 0)) rounds (lowest to highest). \(report.noise)",
        ]
        lines += [""] + report.participants
        for workload in workloads { lines += [""] + report.table(workload) }
        lines += ["", "Targets: HTTP/1.1, 100-byte bodies, 32 connections"] + report.verdicts
        return lines.joined(separator: "\n") + "\n"
    }

    private func write(_ report: Report) throws {
        if let json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            try Data(try encoder.encode(report)).write(to: URL(filePath: json))
            say("wrote \(json)")
        }
        if let svg {
            try Data(plot(report).svg.utf8).write(to: URL(filePath: svg))
            say("wrote \(svg)")
        }
    }

    private func plot(_ report: Report) -> Plot {
        let rpc = Workload.rpc(.http1, body: 100, connections: 32)
        let paced = Workload.paced(rate: rate, body: 100, connections: 32)
        func panel(_ workload: Workload, _ metric: Metric, _ title: String) -> Plot.Panel {
            Plot.Panel(
                title: title,
                bars: report.candidates.map { ($0.name, $0.results[workload.name]?[metric.rawValue]) },
                digits: metric.digits)
        }
        return Plot(
            title: "HTTP/1.1 between two pods on two nodes, 100-byte bodies, 32 connections",
            foot: [
                "\(report.command), \(report.date); medians, lines from the lowest to the highest round",
                "\(report.machine.processors) × \(report.machine.processor), \(report.machine.kernel)",
                "ecb(aes): \(report.machine.ciphers["ecb(aes)"]?.joined(separator: ", ") ?? "none")",
            ],
            panels: [
                panel(rpc, .requestsPerSecond, "requests/s, as many as go (more is better)"),
                panel(rpc, .p99, "p99 latency at that load, µs (less is better)"),
                panel(rpc, .cpuPerRequest, "CPU time of the whole machine for each request, µs (less is better)"),
                panel(paced, .p99, "p99 latency at \(rate) requests/s, µs (less is better)"),
            ])
    }
}

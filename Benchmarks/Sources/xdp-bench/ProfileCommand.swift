import ArgumentParser
import FoundationEssentials
import Glibc
import Lab
import Measure

/// `xdp-bench profile`: where the CPU time of a request goes.
struct ProfileCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "profile",
        abstract: "Where the CPU time of a request goes: AES, programs, XDP, the rest of the kernel, user space.",
        discussion: """
            Small requests as in `compare`, HTTP/1.1, 100-byte bodies, 32 connections, while perf samples all CPUs by their clock. The \
            machine should do nothing else: whatever runs is counted. Needs root and perf.
            """)

    @Option(help: "Length of each recording.")
    var seconds = 5
    @Option(help: "How often each is recorded, in turns; the recording with the least CPU time a request counts.")
    var rounds = 3
    @Option(help: "The folder with ebpf-xdp-keymgr and xdp-encryptor.")
    var programs = ".build/release"
    @Option(help: "Write the result to this file, as JSON.")
    var json: String?

    func validate() throws {
        guard (1...600).contains(seconds), (1...100).contains(rounds) else {
            throw ValidationError("seconds must be 1 to 600, rounds 1 to 100")
        }
    }

    func run() throws {
        guard geteuid() == 0 else {
            throw LabError("namespaces, BPF programs and perf need root; run this again as root")
        }
        guard let perf = find("perf") else {
            throw LabError("there is no perf in PATH; Debian's package is linux-perf")
        }
        let candidates: [any Candidate] = [Plain(), Ours(programs: programs), HAProxyPair(), EnvoyPair()]
        for candidate in candidates {
            if let reason = candidate.reasonForAbsence() { throw LabError("\(candidate.name) is absent: \(reason)") }
        }
        var report = ProfileReport(date: Date.now.formatted(.iso8601), machine: .current())
        var best: [String: Profile] = [:]
        for round in 1...rounds {
            for candidate in candidates {
                let profile = try record(candidate, perf)
                say(
                    "round \(round) of \(rounds): \(candidate.name): \(number(profile.requestsPerSecond)) requests/s, "
                        + "\(number(profile.perRequest, digits: 1)) CPU µs a request")
                if profile.perRequest < best[candidate.name]?.perRequest ?? .infinity { best[candidate.name] = profile }
            }
        }
        report.candidates = candidates.compactMap { candidate in
            best[candidate.name].map { ProfileReport.Candidate(name: candidate.name, profile: $0) }
        }
        print(report.lines.joined(separator: "\n"))
        guard let json else { return }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try Data(try encoder.encode(report)).write(to: URL(filePath: json))
        say("wrote \(json)")
    }

    private func record(_ candidate: any Candidate, _ perf: String) throws -> Profile {
        try Lab.with(Lab.Plan(mtu: 1500)) { lab in
            try Credentials.make(in: lab)
            try Bench.startApplication(on: lab)
            let bench = Bench(lab: lab, running: try candidate.start(on: lab), seconds: seconds)
            try bench.waitUntilReady()
            let recording = lab.directory + "/perf.data"
            let recorder = try ChildProcess(
                [
                    perf, "record", "-q", "-a", "-e", "cpu-clock", "-F", "1999", "-o", recording, "--", "sleep",
                    "\(seconds)",
                ],
                log: lab.directory + "/perf-record")
            let measured = try bench.run(.rpc(.http1, body: 100, connections: 32))
            let outcome = try recorder.wait(until: .seconds(Double(seconds) + 30))
            guard outcome.succeeded else { throw LabError("perf record failed: \(outcome.errors.suffix(500))") }
            let printed = try lab.require(
                [perf, "report", "-i", recording, "--stdio", "-g", "none", "-F", "sample,sym", "-t", "|"],
                in: lab.client.namespace,
                seconds: 60)
            return try Profile(
                report: printed, perRequest: measured[.cpuPerRequest] ?? 0,
                requestsPerSecond: measured[.requestsPerSecond] ?? 0)
        }
    }
}

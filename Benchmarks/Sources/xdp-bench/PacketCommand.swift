import ArgumentParser
import CBench
import FoundationEssentials
import Lab
import Measure

/// `xdp-bench packet`: what a packet costs beside the floor, the raw AES of the kernel.
struct PacketCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "packet",
        abstract: "Nanoseconds to encrypt and decrypt a packet, beside the kernel's AES alone.",
        discussion: """
            Runs the product's own programs by BPF_PROG_TEST_RUN; no packet leaves the process. Needs root (CAP_BPF, \
            CAP_NET_ADMIN, CAP_PERFMON).
            """)

    @OptionGroup var options: KernelBenchOptions

    func run() throws {
        options.stayOnCPU()
        var bench = try KernelBench.load(options.object, peers: 1, endpoints: 1, frames: 1)
        var report = PacketReport(date: Date.now.formatted(.iso8601), machine: .current(), runs: options.runs)
        for payload in [0, 16, 64, 256, 512, 1024, 1400] {
            try bench.prepare(payload: payload)
            // Each run takes about 10 ms.
            let estimate = try bench.run(.encrypt, repeating: 2000)
            let repeating = max(200, Int(10_000_000 / max(estimate, 1)))
            var floor = Spread()
            var encrypt = Spread()
            var decrypt = Spread()
            for _ in 0..<options.runs {
                floor.samples.append(try bench.run(.floor, repeating: repeating))
                encrypt.samples.append(try bench.packet(.encrypt, repeating: repeating))
                decrypt.samples.append(try bench.packet(.decrypt, repeating: repeating))
            }
            report.sizes.append(
                .init(
                    payload: payload, blocks: 1 + (payload + 15) / 16, floor: floor, encrypt: encrypt, decrypt: decrypt)
            )
        }
        report.programs = try bench.programs().map {
            .init(name: $0.name, verifiedInstructions: Int($0.verified), nativeSize: Int($0.native))
        }
        for (payload, wanted) in [(1400, 1.22), (64, 1.45), (0, 2.2)] {
            let size = report.sizes.first { $0.payload == payload }
            report.targets += [
                .init(
                    "encrypt / floor, \(payload) bytes", wanted: wanted, measured: size?.encryptRatio, atLeast: false),
                .init(
                    "decrypt / floor, \(payload) bytes", wanted: wanted, measured: size?.decryptRatio, atLeast: false),
            ]
        }
        try options.finish(report.lines, report)
    }
}

/// What `packet` and `scale` have in common.
struct KernelBenchOptions: ParsableArguments {
    @Option(help: "The compiled Benchmarks/bpf/bench.bpf.c.")
    var object: String
    @Option(help: "How often each is measured, in turns.")
    var runs = 31
    @Option(help: "Write the result to this file, as JSON.")
    var json: String?
    @Option(help: "The CPU to stay on.")
    var cpu = 1

    func validate() throws {
        guard (1...10_000).contains(runs) else { throw ValidationError("runs must be 1 to 10000") }
    }

    /// Moves between CPUs would be measured as well.
    func stayOnCPU() {
        if cbench_stay_on_cpu(Int32(cpu)) != 0 { say("cannot stay on CPU \(cpu); going on without") }
    }

    func finish(_ lines: [String], _ report: some Encodable) throws {
        print(lines.joined(separator: "\n"))
        guard let json else { return }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try Data(try encoder.encode(report)).write(to: URL(filePath: json))
        say("wrote \(json)")
    }
}

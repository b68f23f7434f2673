import FoundationEssentials
import Glibc
import Lab
import Measure

/// Runs workloads against a candidate that is up.
struct Bench {
    let lab: Lab
    let running: Running
    /// Of each measurement.
    let seconds: Int

    /// Stands in every body, so that a capture shows who encrypts.
    static let marker = "TOP-SECRET-BENCH"

    private static func body(_ length: Int) -> String {
        marker + String(repeating: "x", count: length - marker.count)
    }

    /// Starts the application in the second pod: an HTTP server with answers of a fixed size, and iperf3.
    static func startApplication(on lab: Lab) throws {
        let file = try fill(
            "upstream.conf", ["DIRECTORY": lab.directory, "BODY100": body(100), "BODY1024": body(1024)], in: lab)
        let server = try lab.start([find("nginx") ?? "nginx", "-c", file, "-e", "/dev/null"], in: lab.server.namespace)
        _ = try lab.start(["iperf3", "--server"], in: lab.server.namespace)
        try wait(for: "the application; it says: \(server.errors)", until: .seconds(10)) {
            guard server.isRunning else { throw LabError("nginx ended: \(server.errors)") }
            return get(Endpoint(host: "127.0.0.1", port: 8080), on: lab, from: lab.server).hasSuffix(body(100))
        }
    }

    /// Asks once, over HTTP/1.1. Returns the answer, or nothing.
    private static func get(_ endpoint: Endpoint, on lab: Lab, from pod: Lab.Pod) -> String {
        let script = """
            exec 3<>/dev/tcp/\(endpoint.host)/\(endpoint.port)
            printf 'GET /100 HTTP/1.1\\r\\nHost: bench\\r\\nConnection: close\\r\\n\\r\\n' >&3
            cat <&3
            """
        return (try? lab.run(["timeout", "2", "bash", "-c", script], in: pod.namespace).output) ?? ""
    }

    /// Waits until answers come through the candidate.
    func waitUntilReady() throws {
        var answer = ""
        try wait(
            for: "an answer through the candidate, whose programs say: \(said); last: \(answer)", until: .seconds(20)
        ) {
            answer = Self.get(running.http1, on: lab, from: lab.client)
            return answer.hasSuffix(Self.body(100))
        }
    }

    private var said: String {
        running.processes.values.flatMap { $0 }.map { String(($0.errors + $0.output).suffix(800)) }.joined(
            separator: "; ")
    }

    /// Whether a body can be read on the link between the nodes.
    func isReadableOnTheLink() throws -> Bool {
        let capture = try Capture(lab, in: lab.nodes[0].namespace, interface: lab.nodes[0].uplink)
        _ = Self.get(running.http1, on: lab, from: lab.client)
        try capture.finish()
        return Data(try bytes(of: capture.path)).firstRange(of: Data(Self.marker.utf8)) != nil
    }

    /// Runs one workload; what it measured, by metric.
    func run(_ workload: Workload) throws -> [Metric: Double] {
        switch workload {
        case .rpc(.http1, let body, let connections):
            return try load { try wrk(body: body, connections: connections) }
        case .rpc(.http2, let body, let connections):
            return try load { try h2load(body: body, connections: connections) }
        case .paced(let rate, let body, let connections):
            return try load { try pace(rate: rate, body: body, connections: connections) }
        case .connections(let connections):
            var metrics = try load { try wrk(body: 100, connections: connections, ["-H", "Connection: close"]) }
            metrics[.connectionsPerSecond] = metrics.removeValue(forKey: .requestsPerSecond)
            return metrics
        case .bulk(let streams, _): return try bulk(streams: streams)
        case .memory: return memory()
        }
    }

    private func load(_ generate: () throws -> LoadResult) throws -> [Metric: Double] {
        let start = ProcessorTime.now()
        let result = try generate()
        let end = ProcessorTime.now()
        guard result.requests > 0, result.failed * 1000 <= result.requests else {
            throw LabError("\(result.failed) requests failed, \(result.requests) were answered")
        }
        let used = ProcessorTime.used(from: start, to: end)
        return [
            .requestsPerSecond: Double(result.requests) / result.seconds, .p50: result.p50, .p99: result.p99,
            .p999: result.p999, .cpuPerRequest: used / Double(result.requests) * 1e6,
            .busyCPUs: used / ProcessorTime.elapsed(from: start, to: end),
        ]
    }

    private func wrk(body: Int, connections: Int, _ more: [String] = []) throws -> LoadResult {
        let script = try repository() + "/Benchmarks/peers/wrk.lua"
        let url = "http://\(running.http1.host):\(running.http1.port)/\(body)"
        let arguments = ["-t1", "-c\(connections)", "-d\(seconds)s", "-s", script] + more + [url]
        return try readWrk(
            try lab.require(["wrk"] + arguments, in: lab.client.namespace, seconds: Double(seconds) + 20))
    }

    private func h2load(body: Int, connections: Int) throws -> LoadResult {
        let log = lab.directory + "/h2load.log"
        unlink(log)
        defer { unlink(log) }
        let url = "http://\(running.http2.host):\(running.http2.port)/\(body)"
        try lab.require(
            ["h2load", "-t1", "-m1", "-c\(connections)", "-D\(seconds)", "--log-file=\(log)", url],
            in: lab.client.namespace, seconds: Double(seconds) + 20)
        return try readH2LoadLog(try bytes(of: log), seconds: Double(seconds))
    }

    private func pace(rate: Int, body: Int, connections: Int) throws -> LoadResult {
        let output = try lab.require(
            [
                ownProgram, "pace", "--host", running.http1.host, "--port", "\(running.http1.port)", "--path",
                "/\(body)",
                "--rate", "\(rate)", "--connections", "\(connections)", "--seconds", "\(seconds)",
            ], in: lab.client.namespace, seconds: Double(seconds) + 20)
        return try JSONDecoder().decode(LoadResult.self, from: Data(output.utf8))
    }

    private func bulk(streams: Int) throws -> [Metric: Double] {
        let start = ProcessorTime.now()
        let outcome = try lab.run(
            [
                "iperf3", "--client", running.bulk.host, "--port", "\(running.bulk.port)", "--time", "\(seconds)",
                "--parallel", "\(streams)", "--json",
            ], in: lab.client.namespace, seconds: Double(seconds) + 20)
        let end = ProcessorTime.now()
        let result = try readIperf(outcome.output)
        let used = ProcessorTime.used(from: start, to: end)
        return [
            .gigabitsPerSecond: result.bytes * 8 / result.seconds / 1e9, .cpuPerGigabyte: used / (result.bytes / 1e9),
            .busyCPUs: used / ProcessorTime.elapsed(from: start, to: end),
        ]
    }

    private func memory() -> [Metric: Double] {
        let processes = running.processes.values.map { processes in
            processes.reduce(0) { $0 + ProcessMemory.proportional(ofTree: $1.pid) }
        }
        let mebibyte = 1024.0 * 1024.0
        return [
            .processMemory: Double(processes.max() ?? 0) / mebibyte,
            .mapMemory: Double(running.maps.values.max() ?? 0) / mebibyte,
        ]
    }
}

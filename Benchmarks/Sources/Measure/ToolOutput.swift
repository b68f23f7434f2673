internal import FoundationEssentials

/// What a tool printed and cannot be read.
public struct ToolOutputError: Error, CustomStringConvertible {
    /// Which tool, and what it printed.
    public let description: String
}

/// What a load generator measured.
public struct LoadResult: Codable, Sendable, Equatable {
    /// Answered, as they should be.
    public var requests: Int
    /// Of the measurement, seconds.
    public var seconds: Double
    /// Not answered, or not with 200.
    public var failed: Int
    /// Latencies, µs.
    public var p50: Double
    /// Latencies, µs.
    public var p99: Double
    /// Latencies, µs.
    public var p999: Double

    /// A result.
    public init(requests: Int, seconds: Double, failed: Int, p50: Double, p99: Double, p999: Double) {
        self.requests = requests
        self.seconds = seconds
        self.failed = failed
        self.p50 = p50
        self.p99 = p99
        self.p999 = p999
    }

    /// Counts and latencies, µs.
    public init(latencies: [Double], seconds: Double, failed: Int) {
        let sorted = latencies.sorted()
        self.init(
            requests: latencies.count, seconds: seconds, failed: failed, p50: percentile(0.5, ofSorted: sorted) ?? 0,
            p99: percentile(0.99, ofSorted: sorted) ?? 0, p999: percentile(0.999, ofSorted: sorted) ?? 0)
    }
}

/// The line that peers/wrk.lua makes wrk print last: requests, µs, failed, p50, p99, p99.9.
public func readWrk(_ output: String) throws -> LoadResult {
    let line = output.split(separator: "\n").last { $0.hasPrefix("result ") } ?? ""
    let fields = line.split(separator: " ").compactMap { Double($0) }
    guard fields.count == 6, fields[0] > 0, fields[1] > 0 else {
        throw ToolOutputError(description: "wrk printed no result: \(output)")
    }
    return LoadResult(
        requests: Int(fields[0]), seconds: fields[1] / 1e6, failed: Int(fields[2]), p50: fields[3], p99: fields[4],
        p999: fields[5])
}

/// h2load's log: a line for each request, with start (µs since 1970), status and latency (µs).
public func readH2LoadLog(_ bytes: [UInt8], seconds: Double) throws -> LoadResult {
    var latencies: [Double] = []
    var failed = 0
    var fields: [Int] = [0]
    var negative = false
    for byte in bytes {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"):
            fields[fields.count - 1] = fields[fields.count - 1] * 10 + Int(byte - 48)
        case UInt8(ascii: "-"): negative = true
        case UInt8(ascii: "\t"): fields.append(0)
        case UInt8(ascii: "\n"):
            if fields.count >= 3 && fields[1] == 200 && !negative {
                latencies.append(Double(fields[2]))
            } else {
                failed += 1
            }
            fields = [0]
            negative = false
        default: break
        }
    }
    guard !latencies.isEmpty else { throw ToolOutputError(description: "h2load's log holds no answered request") }
    return LoadResult(latencies: latencies, seconds: seconds, failed: failed)
}

/// What iperf3 measured.
public struct BulkResult: Sendable, Equatable {
    /// Payload that arrived, bytes.
    public var bytes: Double
    /// Of the measurement, seconds.
    public var seconds: Double
}

/// Reads `iperf3 --json`.
public func readIperf(_ output: String) throws -> BulkResult {
    struct Printed: Decodable {
        struct End: Decodable {
            struct Sum: Decodable {
                var bytes: Double
                var seconds: Double
            }
            var sum_received: Sum?
        }
        var end: End
        var error: String?
    }
    let printed = try? JSONDecoder().decode(Printed.self, from: Data(output.utf8))
    guard let sum = printed?.end.sum_received, sum.seconds > 0 else {
        throw ToolOutputError(description: "iperf3 measured nothing: \(printed?.error ?? String(output.suffix(500)))")
    }
    return BulkResult(bytes: sum.bytes, seconds: sum.seconds)
}

internal import FoundationEssentials

/// Traffic between pods whose arrival is checked: Tests/peers/traffic.py and ping.
public struct Traffic: Sendable {
    /// The lab.
    public let lab: Lab
    /// Who begins.
    public let client: Lab.Pod
    /// Who answers.
    public let server: Lab.Pod
    /// Stands in every payload.
    public let marker: String

    private let listener: ChildProcess
    /// What the client asks for, by family, where it is not the server's own address.
    private let service: [Int: String]

    /// Starts the servers in `server` and waits until they listen. The client asks for them at the addresses of a service, if there are any.
    public init(
        _ lab: Lab, from client: Lab.Pod, to server: Lab.Pod, marker: String, service: [Int: String] = [:]
    ) throws {
        self.lab = lab
        self.service = service
        self.client = client
        self.server = server
        self.marker = marker
        listener = try lab.start([Python.interpreter, try Python.script("traffic.py"), "serve"], in: server.namespace)
        try wait(for: "the servers in \(server.name)", until: .seconds(10)) { [listener] in
            guard listener.isRunning else { throw LabError("the servers ended: \(listener.errors)") }
            return listener.output.contains("ready")
        }
    }

    /// Ends the servers.
    public func stop() { lab.stop(listener) }

    private func command(_ what: String, family: Int, _ arguments: [String]) throws -> [String] {
        let target = service[family] ?? server.address(family: family)
        return [Python.interpreter, try Python.script("traffic.py"), what, target, "--marker", marker] + arguments
    }

    /// Runs one of traffic.py's commands over IPv4 (4) or IPv6 (6). Returns what it says; throws unless all of it arrived.
    @discardableResult
    public func run(_ what: String, family: Int, _ arguments: String..., seconds: Double = 120) throws -> String {
        try lab.require(try command(what, family: family, arguments), in: client.namespace, seconds: seconds)
    }

    /// Starts one of traffic.py's commands; `finish` ends it.
    public func start(_ what: String, family: Int, _ arguments: String...) throws -> ChildProcess {
        let process = try lab.start(try command(what, family: family, arguments), in: client.namespace)
        if what == "stream" {
            try wait(for: "the stream to begin", until: .seconds(10)) {
                guard process.isRunning else { throw LabError("the stream ended: \(process.output)\(process.errors)") }
                return process.output.contains("ready")
            }
        }
        return process
    }

    /// What `traffic.py stream` counted.
    public struct StreamReport: Decodable, Sendable {
        /// Sent.
        public var datagrams: Int
        /// Did not come back.
        public var lost: Int
        /// The longest time without an answer, milliseconds.
        public var longestGap: Double
        /// TCP records that came back.
        public var records: Int
        /// The longest time that one took, milliseconds.
        public var longestRecord: Double
        /// Why TCP ended early.
        public var tcpProblem: String?
        /// Came back with other bytes.
        public var wrong: Int

        private enum CodingKeys: String, CodingKey {
            case datagrams, lost, records, wrong
            case longestGap = "longest_gap_ms"
            case longestRecord = "longest_record_ms"
            case tcpProblem = "tcp_problem"
        }
    }

    /// Ends a stream and returns what it counted.
    public func finish(_ stream: ChildProcess) throws -> StreamReport {
        stream.signal(15)
        let outcome = try stream.wait(until: .seconds(60))
        let line = outcome.output.split(separator: "\n").last ?? ""
        guard let report = try? JSONDecoder().decode(StreamReport.self, from: Data(line.utf8)) else {
            throw LabError("the stream failed: \(outcome.output)\(outcome.errors)")
        }
        return report
    }

    /// Sends echo requests with the marker in them; throws unless each is answered.
    public func ping(family: Int, count: Int = 20, size: Int = 200) throws {
        // ping takes 16 bytes of pattern at most.
        let pattern = marker.utf8.prefix(16).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        let output = try lab.require(
            [
                "ping", "-\(family)", "-n", "-q", "-c", "\(count)", "-i", "0.01", "-W", "5", "-s", "\(size)", "-p",
                pattern,
                server.address(family: family),
            ], in: client.namespace)
        guard output.contains(" \(count) received") else { throw LabError("ping lost packets: \(output)") }
    }
}

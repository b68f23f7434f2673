/// What is asked of a candidate.
public enum Workload: Sendable, Hashable {
    /// HTTP versions.
    public enum Version: Int, Sendable {
        /// HTTP/1.1 with connections that are kept.
        case http1 = 1
        /// HTTP/2 in clear, known in advance (as gRPC does it), one request at a time on each connection.
        case http2 = 2
    }

    /// As many requests as get answered; every connection sends the next one when it has its answer.
    case rpc(Version, body: Int, connections: Int)
    /// Requests at a fixed rate, whatever the answers do.
    case paced(rate: Int, body: Int, connections: Int)
    /// A TCP stream or several, as fast as they go.
    case bulk(streams: Int, mtu: Int)
    /// A new connection for each request.
    case connections(Int)
    /// What it takes while it works.
    case memory

    /// In JSON.
    public var name: String {
        switch self {
        case .rpc(let version, let body, let connections): "rpc/http\(version.rawValue)/\(body)B/c\(connections)"
        case .paced(let rate, let body, let connections): "paced/http1/\(body)B/c\(connections)/\(rate)rps"
        case .bulk(let streams, let mtu): "bulk/mtu\(mtu)/\(streams)"
        case .connections(let connections): "connections/c\(connections)"
        case .memory: "memory"
        }
    }

    /// In tables.
    public var title: String {
        switch self {
        case .rpc(let version, let body, let connections):
            "\(version == .http1 ? "HTTP/1.1" : "HTTP/2"), \(body)-byte bodies, \(Self.count(connections, "connection"))"
        case .paced(let rate, let body, let connections):
            "HTTP/1.1 at \(rate) requests/s, \(body)-byte bodies, \(Self.count(connections, "connection"))"
        case .bulk(let streams, let mtu): "bulk TCP, \(Self.count(streams, "stream")), MTU \(mtu)"
        case .connections(let connections): "a connection for each request, \(connections) at a time"
        case .memory: "memory of the busier node"
        }
    }

    /// Columns of its table.
    public var metrics: [Metric] {
        switch self {
        case .rpc: [.requestsPerSecond, .p50, .p99, .p999, .cpuPerRequest, .busyCPUs]
        case .paced: [.requestsPerSecond, .p50, .p99, .p999, .cpuPerRequest, .busyCPUs]
        case .bulk: [.gigabitsPerSecond, .cpuPerGigabyte, .busyCPUs]
        case .connections: [.connectionsPerSecond, .p50, .p99, .cpuPerRequest]
        case .memory: [.processMemory, .mapMemory]
        }
    }

    private static func count(_ number: Int, _ thing: String) -> String {
        "\(number) \(thing)\(number == 1 ? "" : "s")"
    }
}

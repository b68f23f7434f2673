import Lab
import Measure

/// Something that protects what two pods say to each other.
protocol Candidate: Sendable {
    /// In tables; unique.
    var name: String { get }
    /// How it is configured, in a line.
    var note: String { get }
    /// Nobody but the two pods can read what they say.
    var encrypts: Bool { get }
    /// Why it cannot be measured here; nil when it can.
    func reasonForAbsence() -> String?
    /// Brings it up on a lab of two nodes, where the application in the second pod runs already.
    func start(on lab: Lab) throws -> Running
}

extension Candidate {
    var encrypts: Bool { true }
    func reasonForAbsence() -> String? { nil }
}

/// Where to connect.
struct Endpoint: Sendable {
    var host: String
    var port: Int
}

/// A candidate that is up.
struct Running {
    /// Where the client, in its pod, reaches the application.
    var http1: Endpoint
    var http2: Endpoint
    var bulk: Endpoint
    /// The candidate's own programs, by node number.
    var processes: [Int: [ChildProcess]] = [:]
    /// Bytes of BPF maps, by node number.
    var maps: [Int: Int] = [:]

    /// The application, reached by its own address.
    static func direct(_ host: String) -> Running {
        Running(
            http1: Endpoint(host: host, port: 8080), http2: Endpoint(host: host, port: 8081),
            bulk: Endpoint(host: host, port: 5201))
    }

    /// The application, reached through a program in the client's pod.
    static func sidecars(_ client: ChildProcess, _ server: ChildProcess) -> Running {
        Running(
            http1: Endpoint(host: "127.0.0.1", port: 15001), http2: Endpoint(host: "127.0.0.1", port: 15002),
            bulk: Endpoint(host: "127.0.0.1", port: 15003), processes: [1: [client], 2: [server]])
    }
}

/// No protection: what the machine and the load generator can do.
struct Plain: Candidate {
    let name = "plain"
    let note = "no encryption"
    let encrypts = false

    func start(on lab: Lab) throws -> Running {
        .direct(lab.nodes[1].pods[0].address)
    }
}

extension Lab {
    /// The pod that asks.
    var client: Pod { nodes[0].pods[0] }
    /// The pod that answers.
    var server: Pod { nodes[1].pods[0] }
}

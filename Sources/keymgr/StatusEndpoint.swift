import Agent
import Cluster
import Datapath
import Logging
import ServiceLifecycle
import Telemetry

/// `/healthz`, `/readyz` and `/metrics` of the daemon: `listen` of its configuration.
struct StatusEndpoint: ServiceLifecycle.Service {
    let address: String
    let agent: Agent
    let datapath: Datapath
    let logger: Logger

    /// The daemon looks at everything every few seconds, and says so once a minute at least.
    private static let patience: Int64 = 180_000

    func run() async throws {
        let server = try await StatusServer(address: address) { [self] path in await answer(path) }
        logger.info("listening", metadata: ["address": "\(address)"])
        try? await gracefulShutdown()
        await server.stop()
    }

    private func answer(_ path: String) async -> StatusServer.Answer? {
        switch path {
        case "/healthz":
            // Nothing has been read yet: waiting is no illness.
            guard let status = await agent.status else { return StatusServer.Answer(200, "waiting\n") }
            let age = Timestamp.now().milliseconds(since: status.updated)
            return age < Self.patience
                ? StatusServer.Answer(200, "ok\n")
                : StatusServer.Answer(503, "the daemon has not looked at anything for \(age / 1000) s\n")
        case "/readyz":
            guard let status = await agent.status else {
                return StatusServer.Answer(503, "the cluster's objects have not been read yet\n")
            }
            let isSending = status.epochs.contains { $0.state == .active && $0.acknowledgedBy.contains(status.node) }
            return isSending
                ? StatusServer.Answer(200, "ok\n") : StatusServer.Answer(503, "no epoch is sent with yet\n")
        case "/metrics": return StatusServer.Answer(200, await metrics())
        default: return nil
        }
    }

    private func metrics() async -> String {
        var text = MetricsText(prefix: "xdp_encryptor_")
        if let counters = try? datapath.counters() {
            let all = Verdict.allCases.map { ($0, counters.verdicts[$0] ?? Counters.Count()) }
            func labels(_ verdict: Verdict) -> [String: String] {
                ["outcome": verdict.outcome.rawValue, "reason": verdict.name]
            }
            text.add(
                .counter, "packets_total", "Packets by what became of them; docs/drops.md explains the reasons.",
                all.map { (labels($0.0), Double($0.1.packets)) })
            text.add(
                .counter, "bytes_total", "Bytes of packets by what became of them.",
                all.map { (labels($0.0), Double($0.1.bytes)) })
        }
        if let state = try? datapath.state() {
            let local = state.endpoints.values.count { if case .local = $0.place { true } else { false } }
            text.add(
                .gauge, "endpoints", "Protected addresses in the kernel.",
                [(["place": "here"], Double(local)), (["place": "elsewhere"], Double(state.endpoints.count - local))])
            text.add(
                .gauge, "pods_attached", "Pods with programs attached.",
                state.attachments.values.count(where: \.isWhole))
            if let cipher = CipherDriver.current() {
                text.add(
                    .gauge, "cipher_info", "The kernel's driver that computes AES.", [(["driver": cipher.name], 1)])
                text.add(
                    .gauge, "aes_instructions_unused",
                    "1: AES is computed in C although the processor has instructions.",
                    cipher.leavesInstructionsUnused ? 1 : 0)
            }
            text.add(.gauge, "peers", "Other nodes in the kernel.", state.peers.count)
            text.add(.gauge, "sending_epoch", "The epoch that is sent with; 0: none.", state.sending)
        }
        if let sockets = try? SocketLoadBalancer.view(pinPath: datapath.options.pinPath) {
            text.add(.gauge, "service_addresses", "Addresses of services that sockets have replaced.", sockets.services)
            text.add(.gauge, "service_backends", "Pods behind them.", sockets.backends)
            text.add(
                .counter, "service_translations_total", "What was sent to an address of a service.",
                [
                    (["kind": "connection"], Double(sockets.connections)),
                    (["kind": "datagram"], Double(sockets.datagrams)),
                    (["kind": "failed"], Double(sockets.failed)),
                ])
        }
        if let status = await agent.status {
            for severity in [Problem.Severity.error, .warning] {
                text.add(
                    .gauge, "problems_\(severity.rawValue)", "Problems of this severity that stand.",
                    status.problems.count { $0.severity == severity })
            }
        }
        return text.text
    }
}

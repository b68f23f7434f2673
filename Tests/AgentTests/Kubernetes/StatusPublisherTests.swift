import Cluster
import Keys
import Kubernetes
import Logging
import Testing

@testable import Agent

/// When our EncryptionNode's status is written, and what happens when it cannot be.
@Suite struct StatusPublisherTests {
    private let api = FakeAPI(node: EncryptionNodeObject(name: "node-1", spec: .init(nodeID: 1)))
    private let time = FakeTime()
    private let incarnation = Incarnation.random()

    private func report(revision: UInt32 = 1, applied: Int64 = 0) -> NodeReport {
        var node = EncryptionNode(id: 1, incarnation: incarnation)
        node.revision = revision
        return NodeReport(node, appliedThrough: applied)
    }
    private func running(_ body: (StatusPublisher) async throws -> Void) async throws {
        let api = api
        let publisher = StatusPublisher(
            api: api, name: "node-1", version: "test", clock: time.clock, logger: Logger(label: "test") { _ in Quiet() }
        ) { api.seen }
        let task = Task { await publisher.run() }
        await time.settle()
        try await body(publisher)
        task.cancel()
        publisher.look()
    }
    private var written: NodeReport? { api.with { $0.node?.status?.report } }
    private var writes: Int { api.with { $0.writes } }

    @Test("What concerns ourselves is written at once, acknowledgements are gathered")
    func rates() async throws {
        try await running { publisher in
            publisher.want(report(revision: 1), nodes: 2)
            await time.settle()
            #expect(written == report(revision: 1))
            for applied in Int64(1)...5 {
                publisher.want(report(revision: 1, applied: applied), nodes: 2)
                await time.settle()
            }
            #expect(writes == 1)
            await time.advance(.milliseconds(240))
            #expect(writes == 1)
            await time.advance(.milliseconds(20))
            #expect(writes == 2 && written?.appliedThrough == 5)
            // Something of our own takes the acknowledgement along.
            publisher.want(report(revision: 1, applied: 6), nodes: 2)
            await time.settle()
            publisher.want(report(revision: 2, applied: 7), nodes: 2)
            await time.settle()
            #expect(writes == 3 && written == report(revision: 2, applied: 7))
            await time.advance(.seconds(10))
            #expect(writes == 3)
        }
        #expect(StatusPublisher.acknowledgeDelay(nodes: 2) == .milliseconds(250))
        #expect(StatusPublisher.acknowledgeDelay(nodes: 5000) == .seconds(25))
    }

    @Test("Somebody else's change of the object is no obstacle")
    func conflict() async throws {
        try await running { publisher in
            publisher.want(report(), nodes: 2)
            await time.settle()
            api.touch { $0.spec?.endpoints = [] }
            publisher.want(report(revision: 2), nodes: 2)
            await time.settle()
            #expect(written?.revision == 2)
            #expect(publisher.problems.isEmpty)
        }
    }

    @Test("Outages and throttling are waited out, the newest is written, and people are told")
    func outage() async throws {
        try await running { publisher in
            let busy = KubernetesError(.tooManyRequests, "slow down", status: 429, retryAfter: .seconds(7))
            let down = KubernetesError(.network, "no connection")
            api.with { $0.writeErrors = [busy, down, down] }
            publisher.want(report(), nodes: 2)
            await time.settle()
            await time.advance(.seconds(6))
            #expect(api.with { $0.writeErrors.count } == 2, "Retry-After is kept")
            #expect(publisher.problems.count == 1)
            publisher.want(report(revision: 9), nodes: 2)
            for _ in 0..<30 { await time.advance(.milliseconds(500)) }
            #expect(written?.revision == 9)
            #expect(writes == 1)
            #expect(publisher.problems.isEmpty)
        }
    }

    @Test("A write whose answer was lost is looked at again, and is not undone")
    func lost() async throws {
        try await running { publisher in
            api.with { $0.losesAnswers = true }
            publisher.want(report(revision: 3), nodes: 2)
            await time.settle()
            api.with { $0.losesAnswers = false }
            publisher.want(report(revision: 4), nodes: 2)
            for _ in 0..<10 { await time.advance(.milliseconds(500)) }
            #expect(written?.revision == 4)
        }
    }

    @Test("Another keymgr with our name is noticed, and the status written again")
    func stranger() async throws {
        try await running { publisher in
            publisher.want(report(), nodes: 2)
            await time.settle()
            let other = EncryptionNode(id: 1, incarnation: .random())
            api.touch { $0.status?.report = NodeReport(other) }
            publisher.look()
            await time.settle()
            #expect(written?.incarnation == other.incarnation, "it may be an echo of an earlier write")
            await time.advance(.seconds(11))
            publisher.look()
            await time.settle()
            #expect(written?.incarnation == incarnation)
            #expect(publisher.problems.contains { $0.message.contains("somebody else") })
        }
    }

    @Test("What is for people is written a little later, at most 20 problems, errors first")
    func people() async throws {
        try await running { publisher in
            publisher.want(report(), nodes: 2)
            await time.settle()
            let problems = (0..<30).map { Problem($0 < 5 ? .error : .warning, "pod shop/\($0)", "odd") }
            publisher.describe(engine: "ecb", problems: problems)
            await time.settle()
            #expect(writes == 1)
            await time.advance(.milliseconds(2100))
            let status = api.with { $0.node?.status }
            #expect(writes == 2 && status?.problems.count == 20 && status?.problems.first?.severity == .error)
            #expect(status?.engine == "ecb")
            #expect(status?.conditions.first?.status == .isFalse)
        }
    }

    @Test("Nothing is written before there is an object, and no object is made")
    func missing() async throws {
        api.with { $0.node = nil }
        try await running { publisher in
            publisher.want(report(), nodes: 2)
            await time.advance(.seconds(5))
            #expect(writes == 0)
            api.with { $0.node = EncryptionNodeObject(name: "node-1", spec: .init(nodeID: 1)) }
            api.touch()
            publisher.look()
            await time.settle()
            #expect(written == report())
        }
    }
}

/// Says nothing.
struct Quiet: LogHandler {
    var logLevel = Logger.Level.critical
    var metadata: Logger.Metadata = [:]
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }
    func log(event: LogEvent) {}
}

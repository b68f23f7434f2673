import Lab
import Logging
import Testing

@testable import Kubernetes

let quietLogger = Logger(label: "tests") { _ in SwiftLogNoOpLogHandler() }

/// A stand-in with the tests' own kind, and a client of it.
struct ServerFixture {
    let server: KubernetesServer
    let client: KubernetesClient

    init(
        _ arguments: [String] = [], tls: Bool = false,
        configure: (inout ClientConfiguration, KubernetesServer) throws -> Void = { _, _ in }
    ) throws {
        server = try KubernetesServer(tls: tls, arguments)
        var configuration = ClientConfiguration(server: server.url)
        try configure(&configuration, server)
        client = try KubernetesClient(configuration, logger: quietLogger)
        try server.load([Widget.definition])
    }

    /// Runs a test and cleans up after it, whatever happens.
    static func run(
        _ arguments: [String] = [], tls: Bool = false,
        configure: (inout ClientConfiguration, KubernetesServer) throws -> Void = { _, _ in },
        _ body: (ServerFixture) async throws -> Void
    ) async throws {
        let fixture = try ServerFixture(arguments, tls: tls, configure: configure)
        do {
            try await body(fixture)
        } catch {
            await fixture.client.shutdown()
            throw error
        }
        await fixture.client.shutdown()
        #expect(fixture.server.complaints == "")
    }

    /// Follows the widgets with a real reflector while a test runs.
    func following(
        pageSize: Int = 500, _ body: (Store<Widget>) async throws -> Void
    ) async throws {
        let store = Store<Widget>()
        let reflector = Reflector<Widget>(api: client, pageSize: pageSize, logger: quietLogger)
        let task = Task { await store.run(reflector) }
        do {
            try await body(store)
        } catch {
            task.cancel()
            await task.value
            throw error
        }
        task.cancel()
        await task.value
    }
}

/// Waits until something holds.
func eventually(
    _ what: String, seconds: Double = 15, location: SourceLocation = #_sourceLocation, _ condition: () throws -> Bool
) async throws {
    let deadline = Deadline.seconds(seconds)
    while try !condition() {
        guard !deadline.hasPassed else {
            Issue.record("waited in vain: \(what)", sourceLocation: location)
            throw KubernetesError(.timeout, what)
        }
        try await Task.sleep(for: .milliseconds(5))
    }
}

/// The code of the error that something ends with.
func code(_ body: () async throws(KubernetesError) -> Void) async -> KubernetesError.Code? {
    do throws(KubernetesError) {
        try await body()
        return nil
    } catch {
        return error.code
    }
}

/// What a command prints.
func command(_ words: [String]) throws -> String {
    let folder = Folder()
    let outcome = try ChildProcess(words, log: folder.path + "/command").wait(until: .seconds(10))
    return outcome.output + outcome.errors
}

import Cluster
import Datapath
import Glibc
import Kubernetes
import Logging
import Netlink
import Synchronization
import Testing

@testable import Agent

/// keymgr's side of the CNI plugin: over its socket, and what it answers.
@Suite struct PodGateTests {
    /// What the gate is asked about the rest of the daemon.
    final class Rest: Sendable {
        struct Inner {
            var wanted: Mode?
            var notReady: String?
            var isInForce = true
            var changes = 0
        }
        let inner = Mutex(Inner())
        func with<R: Sendable>(_ body: (inout Inner) -> R) -> R { inner.withLock { body(&$0) } }
    }

    private let api = FakeAPI()
    private let rest = Rest()
    private let key = ObjectKey(namespace: "shop", name: "web")

    private func gate(_ folder: String, decision: Duration = .zero) throws -> PodGate {
        let rest = rest
        return PodGate(
            sandboxes: try SandboxStore(folder: "\(folder)/sandboxes"), api: api, clock: .system, decision: decision,
            logger: Logger(label: "test") { _ in Quiet() }, wanted: { _, _, _ in rest.with { $0.wanted } },
            notReady: { rest.with { $0.notReady } }, changed: { rest.with { $0.changes += 1 } },
            isInForce: { _ in (rest.with { $0.isInForce }, "an obstacle") })
    }
    private func request(
        _ command: CNIRequest.Command = .add, annotations: [String: String]? = nil, patience: Int = 300
    ) throws -> CNIRequest {
        var request = CNIRequest(
            command, containerID: "c1", interface: "eth0", addresses: [try IPAddress("10.0.0.7")], patience: patience)
        request.networkNamespace = "/proc/self/ns/net"
        request.identity = NamespaceIdentity.own()
        (request.podNamespace, request.podName, request.uid) = ("shop", "web", "u-1")
        request.annotations = annotations
        return request
    }
    private func pod(_ annotations: [String: String], age: Int64 = 60) {
        var metadata = ObjectMeta(name: "web", namespace: "shop")
        metadata.uid = "u-1"
        metadata.annotations = annotations
        metadata.creationTimestamp = Timestamp.now().adding(seconds: -age).description
        api.with { $0.pods[key] = metadata }
    }
    private let marked = ["ebpf.xdp/encrypt": "true"]

    @Test("A marked pod starts when its programs are attached, and is remembered until it goes")
    func protected() async throws {
        try await withFolder { folder in
            let gate = try gate(folder)
            let reply = await gate.handle(try request(annotations: marked))
            #expect(reply == CNIReply(.done, isProtected: true))
            #expect(api.with { $0.gets } == 0, "the runtime's yes is enough")
            #expect(rest.with { $0.changes } == 1)
            let again = try SandboxStore(folder: "\(folder)/sandboxes")
            #expect(again.sandboxes.map(\.protection) == [.strict])
            #expect(await gate.handle(try request(.check)).outcome == .done)
            rest.with { $0.isInForce = false }
            #expect(await gate.handle(try request(.check)).outcome == .refused)
            #expect(await gate.handle(try request(.delete)).outcome == .done)
            #expect(try SandboxStore(folder: "\(folder)/sandboxes").sandboxes.isEmpty)
            #expect(await gate.handle(try request(.delete)).outcome == .done)
        }
    }

    @Test("A pod whose programs cannot be attached does not start, and leaves nothing")
    func notAttached() async throws {
        try await withFolder { folder in
            let gate = try gate(folder)
            rest.with { $0.isInForce = false }
            let reply = await gate.handle(try request(annotations: marked))
            #expect(reply.outcome == .later && reply.message.contains("an obstacle"))
            #expect(gate.sandboxes.sandboxes.isEmpty)
        }
    }

    @Test("While nothing can be protected, marked pods wait and others start")
    func notReady() async throws {
        try await withFolder { folder in
            let gate = try gate(folder)
            rest.with { $0.notReady = "nothing was read yet" }
            pod([:])
            #expect(await gate.handle(try request(annotations: marked)).outcome == .later)
            #expect(await gate.handle(try request()).outcome == .done)
            #expect(await gate.handle(try request(.status)).outcome == .later)
        }
    }

    @Test("The API server's copy counts when the runtime has none, or an older one")
    func asks() async throws {
        try await withFolder { folder in
            let gate = try gate(folder)
            pod(marked)
            #expect(await gate.handle(try request()).isProtected)
            #expect(await gate.handle(try request(annotations: [:])).isProtected)
            pod([:])
            #expect(await gate.handle(try request()) == CNIReply(.done))
            // Another pod has the name by now: this one is on its way out.
            api.with { $0.pods[key]?.uid = "u-2" }
            pod2(marked)
            #expect(await gate.handle(try request()) == CNIReply(.done))
        }
    }
    private func pod2(_ annotations: [String: String]) { api.with { $0.pods[key]?.annotations = annotations } }

    @Test("A young pod is waited for until the operator has decided")
    func waits() async throws {
        try await withFolder { folder in
            let gate = try gate(folder, decision: .seconds(200))
            pod([:], age: 0)
            let request = try request(patience: 200_000)
            async let reply = gate.handle(request)
            try await Task.sleep(for: .milliseconds(300))
            pod2(marked)
            #expect(await reply.isProtected)
            // And not for ever.
            let short = try self.gate(folder, decision: .milliseconds(300))
            pod([:], age: 0)
            #expect(await short.handle(request) == CNIReply(.done))
        }
    }

    @Test("When nobody can tell, unknownPods decides")
    func unknown() async throws {
        try await withFolder { folder in
            let gate = try gate(folder)
            api.with { $0.getError = KubernetesError(.network, "down") }
            var request = try request()
            #expect(await gate.handle(request).outcome == .done)
            request.unknownPods = .refuse
            #expect(await gate.handle(request).outcome == .later)
            rest.with { $0.wanted = .permissive }
            #expect(await gate.handle(request) == CNIReply(.done, isProtected: true))
        }
    }

    @Test("Pods of a whole node may start at once: nobody is sent away")
    func crowd() async throws {
        try await withFolder { folder in
            let path = "\(folder)/cni.sock"
            let count = 110
            let arrived = Mutex(0)
            let server = try CNIServer(path: path, logger: Logger(label: "test") { _ in Quiet() }) { _ in
                arrived.withLock { $0 += 1 }
                // As if none could be attached before all of them are there.
                for _ in 0..<200 where arrived.withLock({ $0 }) < count {
                    try? await Task.sleep(for: .milliseconds(10))
                }
                return CNIReply(.done, isProtected: true)
            }
            defer { server.stop() }
            let request = try request(patience: 10_000)
            try await withThrowingTaskGroup(of: CNIReply.self) { group in
                for _ in 0..<count {
                    group.addTask { try await onThread { try CNIClient(socket: path).ask(request) } }
                }
                for try await reply in group { #expect(reply.isProtected) }
            }
            #expect(arrived.withLock { $0 } == count)
        }
    }

    @Test("Over the socket: whole requests are answered, garbage and half ones are not held against others")
    func socket() async throws {
        try await withFolder { folder in
            let gate = try gate(folder)
            let path = "\(folder)/cni.sock"
            let server = try CNIServer(path: path, logger: Logger(label: "test") { _ in Quiet() }) { request in
                await gate.handle(request)
            }
            defer { server.stop() }
            var status = stat()
            #expect(stat(path, &status) == 0 && status.st_mode & 0o777 == 0o600)
            let request = try request(annotations: marked, patience: 20_000)
            let reply = try await onThread { try CNIClient(socket: path).ask(request) }
            #expect(reply == CNIReply(.done, isProtected: true))

            // One that connects and says nothing does not hold up the next.
            let silent = try UnixSocket.connect(path, timeout: .seconds(1))
            let garbage = try await onThread {
                let connection = try UnixSocket.connect(path, timeout: .seconds(1))
                let isWritten = connection.write(Array("{\"version\":9}\n".utf8))
                #expect(isWritten)
                return connection.readLine(until: .now + .seconds(2)).flatMap {
                    CNIMessage.decode(CNIReply.self, from: $0)
                }
            }
            #expect(garbage?.outcome == .refused)
            let again = try await onThread { try CNIClient(socket: path).ask(request) }
            #expect(again.outcome == .done)
            _ = consume silent
            server.stop()
            await #expect(throws: CNIClient.Absent.self) {
                _ = try await onThread { try CNIClient(socket: path).ask(request) }
            }
        }
    }

    @Test("Who is not root is not answered", .enabled(if: geteuid() == 0, "changes its user"))
    func otherUsers() async throws {
        try await withFolder { folder in
            chmod(folder, 0o777)
            let path = "\(folder)/cni.sock"
            let server = try CNIServer(path: path, logger: Logger(label: "test") { _ in Quiet() }) { _ in
                CNIReply(.done)
            }
            defer { server.stop() }
            chmod(path, 0o777)
            // In a process of its own: threads of this one share nothing to change safely.
            let python = """
                import os, socket, sys
                os.setuid(65534)
                s = socket.socket(socket.AF_UNIX)
                s.connect("\(path)")
                answer = b""
                try:
                    s.sendall(b'{"version":1,"command":"status","containerID":"","interface":"","addresses":[],"unknownPods":"allow","patience":1}\\n')
                    s.settimeout(5)
                    answer = s.recv(100)
                except (BrokenPipeError, ConnectionResetError):
                    pass
                sys.exit(0 if answer == b"" else 1)
                """
            #expect(try await onThread { run(["python3", "-c", python]) } == 0)
        }
    }

    private func run(_ command: [String]) -> Int32 {
        let arguments = command.map { strdup($0) } + [nil]
        defer { arguments.forEach { free($0) } }
        var pid: pid_t = 0
        guard posix_spawnp(&pid, command[0], nil, nil, arguments, environ) == 0 else { return -1 }
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
        return status >> 8 & 0xff
    }
}

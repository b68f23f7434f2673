import Cluster
import Foundation
import Telemetry
import Testing

@Suite struct TelemetryTests {
    @Test func textForPrometheus() {
        var text = MetricsText(prefix: "x_")
        text.add(.gauge, "pods", "Pods.", 3)
        text.add(
            .counter, "writes_total", "Writes\nof \\.",
            [(["kind": "a\"b", "z": "1\n2"], 1.5), ([:], 1e9)])
        text.add(.gauge, "nothing", "No values.", [])
        #expect(
            text.text == """
                # HELP x_pods Pods.
                # TYPE x_pods gauge
                x_pods 3
                # HELP x_writes_total Writes\\nof \\\\.
                # TYPE x_writes_total counter
                x_writes_total{kind="a\\"b",z="1\\n2"} 1.5
                x_writes_total 1000000000

                """)
    }

    @Test func addresses() async throws {
        #expect(try #require(hostAndPort("0.0.0.0:9402")) == ("0.0.0.0", 9402))
        #expect(try #require(hostAndPort("[::]:80")) == ("::", 80))
        #expect(try #require(hostAndPort(":1")) == ("0.0.0.0", 1))
        for wrong in ["", "x", "1.2.3.4", "1.2.3.4:70000", "1.2.3.4:-1"] {
            #expect(hostAndPort(wrong) == nil)
            await #expect(throws: StatusServer.AddressError.self) {
                try await StatusServer(address: wrong) { _ in nil }
            }
        }
    }

    /// 192.0.2.1 is for documents: no machine has it.
    @Test func addressOfSomebodyElse() async {
        let error = await #expect(throws: StatusServer.AddressError.self) {
            try await StatusServer(address: "192.0.2.1:9402") { _ in nil }
        }
        #expect(error?.description == "cannot listen on 192.0.2.1:9402: Cannot assign requested address")
    }

    @Test(.timeLimit(.minutes(1))) func answers() async throws {
        let server = try await StatusServer(address: "127.0.0.1:0") { path in
            switch path {
            case "/healthz": .init(200, "ok\n")
            case "/readyz": .init(503, "pods: not read yet\n")
            default: nil
            }
        }
        func ask(_ arguments: String...) async throws -> String {
            let process = Process()
            process.executableURL = URL(fileURLWithPath: "/usr/bin/python3")
            let program = """
                import http.client, sys
                connection = http.client.HTTPConnection("127.0.0.1", \(server.port), timeout=30)
                for request in sys.argv[1:]:
                    method, path = request.split(" ")
                    connection.request(method, path)
                    answer = connection.getresponse()
                    print(answer.status, repr(answer.read().decode()))
                """
            process.arguments = ["-c", program] + arguments
            let pipe = Pipe()
            process.standardOutput = pipe
            // Not waited for on this thread, which the server may need for its answers.
            try await withCheckedThrowingContinuation { (end: CheckedContinuation<Void, any Error>) in
                process.terminationHandler = { _ in end.resume() }
                do { try process.run() } catch { end.resume(throwing: error) }
            }
            return String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        }
        // One connection for all of them.
        let text = try await ask("GET /healthz", "GET /readyz?verbose", "HEAD /healthz", "GET /", "POST /healthz")
        #expect(
            text == """
                200 'ok\\n'
                503 'pods: not read yet\\n'
                200 ''
                404 'no such path; there are /metrics, /healthz and /readyz\\n'
                405 'only GET\\n'

                """)
        await server.stop()
        // The port is free again, or the server says what is wrong.
        let again = try await StatusServer(address: "127.0.0.1:\(server.port)") { _ in nil }
        await #expect(throws: (any Error).self) {
            _ = try await StatusServer(address: "127.0.0.1:\(again.port)") { _ in nil }
        }
        await again.stop()
    }
}

import FoundationEssentials
import Glibc
import Testing

@testable import Lab

extension EndToEnd {
    /// A KMS that goes away, and what a KMS's secrets leave behind.
    @Suite struct KMSTests {
        @Test(
            "An outage of the KMS: traffic goes on, also across a restart, until the lease ends; then nothing leaves; then all is well"
        )
        func outage() throws {
            try Lab.with { lab in
                let encryption = try Encryption(lab, leaseSeconds: size(16, full: 30))
                try encryption.start()
                try encryption.refreshKeys()
                let capture = try Capture(lab, in: lab.nodes[0].namespace, interface: lab.nodes[0].uplink)
                let traffic = try Traffic(lab, from: lab.nodes[0].pods[0], to: lab.nodes[1].pods[0], marker: marker)
                defer { traffic.stop() }

                let stream = try traffic.start("stream", family: 4, "--rate", "200")
                let gone = encryption.kek + ".gone"
                #expect(rename(encryption.kek, gone) == 0)
                // Killed and started again while nobody unwraps: the kernel's keys go on under the lease that was written down.
                for node in lab.nodes {
                    try encryption.stop(node, SIGKILL)
                    try encryption.start(node)
                }
                usleep(1_500_000)
                for node in lab.nodes { #expect(try encryption.object(node)?.sending == 1) }
                expectUnharmed(try traffic.finish(stream))
                try traffic.run("file", family: 6, "--bytes", "100000")

                try wait(for: "the leases to end", until: .seconds(60)) {
                    try lab.nodes.allSatisfy { try encryption.object($0)?.epochs == [] }
                }
                let closed = try lab.run(
                    ["ping", "-c", "3", "-i", "0.05", "-W", "1", "-p", "4541524c59", lab.nodes[1].pods[0].address],
                    in: lab.nodes[0].pods[0].namespace)
                #expect(closed.output.contains(" 0 received"), "fails closed")
                let status = try readFile("\(lab.directory)/run-1/status.json")
                #expect(status.contains("the TTL has passed") && status.contains("does not exist"), "\(status)")

                #expect(rename(gone, encryption.kek) == 0)
                try encryption.waitUntilReady(.seconds(30))
                try traffic.run("file", family: 4, "--bytes", "100000")
                try capture.finish()
                try encryption.refreshKeys()
                let report = try lab.decode(capture.path, keys: encryption.keys, markers: [marker, "EARLYEARLY"])
                expectClean(report)
            }
        }

        /// With provider `local` always; with all servers where they run (make test-kms).
        @Test(
            "After a run no log, status, object or memory holds a DEK, a key, a KEK or a token",
            arguments: getenv("KMS_SERVERS") == nil ? ["local"] : ["local", "aws", "gcp", "azure", "openbao"])
        func canaries(_ provider: String) throws {
            try Lab.with { lab in
                let servers = provider == "local" ? nil : try KMSServers(provider: provider)
                let encryption = try Encryption(lab, servers: servers)
                try encryption.start()
                let traffic = try Traffic(lab, from: lab.nodes[0].pods[0], to: lab.nodes[1].pods[0], marker: marker)
                try traffic.run("file", family: 4, "--bytes", "100000")
                traffic.stop()
                try encryption.openEpoch()
                try encryption.waitUntilReady(.seconds(30), epoch: 2)
                try encryption.refreshKeys()
                var command = [Python.interpreter, try Python.script("find_residue.py"), "--keys", encryption.keys]
                for secret in servers?.secretFiles ?? [encryption.kek] { command += ["--secret", secret] }

                let files = try found(lab, command + ["--folder", lab.directory])
                #expect(files.places > 8)
                #expect(files.found.isEmpty)

                let pids = try lab.nodes.flatMap { ["--pid", "\(try encryption.daemon($0).pid)"] }
                let memory = try found(lab, command + pids)
                #expect(memory.places > 20, "root could read the processes")
                let names = Set(memory.found.values.flatMap { $0 })
                let deks = names.filter { $0.hasPrefix("DEK") || $0.hasPrefix("KEK") || $0.hasPrefix("key") }
                print(
                    "CANARY \(provider): \(files.places) files and \(memory.places) areas of memory searched; in files: none; in memory: \(names.isEmpty ? "none" : names.sorted().joined(separator: ", "))"
                )
                #expect(deks.isEmpty, "nowhere that root can read: \(memory.found)")
                if provider == "local" { #expect(names.isEmpty) }
            }
        }

        @Test("The search for residue finds what is there")
        func positiveControl() throws {
            try Lab.with { lab in
                let encryption = try Encryption(lab)
                try encryption.refreshKeys()
                let copy = try lab.write("log", "x" + (try readFile(encryption.keys)))
                let result = try found(
                    lab,
                    [
                        Python.interpreter, try Python.script("find_residue.py"), "--keys", encryption.keys, "--folder",
                        lab.directory, "--secret", encryption.kek,
                    ])
                #expect(result.found[copy]?.contains("DEK of epoch 1 (hexadecimal)") == true)
            }
        }

        private struct Residue: Decodable {
            var places: Int
            var found: [String: [String]]
        }

        private func found(_ lab: Lab, _ command: [String]) throws -> Residue {
            let outcome = try lab.run(command, seconds: 60)
            #expect(outcome.status <= 1, "\(outcome.errors)")
            return try JSONDecoder().decode(Residue.self, from: Data(outcome.output.utf8))
        }
    }
}

import Glibc
import Testing

@testable import Lab

extension EndToEnd {
    /// What people type, and what they get wrong.
    @Suite struct CommandTests {
        @Test("why: what no pair of ends is about, and what strict pods drop")
        func why() throws {
            try Bench.with { bench in
                let (node, pod, other) = (bench.nodes[0], bench.nodes[0].pods[0], bench.nodes[1].pods[0])
                func why(_ ends: String...) throws -> Outcome {
                    try bench.lab.run(
                        [
                            bench.encryption.programs + "/xdp-encryptor", "why", "--pin-path",
                            bench.encryption.pins(node), "--state-directory",
                            "\(bench.lab.directory)/run-\(node.number)",
                        ] + ends, in: node.namespace)
                }
                let (ipv4, ipv6) = (pod.address, pod.address6)
                var answer = try why(ipv4, ipv4)
                #expect(answer.status == 4 && answer.output.contains("both ends are the same"), "\(answer)")
                answer = try why(ipv4, other.address6)
                #expect(answer.status == 4 && answer.output.contains("no addresses of one family"), "\(answer)")
                answer = try why(ipv6, other.address6)
                #expect(answer.status == 0 && answer.output.contains("ENCRYPTED"), "\(answer)")
                answer = try why("192.0.2.1")
                #expect(answer.status == 2 && answer.output.contains("is not encrypted"), "\(answer)")
                // In a strict CIDR, and nobody's.
                answer = try why("10.201.9.9")
                #expect(answer.status == 3 && answer.output.contains("unknown_peer"), "\(answer)")
            }
        }

        @Test("What is wrong is said with a status of its own, and nothing is made before")
        func wrong() throws {
            try Lab.with { lab in
                let encryption = try Encryption(lab)
                func run(_ program: String, _ arguments: String...) throws -> Outcome {
                    try lab.run([encryption.programs + "/" + program] + arguments)
                }
                let (kek, cluster) = (lab.directory + "/another-kek", lab.directory + "/another-cluster")
                func initialise(_ more: String...) throws -> Outcome {
                    try lab.run(
                        [
                            encryption.programs + "/xdp-encryptor", "keys", "init", "--kek-file", kek,
                            "--cluster-directory", cluster,
                        ] + more)
                }
                var done = try initialise("--strict-cidr", "10.0.0.1/8")
                #expect(done.status == 64 && done.errors.contains("did you mean 10.0.0.0/8"), "\(done)")
                #expect(access(kek, F_OK) != 0)
                done = try run("xdp-encryptor", "keys", "init", "--kek-file", lab.directory)
                #expect(done.status == 1 && done.errors.contains("is not a regular file"), "\(done)")
                for _ in 0..<2 { #expect(try initialise("--strict-cidr", "10.0.0.0/8").succeeded) }
                #expect(try initialise().succeeded)
                done = try initialise("--strict-cidr", "10.1.0.0/16")
                #expect(done.status == 1 && done.errors.contains("strictCIDRs (10.0.0.0/8)"), "\(done)")

                // A file where the directory of records should be: not "another one is running".
                let configuration = try lab.write(
                    "wrong.json",
                    """
                    {"node": "x", "nodeID": 9, "clusterDirectory": "\(cluster)", "runtimeDirectory": "\(kek)",
                     "kms": {"provider": "local", "local": {"kekFile": "\(kek)"}}}
                    """)
                for command in ["run", "detach"] {
                    done = try run("ebpf-xdp-keymgr", command, "--config", configuration)
                    #expect(done.status == 78 && done.errors.contains("runtimeDirectory: cannot open"), "\(done)")
                }

                // A node that nobody has heard of, and a cluster without an epoch.
                _ = try lab.write(
                    "another-cluster/endpoints/pod.json",
                    """
                    {"addresses": ["10.0.0.7"], "node": "nod-a", "mode": "strict", "networkNamespace": "/run/netns/x",
                     "interface": "eth0"}
                    """)
                done = try run("ebpf-xdp-keymgr", "check", "--config", configuration)
                #expect(
                    done.succeeded && done.errors.contains("warning: \(cluster)/endpoints/pod.json: node: nothing"),
                    "\(done)")
                try lab.require(["rm", cluster + "/epochs/1.json"])
                done = try run("ebpf-xdp-keymgr", "check", "--config", configuration)
                #expect(done.status == 1 && done.errors.contains("no epoch is live: there is none"), "\(done)")
            }
        }
    }
}

import Glibc
import Testing

@testable import Lab

extension EndToEnd {
    /// The bench itself: what it finds counts only if it would find the opposite, too.
    @Suite struct LabTests {
        @Test("With encryption off the marker is on the link: the search finds what is there")
        func positiveControl() throws {
            try Lab.with { lab in
                let capture = try Capture(lab, in: lab.nodes[0].namespace, interface: lab.nodes[0].uplink)
                let traffic = try Traffic(lab, from: lab.nodes[0].pods[0], to: lab.nodes[1].pods[0], marker: marker)
                for family in [4, 6] {
                    try traffic.run("file", family: family, "--bytes", "100000")
                    try traffic.run("sizes", family: family, "--first", "100", "--last", "120")
                    try traffic.ping(family: family, count: 5)
                }
                try capture.finish()
                let report = try lab.decode(capture.path, keys: nil, markers: [marker])
                #expect(report.markerOnWire >= 2 * (21 + 5))
                #expect(report.markerOnWire <= report.frames)
            }
        }

        @Test("Three nodes reach each other, and a torn-down lab leaves nothing")
        func threeNodes() throws {
            let name = try Lab.with(Lab.Plan(nodes: 3)) { lab in
                for pod in lab.pods.dropFirst() {
                    let traffic = try Traffic(lab, from: lab.pods[0], to: pod, marker: marker)
                    for family in [4, 6] { try traffic.ping(family: family, count: 2) }
                }
                return lab.name
            }
            #expect(leftovers(of: name).isEmpty)
        }

        @Test("A signal in the middle of a demo leaves nothing", arguments: [SIGTERM, SIGINT, SIGHUP])
        func signals(_ signal: Int32) throws {
            let root = try #require(Python.repository)
            let log = "/tmp/xe-signal-\(getpid())"
            let demo = try ChildProcess([root + "/.build/debug/xdp-encryptor", "demo"], log: log)
            let name = "xelab\(demo.pid)x1"
            try wait(for: "the demo's namespaces: \(demo.errors)", until: .seconds(20)) {
                leftovers(of: name).contains("/run/netns/\(name)-n2")
            }
            demo.signal(signal)
            let outcome = try demo.wait(until: .seconds(20))
            #expect(outcome.status == 128 + signal)
            #expect(leftovers(of: name).isEmpty)
            for suffix in [".out", ".err"] { unlink(log + suffix) }
        }

        @Test("What a killed lab left is removed by the next one")
        func abandoned() throws {
            let root = try #require(Python.repository)
            let log = "/tmp/xe-killed-\(getpid())"
            let demo = try ChildProcess([root + "/.build/debug/xdp-encryptor", "demo"], log: log)
            let name = "xelab\(demo.pid)x1"
            try wait(for: "the demo's namespaces: \(demo.errors)", until: .seconds(20)) {
                leftovers(of: name).contains("/run/netns/\(name)-n2")
            }
            demo.signal(SIGKILL)
            _ = try demo.wait(until: .seconds(10))
            #expect(!leftovers(of: name).isEmpty)
            Lab.removeAbandoned()
            #expect(leftovers(of: name).isEmpty)
            for suffix in [".out", ".err"] { unlink(log + suffix) }
        }

        private func leftovers(of name: String) -> [String] {
            ["/run/netns", "/tmp", "/sys/fs/bpf"].flatMap { folder in
                entries(of: folder).filter { $0.hasPrefix(name) }.map { folder + "/" + $0 }
            }
        }
    }
}

import ArgumentParser
import Glibc
import Lab

/// `xdp-encryptor demo`.
struct DemoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract: "Two nodes with a pod each, real packets, a capture, and an independent decoder.",
        discussion: """
            Makes network namespaces, sends TCP, UDP and ping over IPv4 and IPv6 with a marker in every payload, once in clear and \
            once encrypted, captures both on the link between the nodes, and has the captures read by a decoder in Python that \
            shares no code with this program. Needs root, and the repository (Tests/peers). Touches nothing outside of its own \
            namespaces and removes them at the end.

            EXIT STATUS
              0 all expectations hold, 1 one does not, or something failed (the reason is on standard error), \
            64 wrong arguments
            """)

    enum Output: String, ExpressibleByArgument, CaseIterable {
        case text, json
    }

    @Option(help: "How to print the result: text or json.")
    var output = Output.text

    @Flag(help: "Leave nodes, pods and keymgr running for a look around, until Ctrl-C.")
    var keep = false

    @Option(
        help: "Keep the KEK in a KMS that make demo KMS=... has started, and rotate it: aws, gcp, azure or openbao.")
    var kms: String?

    @Flag(
        help: "On Kubernetes: operator and two keymgrs on an API server stand-in, a VirtualService, pods that start.")
    var kubernetes = false

    func validate() throws {
        let known = ["aws", "gcp", "azure", "openbao"]
        if let kms, !known.contains(kms) {
            throw ValidationError("--kms \(kms) is not known; expected one of \(known.joined(separator: ", "))")
        }
        if kms != nil, kubernetes { throw ValidationError("--kms and --kubernetes do not go together") }
    }

    func run() throws {
        let started = ContinuousClock.now
        func progress(_ line: String) {
            say("[\((ContinuousClock.now - started).components.seconds) s] \(line)")
        }
        if kubernetes { return try runKubernetes(progress) }
        do {
            let servers = try kms.map { try KMSServers(provider: $0) }
            progress("bringing up two nodes with a pod each")
            let lab = try Lab()
            defer { lab.tearDown() }
            let result = try Demo(lab, servers: servers, progress: progress).run()
            progress("done")
            print(output == .json ? json(result) : text(result))
            fflush(nil)
            if keep { lookAround(lab) }
            guard result.succeeded else { throw ExitCode(1) }
        } catch let error as LabError {
            say("xdp-encryptor demo: \(error)")
            throw ExitCode(1)
        }
    }

    private func runKubernetes(_ progress: @escaping (String) -> Void) throws {
        do {
            progress("bringing up two nodes with a pod each")
            let lab = try Lab()
            defer { lab.tearDown() }
            let result = try KubernetesDemo(lab, progress: progress).run()
            progress("done")
            switch output {
            case .text:
                print(
                    "\n"
                        + result.expectations.map { "  \($0.holds ? "ok  " : "FAIL") \($0.what)" }.joined(
                            separator: "\n"))
            case .json:
                print(
                    """
                    {"ok":\(result.succeeded),"before_in_clear":\(result.before),"verified":\(result.encrypted.verified),\
                    "marker_in_clear":\(result.encrypted.markerOnWire),"pods_started":\(result.started.started),\
                    "start_marker_in_clear":\(result.starting.markerOnWire),"without_plugin_in_clear":\(result.withoutPlugin),\
                    "after_in_clear":\(result.after)}
                    """)
            }
            fflush(nil)
            if keep { lookAround(lab) }
            guard result.succeeded else { throw ExitCode(1) }
        } catch let error as LabError {
            say("xdp-encryptor demo: \(error)")
            throw ExitCode(1)
        }
    }

    /// Writes a line to standard error: the result alone goes to standard output.
    private func say(_ line: String) {
        let bytes = Array((line + "\n").utf8)
        _ = write(2, bytes, bytes.count)
    }

    private func text(_ result: Demo.Result) -> String {
        let encrypted = result.encrypted
        func row(_ what: String, _ off: String, _ on: String) -> String {
            func right(_ text: String) -> String { String(repeating: " ", count: max(0, 14 - text.count)) + text }
            return what + String(repeating: " ", count: max(1, 44 - what.count)) + right(off) + right(on)
        }
        let kinds = encrypted.byKind.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
        var lines = [
            "",
            row("On the link between the nodes", "encryption off", "on"),
            row("  frames", "\(result.plainFrames)", "\(encrypted.frames)"),
            row("  packets between the pods", "", "\(encrypted.packets)"),
            row("  verified and opened by the decoder", "", "\(encrypted.verified)"),
            row("  frames with the marker in clear", "\(result.plainMarkers)", "\(encrypted.markerOnWire)"),
            row("  packets with the marker, once opened", "", "\(encrypted.markerAfterOpening)"),
            "  verified: \(kinds)",
            "",
        ]
        for (what, holds) in result.expectations { lines.append("  \(holds ? "ok  " : "FAIL") \(what)") }
        if !encrypted.samples.isEmpty {
            lines += ["", "Refused by the decoder:"] + encrypted.samples.map { "  " + $0 }
        }
        return lines.joined(separator: "\n")
    }

    private func json(_ result: Demo.Result) -> String {
        let encrypted = result.encrypted
        let kinds = encrypted.byKind.sorted { $0.key < $1.key }.map { "\"\($0.key)\":\($0.value)" }.joined(
            separator: ",")
        return """
            {"ok":\(result.succeeded),"off":{"frames":\(result.plainFrames),"marker_in_clear":\(result.plainMarkers)},\
            "on":{"frames":\(encrypted.frames),"packets":\(encrypted.packets),"verified":\(encrypted.verified),\
            "marker_in_clear":\(encrypted.markerOnWire),"marker_after_opening":\(encrypted.markerAfterOpening),\
            "repeated_nonces":\(encrypted.duplicateNonces + encrypted.repeatedFrames),"verified_by_kind":{\(kinds)}}}
            """
    }

    private func lookAround(_ lab: Lab) {
        say("\nThe lab stays until Ctrl-C. Namespaces:")
        for node in lab.nodes {
            say("  node \(node.number): ip netns exec \(node.namespace.name) bash")
            for pod in node.pods {
                say("    pod \(pod.address), \(pod.address6): ip netns exec \(pod.namespace.name) bash")
            }
        }
        say("  files: \(lab.directory), BPF pins: \(lab.pins)")
        while true { pause() }
    }
}

import ArgumentParser
import BPF
import FoundationEssentials
import Glibc
import KubeSim
import Lab
import Measure
import Synchronization

/// `xdp-bench kube`: operator and agent in a large cluster.
struct KubeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kube",
        abstract: "Memory, CPU and propagation of operator and agent in a simulated cluster.",
        discussion:
            "The operator and one keymgr with its kernel maps are the product's own. API server, other nodes' keymgrs, kubelets and scheduler are simulated in this process, and share the CPUs. Needs root."
    )

    @Option(help: "Nodes.") var nodes: Int?
    @Option(help: "Pods.") var pods: Int?
    @Option(help: "Changes of pods in a second.") var rate: Int?
    @Option(help: "How long, seconds.") var seconds: Int?
    @Option(help: "Where the product's programs are. .build/release when it is not said.") var programs: String?
    @Option(help: "Write the result to this file, as JSON.") var json: String?
    @Option(help: "How long everything may take to be in the kernel at the start, seconds.") var patience = 300
    @Flag(help: "A small cluster for a short time.") var quick = false
    @Flag(help: "Show what the programs say.") var verbose = false

    func run() throws {
        let size = Simulation.Size(nodes: nodes ?? (quick ? 500 : 5000), pods: pods ?? (quick ? 10_000 : 100_000))
        let rate = rate ?? (quick ? 200 : 2000)
        let seconds = seconds ?? (quick ? 15 : 60)
        var report = KubeReport(
            date: Date.now.formatted(.iso8601), machine: .current(), nodes: size.nodes, pods: size.pods,
            wantedRate: rate)
        let lab = try Lab()
        defer { lab.tearDown() }
        let node = lab.nodes[0]

        say("making \(size.nodes) nodes and \(size.pods) pods")
        let simulation = Simulation(
            size, ownPods: node.pods.map { .init(name: $0.name, addresses: [$0.address, $0.address6]) })
        let port = try Self.listen(simulation, node.namespace.path)
        simulation.start()
        report.protected = simulation.expected

        let folder = try programs ?? repository() + "/.build/release"
        let (operatorProcess, agent, pins) = try start(lab, folder, port)
        defer {
            if verbose { say("operator: \(operatorProcess.errors.suffix(6000))\nagent: \(agent.errors.suffix(6000))") }
        }
        let begin = ContinuousClock.now
        let probe = try converge(simulation, operatorProcess, agent, pins)
        report.convergence = (ContinuousClock.now - begin) / .seconds(1)
        // Annotations are for people; there is one write for each pod.
        let pods = simulation.expectedPods
        try wait(for: "all annotations", until: .seconds(Double(patience))) {
            simulation.requests["ebpf-xdp-operator patch pods"] ?? 0 >= pods
        }
        let annotation = (ContinuousClock.now - begin) / .seconds(1)
        report.annotation = annotation
        sleep(2)
        let programs = [
            ("ebpf-xdp-operator", operatorProcess.pid), ("ebpf-xdp-keymgr", agent.pid),
            ("API server and simulation", getpid()),
        ]
        for (name, pid) in programs {
            report.processes.append(
                .init(name: name, phase: "start", from: .none, to: .now(pid), seconds: annotation))
        }

        say("\(rate) changes of pods a second, for \(seconds) s")
        let watcher = Thread { do { try probe.watch() } catch { say("cannot look into the kernel: \(error)") } }
        let before = (
            usage: programs.map { ProcessUsage.now($0.1) }, requests: simulation.requests,
            statuses: simulation.statusWrites, processors: ProcessorTime.now()
        )
        let churn = simulation.churn(rate: rate, seconds: Double(seconds), sampling: max(1, rate / 100))
        let processors = ProcessorTime.now()
        report.seconds = churn.seconds
        report.changes = churn.counts
        report.busyCPUs =
            ProcessorTime.used(from: before.processors, to: processors)
            / ProcessorTime.elapsed(from: before.processors, to: processors)
        for (index, (name, pid)) in programs.enumerated() {
            report.processes.append(
                .init(name: name, phase: "churn", from: before.usage[index], to: .now(pid), seconds: churn.seconds))
        }
        report.statuses = simulation.statusWrites - before.statuses
        report.requests = simulation.requests.reduce(into: [:]) { requests, pair in
            let count = pair.value - (before.requests[pair.key] ?? 0)
            if count > 0 { requests[pair.key] = count }
        }
        // What is on its way may arrive.
        let end = ContinuousClock.now + .seconds(30)
        while try probe.waiting > 0 || probe.count() != simulation.expected, ContinuousClock.now < end {
            usleep(100_000)
        }
        let times = probe.stop()
        watcher.join()
        report.coming = times.coming.sorted()
        report.going = times.going.sorted()
        report.lost = times.waiting.count
        report.kernel = try probe.count()
        report.expected = simulation.expected
        report.judge()
        print(report.lines.joined(separator: "\n"))
        guard let json else { return }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        // Propagation of what has not arrived takes for ever.
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "Infinity", negativeInfinity: "-Infinity", nan: "NaN")
        try Data(try encoder.encode(report)).write(to: URL(filePath: json))
        say("wrote \(json)")
    }

    /// Starts operator and agent as a person would.
    private func start(
        _ lab: Lab, _ folder: String, _ port: UInt16
    ) throws -> (operator: ChildProcess, agent: ChildProcess, pins: String) {
        let node = lab.nodes[0]
        let (pins, runtime, namespaces) = (lab.pins + "/n1", lab.directory + "/run-1", lab.directory + "/netns-1")
        for folder in [lab.pins, runtime, namespaces] where mkdir(folder, 0o700) != 0 {
            throw LabError("cannot make \(folder): errno \(errno)")
        }
        for pod in node.pods where symlink(pod.namespace.path, "\(namespaces)/\(pod.name)") != 0 {
            throw LabError("cannot make a link for \(pod.name): errno \(errno)")
        }
        let kek = lab.directory + "/kek"
        try lab.require([folder + "/xdp-encryptor", "keys", "init", "--kek-file", kek])
        let kubeconfig = try lab.write(
            "kubeconfig",
            """
            apiVersion: v1
            kind: Config
            clusters: [{name: lab, cluster: {server: "http://127.0.0.1:\(port)"}}]
            users: [{name: lab, user: {}}]
            contexts: [{name: lab, context: {cluster: lab, user: lab, namespace: xdp-encryptor}}]
            current-context: lab

            """)
        let forOperator = try lab.write(
            "operator.json",
            """
            {"namespace": "xdp-encryptor", "strictCIDRs": ["10.0.0.0/8"],
             "kms": {"provider": "local", "local": {"kekFile": "\(kek)"}}}

            """)
        let forAgent = try lab.write(
            "agent.json",
            """
            {"cluster": {"source": "kubernetes", "kubeconfig": "\(kubeconfig)", "namespace": "xdp-encryptor",
                         "podNamespaces": ["\(namespaces)"]},
             "pinPath": "\(pins)", "runtimeDirectory": "\(runtime)",
             "kms": {"provider": "local", "local": {"kekFile": "\(kek)"}}}

            """)
        let process = try lab.start([
            folder + "/ebpf-xdp-operator", "run", "--config", forOperator, "--kubeconfig", kubeconfig,
        ])
        let agent = try lab.start(
            [folder + "/ebpf-xdp-keymgr", "run", "--config", forAgent], in: node.namespace,
            environment: ["NODE_NAME": Simulation.ownNode])
        return (process, agent, pins)
    }

    /// Waits until the agent's kernel has every address that is to be protected.
    private func converge(
        _ simulation: Simulation, _ operatorProcess: ChildProcess, _ agent: ChildProcess, _ pins: String
    ) throws -> KernelProbe {
        var probe: KernelProbe?
        var count = 0
        let end = ContinuousClock.now + .seconds(patience)
        var said = ContinuousClock.now
        while ContinuousClock.now < end {
            for process in [operatorProcess, agent] where !process.isRunning {
                throw LabError("\(process.command[0]) ended: \(process.errors.suffix(4000))")
            }
            if probe == nil, access(pins + "/maps/endpoints", F_OK) == 0 {
                probe = try KernelProbe(pins: pins, simulation)
            }
            if let probe {
                count = try probe.count()
                if count >= simulation.expected { return probe }
            }
            if ContinuousClock.now - said > .seconds(10) {
                said = ContinuousClock.now
                let usage = [operatorProcess.pid, agent.pid].map { ProcessUsage.now($0) }
                let annotated = simulation.requests["ebpf-xdp-operator patch pods"] ?? 0
                say(
                    "\(annotated) pods annotated, \(count) of \(simulation.expected) addresses in the kernel; operator \(usage[0].resident >> 20) MiB, \(usage[0].processorTime) s; agent \(usage[1].resident >> 20) MiB, \(usage[1].processorTime) s"
                )
            }
            usleep(200_000)
        }
        throw LabError(
            "only \(count) of \(simulation.expected) addresses after \(patience) s; requests: \(simulation.requests); operator: \(operatorProcess.errors.suffix(3000)); agent: \(agent.errors.suffix(3000))"
        )
    }

    /// Listens on the loopback of this network namespace and of a node's, on the same port.
    private static func listen(_ simulation: Simulation, _ path: String) throws -> UInt16 {
        let (first, port) = try loopback(0)
        let namespace = try NetworkNamespace(path: path)
        let (second, _) = try namespace.run { () throws(LabError) in try loopback(port) }.get()
        simulation.serve(first)
        simulation.serve(second)
        return port
    }

    private static func loopback(_ port: UInt16) throws(LabError) -> (socket: Int32, port: UInt16) {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isListening = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                bind(listener, pointer, length) == 0 && Glibc.listen(listener, 256) == 0
                    && getsockname(listener, pointer, &length) == 0
            }
        }
        guard isListening else { throw LabError("cannot listen: errno \(errno)") }
        return (listener, UInt16(bigEndian: address.sin_port))
    }
}

/// A thread that can be waited for.
private final class Thread {
    private var thread = pthread_t()

    init(_ body: @escaping @Sendable () -> Void) {
        final class Body {
            let run: @Sendable () -> Void
            init(_ run: @escaping @Sendable () -> Void) { self.run = run }
        }
        pthread_create(
            &thread, nil,
            { argument in
                if let argument { Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run() }
                return nil
            }, Unmanaged.passRetained(Body(body)).toOpaque())
    }

    func join() { pthread_join(thread, nil) }
}

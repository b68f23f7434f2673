internal import FoundationEssentials
public import Glibc
internal import Synchronization

/// The product on Kubernetes, on a lab: an API server, the operator, and a keymgr on each node, all of them started as a person would start
/// them. The lab plays kubelet and the controllers: Tests/peers/kube.py.
///
/// The API server is a stand-in (Tests/kube/apiserver.py), or a real one (Tests/kube/real/server.py) where the environment variable
/// XDP_ENCRYPTOR_API_SERVER names a folder with its programs; then RBAC holds, and each program has the token of its service account.
public final class KubernetesLab: Sendable {
    /// The lab that it runs on.
    public let lab: Lab
    /// Where the programs are.
    public let programs: String
    /// The API server, for the lab itself: without authentication.
    public let server: String
    /// What it is, for people.
    public let serverName: String
    /// What the decoder needs to know; see `refreshKeys`.
    public let keys: String
    /// The KEK file.
    public let kek: String

    /// A kubeconfig file for kubectl; nil with the stand-in, which makes no tables.
    public let admin: String?

    /// Whether addresses of services are replaced at the sockets of protected pods.
    public let socketLoadBalancing: Bool

    private let control: String
    private let apiServer: ChildProcess
    /// Files of operator and keymgr.
    private let kubeconfigs: (operator: String, keymgr: String)
    private let processes = Mutex<[String: ChildProcess]>([:])

    /// Paths in the API of our own kinds.
    public static let group = "/apis/encryption.ebpf.xdp/v1alpha1"

    /// Starts the API server and makes nodes and pods known to it: pods of the lab are pods of namespace `shop`, each behind a Service of
    /// its own name. Nothing is protected yet, and no program of ours runs.
    public init(_ lab: Lab, programs: String? = nil, socketLoadBalancing: Bool = false) throws {
        self.lab = lab
        self.socketLoadBalancing = socketLoadBalancing
        self.programs = try programs ?? Encryption.findPrograms()
        guard let root = Python.repository else {
            throw LabError("cannot find Tests/kube: run this in the repository, or set XDP_ENCRYPTOR_ROOT to it")
        }
        keys = lab.directory + "/keys.json"
        kek = lab.directory + "/kek"
        for folder in [lab.pins] + lab.nodes.map({ Self.namespaces(lab, $0) }) where mkdir(folder, 0o700) != 0 {
            throw LabError("cannot make \(folder): \(String(cString: strerror(errno)))")
        }
        for pod in lab.pods {
            let link = "\(Self.namespaces(lab, lab.nodes[pod.node - 1]))/\(pod.name)"
            guard symlink(pod.namespace.path, link) == 0 else { throw LabError("cannot make \(link)") }
        }
        let real = getenv("XDP_ENCRYPTOR_API_SERVER").map { String(cString: $0) }
        let standIn = [root + "/Tests/kube/apiserver.py"]
        let command = real.map { [root + "/Tests/kube/real/server.py", "--bin", $0] } ?? standIn
        apiServer = try lab.start([Python.interpreter] + command)
        var description: Description?
        try wait(for: "the API server; it says: \(apiServer.errors)", until: .seconds(real == nil ? 20 : 180)) {
            [apiServer] in
            guard apiServer.isRunning else { throw LabError("the API server ended: \(apiServer.errors)") }
            description = apiServer.output.split(separator: "\n").first.flatMap {
                try? JSONDecoder().decode(Description.self, from: Data($0.utf8))
            }
            return description != nil
        }
        guard let description else {
            throw LabError("the API server does not say where it is: \(apiServer.output)")
        }
        server = "http://127.0.0.1:\(description.port)"
        control = "http://127.0.0.1:\(description.control)"
        serverName =
            description.versions.map { versions in
                versions.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
            } ?? "a stand-in"
        admin = description.admin
        let own = lab.directory + "/kubeconfig"
        kubeconfigs = description.kubeconfigs.map { ($0.operator, $0.keymgr) } ?? (own, own)
        let paths = lab.nodes.map { "\"\($0.namespace.path)\"" }.joined(separator: ",")
        try ask(#"{"listen": {"namespaces": [\#(paths)]}}"#)
        let kinds = ["encryptionpolicies", "encryptionnodes", "encryptionepochs", "encryptedendpointslices"]
        try kube(["apply"] + kinds.map { "\(root)/deploy/crds/\($0).yaml" })
        try apply("mesh", Self.meshKinds)
        try apply("base", base)
        try lab.require([self.programs + "/xdp-encryptor", "keys", "init", "--kek-file", kek])
        try writeFile(
            own,
            """
            apiVersion: v1
            kind: Config
            clusters: [{name: lab, cluster: {server: "\(server)"}}]
            users: [{name: lab, user: {}}]
            contexts: [{name: lab, context: {cluster: lab, user: lab, namespace: xdp-encryptor}}]
            current-context: lab

            """)
    }

    /// What the API server says when it is there.
    private struct Description: Decodable {
        struct Kubeconfigs: Decodable {
            var `operator`: String
            var keymgr: String
        }
        var port: Int
        var control: Int
        var kubeconfigs: Kubeconfigs?
        var admin: String?
        var versions: [String: String]?
    }

    // MARK: the API

    /// Runs Tests/peers/kube.py.
    @discardableResult
    public func kube(_ arguments: [String], server: String? = nil, seconds: Double = 60) throws -> String {
        try lab.require(
            [Python.interpreter, try Python.script("kube.py"), "--server", server ?? self.server] + arguments,
            seconds: seconds)
    }

    /// Asks the API server for a fault, or for its end: see Tests/kube/apiserver.py.
    public func ask(_ json: String) throws { try kube(["control", json], server: control) }

    /// Creates or replaces what a YAML text holds.
    public func apply(_ name: String, _ yaml: String) throws {
        try kube(["apply", try lab.write(name + ".yaml", yaml)])
    }

    /// Deletes an object by its path.
    public func delete(_ path: String) throws { try kube(["delete", path]) }

    /// Runs kubectl as an administrator, on a real API server.
    public func kubectl(_ arguments: [String]) throws -> String {
        guard let admin else { throw LabError("kubectl needs a real API server") }
        return try lab.require(["kubectl", "--kubeconfig", admin, "--cache-dir", lab.directory + "/cache"] + arguments)
    }

    /// Waits until a Python expression of an object `o` is true.
    public func waitUntil(_ path: String, _ expression: String, seconds: Double = 30) throws {
        do {
            try kube(["--seconds", "\(seconds)", "wait", path, expression], seconds: seconds + 20)
        } catch {
            throw LabError("\(error)\n\(report)")
        }
    }

    /// The path of a pod in namespace shop.
    public func path(_ pod: Lab.Pod) -> String { "/api/v1/namespaces/shop/pods/\(pod.name)" }

    /// The path of a node's EncryptionNode.
    public func path(_ node: Lab.Node) -> String { "\(Self.group)/encryptionnodes/node-\(node.number)" }

    // MARK: programs

    /// Starts operator and keymgrs.
    public func start() throws {
        try startOperator()
        for node in lab.nodes { try start(node) }
    }

    /// Starts the operator, or one more of it.
    public func startOperator(replica: Int = 1) throws {
        let file = lab.directory + "/operator.json"
        try writeFile(
            file,
            """
            {"namespace": "xdp-encryptor", "socketLoadBalancing": \(socketLoadBalancing), "strictCIDRs": ["10.200.0.0/13", "fd00:200::/24"],
             "kms": {"provider": "local", "local": {"kekFile": "\(kek)"}},
             "epochs": {"acknowledgeWithinSeconds": 10, "drainSeconds": 1, "withdrawWithinSeconds": 20}}

            """)
        let process = try lab.start(
            [programs + "/ebpf-xdp-operator", "run", "--config", file, "--kubeconfig", kubeconfigs.operator],
            environment: ["POD_NAME": "operator-\(replica)"])
        processes.withLock { $0["operator-\(replica)"] = process }
    }

    /// Starts a node's keymgr.
    public func start(_ node: Lab.Node) throws {
        mkdir(runtime(node), 0o700)
        try writeFile(
            configuration(node),
            """
            {"cluster": {"source": "kubernetes", "kubeconfig": "\(kubeconfigs.keymgr)", "namespace": "xdp-encryptor",
                         "podNamespaces": ["\(Self.namespaces(lab, node))"],
                         "socketLoadBalancing": {"enabled": \(socketLoadBalancing)}},
             "pinPath": "\(pins(node))", "runtimeDirectory": "\(runtime(node))",
             "kms": {"provider": "local", "local": {"kekFile": "\(kek)"}}}

            """)
        let process = try lab.start(
            [programs + "/ebpf-xdp-keymgr", "run", "--config", configuration(node)], in: node.namespace,
            environment: ["NODE_NAME": "node-\(node.number)"])
        processes.withLock { $0["node-\(node.number)"] = process }
    }

    /// Stops a node's keymgr; its datapath stays.
    @discardableResult
    public func stop(_ node: Lab.Node, _ signal: Int32 = SIGTERM) throws -> Outcome {
        try stop("node-\(node.number)", signal)
    }

    /// Stops the operator.
    @discardableResult
    public func stopOperator(replica: Int = 1, _ signal: Int32 = SIGTERM) throws -> Outcome {
        try stop("operator-\(replica)", signal)
    }

    private func stop(_ name: String, _ signal: Int32) throws -> Outcome {
        guard let process = processes.withLock({ $0.removeValue(forKey: name) }) else {
            throw LabError("\(name) does not run")
        }
        return lab.stop(process, signal)
    }

    /// A node's configuration file.
    public func configuration(_ node: Lab.Node) -> String { "\(lab.directory)/node-\(node.number).json" }
    /// Where a node's pins are.
    public func pins(_ node: Lab.Node) -> String { "\(lab.pins)/n\(node.number)" }
    /// A node's runtime directory.
    public func runtime(_ node: Lab.Node) -> String { "\(lab.directory)/run-\(node.number)" }
    /// Where a node's keymgr looks for pods' namespaces.
    public func namespaces(_ node: Lab.Node) -> String { Self.namespaces(lab, node) }
    private static func namespaces(_ lab: Lab, _ node: Lab.Node) -> String { "\(lab.directory)/netns-\(node.number)" }

    /// A node's counters as they are now.
    public func verdicts(_ node: Lab.Node) throws -> Verdicts { try lab.verdicts(pins: pins(node)) }

    /// Unwraps the DEKs for the decoder, in Python: nothing in the product can export one.
    public func refreshKeys() throws {
        let folder = lab.directory + "/cluster"
        try kube(["cluster", folder])
        try lab.require([
            Python.interpreter, try Python.script("cluster_keys.py"), "--cluster", folder, "--output", keys, "--kek",
            kek,
        ])
    }

    /// Waits until these pods are ready on their nodes, all nodes know it, and a ping between each two of different nodes is answered.
    public func waitUntilProtected(_ pods: [Lab.Pod], seconds: Double = 30) throws {
        for node in lab.nodes {
            let count = pods.count { $0.node == node.number }
            let ready = "sum(e['state'] == 'ready' for e in o['status'].get('endpoints', []))"
            try waitUntil(path(node), "o['status']['sending'] >= 1 and \(ready) >= \(count)", seconds: seconds)
        }
        for pod in pods {
            for other in pods where other.node > pod.node {
                try wait(for: "\(other.name) to answer \(pod.name); \(report)", until: .seconds(seconds)) {
                    try lab.run(["ping", "-q", "-c", "1", "-W", "1", other.address], in: pod.namespace).succeeded
                }
            }
        }
    }

    /// What the programs say, for messages.
    public var report: String {
        processes.withLock { $0 }.sorted { $0.key < $1.key }.map { name, process in
            "\(name)\(process.isRunning ? "" : " (ended)") says: \(process.errors.suffix(3000))\(process.output.suffix(500))"
        }.joined(separator: "\n")
    }

    /// Starts pods in a row, each sending from its first moment: see Tests/peers/start_pods.py. With the CNI plugin, or without. To a service's
    /// address, if one is given.
    public func startPods(
        _ count: Int, on node: Lab.Node, to target: Lab.Pod, at address: String? = nil, marker: String, network: Int,
        withPlugin: Bool,
        sending: Double = 60
    ) throws -> StartReport {
        let others = lab.nodes.filter { $0.number != node.number }
        for other in others {
            try lab.require([
                "ip", "-n", other.namespace.name, "route", "replace", "10.\(network).\(node.number).0/24", "via",
                node.address,
            ])
        }
        var command = [
            Python.interpreter, try Python.script("start_pods.py"), "--server", server, "--host", node.namespace.name,
            "--prefix", lab.name, "--folder", namespaces(node), "--target", address ?? target.address, "--marker",
            marker,
            "--count", "\(count)", "--network", "10.\(network).\(node.number)", "--node", "node-\(node.number)",
            "--pod",
            "started-\(network)", "--sending", "\(sending)",
        ]
        if withPlugin {
            let plugin = lab.directory + "/xdp-encryptor-cni"
            if access(plugin, F_OK) != 0, symlink(programs + "/xdp-encryptor", plugin) != 0 {
                throw LabError("cannot make \(plugin)")
            }
            command += ["--plugin", plugin, "--socket", runtime(node) + "/cni.sock"]
        } else {
            command += ["--without-echo"]
        }
        let outcome = try lab.run(command, seconds: 600)
        guard let report = try? JSONDecoder().decode(StartReport.self, from: Data(outcome.output.utf8)) else {
            throw LabError("start_pods.py failed: \(outcome.output)\(outcome.errors)\n\(self.report)")
        }
        return report
    }

    /// What Tests/peers/start_pods.py counted.
    public struct StartReport: Decodable, Sendable {
        /// Pods that started.
        public var started: Int
        /// Why others did not.
        public var refused: [String]
        /// Datagrams.
        public var sent: Int
        /// How long the slowest pod waited for its first echo, milliseconds.
        public var firstEcho: Int
        /// Pods that never heard one.
        public var silent: [String]
    }
}

// MARK: - Objects

extension KubernetesLab {
    /// Istio's kinds, as far as the operator reads them.
    private static let meshKinds = ["VirtualService", "ServiceEntry", "WorkloadEntry", "DestinationRule"].map { kind in
        let plural = kind.hasSuffix("Entry") ? kind.lowercased().dropLast() + "ies" : kind.lowercased() + "s"
        return """
            apiVersion: apiextensions.k8s.io/v1
            kind: CustomResourceDefinition
            metadata: {name: \(plural).networking.istio.io}
            spec:
              group: networking.istio.io
              scope: Namespaced
              names: {kind: \(kind), plural: \(plural), singular: \(kind.lowercased()), listKind: \(kind)List}
              versions:
              - name: v1
                served: true
                storage: true
                schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
            """
    }.joined(separator: "\n---\n")

    /// Nodes, and the lab's pods with a Service each.
    private var base: String {
        var documents = ["shop", "xdp-encryptor"].map {
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: \($0), labels: {kubernetes.io/metadata.name: \($0)}}"
        }
        documents += lab.nodes.map { node in
            """
            apiVersion: v1
            kind: Node
            metadata: {name: node-\(node.number), labels: {kubernetes.io/hostname: node-\(node.number)}}
            status:
              addresses: [{type: InternalIP, address: \(node.address)}]
              conditions: [{type: Ready, status: "True"}]
            """
        }
        for pod in lab.pods {
            documents.append(
                """
                apiVersion: v1
                kind: Pod
                metadata: {name: \(pod.name), namespace: shop, labels: {app: \(pod.name)}}
                spec: {nodeName: node-\(pod.node), containers: [{name: main, image: main}]}
                status:
                  phase: Running
                  podIP: \(pod.address)
                  podIPs: [{ip: \(pod.address)}, {ip: "\(pod.address6)"}]
                """)
            documents.append(
                """
                apiVersion: v1
                kind: Service
                metadata: {name: \(pod.name), namespace: shop}
                spec: {clusterIP: None, selector: {app: \(pod.name)}, ports: [{name: http, port: 8080}]}
                """)
            documents.append(
                """
                apiVersion: discovery.k8s.io/v1
                kind: EndpointSlice
                metadata: {name: \(pod.name)-1, namespace: shop, labels: {kubernetes.io/service-name: \(pod.name)}}
                addressType: IPv4
                ports: [{name: http, port: 8080, protocol: TCP}]
                endpoints:
                - addresses: ["\(pod.address)"]
                  conditions: {ready: true}
                  nodeName: node-\(pod.node)
                  targetRef: {kind: Pod, namespace: shop, name: \(pod.name)}
                """)
        }
        return documents.joined(separator: "\n---\n") + "\n"
    }

    /// A Service of namespace `shop` with these addresses (IPv4, IPv6) and the ports of Tests/peers/traffic.py, and these pods behind it.
    public func service(_ name: String, _ addresses: [String], behind pods: [Lab.Pod]) -> String {
        let slices = [4, 6].map { family in
            let endpoints = pods.map {
                #"- {addresses: ["\#($0.address(family: family))"], conditions: {ready: true}, nodeName: node-\#($0.node)}"#
            }
            return """
                apiVersion: discovery.k8s.io/v1
                kind: EndpointSlice
                metadata: {name: \(name)-v\(family), namespace: shop, labels: {kubernetes.io/service-name: \(name)}}
                addressType: IPv\(family)
                ports: [{name: tcp, port: 8080, protocol: TCP}, {name: udp, port: 5353, protocol: UDP}]
                endpoints:
                \(endpoints.joined(separator: "\n"))
                """
        }
        let service = """
            apiVersion: v1
            kind: Service
            metadata: {name: \(name), namespace: shop}
            spec:
              clusterIP: "\(addresses[0])"
              clusterIPs: ["\(addresses.joined(separator: #"", ""#))"]
              ipFamilyPolicy: PreferDualStack
              ipFamilies: [IPv4, IPv6]
              ports: [{name: tcp, port: 8080, protocol: TCP}, {name: udp, port: 5353, protocol: UDP}]
            """
        return ([service] + slices).joined(separator: "\n---\n") + "\n"
    }

    /// A VirtualService that routes to these pods' Services.
    public func virtualService(_ name: String, to pods: [Lab.Pod]) -> String {
        let routes = pods.map { "  - route: [{destination: {host: \($0.name), port: {number: 8080}}}]" }
        return """
            apiVersion: networking.istio.io/v1
            kind: VirtualService
            metadata: {name: \(name), namespace: shop}
            spec:
              hosts: [\(pods.map(\.name).joined(separator: ", "))]
              http:
            \(routes.joined(separator: "\n"))

            """
    }

    /// The path of a VirtualService in namespace shop.
    public func virtualServicePath(_ name: String) -> String {
        "/apis/networking.istio.io/v1/namespaces/shop/virtualservices/\(name)"
    }
}

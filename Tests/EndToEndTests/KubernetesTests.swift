import FoundationEssentials
import Glibc
import Testing

@testable import Lab

extension EndToEnd {
    /// Operator and two keymgrs on an API server: see `KubernetesLab`.
    @Suite struct KubernetesTests {
        /// Runs with everything started and both pods behind a VirtualService, protected.
        private func protected(
            _ body: (KubernetesLab, _ client: Lab.Pod, _ server: Lab.Pod) throws -> Void
        ) throws {
            try Lab.with { lab in
                let kubernetes = try KubernetesLab(lab)
                try kubernetes.start()
                let (client, server) = (lab.nodes[0].pods[0], lab.nodes[1].pods[0])
                try kubernetes.apply("web", kubernetes.virtualService("web", to: [client, server]))
                try kubernetes.waitUntilProtected([client, server])
                try body(kubernetes, client, server)
            }
        }

        private func decode(_ kubernetes: KubernetesLab, _ capture: Capture) throws -> DecoderReport {
            try capture.finish()
            try kubernetes.refreshKeys()
            return try kubernetes.lab.decode(capture.path, keys: kubernetes.keys, markers: [EndToEnd.marker])
        }

        @Test("A VirtualService appears, its pods are annotated and protected; it is deleted, and protection ends")
        func virtualService() throws {
            try Lab.with { lab in
                let result = try KubernetesDemo(lab) { _ in }.run()
                for (what, holds) in result.expectations { #expect(holds, "\(what)") }
                #expect(result.encrypted.refused == [:], "\(result.encrypted.samples)")
            }
        }

        @Test("100 pods started in a row, each sending from its first millisecond: not one packet in clear")
        func startingPods() throws {
            try protected { kubernetes, client, server in
                let lab = kubernetes.lab
                let traffic = try Traffic(lab, from: client, to: server, marker: marker)
                let capture = try Capture(lab, in: lab.nodes[0].namespace, interface: lab.nodes[0].uplink)
                let report = try kubernetes.startPods(
                    100, on: lab.nodes[0], to: server, marker: marker, network: 204, withPlugin: true)
                #expect(report.started == 100 && report.refused == [], "\(report)")
                #expect(report.silent == [], "pods that were never answered")
                let found = try decode(kubernetes, capture)
                #expect(found.markerOnWire == 0)
                #expect(found.verified == found.packets, "\(found.refused) \(found.samples)")
                #expect(found.markerAfterOpening >= 100)
                #expect(found.duplicateNonces == 0)

                // The control: without the plugin the same search finds something.
                let control = try Capture(
                    lab, in: lab.nodes[0].namespace, interface: lab.nodes[0].uplink, name: "control")
                let without = try kubernetes.startPods(
                    5, on: lab.nodes[0], to: server, marker: marker, network: 205, withPlugin: false, sending: 2)
                #expect(without.started == 5)
                #expect(try decode(kubernetes, control).markerOnWire > 0)
                traffic.stop()
                print(
                    "CNI 100 pods: \(report.sent) datagrams, \(found.markerOnWire) in clear, first echo within \(report.firstEcho) ms"
                )
            }
        }

        @Test("Without keymgr protected pods do not start, and others do; what runs goes on")
        func withoutKeymgr() throws {
            try protected { kubernetes, client, server in
                let lab = kubernetes.lab
                let traffic = try Traffic(lab, from: client, to: server, marker: marker)
                let stream = try traffic.start("stream", family: 4, "--rate", "200")
                try kubernetes.stop(lab.nodes[0], SIGKILL)
                // The runtime passes no annotations here, and the pod is new: it is known to nobody.
                let configuration = { (annotations: String) in
                    """
                    {"cniVersion": "1.0.0", "name": "lab", "type": "xdp-encryptor-cni",
                     "socket": "\(kubernetes.runtime(lab.nodes[0]))/cni.sock",
                     "protectedPods": "\(kubernetes.runtime(lab.nodes[0]))/protected-pods", "timeoutSeconds": 3,
                     "runtimeConfig": {"io.kubernetes.cri.pod-annotations": {\(annotations)}},
                     "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.204.1.1/32"}]}}
                    """
                }
                func add(_ pod: String, _ annotations: String) throws -> Outcome {
                    try lab.run(
                        [kubernetes.programs + "/xdp-encryptor"],
                        environment: [
                            "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "abc", "CNI_IFNAME": "eth0",
                            "CNI_NETNS": client.namespace.path,
                            "CNI_ARGS": "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=\(pod);K8S_POD_UID=1",
                        ], input: try lab.write("cni.json", configuration(annotations)))
                }
                let refused = try add("new", #""ebpf.xdp/encrypt": "true""#)
                #expect(refused.status == 1 && refused.output.contains(#""code":11"#), "\(refused)")
                #expect(refused.output.contains("shop/new"))
                #expect(try add("new", #""a": "b""#).status == 0)
                // One that keymgr has protected is known from its file.
                #expect(try add(client.name, #""a": "b""#).status == 1)
                expectUnharmed(try traffic.finish(stream))
                try kubernetes.start(lab.nodes[0])
                try kubernetes.waitUntilProtected([client, server])
            }
        }

        @Test(
            "API server gone, keymgrs killed and started again meanwhile: traffic goes on, encrypted; then all is well")
        func outage() throws {
            try protected { kubernetes, client, server in
                let lab = kubernetes.lab
                let before = try lab.nodes.map { try kubernetes.verdicts($0) }
                try kubernetes.refreshKeys()
                let capture = try Capture(lab, in: lab.nodes[0].namespace, interface: lab.nodes[0].uplink)
                let traffic = try Traffic(lab, from: client, to: server, marker: marker)
                let stream = try traffic.start("stream", family: 4, "--rate", "200")
                try kubernetes.ask(#"{"down": true}"#)
                usleep(2_000_000)
                for node in lab.nodes {
                    try kubernetes.stop(node, SIGKILL)
                    try kubernetes.start(node)
                }
                usleep(3_000_000)
                try kubernetes.ask(#"{"down": false}"#)
                try kubernetes.waitUntilProtected([client, server], seconds: 60)
                expectUnharmed(try traffic.finish(stream))
                let found = try decode(kubernetes, capture)
                expectClean(found)
                for (node, earlier) in zip(lab.nodes, before) {
                    #expect(try kubernetes.verdicts(node).since(earlier).drops == [:])
                }
            }
        }

        @Test("A pod that is replaced by one with its address, and a namespace that vanishes")
        func replaced() throws {
            try protected { kubernetes, client, server in
                let lab = kubernetes.lab
                let uid = "[e['name'] for e in o['status']['endpoints'] if '\(client.address)' in e['addresses']]"
                let node = lab.nodes[0]
                try kubernetes.waitUntil(kubernetes.path(node), "len(\(uid)) == 1")
                client.namespace.remove()
                try kubernetes.waitUntil(kubernetes.path(node), "len(\(uid)) == 0")
                try kubernetes.delete(kubernetes.path(client))
                try lab.addPod(client)
                try kubernetes.apply(
                    "again",
                    """
                    apiVersion: v1
                    kind: Pod
                    metadata: {name: \(client.name), namespace: shop, labels: {app: \(client.name)}}
                    spec: {nodeName: node-1, containers: [{name: main, image: main}]}
                    status:
                      phase: Running
                      podIP: \(client.address)
                      podIPs: [{ip: \(client.address)}, {ip: "\(client.address6)"}]
                    """)
                try kubernetes.waitUntilProtected([client, server])
                let capture = try Capture(lab, in: node.namespace, interface: node.uplink)
                let traffic = try Traffic(lab, from: client, to: server, marker: marker)
                try traffic.run("file", family: 4, "--bytes", "100000")
                expectClean(try decode(kubernetes, capture))
            }
        }

        @Test(
            "A service's address leads to its pods, encrypted, without kube-proxy: TCP, UDP, both families; they may change"
        )
        func services() throws {
            try Lab.with(Lab.Plan(nodes: 2, podsPerNode: 2)) { lab in
                let kubernetes = try KubernetesLab(lab, socketLoadBalancing: true)
                try kubernetes.start()
                let (node, client, servers) = (lab.nodes[0], lab.nodes[0].pods[0], lab.nodes[1].pods)
                let addresses = ["10.96.0.10", "fd96::10"]
                // As kube-proxy would lead it, if something were sent there.
                try lab.require([
                    "ip", "-n", node.namespace.name, "route", "add", "10.96.0.0/16", "via", lab.nodes[1].address,
                ])
                try kubernetes.apply("echo", kubernetes.service("echo", addresses, behind: [servers[0]]))
                try kubernetes.apply("web", kubernetes.virtualService("web", to: [client] + servers))
                try kubernetes.waitUntilProtected([client] + servers)
                let before = try lab.nodes.map { try kubernetes.verdicts($0) }

                let capture = try Capture(lab, in: node.namespace, interface: node.uplink)
                func traffic(to server: Lab.Pod) throws -> Traffic {
                    try Traffic(
                        lab, from: client, to: server, marker: marker, service: [4: addresses[0], 6: addresses[1]])
                }
                let first = try traffic(to: servers[0])
                for family in [4, 6] {
                    try first.run("file", family: family, "--bytes", "1000000")
                    try first.run("sizes", family: family, "--first", "0", "--last", "50")
                }
                let stream = try first.start("stream", family: 4, "--rate", "200")
                // Another pod behind it: what is connected stays where it is, what connects now goes there.
                let second = try traffic(to: servers[1])
                try kubernetes.apply("echo", kubernetes.service("echo", addresses, behind: [servers[1]]))
                try wait(for: "the other pod", until: .seconds(10)) {
                    try second.run("file", family: 4, "--bytes", "1000")
                    // PassiveOpens
                    let accepted = try lab.require(
                        ["awk", "/^Tcp: [0-9]/ {print $7}", "/proc/net/snmp"], in: servers[1].namespace)
                    return accepted != "0\n"
                }
                expectUnharmed(try first.finish(stream))
                first.stop()
                // Pods that start find the service in force.
                let count = size(5, full: 50)
                let started = try kubernetes.startPods(
                    count, on: node, to: servers[1], at: addresses[0], marker: marker, network: 206,
                    withPlugin: true)
                #expect(started.refused == [] && started.silent == [], "\(started)")
                // Without keymgr what it has set stays.
                try kubernetes.stop(node, SIGKILL)
                try second.run("file", family: 6, "--bytes", "100000")
                try kubernetes.start(node)
                try kubernetes.waitUntilProtected([client] + servers)
                try second.run("sizes", family: 6, "--first", "0", "--last", "50")

                let found = try decode(kubernetes, capture)
                expectClean(found)
                #expect(Set(found.byKind.keys).isSuperset(of: ["tcp4", "tcp6", "udp4", "udp6"]), "\(found.byKind)")
                for (node, earlier) in zip(lab.nodes, before) {
                    var drops = try kubernetes.verdicts(node).since(earlier).drops
                    drops["not_ready"] = nil  // of pods that start, until the other node knows them
                    #expect(drops == [:], "\(node.number)")
                }
                let status = try lab.require(
                    [
                        kubernetes.programs + "/xdp-encryptor", "status", "--pin-path", kubernetes.pins(node),
                        "--state-directory", kubernetes.runtime(node),
                    ], in: node.namespace)
                #expect(status.contains("4 addresses, 4 backends, for sockets of \(count + 1) pods"), "\(status)")
                let why = try lab.require(
                    [
                        kubernetes.programs + "/xdp-encryptor", "why", client.name, addresses[0], "--pin-path",
                        kubernetes.pins(node), "--state-directory", kubernetes.runtime(node),
                    ], in: node.namespace)
                #expect(why.contains("\(client.address) -> \(servers[1].address): ENCRYPTED"), "\(why)")
                #expect(why.contains("the address of a service (tcp 8080, udp 5353)"), "\(why)")

                // What gets past the sockets, where kube-proxy would make it clear text for a protected pod, is dropped.
                func sendRaw() throws -> (Verdicts, DecoderReport) {
                    let before = try kubernetes.verdicts(node)
                    let capture = try Capture(lab, in: node.namespace, interface: node.uplink, name: "raw")
                    let script = """
                        import socket, struct
                        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
                        text = b"\(marker)"
                        for _ in range(10):
                            raw.sendto(struct.pack(">HHHH", 4000, 5353, 8 + len(text), 0) + text, ("\(addresses[0])", 0))
                        """
                    try lab.require([Python.interpreter, "-c", script], in: client.namespace)
                    usleep(300_000)
                    return (try kubernetes.verdicts(node).since(before), try decode(kubernetes, capture))
                }
                let (dropped, nothing) = try sendRaw()
                #expect(dropped["service"] == 10 && nothing.markerOnWire == 0, "\(dropped)")

                // It is no service any more: nobody's address is replaced, and nothing is known of it.
                try kubernetes.delete("/api/v1/namespaces/shop/services/echo")
                try wait(for: "the service to go", until: .seconds(10)) {
                    try sendRaw().1.markerOnWire == 10
                }
                let outcome = try lab.run(
                    ["timeout", "0.3", "bash", "-c", "exec 3<>/dev/tcp/\(addresses[0])/8080"], in: client.namespace)
                #expect(!outcome.succeeded)
            }
        }

        @Test("keymgr's check says what is there, and detach works")
        func commands() throws {
            try protected { kubernetes, client, server in
                let lab = kubernetes.lab
                let node = lab.nodes[0]
                let check = try lab.run(
                    [kubernetes.programs + "/ebpf-xdp-keymgr", "check", "--config", kubernetes.configuration(node)],
                    in: node.namespace, environment: ["NODE_NAME": "node-1"])
                #expect(check.succeeded && check.output.contains("2 nodes, 1 endpoints, 1 epochs"), "\(check)")
                try ask(kubernetes, client, server)
                try kubernetes.stop(node)
                let detach = try lab.run(
                    [kubernetes.programs + "/ebpf-xdp-keymgr", "detach", "--config", kubernetes.configuration(node)],
                    in: node.namespace, environment: ["NODE_NAME": "node-1"])
                #expect(detach.succeeded, "\(detach)")
                #expect(files(under: kubernetes.pins(node)) == [])
            }
        }

        /// The commands that people type on a node.
        private func ask(_ kubernetes: KubernetesLab, _ client: Lab.Pod, _ server: Lab.Pod) throws {
            let node = kubernetes.lab.nodes[0]
            func type(_ arguments: String..., status: Int32 = 0, words: [String]) throws {
                let outcome = try kubernetes.lab.run(
                    [kubernetes.programs + "/xdp-encryptor"] + arguments + [
                        "--pin-path", kubernetes.pins(node), "--state-directory", kubernetes.runtime(node),
                    ], in: node.namespace)
                #expect(outcome.status == status, "\(arguments) \(outcome)")
                for word in words { #expect(outcome.output.contains(word), "\(word) is not in \(outcome)") }
            }
            try type("status", words: ["shop/\(client.name)", "node-2 ("])
            try type(
                "why", "shop/\(client.name)", server.address,
                words: [
                    "protected pod of this node, strict, attached", "protected pod on node-2, strict",
                    "\(client.address) -> \(server.address): ENCRYPTED",
                    "\(server.address) -> \(client.address): DECRYPTED",
                ])
            try type("why", client.name, words: ["pods on node-2: ENCRYPTED"])
            try type("why", client.name, "192.0.2.1", status: 2, words: ["IN CLEAR (unprotected)"])
        }

        @Test("Two operators: the leader is killed, and the other one goes on")
        func failover() throws {
            try protected { kubernetes, client, server in
                try kubernetes.startOperator(replica: 2)
                try kubernetes.stopOperator(SIGKILL)
                try kubernetes.delete(kubernetes.virtualServicePath("web"))
                // The lease has to run out first.
                try kubernetes.waitUntil(
                    kubernetes.path(client), "'ebpf.xdp/encrypt' not in o['metadata'].get('annotations', {})",
                    seconds: 60)
                try kubernetes.apply("web", kubernetes.virtualService("web", to: [client, server]))
                try kubernetes.waitUntilProtected([client, server])
                let lease = "/apis/coordination.k8s.io/v1/namespaces/xdp-encryptor/leases/ebpf-xdp-operator"
                try kubernetes.waitUntil(lease, "o['spec']['holderIdentity'].startswith('operator-2')")
            }
        }

        @Test(
            "kubectl on a real API server: what a person sees of a policy, from its first moment to its last",
            .enabled(if: getenv("XDP_ENCRYPTOR_API_SERVER") != nil, "needs a real API server: make test-apiserver"))
        func kubectl() throws {
            try Lab.with { lab in
                let kubernetes = try KubernetesLab(lab)
                print("API server: \(kubernetes.serverName)")
                try kubernetes.start()
                let (client, server) = (lab.nodes[0].pods[0], lab.nodes[1].pods[0])
                try kubernetes.apply("payments", Self.policy)
                try kubernetes.waitUntilProtected([client, server])
                try kubernetes.apply("web", kubernetes.virtualService("web", to: [client, server]))
                try kubernetes.waitUntil(
                    "\(KubernetesLab.group)/encryptionpolicies/payments",
                    "any(c['reason'] == 'StricterWins' for c in o['status']['conditions'])")
                try kubernetes.waitUntil(
                    "\(KubernetesLab.group)/encryptionepochs/epoch-1", "o['status']['phase'] == 'active'")
                // Events follow what they tell of.
                usleep(2_000_000)

                func show(_ arguments: String...) throws -> [String] {
                    let text = try kubernetes.kubectl(arguments)
                    print("$ kubectl \(arguments.joined(separator: " "))\n\(text)")
                    return text.split(separator: "\n").map { line in
                        line.split(separator: " ").filter { !$0.isEmpty }.joined(separator: " ")
                    }
                }
                let policies = try show("get", "encpol")
                #expect(policies[0] == "NAME MODE ENFORCED PODS PROTECTED ACCEPTED ENFORCING AGE")
                #expect(policies[1].hasPrefix("payments permissive false 2 2 True True "))
                let nodes = try show("get", "encnode")
                #expect(nodes[0] == "NAME ID READY ENDPOINTS EPOCH AGE")
                #expect(nodes[1].hasPrefix("node-1 ") && nodes[1].contains(" True 1 1 "))
                let epochs = try show("get", "encepoch")
                #expect(epochs[0] == "NAME PHASE ACKNOWLEDGED NODES PROVIDER NOT-AFTER AGE")
                #expect(epochs[1].hasPrefix("epoch-1 active 2 2 local 20"))
                let slices = try show("get", "encslice")
                #expect(slices[0] == "NAME SEQUENCE NODES ADDRESSES AGE")
                #expect(slices[1].contains(" 2 4 "))
                _ = try show("get", "encryption", "-o", "wide")

                let described = try show("describe", "encpol", "payments")
                #expect(described.contains { $0.hasPrefix("Normal AllProtected") })
                #expect(described.contains { $0.hasPrefix("Warning StricterWins") })
                #expect(try show("describe", "encepoch").contains { $0.hasPrefix("Normal EpochOpened") })
                #expect(
                    try show("describe", "pod", "-n", "shop", client.name).contains {
                        $0.hasPrefix("Normal EncryptionRequested") && $0.hasSuffix("VirtualService/shop/web")
                    })
                #expect(
                    try show("describe", "node", "node-1").contains { $0.hasPrefix("Normal EncryptionReady") })

                try kubernetes.delete("\(KubernetesLab.group)/encryptionpolicies/payments")
                try kubernetes.delete(kubernetes.virtualServicePath("web"))
                for node in lab.nodes {
                    try kubernetes.waitUntil(kubernetes.path(node), "o['status']['endpoints'] == []")
                }
                usleep(3_000_000)
                let events = try show("get", "events", "-A")
                #expect(events.contains { $0.contains("Normal EncryptionWithdrawn pod/\(server.name) no longer") })
                let ours = "reportingComponent=encryption.ebpf.xdp/operator"
                #expect(try show("get", "events", "-A", "--field-selector", ours).count == events.count)
            }
        }

        private static let policy = """
            apiVersion: encryption.ebpf.xdp/v1alpha1
            kind: EncryptionPolicy
            metadata: {name: payments}
            spec:
              namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}
              mode: permissive

            """
    }
}

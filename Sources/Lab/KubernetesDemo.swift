/// Kubernetes: a VirtualService appears, and traffic between the pods behind it is encrypted; pods start protected; the VirtualService is
/// deleted, and protection ends.
public struct KubernetesDemo {
    /// 16 bytes, so that it fits into ping's pattern.
    public static let marker = "TOP-SECRET-KUBE!"
    /// How many pods are started in a row.
    public static let pods = 10

    /// What was seen.
    public struct Result: Sendable {
        /// Frames with the marker in clear, before anything was protected.
        public var before: Int
        /// Behind the VirtualService: all that the decoder found.
        public var encrypted: DecoderReport
        /// Pods that were started with the CNI plugin.
        public var started: KubernetesLab.StartReport
        /// What the decoder found while they started.
        public var starting: DecoderReport
        /// Frames with the marker in clear when pods start without the plugin.
        public var withoutPlugin: Int
        /// Frames with the marker in clear, after the VirtualService was deleted.
        public var after: Int

        /// Names and outcomes of what had to be so.
        public var expectations: [(what: String, holds: Bool)] {
            [
                ("before: the marker is on the link", before > 0),
                (
                    "behind the VirtualService: all \(encrypted.packets) packets verify, none in clear",
                    encrypted.packets > 0 && encrypted.verified == encrypted.packets && encrypted.markerOnWire == 0
                        && encrypted.markerAfterOpening > 0
                ),
                ("no (SPI, IV) twice", encrypted.duplicateNonces == 0 && encrypted.repeatedFrames == 0),
                (
                    "\(started.started) pods started with the CNI plugin sent \(started.sent) datagrams from their first millisecond: none in clear",
                    started.started == KubernetesDemo.pods && started.silent.isEmpty && starting.markerOnWire == 0
                        && starting.markerAfterOpening > 0
                ),
                ("without the plugin there are some in clear (so the search would have found them)", withoutPlugin > 0),
                ("after: protection has ended, traffic goes on", after > 0),
            ]
        }

        /// All of them hold.
        public var succeeded: Bool { expectations.allSatisfy(\.holds) }
    }

    private let lab: Lab
    private let progress: (String) -> Void

    /// A demo on a lab of two nodes. `progress` gets a line for each step.
    public init(_ lab: Lab, progress: @escaping (String) -> Void) {
        self.lab = lab
        self.progress = progress
    }

    /// Runs it; throws when something does not come about. Expectations about what was captured are in the result.
    public func run() throws -> Result {
        let (client, server) = (lab.nodes[0].pods[0], lab.nodes[1].pods[0])
        progress("starting an API server, ebpf-xdp-operator, and ebpf-xdp-keymgr on both nodes")
        let kubernetes = try KubernetesLab(lab)
        progress("the API server is \(kubernetes.serverName)")
        try kubernetes.start()
        for node in lab.nodes { try kubernetes.waitUntil(kubernetes.path(node), "o['status']['incarnation']") }

        progress("pods \(client.name) and \(server.name) talk; nothing is protected yet")
        let plain = try exchange("before", client, server)
        let before = try lab.decode(plain, keys: nil, markers: [Self.marker]).markerOnWire

        progress("apply VirtualService shop/web, which routes to both pods")
        try kubernetes.apply("web", kubernetes.virtualService("web", to: [client, server]))
        for pod in [client, server] {
            try kubernetes.waitUntil(
                kubernetes.path(pod), "o['metadata']['annotations']['ebpf.xdp/encrypt'] == 'true'")
        }
        progress("the operator has annotated both pods: ebpf.xdp/encrypt: \"true\"")
        try kubernetes.waitUntilProtected([client, server])
        progress("both nodes have attached their pod and acknowledged the other's; the same traffic again")
        let capture = try exchange("encrypted", client, server)
        try kubernetes.refreshKeys()
        let encrypted = try lab.decode(capture, keys: kubernetes.keys, markers: [Self.marker])

        progress("starting \(Self.pods) pods in a row with the CNI plugin, each sending from its first millisecond")
        let (started, startCapture) = try start(kubernetes, server, withPlugin: true)
        try kubernetes.refreshKeys()
        let starting = try lab.decode(startCapture, keys: kubernetes.keys, markers: [Self.marker])
        progress("the same without the plugin")
        let (_, controlCapture) = try start(kubernetes, server, withPlugin: false)
        let withoutPlugin = try lab.decode(controlCapture, keys: nil, markers: [Self.marker]).markerOnWire

        progress("delete VirtualService shop/web")
        try kubernetes.delete(kubernetes.virtualServicePath("web"))
        for pod in [client, server] {
            try kubernetes.waitUntil(
                kubernetes.path(pod), "'ebpf.xdp/encrypt' not in o['metadata'].get('annotations', {})")
            let gone = "all('\(pod.address)' not in e['addresses'] for e in o['status']['endpoints'])"
            try kubernetes.waitUntil(kubernetes.path(lab.nodes[pod.node - 1]), gone)
        }
        progress("annotations and protection are gone; the same traffic once more")
        let afterCapture = try exchange("after", client, server)
        let after = try lab.decode(afterCapture, keys: nil, markers: [Self.marker]).markerOnWire
        return Result(
            before: before, encrypted: encrypted, started: started, starting: starting, withoutPlugin: withoutPlugin,
            after: after)
    }

    private func start(
        _ kubernetes: KubernetesLab, _ server: Lab.Pod, withPlugin: Bool
    ) throws -> (KubernetesLab.StartReport, capture: String) {
        let node = lab.nodes[0]
        let traffic = try Traffic(lab, from: node.pods[0], to: server, marker: Self.marker)
        defer { traffic.stop() }
        let capture = try Capture(
            lab, in: node.namespace, interface: node.uplink, name: withPlugin ? "starting" : "without-plugin")
        let report = try kubernetes.startPods(
            withPlugin ? Self.pods : 3, on: node, to: server, marker: Self.marker, network: withPlugin ? 204 : 205,
            withPlugin: withPlugin, sending: withPlugin ? 30 : 2)
        try capture.finish()
        return (report, capture.path)
    }

    /// Traffic from one pod to the other. Returns the capture of the link.
    private func exchange(_ name: String, _ client: Lab.Pod, _ server: Lab.Pod) throws -> String {
        let capture = try Capture(lab, in: lab.nodes[0].namespace, interface: lab.nodes[0].uplink, name: name)
        let traffic = try Traffic(lab, from: client, to: server, marker: Self.marker)
        defer { traffic.stop() }
        for family in [4, 6] {
            try traffic.run("file", family: family, "--bytes", "200000")
            try traffic.run("sizes", family: family, "--first", "100", "--last", "120")
            try traffic.ping(family: family, count: 5)
        }
        try capture.finish()
        return capture.path
    }
}

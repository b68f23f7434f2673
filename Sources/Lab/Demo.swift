/// Two nodes with a pod each: the same traffic in clear and encrypted, both times captured on the link between the nodes.
public struct Demo {
    /// 16 bytes, so that it fits into ping's pattern.
    public static let marker = "TOP-SECRET-DEMO!"

    /// What was seen.
    public struct Result: Sendable {
        /// With encryption off: frames on the link.
        public var plainFrames: Int
        /// With encryption off: of these, frames with the marker in clear.
        public var plainMarkers: Int
        /// Encrypted: all that the decoder found.
        public var encrypted: DecoderReport
        /// With a KMS: what a rotation of the KEK did.
        public var rotation: Rotation?

        /// A rotation of the KEK in its KMS, while traffic flowed.
        public struct Rotation: Sendable {
            /// What the program that makes epochs said.
            public var said: String
            /// The traffic.
            public var stream: Traffic.StreamReport
            /// What the decoder found in the capture of it.
            public var decoded: DecoderReport
        }

        /// Names and outcomes of what had to be so.
        public var expectations: [(what: String, holds: Bool)] {
            let kinds = ["tcp4", "tcp6", "udp4", "udp6", "icmp4", "icmp6"]
            return rotationExpectations + [
                ("with encryption off, the marker is on the link", plainMarkers > 0),
                ("packets crossed the link", encrypted.packets > 0),
                ("every packet between the pods verifies", encrypted.verified == encrypted.packets),
                ("TCP, UDP and ping, over IPv4 and IPv6", kinds.allSatisfy { encrypted.byKind[$0, default: 0] > 0 }),
                ("no marker on the link", encrypted.markerOnWire == 0),
                ("the marker is there after decryption", encrypted.markerAfterOpening > 0),
                ("no (SPI, IV) twice", encrypted.duplicateNonces == 0 && encrypted.repeatedFrames == 0),
            ]
        }

        private var rotationExpectations: [(what: String, holds: Bool)] {
            guard let rotation else { return [] }
            let (stream, decoded) = (rotation.stream, rotation.decoded)
            return [
                ("the rotation of the KEK led to a new epoch", rotation.said.contains("the KEK was rotated")),
                (
                    "during it: \(stream.datagrams) datagrams and \(stream.records) TCP records, none lost or changed",
                    stream.lost == 0 && stream.wrong == 0 && stream.tcpProblem == nil && stream.datagrams > 0
                ),
                (
                    "during it: every packet verifies, with the keys of both epochs",
                    decoded.packets > 0 && decoded.verified == decoded.packets && decoded.markerOnWire == 0
                ),
            ]
        }

        /// All of them hold.
        public var succeeded: Bool { expectations.allSatisfy(\.holds) }
    }

    private let lab: Lab
    private let servers: KMSServers?
    private let progress: (String) -> Void

    /// A demo on a lab of two nodes, with the KEK in a KMS or (nil) in a file. `progress` gets a line for each step.
    public init(_ lab: Lab, servers: KMSServers? = nil, progress: @escaping (String) -> Void) {
        self.lab = lab
        self.servers = servers
        self.progress = progress
    }

    /// Runs it; throws when something does not come about. Expectations about what was captured are in the result.
    public func run() throws -> Result {
        progress("with encryption off: TCP, UDP and ping between the pods, captured on the link")
        let plainCapture = try exchange("plain")
        let plain = try lab.decode(plainCapture, keys: nil, markers: [Self.marker])

        progress("starting ebpf-xdp-keymgr on both nodes")
        let encryption = try Encryption(lab, servers: servers)
        try encryption.start()

        progress("encrypted: the same traffic again")
        let capture = try exchange("encrypted")

        progress("decoding the capture in Python, with keys derived from the cluster directory and the KEK")
        try encryption.refreshKeys()
        let encrypted = try lab.decode(capture, keys: encryption.keys, markers: [Self.marker])
        let rotation = servers == nil ? nil : try rotate(encryption)
        return Result(
            plainFrames: plain.frames, plainMarkers: plain.markerOnWire, encrypted: encrypted, rotation: rotation)
    }

    /// Rotates the KEK in its KMS while traffic flows, and waits until the nodes have moved to the epoch that follows.
    private func rotate(_ encryption: Encryption) throws -> Result.Rotation {
        progress("rotating the KEK in its KMS, with TCP and UDP between the pods")
        let capture = try Capture(
            lab, in: lab.nodes[0].namespace, interface: lab.nodes[0].uplink, name: "rotation")
        let traffic = try Traffic(lab, from: lab.nodes[0].pods[0], to: lab.nodes[1].pods[0], marker: Self.marker)
        defer { traffic.stop() }
        let writer = try encryption.startWriter()
        defer { lab.stop(writer) }
        try wait(for: "the KEK's version", until: .seconds(20)) {
            guard writer.isRunning else { throw LabError("the writer ended: \(writer.errors)") }
            return writer.errors.contains("the KEK's version is")
        }
        let stream = try traffic.start("stream", family: 4, "--rate", "500")
        try encryption.rotateKEK()
        try encryption.waitUntilReady(.seconds(30), epoch: 2)
        progress("all nodes send with epoch 2; waiting until epoch 1 is gone")
        try wait(for: "epoch 1 to go", until: .seconds(30)) {
            try lab.nodes.allSatisfy { try encryption.object($0)?.epochs == [2] }
        }
        let report = try traffic.finish(stream)
        try capture.finish()
        try encryption.refreshKeys()
        let decoded = try lab.decode(capture.path, keys: encryption.keys, markers: [Self.marker])
        return Result.Rotation(said: writer.errors, stream: report, decoded: decoded)
    }

    /// All kinds of traffic from one pod to the other. Returns the capture of the link.
    private func exchange(_ name: String) throws -> String {
        let capture = try Capture(lab, in: lab.nodes[0].namespace, interface: lab.nodes[0].uplink, name: name)
        let traffic = try Traffic(lab, from: lab.nodes[0].pods[0], to: lab.nodes[1].pods[0], marker: Self.marker)
        defer { traffic.stop() }
        for family in [4, 6] {
            try traffic.run("file", family: family, "--bytes", "2000000")
            try traffic.run("sizes", family: family, "--first", "16", "--last", "116")
            try traffic.ping(family: family)
        }
        try capture.finish()
        return capture.path
    }
}

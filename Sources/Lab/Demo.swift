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

        /// Names and outcomes of what had to be so.
        public var expectations: [(what: String, holds: Bool)] {
            let kinds = ["tcp4", "tcp6", "udp4", "udp6", "icmp4", "icmp6"]
            return [
                ("with encryption off, the marker is on the link", plainMarkers > 0),
                ("packets crossed the link", encrypted.packets > 0),
                ("every packet between the pods verifies", encrypted.verified == encrypted.packets),
                ("TCP, UDP and ping, over IPv4 and IPv6", kinds.allSatisfy { encrypted.byKind[$0, default: 0] > 0 }),
                ("no marker on the link", encrypted.markerOnWire == 0),
                ("the marker is there after decryption", encrypted.markerAfterOpening > 0),
                ("no (SPI, IV) twice", encrypted.duplicateNonces == 0 && encrypted.repeatedFrames == 0),
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
        progress("with encryption off: TCP, UDP and ping between the pods, captured on the link")
        let plainCapture = try exchange("plain")
        let plain = try lab.decode(plainCapture, keys: nil, markers: [Self.marker])

        progress("starting ebpf-xdp-keymgr on both nodes")
        let encryption = try Encryption(lab)
        try encryption.start()

        progress("encrypted: the same traffic again")
        let capture = try exchange("encrypted")

        progress("decoding the capture in Python, with keys derived from the cluster directory and the KEK")
        try encryption.refreshKeys()
        let encrypted = try lab.decode(capture, keys: encryption.keys, markers: [Self.marker])
        return Result(plainFrames: plain.frames, plainMarkers: plain.markerOnWire, encrypted: encrypted)
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

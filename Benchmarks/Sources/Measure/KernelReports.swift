/// What a packet costs, by its payload: `make bench-packet`.
public struct PacketReport: Codable, Sendable {
    /// Always `packet`.
    public var benchmark = "packet"
    /// When it began, ISO 8601.
    public var date: String
    /// Where it ran.
    public var machine: Machine
    /// How often each was measured.
    public var runs: Int
    /// By payload.
    public var sizes: [Size] = []
    /// By name.
    public var programs: [Program] = []
    /// What is asked for, and whether it holds.
    public var targets: [Report.Target] = []

    /// Times of one payload, ns.
    public struct Size: Codable, Sendable {
        /// Of TCP, bytes.
        public var payload: Int
        /// That AES has to do: the payload's, and the one that masks the tag.
        public var blocks: Int
        /// The AES kfunc for that many blocks.
        public var floor: Spread
        /// The encrypting program, less what undoes its work.
        public var encrypt: Spread
        /// The decrypting program, less what undoes its work.
        public var decrypt: Spread

        /// Times of one payload.
        public init(payload: Int, blocks: Int, floor: Spread, encrypt: Spread, decrypt: Spread) {
            self.payload = payload
            self.blocks = blocks
            self.floor = floor
            self.encrypt = encrypt
            self.decrypt = decrypt
        }

        /// Encrypting to the floor, by medians.
        public var encryptRatio: Double? { Self.ratio(encrypt, floor) }
        /// Decrypting to the floor, by medians.
        public var decryptRatio: Double? { Self.ratio(decrypt, floor) }

        private static func ratio(_ a: Spread, _ b: Spread) -> Double? {
            guard let a = a.median, let b = b.median, b > 0 else { return nil }
            return a / b
        }

        private enum CodingKeys: String, CodingKey {
            case payload, blocks, floor, encrypt, decrypt
            case encryptRatio = "encrypt_ratio"
            case decryptRatio = "decrypt_ratio"
        }

        /// Reads what was measured; ratios are computed again.
        public init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: CodingKeys.self)
            payload = try container.decode(Int.self, forKey: .payload)
            blocks = try container.decode(Int.self, forKey: .blocks)
            floor = try container.decode(Spread.self, forKey: .floor)
            encrypt = try container.decode(Spread.self, forKey: .encrypt)
            decrypt = try container.decode(Spread.self, forKey: .decrypt)
        }

        /// Writes what was measured, and the ratios.
        public func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(payload, forKey: .payload)
            try container.encode(blocks, forKey: .blocks)
            try container.encode(floor, forKey: .floor)
            try container.encode(encrypt, forKey: .encrypt)
            try container.encode(decrypt, forKey: .decrypt)
            try container.encode(encryptRatio, forKey: .encryptRatio)
            try container.encode(decryptRatio, forKey: .decryptRatio)
        }
    }

    /// What the kernel made of a program.
    public struct Program: Codable, Sendable {
        /// As in the source.
        public var name: String
        /// How many instructions the verifier went through.
        public var verifiedInstructions: Int
        /// Bytes of machine code.
        public var nativeSize: Int

        /// A program.
        public init(name: String, verifiedInstructions: Int, nativeSize: Int) {
            self.name = name
            self.verifiedInstructions = verifiedInstructions
            self.nativeSize = nativeSize
        }

        private enum CodingKeys: String, CodingKey {
            case name
            case verifiedInstructions = "verified_instructions"
            case nativeSize = "native_bytes"
        }
    }

    /// A report without results yet.
    public init(date: String, machine: Machine, runs: Int) {
        self.date = date
        self.machine = machine
        self.runs = runs
    }

    /// For the terminal.
    public var lines: [String] {
        var times = Table(["payload", "AES blocks", "floor ns", "encrypt ns", "ratio", "decrypt ns", "ratio"])
        for size in sizes {
            func range(_ spread: Spread) -> String {
                guard let median = spread.median, let low = spread.low else { return "-" }
                return "\(number(median)) (min \(number(low)))"
            }
            times.add([
                "\(size.payload)", "\(size.blocks)", range(size.floor), range(size.encrypt),
                size.encryptRatio.map { number($0, digits: 2) } ?? "-", range(size.decrypt),
                size.decryptRatio.map { number($0, digits: 2) } ?? "-",
            ])
        }
        var sizes = Table(["program", "verified instructions", "native bytes"])
        for program in programs {
            sizes.add([
                program.name, number(Double(program.verifiedInstructions)), number(Double(program.nativeSize)),
            ])
        }
        return ["make bench-packet, \(date)", ""] + machine.summary
            + [
                "",
                "Nanoseconds for a TCP packet over IPv4; medians of \(runs) runs in turns, ratios to the floor of medians.",
                "",
            ]
            + times.lines + [""] + sizes.lines + [""] + Report.verdicts(of: targets)
    }
}

/// How costs grow with the cluster: `make bench-scale`.
public struct ScaleReport: Codable, Sendable {
    /// Always `scale`.
    public var benchmark = "scale"
    /// When it began, ISO 8601.
    public var date: String
    /// Where it ran.
    public var machine: Machine
    /// How often each was measured.
    public var runs: Int
    /// From small to large.
    public var sizes: [Size] = []
    /// To install both keys of so many peers, through the library that keymgr uses.
    public var installation: Installation?
    /// What is asked for, and whether it holds.
    public var targets: [Report.Target] = []

    /// A cluster.
    public struct Size: Codable, Sendable {
        /// Nodes that we speak with.
        public var peers: Int
        /// Protected addresses on them.
        public var endpoints: Int
        /// How many different endpoints the packets went to and came from, at random.
        public var frames: Int
        /// Of all maps, bytes.
        public var mapMemory: Int
        /// By which the kernel's slabs, per-CPU and vmalloc memory grew: maps, cipher contexts and hash keys; bytes.
        public var kernelMemory: Int
        /// By payload: ns for a packet.
        public var encrypt: [Int: Spread] = [:]
        /// By payload: ns for a packet.
        public var decrypt: [Int: Spread] = [:]

        /// A cluster, not measured yet.
        public init(peers: Int, endpoints: Int, frames: Int, mapMemory: Int, kernelMemory: Int) {
            self.peers = peers
            self.endpoints = endpoints
            self.frames = frames
            self.mapMemory = mapMemory
            self.kernelMemory = kernelMemory
        }

        private enum CodingKeys: String, CodingKey {
            case peers, endpoints, frames
            case mapMemory = "map_memory_bytes"
            case kernelMemory = "kernel_memory_bytes"
            case encrypt = "encrypt_ns"
            case decrypt = "decrypt_ns"
        }
    }

    /// Of keys.
    public struct Installation: Codable, Sendable {
        /// Nodes, two keys each.
        public var peers: Int
        /// Deriving the keys with HKDF, seconds.
        public var derivation: Double
        /// Handing them to the kernel, seconds.
        public var installation: Double

        /// Seconds.
        public init(peers: Int, derivation: Double, installation: Double) {
            self.peers = peers
            self.derivation = derivation
            self.installation = installation
        }

        private enum CodingKeys: String, CodingKey {
            case peers
            case derivation = "derivation_seconds"
            case installation = "installation_seconds"
        }
    }

    /// A report without results yet.
    public init(date: String, machine: Machine, runs: Int) {
        self.date = date
        self.machine = machine
        self.runs = runs
    }

    /// For the terminal.
    public var lines: [String] {
        let payloads = (sizes.first?.encrypt.keys).map { $0.sorted() } ?? []
        var table = Table(
            ["peers", "endpoints", "busy", "maps MiB", "kernel MiB"]
                + payloads.flatMap { ["encrypt \($0) B ns", "packets/s", "×", "decrypt \($0) B ns", "packets/s", "×"] })
        for size in sizes {
            var row = [
                number(Double(size.peers)), number(Double(size.endpoints)), number(Double(size.frames)),
                number(Double(size.mapMemory) / 1_048_576, digits: 1),
                number(Double(size.kernelMemory) / 1_048_576, digits: 1),
            ]
            for payload in payloads {
                for (mine, first) in [
                    (size.encrypt[payload], sizes.first?.encrypt[payload]),
                    (size.decrypt[payload], sizes.first?.decrypt[payload]),
                ] {
                    guard let mine = mine?.median, let first = first?.median else {
                        row += ["-", "-", "-"]
                        continue
                    }
                    row += [number(mine), number(1e9 / mine), number(mine / first, digits: 2)]
                }
            }
            table.add(row)
        }
        var text = ["make bench-scale, \(date)", ""] + machine.summary
        text += [
            "",
            "One CPU; each packet for a random one of the busy endpoints; medians of \(runs) runs in turns; × = as many times the cost of the first row.",
            "",
        ]
        text += table.lines
        if let installation {
            let keys = Double(installation.peers * 2)
            text += [
                "",
                "\(number(keys)) keys of \(number(Double(installation.peers))) peers: derived in \(number(installation.derivation, digits: 2)) s"
                    + " (\(number(installation.derivation / keys * 1e6, digits: 1)) µs each),"
                    + " installed in \(number(installation.installation, digits: 2)) s"
                    + " (\(number(installation.installation / keys * 1e6, digits: 1)) µs each)",
            ]
        }
        return text + [""] + Report.verdicts(of: targets)
    }
}

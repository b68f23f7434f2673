/// What a kind of code does for a request, as `perf` sees it.
public enum ProfileGroup: String, CaseIterable, Codable, Sendable {
    /// The block cipher itself.
    case aes
    /// What the kernel does around the cipher: kfunc, crypto API.
    case cipherCalls = "cipher_calls"
    /// Our programs, GHASH among them.
    case programs
    /// What XDP and BPF cost beside the programs: frames made of packets and packets of frames, look-ups in maps.
    case xdp
    /// Everything else in the kernel: sockets, TCP, routing, devices, scheduling.
    case kernel
    /// Programs in user space: client and server, and a candidate's own.
    case userSpace = "user_space"

    /// In tables.
    public var title: String {
        switch self {
        case .aes: "AES"
        case .cipherCalls: "calls of the cipher"
        case .programs: "programs of ours (GHASH, packets, policy, replay)"
        case .xdp: "XDP on veth, look-ups in maps"
        case .kernel: "the rest of the kernel"
        case .userSpace: "client, server, sidecars"
        }
    }

    /// The group of a symbol, as `perf report` prints it: `[k] name` for the kernel, `[.] name` for user space. nil: the CPU idles.
    public static func of(symbol: String) -> ProfileGroup? {
        guard symbol.hasPrefix("[k] ") || symbol.hasPrefix("[g] ") else { return .userSpace }
        let name = symbol.dropFirst(4)
        func begins(_ prefixes: [String]) -> Bool { prefixes.contains { name.hasPrefix($0) } }
        if begins([
            "pv_native_safe_halt", "native_safe_halt", "default_idle", "acpi_safe_halt", "cpuidle", "mwait_idle",
            "intel_idle",
        ]) {
            return nil
        }
        if begins(["bpf_prog_"]) { return name.contains("_xe_") ? .programs : .xdp }
        if begins(["aes", "crypto_aes", "_aes", "__aes", "vaes", "rijndael"]) { return .aes }
        if begins(["crypto_", "bpf_crypto", "skcipher_", "lskcipher_", "bpf_dynptr", "__bpf_dynptr"]) {
            return .cipherCalls
        }
        if begins([
            "bpf_", "__bpf", "xdp_", "__xdp", "veth_xdp", "veth_convert", "skb_pp_cow", "skb_cow_data_for_xdp",
            "page_pool", "dev_map",
            "htab_", "__htab", "lookup_nulls_elem", "lookup_elem_raw", "array_map", "percpu_array_map", "trie_",
        ]) {
            return .xdp
        }
        return .kernel
    }
}

/// Where the CPU time of a request goes, of one candidate.
public struct Profile: Codable, Sendable {
    /// CPU time of a request, of the whole machine, µs.
    public var perRequest: Double
    /// Requests in a second, while it was recorded.
    public var requestsPerSecond: Double
    /// What was sampled, by group; idle CPUs left out.
    public var samples: [String: Int]

    /// A profile of what `perf report -F sample,sym -t '|'` has printed: lines of `samples|symbol`.
    public init(report: String, perRequest: Double, requestsPerSecond: Double) throws {
        self.perRequest = perRequest
        self.requestsPerSecond = requestsPerSecond
        samples = [:]
        for line in report.split(separator: "\n") where !line.hasPrefix("#") {
            let fields = line.split(separator: "|", maxSplits: 1)
            guard fields.count == 2, let count = Int(fields[0].filter { $0 != " " }) else { continue }
            guard let group = ProfileGroup.of(symbol: String(fields[1])) else { continue }
            samples[group.rawValue, default: 0] += count
        }
        guard !samples.isEmpty else {
            throw ToolOutputError(description: "perf has sampled nothing: \(report.prefix(500))")
        }
    }

    /// CPU time of a group in a request, µs.
    public func time(_ group: ProfileGroup) -> Double {
        let all = samples.values.reduce(0, +)
        return perRequest * Double(samples[group.rawValue] ?? 0) / Double(max(1, all))
    }
}

/// Where the time goes of what is compared: `make bench-profile`.
public struct ProfileReport: Codable, Sendable {
    /// Always `profile`.
    public var benchmark = "profile"
    /// When it began, ISO 8601.
    public var date: String
    /// Where it ran.
    public var machine: Machine
    /// Name and profile, in the order of the table. The first one is without encryption.
    public var candidates: [Candidate] = []

    /// One of those that are compared.
    public struct Candidate: Codable, Sendable {
        /// Its name in tables.
        public var name: String
        /// Where its time goes.
        public var profile: Profile

        /// A candidate with its profile.
        public init(name: String, profile: Profile) {
            self.name = name
            self.profile = profile
        }
    }

    /// A report without profiles yet.
    public init(date: String, machine: Machine) {
        self.date = date
        self.machine = machine
    }

    /// The table, and what follows from it.
    public var lines: [String] {
        var table = Table(["CPU µs a request"] + candidates.map(\.name))
        for group in ProfileGroup.allCases {
            table.add([group.title] + candidates.map { number($0.profile.time(group), digits: 1) })
        }
        table.add(["together"] + candidates.map { number($0.profile.perRequest, digits: 1) })
        table.add(["requests/s while it was recorded"] + candidates.map { number($0.profile.requestsPerSecond) })
        return machine.summary + [""] + table.lines + [""] + conclusions
    }

    /// What no change of ours can get below, with this machine's cipher: the first candidate's time and AES.
    public var conclusions: [String] {
        guard let plain = candidates.first else { return [] }
        return candidates.dropFirst().filter { $0.profile.time(.aes) > 0 }.map { candidate in
            let least = plain.profile.perRequest + candidate.profile.time(.aes)
            let parts = candidates.dropFirst().map { other in
                let part = number(least / other.profile.perRequest, digits: 2)
                return "\(part) of what \(other.name == candidate.name ? "it takes" : "\(other.name) take")"
            }
            return
                "\(candidate.name): with \(plain.name)'s time and AES alone a request would take \(number(least, digits: 1)) µs: "
                + parts.joined(separator: ", ")
        }
    }
}

internal import Cluster
internal import Datapath
internal import FoundationEssentials
internal import Keys
internal import Netlink

/// The CNI plugin: chained behind the plugin that makes the pod's interface, it lets a pod that shall be protected start only when its
/// programs are attached. It changes nothing itself; it asks keymgr.
///
/// CNI 0.3.1 to 1.1.0 (github.com/containernetworking/cni, SPEC.md). Reads its parameters from CNI_* variables and the network
/// configuration from standard input; prints the result of the plugins before, unchanged, or an error.
public struct CNIPlugin {
    /// What it prints, and how it ends.
    public struct Outcome: Sendable, Hashable {
        /// For standard output.
        public var output: [UInt8]
        /// 0, or 1 with an error in `output`.
        public var status: Int32
    }

    /// Versions of the specification.
    public static let versions = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]

    private let environment: [String: String]
    private let input: [UInt8]
    private let identify: (String) -> NamespaceIdentity?
    private let ask: (_ socket: String, CNIRequest) throws(CNIClient.Absent) -> CNIReply

    /// - Parameters:
    ///   - environment: the process's.
    ///   - input: all of standard input.
    public init(environment: [String: String], input: [UInt8]) {
        self.init(environment: environment, input: input, identify: { NamespaceIdentity(path: $0) }) {
            (socket, request) throws(CNIClient.Absent) in
            try CNIClient(socket: socket).ask(request)
        }
    }

    init(
        environment: [String: String], input: [UInt8], identify: @escaping (String) -> NamespaceIdentity?,
        ask: @escaping (_ socket: String, CNIRequest) throws(CNIClient.Absent) -> CNIReply
    ) {
        self.environment = environment
        self.input = input
        self.identify = identify
        self.ask = ask
    }

    /// The network configuration, as far as it concerns us.
    struct Network: Codable {
        var cniVersion: String?
        var name: String?
        var type: String?
        /// Of keymgr. /run/xdp-encryptor/cni.sock when it is not there.
        var socket: String?
        /// File of protected pods. protected-pods beside the default socket when it is not there.
        var protectedPods: String?
        /// How long keymgr may take, 1 to 120. 15 when it is not there.
        var timeoutSeconds: Int?
        /// What happens while keymgr does not answer. refuse-protected when it is not there.
        var onDaemonAbsent: OnDaemonAbsent?
        /// What happens with pods of which nothing is known. allow when it is not there.
        var unknownPods: CNIRequest.UnknownPods?
        var runtimeConfig: RuntimeConfig?
        var prevResult: PreviousResult?
        var validAttachments: [Attachment]?

        enum CodingKeys: String, CodingKey {
            case cniVersion, name, type, socket, protectedPods, timeoutSeconds, onDaemonAbsent, unknownPods
            case runtimeConfig, prevResult
            case validAttachments = "cni.dev/valid-attachments"
        }

        struct RuntimeConfig: Codable {
            var annotations: [String: String]?

            enum CodingKeys: String, CodingKey {
                case annotations = "io.kubernetes.cri.pod-annotations"
            }
        }
        struct PreviousResult: Codable {
            struct Address: Codable {
                var address: String
                var interface: Int?
            }
            struct Interface: Codable {
                var name: String?
                var sandbox: String?
            }
            var ips: [Address]?
            var interfaces: [Interface]?
        }
        struct Attachment: Codable {
            var containerID: String
            var ifname: String
        }
    }

    /// What happens while keymgr does not answer.
    enum OnDaemonAbsent: String, Choice {
        /// Pods that are to be protected do not start; others do.
        case refuseProtected = "refuse-protected"
        /// No pod starts.
        case refuseAll = "refuse-all"
        /// All pods start, without protection.
        case allow
    }

    /// An error of the specification, section "Error".
    struct Failure: Error {
        var code: Int
        var message: String
        var details = ""

        static func incompatible(_ version: String) -> Failure {
            Failure(
                code: 1, message: "CNI version \(version) is not supported",
                details: "supported are \(CNIPlugin.versions.joined(separator: ", "))")
        }
        static func environment(_ message: String) -> Failure { Failure(code: 4, message: message) }
        static func configuration(_ message: String) -> Failure { Failure(code: 7, message: message) }
        static func undecodable(_ message: String) -> Failure { Failure(code: 6, message: message) }
        static func later(_ message: String) -> Failure { Failure(code: 11, message: message) }
    }

    /// Does what CNI_COMMAND says.
    public func run() -> Outcome {
        var version = "1.0.0"
        do throws(Failure) {
            guard let command = environment["CNI_COMMAND"] else {
                throw .environment("CNI_COMMAND is not set: this is a CNI plugin, started by a container runtime")
            }
            if command == "VERSION" { return self.version() }
            let network: Network
            do {
                network = try readNetwork()
                version = network.cniVersion ?? version
            } catch {
                // What cannot be read is none of ours to hold up.
                if command == "DEL" { return Outcome(output: [], status: 0) }
                throw error
            }
            switch command {
            case "ADD": return try add(network)
            case "CHECK":
                try check(network)
                return Outcome(output: [], status: 0)
            case "DEL":
                delete(network)
                return Outcome(output: [], status: 0)
            case "GC":
                collect(network)
                return Outcome(output: [], status: 0)
            case "STATUS":
                try status(network)
                return Outcome(output: [], status: 0)
            default:
                throw .environment("CNI_COMMAND is \"\(command)\"; expected ADD, CHECK, DEL, GC, STATUS or VERSION")
            }
        } catch {
            return print(error, version)
        }
    }

    private func readNetwork() throws(Failure) -> Network {
        let network: Network
        do {
            network = try JSONDecoder().decode(Network.self, from: Data(input))
        } catch DecodingError.dataCorrupted(let context) where !context.codingPath.isEmpty {
            let key = context.codingPath.map(\.stringValue).joined(separator: ".")
            throw .configuration("\(key): \(context.debugDescription)")
        } catch {
            throw .undecodable("the network configuration on standard input cannot be read: \(error)")
        }
        let version = network.cniVersion ?? "0.1.0"
        guard Self.versions.contains(version) else { throw .incompatible(version) }
        if let seconds = network.timeoutSeconds, !(1...120).contains(seconds) {
            throw .configuration("timeoutSeconds: \(seconds) is out of range; expected 1 to 120")
        }
        return network
    }

    // MARK: commands

    private func add(_ network: Network) throws(Failure) -> Outcome {
        guard let previous = rawMember("prevResult", of: input), let result = network.prevResult else {
            throw .configuration(
                "there is no prevResult: xdp-encryptor must stand behind the plugin that makes the pod's interface")
        }
        var request = try self.request(.add, network)
        let path = try variable("CNI_NETNS")
        guard let identity = identify(path) else {
            throw Failure(code: 5, message: "CNI_NETNS \(path) is no network namespace")
        }
        request.networkNamespace = path
        request.identity = identity
        request.addresses = try addresses(result, interface: request.interface)
        try decide(request, network)
        return Outcome(output: Array(previous) + [UInt8(ascii: "\n")], status: 0)
    }

    /// Returns when the pod may start.
    private func decide(_ request: CNIRequest, _ network: Network) throws(Failure) {
        let reply: CNIReply
        do throws(CNIClient.Absent) {
            reply = try ask(socket(network), request)
        } catch {
            return try decideAlone(request, network, error)
        }
        switch reply.outcome {
        case .done: return
        case .later: throw .later(reply.message)
        case .refused: throw Failure(code: 100, message: reply.message)
        }
    }

    /// keymgr does not answer.
    private func decideAlone(
        _ request: CNIRequest, _ network: Network, _ absent: CNIClient.Absent
    ) throws(Failure) {
        guard let namespace = request.podNamespace, let name = request.podName else { return }
        let label = "\(namespace)/\(name)"
        let help = "does the DaemonSet ebpf-xdp-keymgr run on this node? (\(absent))"
        switch network.onDaemonAbsent ?? .refuseProtected {
        case .allow: return
        case .refuseAll: throw .later("pod \(label) does not start while ebpf-xdp-keymgr does not answer: \(help)")
        case .refuseProtected: break
        }
        let known = ProtectedPods.read(network.protectedPods ?? "/run/xdp-encryptor/\(ProtectedPods.file)")
        var isProtected = known?.contains(label) ?? false
        if let annotations = request.annotations, PodRequest(annotations) != .none { isProtected = true }
        if isProtected {
            throw .later("pod \(label) is to be protected, and ebpf-xdp-keymgr does not answer: \(help)")
        }
        if request.annotations == nil, request.unknownPods == .refuse {
            throw .later(
                "whether pod \(label) is to be protected cannot be told (the runtime passes no annotations), and ebpf-xdp-keymgr does not answer: \(help)"
            )
        }
    }

    private func check(_ network: Network) throws(Failure) {
        let request = try self.request(.check, network)
        let reply: CNIReply
        do throws(CNIClient.Absent) {
            reply = try ask(socket(network), request)
        } catch {
            // The programs stay attached without it.
            if network.onDaemonAbsent == .refuseAll { throw .later("ebpf-xdp-keymgr does not answer: \(error)") }
            return
        }
        if reply.outcome != .done { throw Failure(code: 100, message: reply.message) }
    }

    /// Never fails: what is not told now is noticed when the namespace is gone.
    private func delete(_ network: Network) {
        guard var request = try? request(.delete, network) else { return }
        request.patience = min(request.patience, 2000)
        _ = try? ask(socket(network), request)
    }

    private func collect(_ network: Network) {
        var request = CNIRequest(.collect, containerID: "", interface: "", patience: 5000)
        request.valid = (network.validAttachments ?? []).map { "\($0.containerID).\($0.ifname)" }
        _ = try? ask(socket(network), request)
    }

    private func status(_ network: Network) throws(Failure) {
        let reply: CNIReply
        do throws(CNIClient.Absent) {
            reply = try ask(
                socket(network), CNIRequest(.status, containerID: "", interface: "", patience: patience(network)))
        } catch {
            if network.onDaemonAbsent == .allow { return }
            throw Failure(code: 50, message: "ebpf-xdp-keymgr does not answer: \(error)")
        }
        if reply.outcome != .done { throw Failure(code: 50, message: reply.message) }
    }

    // MARK: parts

    private func request(_ command: CNIRequest.Command, _ network: Network) throws(Failure) -> CNIRequest {
        var request = CNIRequest(
            command, containerID: try variable("CNI_CONTAINERID"), interface: try variable("CNI_IFNAME"),
            unknownPods: network.unknownPods ?? .allow, patience: patience(network))
        let arguments: [String: String] = (environment["CNI_ARGS"] ?? "").split(separator: ";").reduce(into: [:]) {
            all, pair in
            let parts = pair.split(separator: "=", maxSplits: 1).map(String.init)
            if parts.count == 2 { all[parts[0]] = parts[1] }
        }
        request.podNamespace = arguments["K8S_POD_NAMESPACE"]
        request.podName = arguments["K8S_POD_NAME"]
        request.uid = arguments["K8S_POD_UID"]
        request.annotations = network.runtimeConfig?.annotations
        return request
    }

    private func variable(_ name: String) throws(Failure) -> String {
        guard let value = environment[name], !value.isEmpty else { throw .environment("\(name) is not set") }
        return value
    }

    private func socket(_ network: Network) -> String { network.socket ?? "/run/xdp-encryptor/cni.sock" }

    private func patience(_ network: Network) -> Int { (network.timeoutSeconds ?? 15) * 1000 }

    /// The addresses that stand on the pod's interface; all of them where the result does not say.
    private func addresses(_ result: Network.PreviousResult, interface: String) throws(Failure) -> [IPAddress] {
        var addresses: [IPAddress] = []
        for entry in result.ips ?? [] {
            if let index = entry.interface, let interfaces = result.interfaces, interfaces.indices.contains(index),
                interfaces[index].name != interface || interfaces[index].sandbox ?? "" == ""
            {
                continue
            }
            let text = entry.address.split(separator: "/").first ?? ""
            do throws(IPParseError) {
                let address = try IPAddress(text)
                if !addresses.contains(address) { addresses.append(address) }
            } catch {
                throw .undecodable("prevResult.ips: \(error)")
            }
        }
        return addresses
    }

    private func version() -> Outcome {
        let versions = Self.versions.map { "\"\($0)\"" }.joined(separator: ",")
        let asked = (try? JSONDecoder().decode(Network.self, from: Data(input)))?.cniVersion
        let own = asked.flatMap { Self.versions.contains($0) ? $0 : nil } ?? "1.1.0"
        return Outcome(
            output: Array("{\"cniVersion\":\"\(own)\",\"supportedVersions\":[\(versions)]}\n".utf8), status: 0)
    }

    private func print(_ failure: Failure, _ version: String) -> Outcome {
        struct Object: Encodable {
            var cniVersion: String
            var code: Int
            var msg: String
            var details: String
        }
        let object = Object(
            cniVersion: version, code: failure.code, msg: "xdp-encryptor: \(failure.message)", details: failure.details)
        return Outcome(output: CNIMessage.encode(object), status: 1)
    }
}

internal import FoundationEssentials
internal import Glibc

/// The API server stand-in (Tests/kube/apiserver.py) as a child process: tests and the demo run against it. Blocks its caller.
public final class KubernetesServer: Sendable {
    /// What the stand-in says when it listens.
    private struct Description: Decodable {
        var port: Int
        var control: Int
        var ca: String?
        var clientCertificate: String?
        var clientKey: String?
    }

    /// An answer to `request`.
    public struct Answer: Sendable {
        /// The three digits.
        public let status: Int
        /// JSON.
        public let body: String
    }

    /// Where the API is, on loopback.
    public let port: Int
    /// "http://127.0.0.1:PORT", or https.
    public let url: String
    /// With TLS: files with the CA, and with a client certificate of an administrator and its key.
    public let certificates: (ca: String, client: String, key: String)?
    /// Files of the stand-in, and those that users put there; removed at the end.
    public let folder: String

    private let controlPort: Int
    private let process: ChildProcess

    /// Starts the stand-in and waits until it listens.
    ///
    /// - Parameters:
    ///   - tls: serve https, with certificates made for it.
    ///   - arguments: more of apiserver.py's: "--token", "T=USER,GROUP", "--load", FILE, "--bookmark-interval", "1".
    public init(tls: Bool = false, _ arguments: [String] = []) throws {
        guard let root = Python.repository else {
            throw LabError(
                "cannot find Tests/kube, which holds the API server stand-in: run this in the repository, or set XDP_ENCRYPTOR_ROOT to it"
            )
        }
        var template = Array("/tmp/xdp-encryptor-kube-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw LabError("cannot make a folder in /tmp: error \(errno)") }
        folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        // -B: leave no compiled files in the repository. -P would hide the stand-in's own modules.
        process = try ChildProcess(
            [Python.interpreter, "-B", root + "/Tests/kube/apiserver.py"] + (tls ? ["--tls", folder] : []) + arguments,
            log: folder + "/apiserver")
        let deadline = Deadline.seconds(20)
        var line = ""
        repeat {
            usleep(5000)
            line = process.output
            guard process.isRunning, !deadline.hasPassed else {
                let outcome = process.stop()
                throw LabError("the API server stand-in did not start: \(outcome.output)\(outcome.errors)")
            }
        } while !line.hasSuffix("\n")
        guard let description = try? JSONDecoder().decode(Description.self, from: Data(line.utf8)) else {
            process.stop()
            throw LabError("the API server stand-in said: \(line)")
        }
        port = description.port
        controlPort = description.control
        url = "\(tls ? "https" : "http")://127.0.0.1:\(description.port)"
        if let ca = description.ca, let client = description.clientCertificate, let key = description.clientKey {
            certificates = (ca, client, key)
        } else {
            certificates = nil
        }
    }

    deinit {
        let outcome = process.stop()
        // Its own faults must not pass unseen.
        if outcome.errors.contains("Traceback") { print(outcome.errors) }
        _ = try? FileManager.default.removeItem(atPath: folder)
    }

    /// What the stand-in has complained about; empty while it works as it should.
    public var complaints: String { process.errors }

    /// Asks for faults, loads objects, and so on; apiserver.py says what there is. Returns the stand-in's state, as JSON.
    ///
    /// - Parameter json: `{"down": true}`, for example.
    @discardableResult
    public func control(_ json: String) throws -> String {
        let answer = try exchange(port: controlPort, method: "POST", path: "/_control", headers: "", body: json)
        guard answer.status == 200 else { throw LabError("the API server stand-in refused \(json): \(answer.body)") }
        return answer.body
    }

    /// Stores objects as they are, status included, with the namespaces that they need.
    ///
    /// - Parameter objects: JSON objects with apiVersion and kind.
    public func load(_ objects: [String]) throws {
        try control("{\"load\": [\(objects.joined(separator: ","))]}")
    }

    /// A request to the API, without TLS and without the client under test.
    ///
    /// - Parameter contentType: of a patch: "application/merge-patch+json", for example.
    public func request(
        _ method: String, _ path: String, body: String = "", contentType: String = "application/json",
        token: String? = nil
    ) throws -> Answer {
        let authorization = token.map { "Authorization: Bearer \($0)\r\n" } ?? ""
        return try exchange(
            port: port, method: method, path: path,
            headers: "Content-Type: \(contentType)\r\nUser-Agent: lab\r\n\(authorization)", body: body)
    }

    /// Makes the API reachable at the same address on the loopback of network namespaces.
    ///
    /// - Parameter paths: "/run/netns/NAME".
    public func listen(inNamespaces paths: [String]) throws {
        try control("{\"listen\": {\"namespaces\": [\(paths.map { "\"\($0)\"" }.joined(separator: ","))]}}")
    }

    /// A kubeconfig file for the API with a token (or with the client certificate, when there is no token and TLS).
    public func kubeconfig(token: String? = nil, namespace: String = "default", name: String = "kubeconfig") throws
        -> String
    {
        var cluster = "server: \(url)"
        var user = token.map { "token: \($0)" } ?? ""
        if let certificates {
            cluster += "\n    certificate-authority: \(certificates.ca)"
            if token == nil { user = "client-certificate: \(certificates.client)\n    client-key: \(certificates.key)" }
        }
        let text = """
            apiVersion: v1
            kind: Config
            current-context: stand-in
            contexts:
            - name: stand-in
              context: {cluster: stand-in, user: user, namespace: \(namespace)}
            clusters:
            - name: stand-in
              cluster:
                \(cluster)
            users:
            - name: user
              user:
                \(user.isEmpty ? "{}" : user)

            """
        let path = "\(folder)/\(name)"
        try writeFile(path, text)
        return path
    }

    // MARK: -

    /// HTTP/1.0-like: one request a connection.
    private func exchange(port: Int, method: String, path: String, headers: String, body: String) throws -> Answer {
        let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard fd >= 0 else { throw LabError("cannot make a socket: error \(errno)") }
        defer { close(fd) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = in_addr_t(0x7f00_0001).bigEndian
        let connected = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(fd, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard connected == 0 else {
            throw LabError("the API server stand-in does not listen: \(String(cString: strerror(errno)))")
        }
        var timeout = timeval(tv_sec: 30, tv_usec: 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        var request =
            "\(method) \(path) HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: \(body.utf8.count)\r\n\(headers)\r\n\(body)"
        try request.withUTF8 { bytes in
            var sent = 0
            while sent < bytes.count {
                let count = send(
                    fd, bytes.baseAddress.map { $0 + sent }, bytes.count - sent, Int32(MSG_NOSIGNAL))
                guard count > 0 else { throw LabError("the API server stand-in does not read: error \(errno)") }
                sent += count
            }
        }
        var answer: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        var head: (status: Int, start: Int, length: Int)?
        while true {
            if head == nil { head = Self.head(of: answer) }
            if let head, answer.count >= head.start + head.length {
                let content = answer[head.start..<head.start + head.length]
                return Answer(status: head.status, body: String(decoding: content, as: UTF8.self))
            }
            let count = recv(fd, &buffer, buffer.count, 0)
            guard count > 0 else { throw LabError("the API server stand-in did not answer \(method) \(path)") }
            answer += buffer[..<count]
        }
    }

    private static func head(of answer: [UInt8]) -> (status: Int, start: Int, length: Int)? {
        let text = String(decoding: answer.prefix(8192), as: UTF8.self)
        guard let end = text.firstRange(of: "\r\n\r\n") else { return nil }
        let lines = text[..<end.lowerBound].split(separator: "\r\n")
        let status = lines.first?.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
        let length = lines.compactMap { line -> Int? in
            let parts = line.split(separator: ":", maxSplits: 1)
            guard parts.count == 2, parts[0].lowercased() == "content-length" else { return nil }
            return Int(parts[1].drop { $0 == " " })
        }
        return (status, text[..<end.upperBound].utf8.count, length.first ?? 0)
    }
}

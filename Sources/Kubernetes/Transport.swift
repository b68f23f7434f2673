internal import AsyncHTTPClient
internal import Glibc
internal import Logging
internal import NIOCore
internal import NIOHTTP1
internal import NIOSSL
internal import Secrets

/// Requests to one API server: TLS, credentials, bounds. Follows no redirect and uses no proxy.
final class Transport: Sendable {
    /// What is asked.
    struct Request: Sendable {
        var method: HTTPMethod
        /// Path and query, percent-encoded.
        var target: String
        var contentType = "application/json"
        var body: [UInt8]?
    }

    /// Bounds of answers.
    enum Limits {
        /// Pages of 500 pods have about 5 MB.
        static let answer = 64 << 20
        static let errorAnswer = 1 << 20
        /// An object has at most 1.5 MB in etcd, and a little more in JSON.
        static let watchLine = 16 << 20
    }

    private enum Credentials: Sendable {
        case none
        case token(SecretBytes)
        case file(TokenSource)
    }

    private let base: String
    private let authority: String
    private let userAgent: String
    private let requests: HTTPClient
    private let watches: HTTPClient
    private let timeouts: ClientConfiguration.Timeouts
    private let credentials: Credentials

    init(_ configuration: ClientConfiguration, clock: KubernetesClock, logger: Logger) throws(KubernetesError) {
        let server = try ServerURL(configuration.server)
        base = server.base(host: configuration.tlsServerName)
        authority = "\(server.host):\(server.port)"
        userAgent = configuration.userAgent
        timeouts = configuration.timeouts
        credentials =
            switch configuration.credentials {
            case .none: .none
            case .token(let token): .token(token)
            case .tokenFile(let path): .file(TokenSource(path: path, clock: clock))
            }
        if configuration.insecureSkipTLSVerify && server.isTLS {
            logger.warning(
                "the API server's certificate is not verified (insecure-skip-tls-verify): anybody in between can read and change everything",
                metadata: ["server": "\(authority)"])
        }
        var http = HTTPClient.Configuration()
        http.redirectConfiguration = .disallow
        http.proxy = nil
        http.decompression = .disabled
        http.httpVersion = .http1Only
        http.connectionPool.retryConnectionEstablishment = false
        http.connectionPool.idleTimeout = .seconds(50)
        // Every watch has a connection of its own; beyond the limit requests would wait for a watch to end.
        http.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = 1024
        http.tlsConfiguration = try Self.tls(configuration)
        if let name = configuration.tlsServerName { http.dnsOverride = [name: server.host] }
        http.http1_1ConnectionDebugInitializer = { channel in Self.noticeDeadPeers(channel) }
        http.timeout = .init(
            connect: timeouts.connect.timeAmount, read: timeouts.request.timeAmount,
            write: timeouts.request.timeAmount)
        requests = HTTPClient(eventLoopGroupProvider: .singleton, configuration: http)
        http.timeout.read = timeouts.watchIdle.timeAmount
        watches = HTTPClient(eventLoopGroupProvider: .singleton, configuration: http)
    }

    deinit {
        // Clients must be shut down before they go, also when somebody forgot.
        let (requests, watches) = (requests, watches)
        Task {
            try? await requests.shutdown()
            try? await watches.shutdown()
        }
    }

    func shutdown() async {
        try? await requests.shutdown()
        try? await watches.shutdown()
    }

    /// Sends a request and lends the body of the answer, which is 2xx.
    func send<Result>(
        _ request: Request, _ body: (UnsafeRawBufferPointer) throws(KubernetesError) -> Result
    ) async throws(KubernetesError) -> Result {
        let deadline = NIODeadline.now() + timeouts.request.timeAmount
        let response = try await execute(request, requests, deadline)
        let answer = try await collect(response.body, upTo: Limits.answer, deadline)
        do {
            return try answer.withUnsafeReadableBytes { try body($0) }
        } catch let error as KubernetesError {
            throw error
        } catch {
            throw KubernetesError(.decoding, "\(error)")
        }
    }

    /// Sends a request and hands over the lines of the answer one after the other, until it ends, or nothing has come for long.
    ///
    /// - Parameter duration: how long the server was asked to go on; a bit later the stream is left, whatever still comes.
    func stream(
        _ request: Request, duration: Duration, onOpen: () async throws -> Void,
        onLine: (ByteBuffer) async throws -> Void
    ) async throws(KubernetesError) {
        let response = try await execute(request, watches, .now() + timeouts.request.timeAmount)
        let end = NIODeadline.now() + (duration + .seconds(30)).timeAmount
        var lines = LineSplitter(limit: Limits.watchLine)
        do {
            try await onOpen()
            for try await piece in response.body {
                lines.append(piece)
                while let line = try lines.next() { try await onLine(line) }
                if NIODeadline.now() > end { break }
            }
        } catch {
            if let error = error as? HandlerFailure { throw error.error }
            // Silence is no fault: where nothing has happened to a kind since the watch began, servers send no bookmarks either. Whether
            // somebody is still there shows with the next request.
            guard (error as? HTTPClientError) == .readTimeout, !Task.isCancelled else {
                throw fault(error, timeouts.watchIdle)
            }
        }
        if Task.isCancelled { throw KubernetesError(.cancelled, "the watch was cancelled") }
        guard lines.pending == 0 else {
            throw KubernetesError(.network, "\(authority) ended a watch in the middle of an event")
        }
    }

    /// Carries what a caller's handler threw past the transport's own errors.
    struct HandlerFailure: Error {
        var error: KubernetesError
    }

    // MARK: -

    private func execute(
        _ request: Request, _ client: HTTPClient, _ deadline: NIODeadline
    ) async throws(KubernetesError) -> HTTPClientResponse {
        var isRepeated = false
        while true {
            let response = try await execute(request, client, deadline, freshToken: isRepeated)
            if (200..<300).contains(response.status.code) { return response }
            let error = await self.error(of: response, deadline)
            // The token may have been rotated a moment ago, and the old one revoked.
            guard error.code == .unauthorized, !isRepeated, case .file = credentials else { throw error }
            isRepeated = true
        }
    }

    private func execute(
        _ request: Request, _ client: HTTPClient, _ deadline: NIODeadline, freshToken: Bool
    ) async throws(KubernetesError) -> HTTPClientResponse {
        var message = HTTPClientRequest(url: base + request.target)
        message.method = request.method
        message.headers.add(name: "accept", value: "application/json")
        message.headers.add(name: "user-agent", value: userAgent)
        if let token = try token(fresh: freshToken) {
            message.headers.add(
                name: "authorization",
                value: token.withUnsafeBytes { "Bearer " + String(decoding: $0, as: UTF8.self) })
        }
        if let body = request.body {
            message.headers.add(name: "content-type", value: request.contentType)
            message.body = .bytes(body)
        }
        var attempts = 0
        while true {
            attempts += 1
            do {
                return try await client.execute(message, deadline: deadline)
            } catch {
                guard attempts < 4, !Task.isCancelled, Self.wasStale(error, request.method) else {
                    throw fault(error, timeouts.request)
                }
            }
        }
    }

    /// A kept connection had been closed by the server, which may have restarted: what was asked has not been read, or only asks.
    private static func wasStale(_ error: any Error, _ method: HTTPMethod) -> Bool {
        if let error = error as? ChannelError, error == .ioOnClosedChannel { return true }
        return method == .GET && (error as? HTTPClientError) == .remoteConnectionClosed
    }

    private func token(fresh: Bool) throws(KubernetesError) -> SecretBytes? {
        switch credentials {
        case .none: nil
        case .token(let token): token
        case .file(let source): try source.token(fresh: fresh)
        }
    }

    private func collect(
        _ body: HTTPClientResponse.Body, upTo limit: Int, _ deadline: NIODeadline
    ) async throws(KubernetesError) -> ByteBuffer {
        var answer = ByteBuffer()
        do {
            for try await piece in body {
                guard answer.readableBytes + piece.readableBytes <= limit else {
                    throw KubernetesError(.tooLarge, "\(authority) answered with more than \(limit) bytes")
                }
                if answer.readableBytes == 0 {
                    answer = piece
                } else {
                    answer.writeImmutableBuffer(piece)
                }
                guard NIODeadline.now() < deadline else {
                    throw KubernetesError(
                        .timeout, "\(authority) did not complete its answer within \(timeouts.request)")
                }
            }
        } catch {
            throw fault(error, timeouts.request)
        }
        if Task.isCancelled { throw KubernetesError(.cancelled, "the request was cancelled") }
        return answer
    }

    private func error(of response: HTTPClientResponse, _ deadline: NIODeadline) async -> KubernetesError {
        let status: Wire.Status
        do throws(KubernetesError) {
            let body = try await collect(response.body, upTo: Limits.errorAnswer, deadline)
            status = body.withUnsafeReadableBytes { Wire.Status(body: $0) }
        } catch {
            // The status line alone says enough.
            status = Wire.Status()
        }
        let retryAfter = response.headers.first(name: "retry-after").flatMap { Int64($0) }.map { Duration.seconds($0) }
        return KubernetesError(status, httpStatus: Int(response.status.code), retryAfter: retryAfter)
    }

    private func fault(_ error: any Error, _ timeout: Duration) -> KubernetesError {
        if let error = error as? KubernetesError { return error }
        if error is CancellationError || Task.isCancelled {
            return KubernetesError(.cancelled, "the request to \(authority) was cancelled")
        }
        if let error = error as? HTTPClientError {
            switch error {
            case .deadlineExceeded, .readTimeout, .writeTimeout, .connectTimeout, .tlsHandshakeTimeout,
                .getConnectionFromPoolTimeout:
                return KubernetesError(.timeout, "\(authority) did not answer within \(timeout)")
            case .cancelled: return KubernetesError(.cancelled, "the request to \(authority) was cancelled")
            case .alreadyShutdown: return KubernetesError(.network, "the client has been shut down")
            default: return KubernetesError(.network, "\(authority): \(error.shortDescription)")
            }
        }
        if let error = error as? HTTPParserError, error == .invalidEOFState {
            return KubernetesError(.network, "\(authority) ended an answer in the middle")
        }
        if error is HTTPParserError { return KubernetesError(.decoding, "\(authority) did not answer in HTTP") }
        let text = String(describing: error)
        if text.contains("CERTIFICATE_VERIFY_FAILED") || error is NIOSSLExtraError {
            return KubernetesError(
                .untrusted,
                "the certificate of \(authority) is not trusted, or is for another name; check certificate-authority and tls-server-name"
            )
        }
        if error is NIOSSLError {
            return KubernetesError(.untrusted, "no TLS connection to \(authority): \(text.prefix(200))")
        }
        return KubernetesError(.network, "\(authority) cannot be reached: \(text.prefix(200))")
    }

    private static func tls(_ configuration: ClientConfiguration) throws(KubernetesError) -> TLSConfiguration {
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.minimumTLSVersion = .tlsv12
        if configuration.insecureSkipTLSVerify { tls.certificateVerification = .none }
        if let authority = configuration.certificateAuthority {
            do {
                tls.trustRoots = .certificates(try NIOSSLCertificate.fromPEMBytes(authority))
            } catch {
                throw KubernetesError(.configuration, "the API server's CA is not PEM: \(error)")
            }
        }
        if let certificate = configuration.clientCertificate {
            do {
                tls.certificateChain = try NIOSSLCertificate.fromPEMBytes(certificate.chain).map { .certificate($0) }
                var key = certificate.key.withUnsafeBytes { Array($0) }
                defer { wipe(&key) }
                tls.privateKey = .privateKey(try NIOSSLPrivateKey(bytes: key, format: .pem))
            } catch {
                throw KubernetesError(.configuration, "the client certificate or its key is not PEM")
            }
        }
        return tls
    }

    /// A server that vanished without a word (its machine died, a firewall forgot the connection) is noticed within half a minute
    /// by the kernel, long before a watch counts as silent.
    private static func noticeDeadPeers(_ channel: any Channel) -> EventLoopFuture<Void> {
        let tcp = NIOBSDSocket.OptionLevel(rawValue: Int32(IPPROTO_TCP))
        let options: [(NIOBSDSocket.OptionLevel, Int32, Int)] = [
            (.socket, SO_KEEPALIVE, 1), (tcp, TCP_KEEPIDLE, 15), (tcp, TCP_KEEPINTVL, 5), (tcp, TCP_KEEPCNT, 3),
            (tcp, TCP_USER_TIMEOUT, 30_000),
        ]
        let set = options.map { level, name, value in
            channel.setOption(
                ChannelOptions.Types.SocketOption(level: level, name: NIOBSDSocket.Option(rawValue: name)), value: value
            )
        }
        // Without them the silence of the watch is still noticed.
        return EventLoopFuture.andAllComplete(set, on: channel.eventLoop)
    }
}

extension Duration {
    /// Rounded down to nanoseconds.
    var timeAmount: TimeAmount {
        .nanoseconds(components.seconds * 1_000_000_000 + components.attoseconds / 1_000_000_000)
    }
}

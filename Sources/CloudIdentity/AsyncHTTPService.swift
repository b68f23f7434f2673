internal import AsyncHTTPClient
internal import NIOCore
internal import NIOHTTP1
internal import NIOSSL
internal import Secrets

/// `HTTPService` on AsyncHTTPClient.
///
/// Residue: AsyncHTTPClient and NIO keep headers in Swift strings and bodies in buffers of their own. The body is moved to secret
/// memory piece by piece, and each piece is zeroed where it lies in NIO's buffer; what the libraries copied before is out of reach.
public final class AsyncHTTPService: HTTPService {
    private let client: HTTPClient
    private static let connectSeconds: Int64 = 3

    /// - Parameter caFile: PEM certificates to trust beside the system's; nil for none.
    public init(caFile: String? = nil) throws(HTTPFault) {
        var configuration = HTTPClient.Configuration()
        configuration.redirectConfiguration = .disallow
        configuration.proxy = nil
        configuration.decompression = .disabled
        configuration.httpVersion = .http1Only
        // A call's own time bounds the rest.
        configuration.timeout = .init(connect: .seconds(Self.connectSeconds))
        configuration.connectionPool.retryConnectionEstablishment = false
        configuration.connectionPool.idleTimeout = .seconds(30)
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.minimumTLSVersion = .tlsv12
        if let caFile {
            do {
                tls.additionalTrustRoots = [.certificates(try NIOSSLCertificate.fromPEMFile(caFile))]
            } catch {
                throw HTTPFault(.untrusted, "CA file \(caFile) cannot be used: \(error)")
            }
        }
        configuration.tlsConfiguration = tls
        client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    }

    deinit {
        // A client must be shut down before it goes; this closes idle connections.
        let client = client
        Task { try? await client.shutdown() }
    }

    /// Sends and collects the answer, within the call's time and `HTTPLimits`.
    public func send(_ call: HTTPCall) async throws(HTTPFault) -> HTTPAnswer {
        do {
            return try await withThrowingTaskGroup(of: HTTPAnswer.self) { group in
                group.addTask { try await self.exchange(call) }
                // The client's own deadline ends with the head of the answer. Who sends the rest byte by byte would hold us forever.
                group.addTask {
                    try await Task.sleep(for: call.timeout, clock: .continuous)
                    throw HTTPFault(.timeout, "\(call.endpoint.authority) did not answer within \(call.timeout)")
                }
                defer { group.cancelAll() }
                guard let answer = try await group.next() else { throw CancellationError() }
                return answer
            }
        } catch {
            throw Self.fault(error, call.endpoint, call.timeout)
        }
    }

    private func exchange(_ call: HTTPCall) async throws -> HTTPAnswer {
        var request = HTTPClientRequest(url: call.endpoint.origin + call.target)
        request.method = HTTPMethod(rawValue: call.method)
        for header in call.headers { request.headers.add(name: header.name, value: header.value) }
        var body = ByteBuffer()
        if let content = call.body {
            content.withUnsafeBytes { _ = body.writeBytes($0) }
            request.body = .bytes(body)
        }
        defer { wipe(&body) }
        let nanoseconds =
            call.timeout.components.seconds * 1_000_000_000 + call.timeout.components.attoseconds / 1_000_000_000
        let deadline = NIODeadline.now() + .nanoseconds(nanoseconds)
        let response = try await client.execute(request, deadline: deadline)
        request.body = nil
        guard response.headers.count <= HTTPLimits.headers else {
            throw HTTPFault(.tooLarge, "\(call.endpoint.authority) answered with \(response.headers.count) headers")
        }
        var headers: [String: String] = [:]
        for (name, value) in response.headers {
            let name = name.lowercased()
            if headers[name] == nil { headers[name] = value }
        }
        return HTTPAnswer(
            status: Int(response.status.code), headers: headers,
            body: try await collect(response.body, from: call.endpoint))
    }

    private func collect(_ body: HTTPClientResponse.Body, from endpoint: HTTPEndpoint) async throws -> SecretBytes {
        var pieces: [SecretBytes] = []
        var count = 0
        for try await piece in body {
            count += piece.readableBytes
            guard count <= HTTPLimits.body else {
                throw HTTPFault(.tooLarge, "\(endpoint.authority) answered with more than \(HTTPLimits.body) bytes")
            }
            pieces.append(
                piece.withUnsafeReadableBytes { bytes in
                    let secret = SecretBytes(copying: bytes)
                    // In place, although the channel's own buffer shares this storage: writing through the ByteBuffer would copy it first
                    // and zero the copy. These bytes were parsed and handed to us; nobody reads them again.
                    wipe(UnsafeMutableRawBufferPointer(mutating: bytes))
                    return secret
                })
        }
        if pieces.count == 1 { return pieces[0] }
        return SecretBytes(count: count) { buffer in
            var offset = 0
            for piece in pieces {
                piece.withUnsafeBytes { buffer[offset..<offset + piece.count].copyBytes(from: $0) }
                offset += piece.count
            }
        }
    }

    private static func fault(_ error: any Error, _ endpoint: HTTPEndpoint, _ timeout: Duration) -> HTTPFault {
        let who = endpoint.authority
        if let fault = error as? HTTPFault { return fault }
        if let error = error as? HTTPClientError {
            if error == .connectTimeout || error == .tlsHandshakeTimeout {
                return HTTPFault(.timeout, "no connection to \(who) within \(connectSeconds) s")
            }
            if error == .deadlineExceeded || error == .readTimeout || error == .writeTimeout
                || error == .getConnectionFromPoolTimeout
            {
                return HTTPFault(.timeout, "\(who) did not answer within \(timeout)")
            }
            return HTTPFault(.unreachable, "\(who): \(error.shortDescription)")
        }
        if error is HTTPParserError { return HTTPFault(.garbage, "\(who) did not answer in HTTP") }
        let text = String(describing: error)
        if text.contains("CERTIFICATE_VERIFY_FAILED") || error is NIOSSLExtraError {
            return HTTPFault(
                .untrusted,
                "the certificate of \(who) is not trusted, or is for another name; configure its CA (caFile)")
        }
        if error is CancellationError { return HTTPFault(.unreachable, "the request to \(who) was cancelled") }
        if text.contains("EOF during handshake") {
            return HTTPFault(.unreachable, "\(who) closed the connection during the TLS handshake")
        }
        if error is NIOSSLError {
            return HTTPFault(.untrusted, "no TLS connection to \(who): \(text.prefix(200))")
        }
        return HTTPFault(.unreachable, "\(who) cannot be reached: \(text.prefix(200))")
    }
}

/// Zeroes a buffer in place, although a channel may share its storage: what it still has to write of a request that is over may as well be
/// zeros.
private func wipe(_ buffer: inout ByteBuffer) {
    buffer.withUnsafeReadableBytes { wipe(UnsafeMutableRawBufferPointer(mutating: $0)) }
    buffer.clear()
}

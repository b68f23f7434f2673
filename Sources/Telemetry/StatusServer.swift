internal import Cluster
internal import Glibc
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix

/// A small HTTP server for `/metrics`, `/healthz` and `/readyz`: GET and HEAD, no bodies in, one short answer out.
///
/// It is for kubelet and for Prometheus. It says nothing that is secret, but has neither TLS nor authentication: a NetworkPolicy says
/// who may come.
public final class StatusServer: Sendable {
    /// An answer.
    public struct Answer: Sendable {
        /// Such as 200 and 503.
        public var status: Int
        /// Text.
        public var body: String

        /// Makes an answer.
        public init(_ status: Int, _ body: String) {
            self.status = status
            self.body = body
        }
    }

    /// What a path is answered with; nil: there is no such path.
    public typealias Responder = @Sendable (_ path: String) async -> Answer?

    private let channel: any Channel

    /// The port that it listens on: the one that was asked for, or the system's choice for 0.
    public var port: Int { channel.localAddress?.port ?? 0 }

    /// Listens.
    ///
    /// - Parameter address: such as `0.0.0.0:9402` or `[::]:9402`.
    public init(address: String, _ respond: @escaping Responder) async throws {
        guard let (host, port) = hostAndPort(address) else {
            throw AddressError(
                description: "\"\(address)\" is no address; expected one like 0.0.0.0:9402 or [::]:9402")
        }
        let bootstrap = ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelOption(.backlog, value: 16)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.configureHTTPServerPipeline(withErrorHandling: true)
                    try pipeline.addHandler(IdleStateHandler(allTimeout: .seconds(30)))
                    try pipeline.addHandler(Handler(respond))
                }
            }
        do {
            channel = try await bootstrap.bind(host: host, port: port).get()
        } catch {
            let why = (error as? IOError).map { String(cString: strerror($0.errnoCode)) } ?? "\(error)"
            throw AddressError(description: "cannot listen on \(address): \(why)")
        }
    }

    /// Stops listening.
    public func stop() async { try? await channel.close() }

    /// An address that cannot be listened on.
    public struct AddressError: Error, CustomStringConvertible {
        /// For people.
        public let description: String
    }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = HTTPServerRequestPart
        typealias OutboundOut = HTTPServerResponsePart
        private let respond: Responder
        private var head: HTTPRequestHead?

        init(_ respond: @escaping Responder) { self.respond = respond }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            switch unwrapInboundIn(data) {
            case .head(let head): self.head = head
            case .body: break
            case .end:
                guard let head else { return }
                self.head = nil
                answer(head, context)
            }
        }

        func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
            if event is IdleStateHandler.IdleStateEvent { context.close(promise: nil) }
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

        private func answer(_ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
            let channel = context.channel
            let path = String(head.uri.prefix { $0 != "?" })
            let isHead = head.method == .HEAD
            let respond = respond
            guard head.method == .GET || isHead else {
                return Self.write(Answer(405, "only GET\n"), isHead: false, keepAlive: head.isKeepAlive, channel)
            }
            let keepAlive = head.isKeepAlive
            channel.eventLoop.makeFutureWithTask { () -> Answer? in
                await respond(path)
            }.whenSuccess { answer in
                let missing = Answer(404, "no such path; there are /metrics, /healthz and /readyz\n")
                Self.write(answer ?? missing, isHead: isHead, keepAlive: keepAlive, channel)
            }
        }

        private static func write(_ answer: Answer, isHead: Bool, keepAlive: Bool, _ channel: any Channel) {
            let body = ByteBuffer(string: answer.body)
            let headers: HTTPHeaders = [
                "Content-Type": "text/plain; version=0.0.4; charset=utf-8", "Content-Length": "\(body.readableBytes)",
                "Connection": keepAlive ? "keep-alive" : "close",
            ]
            let head = HTTPResponseHead(
                version: .http1_1, status: HTTPResponseStatus(statusCode: answer.status), headers: headers)
            channel.write(HTTPServerResponsePart.head(head), promise: nil)
            if !isHead { channel.write(HTTPServerResponsePart.body(.byteBuffer(body)), promise: nil) }
            channel.writeAndFlush(HTTPServerResponsePart.end(nil)).whenComplete { _ in
                if !keepAlive { channel.close(promise: nil) }
            }
        }
    }
}

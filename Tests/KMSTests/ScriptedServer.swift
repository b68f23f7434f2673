import NIOCore
import NIOPosix

/// A server on loopback that does to a request what a closure says, good or bad: raw bytes, so that it can lie about everything.
final class ScriptedServer: Sendable {
    struct Request: Sendable {
        var method = ""
        var target = ""
        var headers: [String: String] = [:]
        var body = ""
    }
    enum Reaction: Sendable {
        case answer(Int, headers: [String: String] = [:], body: String)
        case raw(String)
        /// Answers after a while.
        case late(Duration, String)
        /// Answers with this, and then with a byte ten times a second.
        case drip(String)
        /// Never answers.
        case stall
        /// Closes without an answer.
        case close

        static func json(_ body: String) -> Reaction {
            .answer(200, headers: ["Content-Type": "application/json"], body: body)
        }
    }
    typealias Script = @Sendable (Request) -> Reaction

    let port: Int
    var base: String { "http://127.0.0.1:\(port)" }
    private let channel: any Channel

    /// - Parameter hangsUp: Closes at the first bytes, whatever they are.
    init(hangsUp: Bool = false, _ script: @escaping Script) async throws {
        channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Handler(hangsUp: hangsUp, script))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        port = channel.localAddress?.port ?? 0
    }

    func stop() async { try? await channel.close() }

    /// A port on which nobody listens.
    static func closedPort() async throws -> Int {
        let server = try await ScriptedServer { _ in .close }
        await server.stop()
        return server.port
    }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let script: Script
        private var received = ""

        private let hangsUp: Bool

        init(hangsUp: Bool, _ script: @escaping Script) {
            self.hangsUp = hangsUp
            self.script = script
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            if hangsUp { return context.close(promise: nil) }
            received += String(buffer: unwrapInboundIn(data))
            guard let request = take() else { return }
            switch script(request) {
            case .answer(let status, let headers, let body):
                var text = "HTTP/1.1 \(status) Status\r\nContent-Length: \(body.utf8.count)\r\n"
                for (name, value) in headers { text += "\(name): \(value)\r\n" }
                context.writeAndFlush(NIOAny(ByteBuffer(string: text + "\r\n" + body)), promise: nil)
            case .raw(let text):
                context.writeAndFlush(NIOAny(ByteBuffer(string: text)), promise: nil)
            case .late(let delay, let text):
                let channel = context.channel
                channel.eventLoop.scheduleTask(in: .seconds(delay.components.seconds)) {
                    channel.writeAndFlush(ByteBuffer(string: text), promise: nil)
                }
            case .drip(let text):
                context.writeAndFlush(NIOAny(ByteBuffer(string: text)), promise: nil)
                let channel = context.channel
                channel.eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: .milliseconds(100)) { task in
                    guard channel.isActive else { return task.cancel() }
                    channel.writeAndFlush(ByteBuffer(string: " "), promise: nil)
                }
            case .stall: break
            case .close: context.close(promise: nil)
            }
        }

        /// The request if it is complete.
        private func take() -> Request? {
            guard let end = received.range(of: "\r\n\r\n") else { return nil }
            var request = Request()
            let lines = received[..<end.lowerBound].split(separator: "\r\n")
            let words = lines[0].split(separator: " ")
            request.method = String(words[0])
            request.target = String(words[1])
            for line in lines.dropFirst() {
                let parts = line.split(separator: ":", maxSplits: 1)
                request.headers[parts[0].lowercased()] = String(parts[1].drop { $0 == " " })
            }
            let body = received[end.upperBound...]
            guard body.utf8.count >= Int(request.headers["content-length"] ?? "0") ?? 0 else { return nil }
            request.body = String(body)
            received = ""
            return request
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }
}

extension StringProtocol {
    /// The first occurrence of a text.
    fileprivate func range(of text: String) -> Range<Index>? { firstRange(of: text) }
}

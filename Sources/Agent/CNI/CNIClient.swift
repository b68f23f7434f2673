internal import Cluster
internal import Glibc

/// The plugin's side of the socket.
public struct CNIClient: Sendable {
    /// Nobody answered.
    public struct Absent: Error, Sendable, CustomStringConvertible {
        /// Why.
        public let description: String
    }

    private let socket: String

    /// Talks to the daemon at a socket.
    public init(socket: String) {
        self.socket = socket
    }

    /// Asks once. Blocks.
    public func ask(_ request: CNIRequest) throws(Absent) -> CNIReply {
        let deadline = ContinuousClock.now + .milliseconds(request.patience)
        let connection: UnixSocket
        do throws(FileError) {
            connection = try UnixSocket.connect(socket, timeout: .seconds(2))
        } catch {
            throw Absent(description: "\(error)")
        }
        guard connection.write(CNIMessage.encode(request)) else {
            throw Absent(description: "ebpf-xdp-keymgr at \(socket) does not read")
        }
        // A moment more than it was told, so that its own time-out and its reason arrive.
        guard let line = connection.readLine(until: deadline + .milliseconds(500)),
            let reply = CNIMessage.decode(CNIReply.self, from: line)
        else { throw Absent(description: "ebpf-xdp-keymgr at \(socket) did not answer in time") }
        return reply
    }
}

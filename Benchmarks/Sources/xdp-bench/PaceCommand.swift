import ArgumentParser
import CBench
import FoundationEssentials
import Glibc
import Lab
import Measure

/// A load generator that keeps to a rate, whatever the answers do (an open loop). A latency counts from the moment that a request
/// was due, so that a slow answer also costs those that had to wait behind it.
struct PaceCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pace", abstract: "HTTP/1.1 requests at a fixed rate; prints JSON.")

    @Option(help: "IPv4 address.")
    var host: String
    @Option(help: "TCP port.")
    var port: UInt16
    @Option(help: "What is asked for.")
    var path = "/100"
    @Option(help: "Requests a second, of all connections together.")
    var rate = 5000
    @Option(help: "How many connections.")
    var connections = 32
    @Option(help: "How long.")
    var seconds = 2.0

    func validate() throws {
        guard (1...1_000_000).contains(rate), (1...1000).contains(connections), (0.01...3600).contains(seconds) else {
            throw ValidationError("rate must be 1 to 1000000, connections 1 to 1000, seconds 0.01 to 3600")
        }
    }

    func run() throws {
        let pacer = try Pacer(host: host, port: port, path: path, connections: connections)
        let result = try pacer.run(rate: rate, seconds: seconds)
        print(String(decoding: try JSONEncoder().encode(result), as: UTF8.self))
    }
}

/// The loop behind `pace`: one thread, one epoll, one timer.
private final class Pacer {
    private struct Connection {
        var fd: Int32
        var received: [UInt8] = []
        /// When the request was due that is under way, ns; nil: idle.
        var due: UInt64?
    }

    private let request: [UInt8]
    private let epoll: Int32
    private let timer: Int32
    private var connections: [Connection] = []
    private var idle: [Int] = []
    private var waiting: [UInt64] = []
    private var firstWaiting = 0
    private var latencies: [Double] = []
    private var failed = 0

    init(host: String, port: UInt16, path: String, connections count: Int) throws {
        request = Array("GET \(path) HTTP/1.1\r\nHost: bench\r\n\r\n".utf8)
        epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
        timer = timerfd_create(CLOCK_MONOTONIC, Int32(TFD_NONBLOCK))
        try watch(timer, as: UInt64.max)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        guard inet_pton(AF_INET, host, &address.sin_addr) == 1 else { throw LabError("not an IPv4 address: \(host)") }
        for index in 0..<count {
            let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            let result = withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    connect(fd, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
                }
            }
            guard result == 0 else { throw LabError("cannot connect to \(host) port \(port): \(Self.reason)") }
            var on: Int32 = 1
            setsockopt(fd, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
            connections.append(Connection(fd: fd))
            idle.append(index)
            try watch(fd, as: UInt64(index))
        }
    }

    deinit {
        for connection in connections { close(connection.fd) }
        close(timer)
        close(epoll)
    }

    private static var reason: String { String(cString: strerror(errno)) }

    private func watch(_ fd: Int32, as token: UInt64) throws {
        var event = epoll_event(events: EPOLLIN.rawValue, data: epoll_data_t(u64: token))
        guard epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0 else { throw LabError("cannot poll: \(Self.reason)") }
    }

    private static var now: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    func run(rate: Int, seconds: Double) throws -> LoadResult {
        let interval = 1_000_000_000 / UInt64(rate)
        let total = Int(Double(rate) * seconds)
        latencies.reserveCapacity(total)
        let start = Self.now + 10_000_000
        var next = 0
        var events = [epoll_event](repeating: epoll_event(), count: 64)
        // Answers that do not come within 5 s after the last request are failures.
        let end = start + UInt64(total) * interval + 5_000_000_000
        arm(start)
        while latencies.count + failed < total {
            let count = epoll_wait(epoll, &events, Int32(events.count), 1000)
            if Self.now > end { break }
            guard count > 0 else { continue }
            for event in events[..<Int(count)] {
                if event.data.u64 == UInt64.max {
                    var expirations: UInt64 = 0
                    read(timer, &expirations, 8)
                    let now = Self.now
                    while next < total && start + UInt64(next) * interval <= now {
                        let due = start + UInt64(next) * interval
                        next += 1
                        if let index = idle.popLast() { try send(index, due: due) } else { waiting.append(due) }
                    }
                    if next < total { arm(start + UInt64(next) * interval) }
                } else {
                    try receive(Int(event.data.u64))
                }
            }
        }
        let duration = Double(Self.now - start) / 1e9
        return LoadResult(latencies: latencies, seconds: duration, failed: total - latencies.count)
    }

    private func arm(_ at: UInt64) {
        var time = itimerspec()
        time.it_value = timespec(tv_sec: Int(at / 1_000_000_000), tv_nsec: Int(at % 1_000_000_000))
        timerfd_settime(timer, Int32(TFD_TIMER_ABSTIME), &time, nil)
    }

    private func send(_ index: Int, due: UInt64) throws {
        connections[index].due = due
        guard write(connections[index].fd, request, request.count) == request.count else {
            throw LabError("cannot send: \(Self.reason)")
        }
    }

    private func receive(_ index: Int) throws {
        var buffer = [UInt8](repeating: 0, count: 16384)
        let count = read(connections[index].fd, &buffer, buffer.count)
        guard count > 0 else { throw LabError("the server closed a connection") }
        connections[index].received += buffer[..<count]
        guard let answer = Answer(connections[index].received) else { return }
        connections[index].received.removeFirst(answer.length)
        guard let due = connections[index].due else { throw LabError("an answer that nobody asked for") }
        connections[index].due = nil
        if answer.status == 200 {
            latencies.append(Double(Self.now - due) / 1000)
        } else {
            failed += 1
        }
        if firstWaiting < waiting.count {
            firstWaiting += 1
            try send(index, due: waiting[firstWaiting - 1])
        } else {
            idle.append(index)
        }
    }
}

/// A whole HTTP/1.1 answer at the front of some bytes.
private struct Answer {
    var status: Int
    /// Head and body, bytes.
    var length: Int

    /// nil: it is not all there yet.
    init?(_ bytes: [UInt8]) {
        var end = 0
        while end + 4 <= bytes.count {
            if bytes[end] == 13 && bytes[end + 1] == 10 && bytes[end + 2] == 13 && bytes[end + 3] == 10 { break }
            end += 1
        }
        guard end + 4 <= bytes.count else { return nil }
        let head = String(decoding: bytes[..<end], as: UTF8.self).lowercased().split(separator: "\r\n")
        status = head.first?.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
        let field = head.first { $0.hasPrefix("content-length:") }?.split(separator: ":").last
        length = end + 4 + (field.flatMap { Int($0.filter { $0.isNumber }) } ?? 0)
        guard bytes.count >= length else { return nil }
    }
}

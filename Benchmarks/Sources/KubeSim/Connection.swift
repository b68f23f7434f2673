internal import Glibc

/// Where some bytes stand first in others.
func find(_ wanted: [UInt8], in bytes: ArraySlice<UInt8>) -> Int? {
    bytes.withUnsafeBufferPointer { buffer in
        guard let base = buffer.baseAddress, let first = wanted.first else { return nil }
        var at = 0
        while at + wanted.count <= buffer.count {
            guard let hit = memchr(base + at, Int32(first), buffer.count - wanted.count + 1 - at) else { return nil }
            at = UnsafeRawPointer(hit) - UnsafeRawPointer(base)
            if memcmp(base + at, wanted, wanted.count) == 0 { return bytes.startIndex + at }
            at += 1
        }
        return nil
    }
}

/// HTTP/1.1 on one socket, one request after the other, blocking.
struct Connection {
    private let socket: Int32
    private let server: Server

    init(_ socket: Int32, _ server: Server) {
        self.socket = socket
        self.server = server
    }

    /// Until the other side has gone.
    func run() {
        var buffer: [UInt8] = []
        while let request = read(&buffer) {
            switch server.answer(request) {
            case .body(let status, let body):
                let head =
                    "HTTP/1.1 \(status) \(status < 300 ? "OK" : "Refused")\r\nContent-Type: application/json\r\nContent-Length: \(body.count)\r\n\r\n"
                guard write(Array(head.utf8) + body) else { return }
            case .watch(let kind, let watcher, let seconds):
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                guard write(Array(head.utf8)) else { return }
                guard watch(kind, watcher, seconds), write(Array("0\r\n\r\n".utf8)) else { return }
            }
        }
    }

    private func watch(_ kind: Store.Kind, _ watcher: Store.Watcher?, _ seconds: Int) -> Bool {
        guard let watcher else {
            let status =
                "\"kind\":\"Status\",\"code\":410,\"reason\":\"Expired\",\"message\":\"too old resource version\"}"
            return write(Store.chunk("ERROR", [UInt8(ascii: "{")], Array(status.utf8)))
        }
        defer { server.store.end(watcher, kind) }
        let end = monotonic() + Double(seconds)
        while monotonic() < end {
            var polls = [
                pollfd(fd: watcher.signal, events: Int16(POLLIN), revents: 0),
                pollfd(fd: socket, events: 0x2000 /* POLLRDHUP, which needs _GNU_SOURCE */, revents: 0),
            ]
            poll(&polls, 2, Int32(max(1, (end - monotonic()) * 1000)))
            if polls[1].revents != 0 { return false }
            guard polls[0].revents != 0 else { continue }
            var byte: UInt8 = 0
            _ = Glibc.read(watcher.signal, &byte, 1)
            let chunks = watcher.take()
            var out: [UInt8] = []
            out.reserveCapacity(chunks.reduce(0) { $0 + $1.count })
            for chunk in chunks { out += chunk }
            guard write(out) else { return false }
        }
        return true
    }

    private func write(_ bytes: [UInt8]) -> Bool {
        bytes.withUnsafeBytes { bytes in
            var rest = bytes[...]
            while !rest.isEmpty {
                let count = send(
                    socket, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count, Int32(MSG_NOSIGNAL))
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { return false }
                rest = rest.dropFirst(count)
            }
            return true
        }
    }

    private func fill(_ buffer: inout [UInt8]) -> Bool {
        let room = 1 << 16
        let before = buffer.count
        buffer.append(contentsOf: repeatElement(0, count: room))
        let count = buffer.withUnsafeMutableBytes {
            recv(socket, UnsafeMutableRawBufferPointer(rebasing: $0[before...]).baseAddress, room, 0)
        }
        buffer.removeLast(room - max(0, count))
        return count > 0
    }

    private func read(_ buffer: inout [UInt8]) -> Server.Request? {
        var searched = 0
        let mark = Array("\r\n\r\n".utf8)
        while true {
            let found = find(mark, in: buffer[searched...])
            if let found {
                searched = found
                break
            }
            searched = max(0, buffer.count - 3)
            guard fill(&buffer) else { return nil }
        }
        let lines = String(decoding: buffer[..<searched], as: UTF8.self).split(separator: "\r\n")
        let first = lines.first?.split(separator: " ") ?? []
        guard first.count >= 2 else { return nil }
        var length = 0
        var client = "unknown"
        for line in lines.dropFirst() {
            guard let colon = line.firstIndex(of: ":") else { continue }
            let value = line[line.index(after: colon)...].drop { $0 == " " }
            switch line[..<colon].lowercased() {
            case "content-length": length = Int(value) ?? 0
            case "user-agent": client = String(value.prefix { $0 != "/" })
            default: break
            }
        }
        let start = searched + 4
        while buffer.count < start + length { guard fill(&buffer) else { return nil } }
        let body = Array(buffer[start..<start + length])
        buffer.removeFirst(start + length)
        let parts = first[1].split(separator: "?", maxSplits: 1)
        let query = parts.count < 2 ? [] : parts[1].split(separator: "&").map { $0.split(separator: "=", maxSplits: 1) }
        return Server.Request(
            method: String(first[0]), path: parts[0].split(separator: "/").map { Self.decoded($0) },
            query: query.reduce(into: [:]) { $0[Self.decoded($1[0])] = $1.count > 1 ? Self.decoded($1[1]) : "" },
            client: client, body: body)
    }

    private static func decoded(_ text: Substring) -> String {
        guard text.contains("%") else { return String(text) }
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%"), rest.count >= 2,
                let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
            else {
                bytes.append(byte)
                continue
            }
            bytes.append(value)
            rest = rest.dropFirst(2)
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

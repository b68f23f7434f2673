import Agent
import ArgumentParser
import Cluster
import Datapath
import Glibc
import Netlink

/// `xdp-encryptor events`.
struct EventsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "events",
        abstract: "Shows packets that this node's kernel drops, as they happen.",
        discussion: """
            Reads the kernel's ring buffer, which tells of at most 100 drops a second and CPU: the counters of `xdp-encryptor status` \
            have all of them. Each drop is told once, so that only one such command runs at a time. docs/drops.md explains the \
            reasons. Needs root; ends with Ctrl-C.

            EXAMPLES
              xdp-encryptor events
              xdp-encryptor events --count 1 --seconds 60
              xdp-encryptor events --output json | jq -r 'select(.reason == "cleartext") | .source'

            EXIT STATUS
              0 told as much as was asked for, 1 nothing is loaded or it cannot be read (the reason is on standard error), 64 wrong \
            arguments, 75 another one is running
            """)

    @Option(help: "text, or json for programs: an object a line.")
    var output = OutputFormat.text

    @Option(help: "End after so many drops.")
    var count: Int?

    @Option(help: "End after so many seconds.")
    var seconds: Int?

    @OptionGroup var node: NodeOptions

    func validate() throws {
        if let count, count < 1 { throw ValidationError("--count \(count) is no number of drops; expected 1 or more") }
        if let seconds, seconds < 1 { throw ValidationError("--seconds \(seconds) is no time; expected 1 or more") }
    }

    func run() async throws {
        let lock = try lock()
        defer { close(lock) }
        let events: DropEvents
        do throws(DatapathError) {
            events = try node.view().dropEvents()
        } catch {
            throw Failure.exit("events: \(error.message)")
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await show(events) }
            if let seconds { group.addTask { try await Task.sleep(for: .seconds(seconds)) } }
            try await group.next()
            group.cancelAll()
        }
    }

    private func show(_ events: DropEvents) async throws {
        var left = count ?? .max
        let clock = ContinuousClock()
        var (agent, readAt) = (node.agent, clock.now)
        for await event in events {
            // Pods come and go, but not with every drop.
            if clock.now - readAt >= .seconds(5) { (agent, readAt) = (node.agent, clock.now) }
            let drop = Drop(event, agent: agent)
            switch output {
            case .text: try writeAll(Array((drop.text + "\n").utf8))
            case .json: try writeJSONLine(drop)
            }
            left -= 1
            if left == 0 { return }
        }
    }

    /// Two readers would get a part of the drops each.
    private func lock() throws -> Int32 {
        let path = "\(node.stateDirectory)/events.lock"
        let file = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard file >= 0 else {
            let why = String(cString: strerror(errno))
            throw Failure.exit(
                "events: open \(path): \(why). Has ebpf-xdp-keymgr been started on this node, and are you root?")
        }
        guard flock(file, LOCK_EX | LOCK_NB) == 0 else {
            close(file)
            throw Failure.exit("events: another one is running: each drop is told once", code: 75)
        }
        return file
    }
}

/// A drop as it is shown. Its JSON is for programs: fields are added, never renamed.
struct Drop: Encodable {
    var time: Timestamp
    /// As in docs/drops.md; nil: of a newer kernel half than this program.
    var reason: String?
    /// "leaving" or "entering"
    var direction: String
    var source: IPAddress
    var destination: IPAddress
    /// IP protocol number.
    var transport: UInt8
    var sourcePort: UInt16
    var destinationPort: UInt16
    /// Eight hexadecimal digits; nil: none was read.
    var spi: String?
    /// Frame, bytes.
    var length: UInt32
    /// Drops before this one that were not told.
    var missed: UInt32
    /// namespace/name of this node's pod, if the daemon has told.
    var pod: String?

    init(_ event: DropEvent, agent: AgentStatus?) {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        let age = Int64(now.tv_sec) * 1000 + Int64(now.tv_nsec) / 1_000_000 - Int64(event.time / 1_000_000)
        time = Timestamp(milliseconds: Timestamp.now().milliseconds - max(0, age))
        reason = event.verdict?.name
        direction = event.hook == .encrypt ? "leaving" : "entering"
        source = event.source
        destination = event.destination
        transport = event.transport
        sourcePort = event.sourcePort
        destinationPort = event.destinationPort
        spi = event.spi.map { spi in
            let digits = String(spi, radix: 16)
            return String(repeating: "0", count: 8 - digits.count) + digits
        }
        length = event.length
        missed = event.missed
        let own = event.hook == .encrypt ? event.source : event.destination
        pod = agent?.pods?.first { $0.addresses.contains(own) }?.label
    }

    var text: String {
        func end(_ address: IPAddress, _ port: UInt16) -> String {
            port == 0 ? "\(address)" : address.isIPv4 ? "\(address):\(port)" : "[\(address)]:\(port)"
        }
        let name =
            switch Int32(transport) {
            case Int32(IPPROTO_TCP): "tcp"
            case Int32(IPPROTO_UDP): "udp"
            case Int32(IPPROTO_ICMP), Int32(IPPROTO_ICMPV6): "icmp"
            default: "protocol \(transport)"
            }
        var text = "\(time) \(reason ?? "unknown") \(direction)"
        if let pod { text += " \(pod)" }
        text += " \(end(source, sourcePort)) > \(end(destination, destinationPort)) \(name) \(length) bytes"
        if let spi { text += " spi \(spi)" }
        return missed == 0 ? text : text + " (\(missed) before it not told)"
    }
}

internal import BPF
internal import BPFObjects
public import Netlink

/// One dropped packet: `struct xe_event` of bpf/wire.h. At most 100 a second and CPU are told.
public struct DropEvent: Sendable, Hashable {
    /// What leaves a pod, or what enters it.
    public enum Hook: String, Sendable, Hashable, Codable {
        /// What leaves a pod.
        case encrypt
        /// What enters a pod.
        case decrypt
    }

    /// Nanoseconds since boot (CLOCK_MONOTONIC).
    public var time: UInt64
    /// Why; nil when this program is older than the kernel half and does not know the reason.
    public var verdict: Verdict?
    /// Where.
    public var hook: Hook
    /// From the packet; :: when it had none.
    public var source: IPAddress
    /// From the packet; :: when it had none.
    public var destination: IPAddress
    /// IP protocol number.
    public var transport: UInt8
    /// Host byte order; 0 for ICMP.
    public var sourcePort: UInt16
    /// Host byte order; 0 for ICMP.
    public var destinationPort: UInt16
    /// Host byte order; nil when none was read.
    public var spi: UInt32?
    /// Frame bytes.
    public var length: UInt32
    /// How many events of this CPU were held back since the one before.
    public var missed: UInt32

    init?(_ event: xe_event) {
        guard let source = event.source.address, let destination = event.destination.address else { return nil }
        time = event.time
        verdict = Verdict(rawValue: event.verdict)
        hook = event.hook == UInt8(XE_HOOK_ENCRYPT.rawValue) ? .encrypt : .decrypt
        self.source = source
        self.destination = destination
        transport = event.protocol
        sourcePort = UInt16(bigEndian: event.source_port)
        destinationPort = UInt16(bigEndian: event.destination_port)
        spi = event.spi == 0 ? nil : UInt32(bigEndian: event.spi)
        length = event.length
        missed = event.missed
    }
}

/// Drops as they happen. For one consumer in the whole system: each event is delivered once.
public struct DropEvents: AsyncSequence, Sendable {
    /// One drop.
    public typealias Element = DropEvent
    /// Never fails.
    public typealias Failure = Never

    private let ring: RingBuffer<xe_event>

    init(_ ring: RingBuffer<xe_event>) {
        self.ring = ring
    }

    /// Iterates over the drops.
    public struct AsyncIterator: AsyncIteratorProtocol {
        private let ring: RingBuffer<xe_event>
        private var records: AsyncStream<xe_event>.AsyncIterator

        init(_ ring: RingBuffer<xe_event>) {
            self.ring = ring
            records = ring.records.makeAsyncIterator()
        }

        /// The next drop; nil when the consumer is cancelled.
        public mutating func next(isolation actor: isolated (any Actor)? = #isolation) async -> DropEvent? {
            while let record = await records.next(isolation: actor) {
                if let event = DropEvent(record) { return event }
            }
            return nil
        }
    }

    /// Starts iterating.
    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(ring) }
}

extension Tables {
    func dropEvents() throws(DatapathError) -> DropEvents {
        do {
            return DropEvents(try RingBuffer(maps.events))
        } catch {
            throw DatapathError(.failed, error.description)
        }
    }
}

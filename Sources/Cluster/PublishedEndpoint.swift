public import Netlink

extension EncryptionNode {
    /// An endpoint as its own node publishes it. Every node holds those of all others, so it is kept small: 80 bytes, and nothing elsewhere
    /// for a pod's UID and one or two addresses.
    public struct PublishedEndpoint: Sendable, Hashable {
        /// Its name as it is kept: what to look endpoints up by.
        public private(set) var key: EndpointName
        private var list: AddressList
        /// What happens with clear text.
        public var mode: Mode
        /// Who may read its packets' L4 headers.
        public var headers: Headers
        /// Where its protection stands.
        public var state: State
        /// The revision that it stands in this list from.
        public var since: UInt32
        /// Withdrawing: the revision that said so first. 0 otherwise.
        public var until: UInt32
        /// Milliseconds since 1970; .min: none.
        private var withdrawal: Int64

        /// As in `endpoints/<name>.json`.
        public var name: String {
            get { key.text }
            set { key = EndpointName(newValue) }
        }
        /// One or more, in ascending order.
        public var addresses: [IPAddress] {
            get { list.addresses }
            set { list = AddressList(newValue) }
        }
        /// Withdrawing: when that began.
        public var withdrawnAt: Timestamp? {
            get { withdrawal == .min ? nil : Timestamp(milliseconds: withdrawal) }
            set { withdrawal = newValue?.milliseconds ?? .min }
        }

        /// Makes an entry.
        public init(
            name: String, addresses: [IPAddress], mode: Mode, headers: Headers = .visible, state: State, since: UInt32,
            until: UInt32 = 0, withdrawnAt: Timestamp? = nil
        ) {
            self.init(
                key: EndpointName(name), addresses: addresses, mode: mode, headers: headers, state: state, since: since,
                until: until, withdrawnAt: withdrawnAt)
        }

        init(
            key: EndpointName, addresses: [IPAddress], mode: Mode, headers: Headers, state: State, since: UInt32,
            until: UInt32, withdrawnAt: Timestamp?
        ) {
            self.key = key
            list = AddressList(addresses)
            self.mode = mode
            self.headers = headers
            self.state = state
            self.since = since
            self.until = until
            withdrawal = withdrawnAt?.milliseconds ?? .min
        }

        /// How many addresses there are.
        public var addressCount: Int { list.count }

        /// Calls with each address, without making a list of them.
        @inlinable public func forEachAddress(_ body: (IPAddress) -> Void) {
            for index in 0..<addressCount { body(address(index)) }
        }

        /// One of the addresses.
        public func address(_ index: Int) -> IPAddress { list[index] }
    }
}

/// An endpoint's name. Nearly all are UIDs of pods, which take 16 bytes in place.
public struct EndpointName: Sendable, Hashable {
    private enum Form: Sendable, Hashable {
        case uid(UInt64, UInt64)
        case other(String)
    }
    private let form: Form

    /// Whether it is a UID: nothing about it needs checking.
    var isUID: Bool {
        if case .uid = form { return true }
        return false
    }

    /// Takes a name.
    public init(_ text: String) {
        var copy = text
        let uid = copy.withUTF8 { Self.uid(UnsafeRawBufferPointer($0)) }
        form = uid.map { .uid($0.0, $0.1) } ?? .other(text)
    }

    /// Takes a name's bytes.
    public init(utf8 bytes: UnsafeRawBufferPointer) {
        form = Self.uid(bytes).map { .uid($0.0, $0.1) } ?? .other(String(decoding: bytes, as: UTF8.self))
    }

    /// 8-4-4-4-12 lower-case hexadecimal digits; nil for anything else, so that the text that comes out is the one that went in.
    private static func uid(_ bytes: UnsafeRawBufferPointer) -> (UInt64, UInt64)? {
        guard bytes.count == 36 else { return nil }
        var words: (UInt64, UInt64) = (0, 0)
        var digits = 0
        for index in 0..<36 {
            let byte = bytes[index]
            if index == 8 || index == 13 || index == 18 || index == 23 {
                guard byte == UInt8(ascii: "-") else { return nil }
                continue
            }
            let digit: UInt8
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = byte - UInt8(ascii: "a") + 10
            default: return nil
            }
            if digits < 16 {
                words.0 = words.0 << 4 | UInt64(digit)
            } else {
                words.1 = words.1 << 4 | UInt64(digit)
            }
            digits += 1
        }
        return words
    }

    /// As it was given.
    public var text: String {
        switch form {
        case .other(let text): return text
        case .uid(let high, let low):
            return String(unsafeUninitializedCapacity: 36) { buffer in
                var digits = 0
                for index in 0..<36 {
                    if index == 8 || index == 13 || index == 18 || index == 23 {
                        buffer[index] = UInt8(ascii: "-")
                        continue
                    }
                    let word = digits < 16 ? high : low
                    let digit = UInt8(truncatingIfNeeded: word >> UInt64(60 - digits % 16 * 4)) & 15
                    buffer[index] = digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + digit - 10
                    digits += 1
                }
                return 36
            }
        }
    }
}

extension EndpointName: Comparable {
    /// In the order of the texts.
    public static func < (left: EndpointName, right: EndpointName) -> Bool {
        if case .uid(let a, let b) = left.form, case .uid(let c, let d) = right.form { return (a, b) < (c, d) }
        return left.text < right.text
    }
}

/// Addresses of an endpoint: one or two in place.
private enum AddressList: Sendable, Hashable {
    case one(IPAddress)
    case two(IPAddress, IPAddress)
    case other([IPAddress])

    init(_ addresses: [IPAddress]) {
        self =
            switch addresses.count {
            case 1: .one(addresses[0])
            case 2: .two(addresses[0], addresses[1])
            default: .other(addresses)
            }
    }

    var count: Int {
        switch self {
        case .one: 1
        case .two: 2
        case .other(let addresses): addresses.count
        }
    }

    subscript(index: Int) -> IPAddress {
        switch self {
        case .one(let address): address
        case .two(let first, let second): index == 0 ? first : second
        case .other(let addresses): addresses[index]
        }
    }

    var addresses: [IPAddress] {
        switch self {
        case .one(let address): [address]
        case .two(let first, let second): [first, second]
        case .other(let addresses): addresses
        }
    }
}

extension EncryptionNode.PublishedEndpoint: Codable {
    private enum CodingKeys: String, CodingKey {
        case name, addresses, mode, headers, state, since, until, withdrawnAt
    }

    /// Reads an entry.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        self.init(
            name: try container.decode(String.self, forKey: .name),
            addresses: try container.decode([IPAddress].self, forKey: .addresses),
            mode: try container.decode(Mode.self, forKey: .mode),
            headers: try container.decodeIfPresent(Headers.self, forKey: .headers) ?? .visible,
            state: try container.decode(EncryptionNode.State.self, forKey: .state),
            since: try container.decode(UInt32.self, forKey: .since),
            until: try container.decode(UInt32.self, forKey: .until),
            withdrawnAt: try container.decodeIfPresent(Timestamp.self, forKey: .withdrawnAt))
    }

    /// Writes an entry.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(name, forKey: .name)
        try container.encode(addresses, forKey: .addresses)
        try container.encode(mode, forKey: .mode)
        if headers != .visible || encoder.writesDefaults { try container.encode(headers, forKey: .headers) }
        try container.encode(state, forKey: .state)
        try container.encode(since, forKey: .since)
        try container.encode(until, forKey: .until)
        try container.encodeIfPresent(withdrawnAt, forKey: .withdrawnAt)
    }
}

internal import BPFObjects
public import Netlink

/// Where a service is reached: an address that belongs to no pod, and a port.
public struct ServiceAddress: Sendable, Hashable {
    /// What runs over IP.
    public enum Transport: UInt8, Sendable, Hashable {
        /// IPPROTO_TCP
        case tcp = 6
        /// IPPROTO_UDP
        case udp = 17
    }

    /// The service's own, such as its ClusterIP.
    public var address: IPAddress
    /// The service's own.
    public var port: UInt16
    /// TCP and UDP services may have the same port.
    public var transport: Transport

    /// Makes a value of its parts.
    public init(address: IPAddress, port: UInt16, transport: Transport) {
        self.address = address
        self.port = port
        self.transport = transport
    }
}

/// A pod behind a service, and its port.
public struct ServiceBackend: Sendable, Hashable, Comparable {
    /// The pod's.
    public var address: IPAddress
    /// The pod's.
    public var port: UInt16

    /// Makes a value of its parts.
    public init(address: IPAddress, port: UInt16) {
        self.address = address
        self.port = port
    }

    /// By address, then by port.
    public static func < (left: ServiceBackend, right: ServiceBackend) -> Bool {
        (left.address.high, left.address.low, left.port) < (right.address.high, right.address.low, right.port)
    }
}

/// Who is behind a service at one of its ports.
public struct ServiceBackends: Sendable, Hashable {
    /// Sorted, each once, at most `limit`. Empty: connections are refused.
    public let backends: [ServiceBackend]
    /// A pod's connections go to one backend, as long as there are the same ones.
    public let isSticky: Bool

    /// How many fit.
    public static let limit = Int(XE_SERVICE_BACKENDS_MAX)

    /// Of more than fit, those with the lowest addresses count.
    public init(_ backends: some Sequence<ServiceBackend>, isSticky: Bool = false) {
        self.backends = Array(Set(backends).sorted().prefix(Self.limit))
        self.isSticky = isSticky
    }
}

// MARK: - As the kernel has them

extension xe_service_address {
    init(_ address: ServiceAddress) {
        self.init(
            address: xe_address(address.address), port: address.port.bigEndian, protocol: address.transport.rawValue,
            reserved: 0)
    }

    var value: ServiceAddress? {
        guard let ip = address.address, let transport = ServiceAddress.Transport(rawValue: `protocol`) else {
            return nil
        }
        return ServiceAddress(address: ip, port: UInt16(bigEndian: port), transport: transport)
    }
}

extension xe_backend {
    init(_ backend: ServiceBackend) {
        self.init(address: xe_address(backend.address), port: backend.port.bigEndian, reserved: 0)
    }

    var value: ServiceBackend? {
        address.address.map { ServiceBackend(address: $0, port: UInt16(bigEndian: port)) }
    }
}

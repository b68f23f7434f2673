public import Netlink

/// A pod that shall be protected: `endpoints/<name>.json`.
public struct EncryptedEndpoint: Sendable, Hashable {
    /// All addresses that the pod sends from, IPv4 and IPv6.
    public var addresses: [IPAddress]
    /// Name of the node that it runs on.
    public var node: String
    /// What happens with clear text.
    public var mode: Mode
    /// Who may read its packets' L4 headers.
    public var headers: Headers
    /// For its node: path of the pod's network namespace, such as /run/netns/pod-a.
    public var networkNamespace: String
    /// For its node: the pod's interface in that namespace, such as eth0.
    public var interface: String

    /// Makes an endpoint.
    public init(
        addresses: [IPAddress], node: String, mode: Mode = .strict, headers: Headers = .visible,
        networkNamespace: String, interface: String = "eth0"
    ) {
        self.addresses = addresses
        self.node = node
        self.mode = mode
        self.headers = headers
        self.networkNamespace = networkNamespace
        self.interface = interface
    }
}

extension EncryptedEndpoint: Codable {
    private enum CodingKeys: String, CodingKey {
        case addresses, node, mode, headers, networkNamespace, interface
    }

    /// Reads an endpoint.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        self.init(
            addresses: try container.decode([IPAddress].self, forKey: .addresses),
            node: try container.decode(String.self, forKey: .node),
            mode: try container.decode(Mode.self, forKey: .mode),
            headers: try container.decodeIfPresent(Headers.self, forKey: .headers) ?? .visible,
            networkNamespace: try container.decode(String.self, forKey: .networkNamespace),
            interface: try container.decode(String.self, forKey: .interface))
    }

    /// Writes an endpoint.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(addresses, forKey: .addresses)
        try container.encode(node, forKey: .node)
        try container.encode(mode, forKey: .mode)
        if headers != .visible || encoder.writesDefaults { try container.encode(headers, forKey: .headers) }
        try container.encode(networkNamespace, forKey: .networkNamespace)
        try container.encode(interface, forKey: .interface)
    }
}

extension EncryptedEndpoint: Checked {
    /// Throws for the first value that cannot be.
    public func check() throws(InvalidValue) {
        try checkAddresses(addresses, "addresses")
        try checkName(node, "node")
        guard networkNamespace.utf8.first == UInt8(ascii: "/"), !networkNamespace.utf8.contains(0) else {
            throw InvalidValue(
                "networkNamespace", "\"\(networkNamespace)\" is no absolute path; expected one like /run/netns/pod-a")
        }
        let isInterfaceName =
            (1...15).contains(interface.utf8.count) && interface != "." && interface != ".."
            && interface.utf8.allSatisfy {
                $0 > 0x20 && $0 != 0x7f && $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: ":")
            }
        guard isInterfaceName else {
            throw InvalidValue(
                "interface", "\"\(interface)\" is no interface name; expected 1 to 15 characters, such as eth0")
        }
    }
}

public import Keys
internal import Netlink

/// An object whose values are checked beyond their types.
public protocol Checked: Codable {
    /// Throws for the first value that cannot be.
    func check() throws(InvalidValue)
}

/// A value that cannot be: the key that holds it, what is wrong, what was expected.
public struct InvalidValue: Error {
    /// Path of the key, such as endpoints[0].mode.
    public var key: String
    /// For people.
    public var problem: String

    /// Makes an error.
    public init(_ key: String, _ problem: String) {
        self.key = key
        self.problem = problem
    }
}

/// Names of objects become names of files and of folders of pins: 1 to 100 bytes.
public func isName(_ name: some StringProtocol) -> Bool { isName(name, atMost: maximumNameLength) }

/// Names of nodes that come from Kubernetes: 1 to 253 bytes, as there (DNS subdomain, RFC 1123). They name no file.
public func isNodeName(_ name: some StringProtocol) -> Bool { isName(name, atMost: maximumNodeNameLength) }

private let maximumNameLength = 100
private let maximumNodeNameLength = 253

private func isName(_ name: some StringProtocol, atMost length: Int) -> Bool {
    // Asked for every endpoint of every node whenever one changes: straight over the bytes, where they are in a row.
    name.utf8.withContiguousStorageIfAvailable { isName(bytes: $0, atMost: length) }
        ?? isName(bytes: Array(name.utf8), atMost: length)
}

private func isName(bytes: some Collection<UInt8>, atMost length: Int) -> Bool {
    guard (1...length).contains(bytes.count), bytes.first != UInt8(ascii: ".") else { return false }
    for byte in bytes {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"):
            continue
        default: return false
        }
    }
    return true
}

/// Throws unless it is a name.
public func checkName(_ name: String, _ key: String) throws(InvalidValue) {
    guard isName(name) else { throw noName(name, key, maximumNameLength) }
}

/// Throws unless it is a node's name in Kubernetes.
public func checkNodeName(_ name: String, _ key: String) throws(InvalidValue) {
    guard isNodeName(name) else { throw noName(name, key, maximumNodeNameLength) }
}

private func noName(_ name: String, _ key: String, _ length: Int) -> InvalidValue {
    InvalidValue(
        key, "\"\(name)\" is no name; expected 1 to \(length) letters, digits, '-', '.' and '_', not beginning with '.'"
    )
}

/// Throws unless it is 1 to 2^24 - 1.
public func checkNodeID(_ id: NodeID, _ key: String) throws(InvalidValue) {
    guard nodeIDs.contains(id) else {
        throw InvalidValue(key, "\(id) is out of range; expected \(nodeIDs.lowerBound) to \(nodeIDs.upperBound)")
    }
}

/// Throws unless it is an address and a port to listen on.
public func checkListen(_ text: String, _ key: String) throws(InvalidValue) {
    guard hostAndPort(text) != nil else {
        throw InvalidValue(key, "\"\(text)\" is no address; expected one like 0.0.0.0:9402 or [::]:9402")
    }
}

/// Host and port of a text such as `0.0.0.0:9402` and `[::]:9402`; nil: it is none.
public func hostAndPort(_ text: String) -> (host: String, port: Int)? {
    guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else { return nil }
    var host = text[..<colon]
    if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
    return (host.isEmpty ? "0.0.0.0" : String(host), Int(port))
}

func checkAddresses(_ addresses: [IPAddress], _ key: String) throws(InvalidValue) {
    guard !addresses.isEmpty else { throw InvalidValue(key, "is empty; expected one address or more") }
    guard Set(addresses).count == addresses.count else { throw InvalidValue(key, "holds an address twice") }
}

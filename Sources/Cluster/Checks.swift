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

/// Names of objects become names of files and of folders of pins.
public func isName(_ name: some StringProtocol) -> Bool {
    // Asked for every endpoint of every node whenever one changes: straight over the bytes, where they are in a row.
    name.utf8.withContiguousStorageIfAvailable { isName(bytes: $0) } ?? isName(bytes: Array(name.utf8))
}

private func isName(bytes: some Collection<UInt8>) -> Bool {
    guard (1...100).contains(bytes.count), bytes.first != UInt8(ascii: ".") else { return false }
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
    guard isName(name) else {
        throw InvalidValue(
            key, "\"\(name)\" is no name; expected 1 to 100 letters, digits, '-', '.' and '_', not beginning with '.'")
    }
}

/// Throws unless it is 1 to 2^24 - 1.
public func checkNodeID(_ id: NodeID, _ key: String) throws(InvalidValue) {
    guard nodeIDs.contains(id) else {
        throw InvalidValue(key, "\(id) is out of range; expected \(nodeIDs.lowerBound) to \(nodeIDs.upperBound)")
    }
}

func checkAddresses(_ addresses: [IPAddress], _ key: String) throws(InvalidValue) {
    guard !addresses.isEmpty else { throw InvalidValue(key, "is empty; expected one address or more") }
    guard Set(addresses).count == addresses.count else { throw InvalidValue(key, "holds an address twice") }
}

/// Scheme, host and port, and perhaps a path before every other: where requests go.
public struct HTTPEndpoint: Sendable, Hashable {
    /// https; or http, for loopback and link-local addresses only.
    public let isTLS: Bool
    /// Lower case, without brackets.
    public let host: String
    /// 1 to 65535.
    public let port: Int
    /// Empty, or begins with "/" and does not end with one.
    public let basePath: String

    /// Why a text is no endpoint that we would use.
    public struct Problem: Error, Sendable {
        /// Completes "endpoint ...".
        public let message: String
    }

    /// Parses `https://host[:port][/path]`. Plain http is for addresses that cannot leave the machine: anything else would show
    /// tokens and DEKs to the network. User names, queries, fragments and percent-encoding are refused.
    public init(_ text: String) throws(Problem) {
        func problem(_ why: String) -> Problem { Problem(message: "\"\(String(text.prefix(200)))\" \(why)") }
        let rest: Substring
        if text.hasPrefix("https://") {
            isTLS = true
            rest = text.dropFirst(8)
        } else if text.hasPrefix("http://") {
            isTLS = false
            rest = text.dropFirst(7)
        } else {
            throw problem("does not begin with https://")
        }
        let slash = rest.firstIndex(of: "/") ?? rest.endIndex
        let authority = rest[..<slash]
        var path = String(rest[slash...])
        while path.hasSuffix("/") { path.removeLast() }
        guard path.utf8.allSatisfy(Self.isPathByte), !path.contains("//"), !path.contains("/.") else {
            throw problem("has a path of other characters than letters, digits and - _ . /")
        }
        basePath = path

        let hostText: Substring
        let portText: Substring?
        if authority.hasPrefix("[") {
            guard let end = authority.firstIndex(of: "]") else { throw problem("lacks the ] after its IPv6 address") }
            hostText = authority[authority.index(after: authority.startIndex)..<end]
            let after = authority[authority.index(after: end)...]
            guard after.isEmpty || after.hasPrefix(":") else { throw problem("has something between ] and the port") }
            portText = after.isEmpty ? nil : after.dropFirst()
            guard hostText.utf8.allSatisfy({ Self.isHexDigit($0) || $0 == 0x3a || $0 == 0x2e }) else {
                throw problem("has no IPv6 address in []")
            }
        } else {
            let colon = authority.firstIndex(of: ":")
            hostText = authority[..<(colon ?? authority.endIndex)]
            portText = colon.map { authority[authority.index(after: $0)...] }
            guard hostText.utf8.allSatisfy({ Self.isPathByte($0) && $0 != 0x2f }) else {
                throw problem("has a host of other characters than letters, digits, - and .")
            }
        }
        guard (1...253).contains(hostText.utf8.count) else { throw problem("has no host") }
        host = hostText.lowercased()
        if let portText {
            guard portText.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = Int(portText),
                (1...65535).contains(number)
            else {
                throw problem("has a port outside of 1 to 65535")
            }
            port = number
        } else {
            port = isTLS ? 443 : 80
        }
        if !isTLS && !isLocal { throw problem("is plain http and not on this machine; use https") }
    }

    private init(isTLS: Bool, host: String) {
        self.isTLS = isTLS
        self.host = host
        port = isTLS ? 443 : 80
        basePath = ""
    }

    /// An endpoint that this program itself names.
    public static func https(_ host: String) -> HTTPEndpoint { HTTPEndpoint(isTLS: true, host: host) }
    /// A link-local metadata server.
    public static func linkLocal(_ host: String) -> HTTPEndpoint { HTTPEndpoint(isTLS: false, host: host) }

    /// Loopback, or the link-local addresses of metadata servers, which routers do not forward.
    public var isLocal: Bool {
        if host == "localhost" || host == "::1" || host == "metadata.google.internal" { return true }
        if host.hasPrefix("fd00:ec2::") { return true }
        let octets = host.split(separator: ".", omittingEmptySubsequences: false).map { UInt8($0) }
        guard octets.count == 4, !octets.contains(nil) else { return false }
        return octets[0] == 127 || (octets[0] == 169 && octets[1] == 254)
    }

    /// As in a URL and in the `Host` header: the port only where it is not the scheme's own.
    public var authority: String {
        let name = host.contains(":") ? "[\(host)]" : host
        return port == (isTLS ? 443 : 80) ? name : "\(name):\(port)"
    }

    /// Without the base path.
    public var origin: String { (isTLS ? "https://" : "http://") + authority }

    private static func isPathByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2d, 0x2e, 0x2f, 0x5f: true
        default: false
        }
    }

    private static func isHexDigit(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x46, 0x61...0x66: true
        default: false
        }
    }
}

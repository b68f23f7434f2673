/// The API server's address, checked before anything is sent there.
struct ServerURL: Sendable {
    let isTLS: Bool
    /// Lower case, without brackets.
    let host: String
    let port: Int
    /// Empty, or begins with "/" and does not end with one.
    let path: String

    init(_ text: String) throws(KubernetesError) {
        func problem(_ why: String) -> KubernetesError {
            KubernetesError(.configuration, "server \"\(String(text.prefix(200)))\" \(why)")
        }
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
        var path = String(rest[slash...])
        while path.hasSuffix("/") { path.removeLast() }
        guard path.utf8.allSatisfy({ Self.isName($0) || $0 == 0x2f || $0 == 0x3a }), !path.contains("/.") else {
            throw problem("has a path of other characters than letters, digits and - _ . : /")
        }
        self.path = path
        var authority = rest[..<slash]
        if authority.hasPrefix("["), let end = authority.firstIndex(of: "]") {
            host = authority[authority.index(after: authority.startIndex)..<end].lowercased()
            authority = authority[authority.index(after: end)...]
            guard host.utf8.allSatisfy({ Self.isName($0) || $0 == 0x3a }), authority.isEmpty || authority.hasPrefix(":")
            else { throw problem("has no IPv6 address in []") }
        } else {
            let colon = authority.firstIndex(of: ":") ?? authority.endIndex
            host = authority[..<colon].lowercased()
            authority = authority[colon...]
            guard host.utf8.allSatisfy(Self.isName) else { throw problem("has no host before its port or path") }
        }
        guard (1...253).contains(host.utf8.count) else { throw problem("has no host") }
        if authority.isEmpty {
            port = isTLS ? 443 : 80
        } else {
            guard let number = Int(authority.dropFirst()), (1...65535).contains(number) else {
                throw problem("has a port outside of 1 to 65535")
            }
            port = number
        }
        guard isTLS || host == "localhost" || host == "::1" || Self.isLoopback(host) else {
            throw problem("is plain http and not on this machine: tokens would be sent in clear; use https")
        }
    }

    /// Scheme, host (or another name for it) and port, and the path.
    func base(host name: String? = nil) -> String {
        let name = name ?? host
        return "\(isTLS ? "https" : "http")://\(name.contains(":") ? "[\(name)]" : name):\(port)\(path)"
    }

    private static func isLoopback(_ host: String) -> Bool {
        let octets = host.split(separator: ".", omittingEmptySubsequences: false).map { UInt8($0) }
        return octets.count == 4 && octets[0] == 127 && !octets.contains(nil)
    }

    private static func isName(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2d, 0x2e, 0x5f: true
        default: false
        }
    }
}

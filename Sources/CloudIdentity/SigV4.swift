internal import Crypto
internal import FoundationEssentials
internal import Secrets

/// AWS Signature Version 4: what proves to AWS who sends a request, and that nobody changed it.
public struct SigV4: Sendable {
    /// Such as eu-central-1.
    public var region: String
    /// Such as kms.
    public var service: String

    /// Makes a signer.
    public init(region: String, service: String) {
        self.region = region
        self.service = service
    }

    /// The request as it is signed.
    public struct Request: Sendable {
        /// Upper case.
        public var method: String
        /// Path and query as they are sent.
        public var target: String
        /// All headers to sign, `Host` and `X-Amz-Date` among them.
        public var headers: [(name: String, value: String)]
        /// SHA-256 of the body, in hexadecimal.
        public var bodyHash: String

        /// Makes a request.
        public init(method: String, target: String, headers: [(name: String, value: String)], bodyHash: String) {
            self.method = method
            self.target = target
            self.headers = headers
            self.bodyHash = bodyHash
        }
    }

    /// Adds date, session token and `Authorization` to a call.
    public func sign(_ call: inout HTTPCall, with credentials: AWSCredentials, at time: UTCTime) {
        let bodyHash = call.body?.withUnsafeBytes { Self.sha256($0) } ?? Self.sha256([UInt8]())
        call.headers.append((name: "X-Amz-Date", value: time.basic))
        if let token = credentials.sessionToken {
            let text = token.withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
            call.headers.append((name: "X-Amz-Security-Token", value: text))
        }
        let request = Request(
            method: call.method, target: call.target,
            headers: call.headers + [(name: "Host", value: call.endpoint.authority)], bodyHash: bodyHash)
        let value = authorization(for: request, date: time.basic, with: credentials)
        call.headers.append((name: "Authorization", value: value))
    }

    /// The `Authorization` header. `date` is the request's X-Amz-Date.
    public func authorization(for request: Request, date: String, with credentials: AWSCredentials) -> String {
        let day = String(date.prefix(8))
        let scope = "\(day)/\(region)/\(service)/aws4_request"
        let (canonical, signedHeaders) = Self.canonical(request)
        let toSign = "AWS4-HMAC-SHA256\n\(date)\n\(scope)\n\(Self.sha256(Array(canonical.utf8)))"
        let first = SecretBytes(count: 4 + credentials.secretAccessKey.count) { buffer in
            for (i, byte) in "AWS4".utf8.enumerated() { buffer[i] = byte }
            credentials.secretAccessKey.withUnsafeBytes { buffer[4...].copyBytes(from: $0) }
        }
        var key = first.withUnsafeBytes { SymmetricKey(data: $0) }
        for part in [day, region, service, "aws4_request"] {
            key = SymmetricKey(data: HMAC<SHA256>.authenticationCode(for: Array(part.utf8), using: key))
        }
        let signature = HMAC<SHA256>.authenticationCode(for: Array(toSign.utf8), using: key)
        return
            "AWS4-HMAC-SHA256 Credential=\(credentials.accessKeyID)/\(scope), SignedHeaders=\(signedHeaders), Signature=\(Self.hex(signature))"
    }

    /// The canonical request, and the list of signed headers in it.
    static func canonical(_ request: Request) -> (text: String, signedHeaders: String) {
        let parts = request.target.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        var byName: [String: [String]] = [:]
        for header in request.headers {
            byName[header.name.lowercased(), default: []].append(collapseSpace(header.value))
        }
        let names = byName.keys.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
        let headers = names.map { "\($0):\((byName[$0] ?? []).joined(separator: ","))\n" }.joined()
        let signedHeaders = names.joined(separator: ";")
        let text = [
            request.method, canonicalPath(parts[0]), parts.count > 1 ? canonicalQuery(parts[1]) : "", headers,
            signedHeaders,
            request.bodyHash,
        ].joined(separator: "\n")
        return (text, signedHeaders)
    }

    /// Dot segments and empty ones removed, then each segment encoded once more than it was sent.
    private static func canonicalPath(_ path: Substring) -> String {
        var segments: [Substring] = []
        for segment in path.split(separator: "/") where segment != "." {
            if segment == ".." {
                _ = segments.popLast()
            } else {
                segments.append(segment)
            }
        }
        var text = "/" + segments.joined(separator: "/")
        if !segments.isEmpty && (path.hasSuffix("/") || path.hasSuffix("/.") || path.hasSuffix("/..")) { text += "/" }
        return String(decoding: PercentEncoding.encode(text.utf8, keeping: "/"), as: UTF8.self)
    }

    private static func canonicalQuery(_ query: Substring) -> String {
        var pairs: [(name: [UInt8], value: [UInt8])] = []
        for pair in query.split(separator: "&") {
            let sides = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            func encoded(_ side: Substring) -> [UInt8] { PercentEncoding.encode(PercentEncoding.decode(side.utf8)) }
            pairs.append((encoded(sides[0]), sides.count > 1 ? encoded(sides[1]) : []))
        }
        pairs.sort {
            $0.name == $1.name
                ? $0.value.lexicographicallyPrecedes($1.value) : $0.name.lexicographicallyPrecedes($1.name)
        }
        return pairs.map { String(decoding: $0.name, as: UTF8.self) + "=" + String(decoding: $0.value, as: UTF8.self) }
            .joined(separator: "&")
    }

    /// No space at the ends, one for several within.
    private static func collapseSpace(_ value: String) -> String {
        value.split(whereSeparator: { $0 == " " || $0 == "\t" || $0.isNewline }).joined(separator: " ")
    }

    /// SHA-256 in hexadecimal.
    static func sha256(_ bytes: some DataProtocol) -> String { hex(SHA256.hash(data: bytes)) }

    private static func hex(_ bytes: some Sequence<UInt8>) -> String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
}

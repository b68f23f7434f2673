import Crypto
import Glibc
import Secrets
import Testing

@testable import CloudIdentity

private let credentials = AWSCredentials(
    accessKeyID: "AKIDEXAMPLE", secretAccessKey: SecretBytes(copyingText: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
    sessionToken: nil,
    lifetime: nil)

@Suite struct SigV4Tests {
    /// A known answer of AWS's own suite.
    @Test func vanilla() {
        let request = SigV4.Request(
            method: "GET", target: "/",
            headers: [("Host", "example.amazonaws.com"), ("X-Amz-Date", "20150830T123600Z")],
            bodyHash: SigV4.sha256([UInt8]()))
        #expect(
            SigV4(region: "us-east-1", service: "service").authorization(
                for: request, date: "20150830T123600Z", with: credentials)
                == "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        )
    }

    @Test func signsWhatIsSent() throws {
        var call = HTTPCall("POST", try HTTPEndpoint("https://kms.eu-central-1.amazonaws.com"), "/")
        call.headers = [(name: "X-Amz-Target", value: "TrentService.Decrypt")]
        call.body = SecretBytes(copyingText: "{}")
        let temporary = AWSCredentials(
            accessKeyID: "ASIA", secretAccessKey: credentials.secretAccessKey,
            sessionToken: SecretBytes(copyingText: "tok"), lifetime: nil)
        SigV4(region: "eu-central-1", service: "kms").sign(
            &call, with: temporary, at: UTCTime(unixSeconds: 1_440_938_160))
        let authorization = try #require(call.headers.last { $0.name == "Authorization" }?.value)
        #expect(authorization.contains("Credential=ASIA/20150830/eu-central-1/kms/aws4_request"))
        #expect(authorization.contains("SignedHeaders=host;x-amz-date;x-amz-security-token;x-amz-target"))
        #expect(call.headers.contains { $0.name == "X-Amz-Date" && $0.value == "20150830T123600Z" })
    }

    /// The official suite, from botocore's source distribution; `make test-kms` fetches it and says where it is.
    @Test(.enabled(if: getenv("SIGV4_SUITE") != nil, "make test-kms fetches the suite and sets SIGV4_SUITE"))
    func officialSuite() throws {
        let root = try #require(getenv("SIGV4_SUITE").map { String(cString: $0) })
        var cases = 0
        var good = 0
        for path in files(below: root).sorted() where path.hasSuffix(".req") {
            let stem = String(path.dropLast(4))
            guard let wanted = readText(stem + ".authz") else { continue }
            cases += 1
            let text = try #require(readText(path))
            var request = try #require(parse(text))
            // The suite's request with a token lists the token in its signed form only.
            if path.contains("get-vanilla-with-session-token"), let signed = readText(stem + ".sreq").flatMap(parse) {
                request.headers += signed.headers.filter { $0.name.lowercased() == "x-amz-security-token" }
            }
            let date = try #require(request.headers.first { $0.name.lowercased() == "x-amz-date" }?.value)
            let answer = SigV4(region: "us-east-1", service: "service")
                .authorization(for: request, date: date.replacing(" ", with: ""), with: credentials)
            if answer == wanted.replacing("\n", with: "") { good += 1 } else { Issue.record("\(path): \(answer)") }
        }
        print("SIGV4 \(good)/\(cases) cases of the official suite")
        #expect(cases == 34)
        #expect(good == cases)
    }

    private func parse(_ text: String) -> SigV4.Request? {
        let text = text.replacing("\r\n", with: "\n")
        let head = text.firstRange(of: "\n\n").map { text[..<$0.lowerBound] } ?? text[...]
        let body = text.firstRange(of: "\n\n").map { text[$0.upperBound...] } ?? ""
        var lines = head.split(separator: "\n", omittingEmptySubsequences: true)[...]
        guard let first = lines.popFirst(), let space = first.firstIndex(of: " "), let last = first.lastIndex(of: " ")
        else { return nil }
        var headers: [(name: String, value: String)] = []
        for line in lines {
            if let colon = line.firstIndex(of: ":"), !line.hasPrefix(" ") {
                headers.append((String(line[..<colon]), String(line[line.index(after: colon)...])))
            } else if let last = headers.popLast() {
                headers.append((last.name, last.value + "\n" + line))
            }
        }
        return SigV4.Request(
            method: String(first[..<space]), target: String(first[first.index(after: space)..<last]), headers: headers,
            bodyHash: SigV4.sha256(Array(body.utf8)))
    }
}

/// A file's text; nil if it is not there.
func readText(_ path: String) -> String? {
    guard let file = fopen(path, "r") else { return nil }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while case let got = fread(&buffer, 1, buffer.count, file), got > 0 { bytes += buffer[..<got] }
    return String(decoding: bytes, as: UTF8.self)
}

private func files(below folder: String) -> [String] {
    guard let handle = opendir(folder) else { return [] }
    defer { closedir(handle) }
    var found: [String] = []
    while let entry = readdir(handle) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
            $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        guard name != "." && name != ".." else { continue }
        found += entry.pointee.d_type == UInt8(DT_DIR) ? files(below: folder + "/" + name) : [folder + "/" + name]
    }
    return found
}

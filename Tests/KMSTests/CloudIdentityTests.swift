import Glibc
import Secrets
import Synchronization
import Testing

@testable import CloudIdentity
@testable import KMS

private func secret(_ text: String) -> SecretBytes { SecretBytes(copyingText: text) }
private func text(_ secret: SecretBytes?) -> String? { secret?.withUnsafeBytes { String(decoding: $0, as: UTF8.self) } }

@Suite struct JSONDocumentTests {
    @Test func reads() throws {
        let json = try JSONDocument(
            secret(
                #" {"a":{"b":[1,-2.5e3,true,null,"x\u00e9\ud83d\ude00\n"]},"n":"42","t":"tok","d":"AAEC","u":"_-8"} "#)
        ).value
        let array = try #require(json["a"]?["b"]?.array)
        #expect(array[0].integer == 1)
        #expect(array[1].numberText == "-2.5e3")
        #expect(array[2].bool == true)
        #expect(array[4].string == "xé😀\n")
        #expect(json["n"]?.integer == 42)
        #expect(text(json["t"]?.secret) == "tok")
        #expect(json["d"]?.secretBytes(.standard)?.withUnsafeBytes { Array($0) } == [0, 1, 2])
        #expect(json["u"]?.secretBytes(.url)?.withUnsafeBytes { Array($0) } == [0xff, 0xef])
        #expect(json["missing"] == nil && json["n"]?["x"] == nil && json["n"]?.array == nil && json["n"]?.bool == nil)
    }

    @Test func base64MayEscapeItsSlashes() throws {
        let json = try JSONDocument(secret(#"{"d":"\/\/\/\/","e":"\u0041AAA"}"#)).value
        #expect(json["d"]?.secretBytes(.standard)?.withUnsafeBytes { Array($0) } == [255, 255, 255])
        #expect(json["e"]?.secretBytes(.standard) == nil)
    }

    @Test(arguments: [
        "", " ", "{", "}", "[", "[1,]", "{\"a\":1,}", "{\"a\"}", "{a:1}", "{\"a\":1 \"b\":2}", "01", "1.", "1e", "-",
        "+1", "tru", "nul",
        "\"", "\"\\x\"", "\"\\u12\"", "\"\u{1}\"", "{} {}", "{\"a\":1,\"a\":2}", "\"a\nb\"", "NaN",
        String(repeating: "[", count: 40) + String(repeating: "]", count: 40),
        "[" + String(repeating: "1,", count: 5000) + "1]",
    ])
    func refuses(_ bad: String) {
        #expect(throws: JSONDocument.Malformed.self) { try JSONDocument(secret(bad)) }
    }

    @Test func refusesBadUTF8() {
        var bytes: [UInt8] = [0x22, 0xff, 0xfe, 0x22]
        #expect(throws: JSONDocument.Malformed.self) { try JSONDocument(SecretBytes(zeroing: &bytes)) }
    }

    @Test func survivesNoise() {
        var dice = Dice(state: 42)
        let seeds = [#"{"a":{"b":[1,-2.5e3,true,null,"x\u00e9\n"]},"n":"42"}"#]
        for _ in 0..<20_000 {
            var bytes = Array(seeds[0].utf8)
            for _ in 0..<Int.random(in: 1...4, using: &dice) {
                bytes[Int.random(in: 0..<bytes.count, using: &dice)] = UInt8.random(in: 0...255, using: &dice)
            }
            bytes.removeLast(Int.random(in: 0..<3, using: &dice))
            _ = try? JSONDocument(SecretBytes(zeroing: &bytes)).value["a"]?["b"]?.array?.map { ($0.string, $0.integer) }
        }
    }

    @Test func writes() {
        let body = JSONWriter.object([
            ("a", .string("q\"\\\u{1}é")), ("b", .array([.integer(1), .base64([0, 1])])),
            ("c", .base64(secret("hello"))),
            ("d", .base64(secret("hello"), .url)), ("e", .secret(secret("tok"))),
        ]).bytes()
        #expect(text(body) == #"{"a":"q\"\\\u0001é","b":[1,"AAE="],"c":"aGVsbG8=","d":"aGVsbG8","e":"tok"}"#)
    }
}

@Suite struct Base64Tests {
    @Test func rfc4648() {
        for (plain, coded) in [
            ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            #expect(Base64.standard.encode(plain.utf8) == coded)
            #expect(Base64.standard.decode(coded) == Array(plain.utf8))
            let bare = coded.replacing("=", with: "")
            #expect(Base64.url.encode(plain.utf8) == bare)
            #expect(Base64.url.decode(bare) == Array(plain.utf8))
        }
    }

    @Test func allBytes() {
        let all = (0...255).map { UInt8($0) }
        #expect(Base64.standard.decode(Base64.standard.encode(all)) == all)
        #expect(Base64.url.decode(Base64.url.encode(all)) == all)
    }

    @Test(arguments: [
        "Zg=", "Zg", "Zh==", "Z===", "====", "Zm9v\n", "Zm 9v", "Zm9_", "=Zm9", "Zg==Zg==", "Zm9v=", "Zé==",
    ])
    func refuses(_ bad: String) {
        #expect(Base64.standard.decode(bad) == nil)
    }

    @Test(arguments: ["Zg==", "Z", "Zm9+", "Zh"])
    func refusesForURLs(_ bad: String) {
        #expect(Base64.url.decode(bad) == nil)
    }
}

@Suite struct HTTPEndpointTests {
    @Test func parses() throws {
        let endpoint = try HTTPEndpoint("https://Vault.Example.com:8200/v/x/")
        #expect(endpoint.host == "vault.example.com" && endpoint.port == 8200 && endpoint.basePath == "/v/x")
        #expect(endpoint.origin == "https://vault.example.com:8200")
        #expect(try HTTPEndpoint("https://a").origin == "https://a")
        #expect(try HTTPEndpoint("http://[::1]:80").origin == "http://[::1]")
        for local in ["http://127.0.0.1:1", "http://localhost", "http://169.254.169.254", "http://[fd00:ec2::23]"] {
            #expect(try HTTPEndpoint(local).isLocal)
        }
    }

    @Test(arguments: [
        "", "ftp://a", "https://", "https://a b", "https://u:p@a", "https://a:0", "https://a:99999", "https://a:x",
        "https://a/?q",
        "https://a/#f", "https://a/../b", "https://a/%2e", "http://example.com", "http://10.0.0.1",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com", "http://169.254.169.254@evil.com", "https://[::1", "https://[::1]x",
        "http://0x7f.1",
    ])
    func refuses(_ bad: String) {
        #expect(throws: HTTPEndpoint.Problem.self) { try HTTPEndpoint(bad) }
    }
}

@Suite struct TimeTests {
    @Test(
        arguments: [
            ("1970-01-01T00:00:00Z", 0, "19700101T000000Z"),
            ("2015-08-30T12:36:00Z", 1_440_938_160, "20150830T123600Z"),
            ("2000-02-29T23:59:59.123Z", 951_868_799, "20000229T235959Z"),
            ("2100-03-01T00:00:00+00:00", 4_107_542_400, "21000301T000000Z"),
        ] as [(String, Int64, String)])
    func roundTrip(_ text: String, _ seconds: Int64, _ basic: String) {
        #expect(UTCTime(rfc3339: text)?.unixSeconds == seconds)
        #expect(UTCTime(unixSeconds: seconds).basic == basic)
    }

    @Test func refuses() {
        for bad in [
            "", "2015-08-30", "2015-13-01T00:00:00Z", "2015-08-30T24:00:00Z", "2015-08-30T12:36:00",
            "2015-08-30T12:36:00+02:00",
        ] {
            #expect(UTCTime(rfc3339: bad) == nil)
        }
        #expect(UTCTime(httpDate: "Sun, 30 Aug 2015 12:36:00 GMT")?.unixSeconds == 1_440_938_160)
        #expect(UTCTime(httpDate: "yesterday") == nil)
    }
}

@Suite struct CRC32CTests {
    @Test func knownAnswers() {
        #expect(CRC32C.checksum("123456789".utf8) == 0xe306_9283)
        #expect(CRC32C.checksum([UInt8](repeating: 0, count: 32)) == 0x8a91_36aa)
        let bytes = (0..<100).map { UInt8($0) }
        #expect(bytes.withUnsafeBytes { CRC32C.checksum(secret: $0) } == CRC32C.checksum(bytes))
    }
}

@Suite struct CredentialCacheTests {
    private struct Source: CredentialSource {
        let fetch_: @Sendable (Int) throws(IdentityError) -> BearerToken
        let count = Counter()
        func fetch() async throws(IdentityError) -> BearerToken {
            let number = count.next()
            try? await Task.sleep(for: .milliseconds(20))
            return try fetch_(number)
        }
    }
    private final class Counter: Sendable {
        let value = Mutex(0)
        func next() -> Int {
            value.withLock {
                $0 += 1; return $0
            }
        }
    }
    private final class Clock: Sendable {
        let now = Mutex(Duration.zero)
        var source: TimeSource { TimeSource(monotonic: { self.now.withLock { $0 } }, unixSeconds: { 0 }) }
        func set(_ time: Duration) { now.withLock { $0 = time } }
    }

    @Test func oneRequestForManyCallers() async {
        let source = Source { (n) throws(IdentityError) in BearerToken(value: secret("t\(n)"), lifetime: .seconds(3600))
        }
        let cache = CredentialCache(source, time: Clock().source)
        await withTaskGroup(of: String?.self) { group in
            for _ in 0..<100 { group.addTask { text(try? await cache.credential().value) } }
            for await token in group { #expect(token == "t1") }
        }
        #expect(source.count.value.withLock { $0 } == 1)
    }

    @Test func renewsShortlyBeforeTheEnd() async throws {
        let clock = Clock()
        let source = Source { (n) throws(IdentityError) in
            if n == 2 { throw IdentityError(.unreachable, "down") }
            return BearerToken(value: secret("t\(n)"), lifetime: .seconds(3600))
        }
        let cache = CredentialCache(source, time: clock.source)
        #expect(text(try await cache.credential().value) == "t1")
        clock.set(.seconds(3000))
        #expect(text(try await cache.credential().value) == "t1")
        clock.set(.seconds(3400))
        #expect(text(try await cache.credential().value) == "t1", "the renewal failed, and the old one is still good")
        #expect(source.count.value.withLock { $0 } == 2)
        #expect(text(try await cache.credential().value) == "t1")
        #expect(source.count.value.withLock { $0 } == 2, "not asked again at once")
        clock.set(.seconds(3500))
        #expect(text(try await cache.credential().value) == "t3")
        await cache.invalidate()
        #expect(text(try await cache.credential().value) == "t4")
    }

    @Test func expiredMeansExpired() async throws {
        let clock = Clock()
        let source = Source { (n) throws(IdentityError) in
            if n > 1 { throw IdentityError(.unreachable, "down") }
            return BearerToken(value: secret("t"), lifetime: .seconds(100))
        }
        let cache = CredentialCache(source, time: clock.source)
        _ = try await cache.credential()
        clock.set(.seconds(101))
        await #expect(throws: IdentityError.self) { try await cache.credential() }
    }
}

@Suite struct TokenFileTests {
    let folder = TemporaryFolder()

    @Test func readsAgainEveryTime() throws {
        folder.write("token", "one\n", mode: 0o600)
        let file = TokenFile(folder.path("token"))
        #expect(text(try file.read()) == "one")
        folder.write("token", "two", mode: 0o600)
        #expect(text(try file.read()) == "two")
    }

    @Test(arguments: ["", "\n\n", "a b", "a\r\nX-Injected: 1", String(repeating: "x", count: 17_000), "é"])
    func refuses(_ content: String) {
        folder.write("token", content, mode: 0o600)
        #expect(throws: IdentityError.self) { try TokenFile(folder.path("token")).read() }
    }

    @Test func saysWhatIsMissing() {
        #expect(throws: IdentityError.self) { try TokenFile(folder.path("nothing")).read() }
    }
}

@Suite struct ConfigurationTests {
    private func service(_ configuration: KMSConfiguration, _ environment: [String: String] = [:]) throws(KMSError) {
        _ = try configuration.makeService(environment: environment)
    }

    @Test func namesWhatIsWrong() async {
        var configuration = KMSConfiguration()
        await expectKMSError(.misconfigured, containing: "KMS_PROVIDER") { try service(configuration) }
        await expectKMSError(.misconfigured, containing: "expected one of local, aws") {
            try service(configuration, ["KMS_PROVIDER": "ibm"])
        }
        await expectKMSError(.misconfigured, containing: "kms.gcp is absent") {
            try service(configuration, ["KMS_PROVIDER": "gcp"])
        }
        configuration.provider = .aws
        await expectKMSError(.misconfigured, containing: "make them agree") {
            try service(configuration, ["KMS_PROVIDER": "gcp"])
        }
        for key in [
            "alias/x", "arn:aws:kms:eu-central-1:1:alias/x", "arn:aws:s3:eu:1:key/x", "arn:aws:kms:evil.com/:1:key/x",
        ] {
            configuration.aws = .init(key: key)
            await expectKMSError(.misconfigured, containing: "kms.aws.key") { try service(configuration) }
        }
        configuration.aws = .init(key: ProviderFixture.awsKey, endpoint: "http://kms.example.com")
        await expectKMSError(.misconfigured, containing: "kms.aws.endpoint") { try service(configuration) }
        configuration.aws = .init(key: ProviderFixture.awsKey, identity: .init(source: .webIdentity))
        await expectKMSError(.misconfigured, containing: "AWS_ROLE_ARN") { try service(configuration) }
        configuration.timeoutSeconds = 0
        await expectKMSError(.misconfigured, containing: "1 to 60") { try service(configuration) }
    }

    @Test func credentialsGoToAllowedHostsOnly() async {
        var configuration = KMSConfiguration(provider: .aws)
        configuration.aws = .init(key: ProviderFixture.awsKey)
        for uri in ["http://169.254.170.23/v1/credentials", "http://127.0.0.1:80/x", "https://example.com/x"] {
            #expect(throws: Never.self) { try service(configuration, ["AWS_CONTAINER_CREDENTIALS_FULL_URI": uri]) }
        }
        for uri in ["http://169.254.169.254/x", "http://example.com/x", "http://10.0.0.1/"] {
            await expectKMSError(.misconfigured) {
                try service(configuration, ["AWS_CONTAINER_CREDENTIALS_FULL_URI": uri])
            }
        }
    }

    @Test func everyGoogleAndAzureAndVaultNameIsChecked() async {
        var configuration = KMSConfiguration(provider: .gcp)
        for key in [
            "k", "projects/p/locations/l/keyRings/r/cryptoKeys/", "projects/../locations/l/keyRings/r/cryptoKeys/k",
            "projects/p/locations/l/keyRings/r/cryptoKeys/k:decrypt?",
        ] {
            configuration.gcp = .init(key: key)
            await expectKMSError(.misconfigured, containing: "kms.gcp.key") { try service(configuration) }
        }
        configuration.provider = .azure
        configuration.azure = .init(vault: "https://v.vault.azure.net", key: "a/b")
        await expectKMSError(.misconfigured, containing: "kms.azure.key") { try service(configuration) }
        configuration.provider = .openbao
        configuration.openbao = .init(
            address: "https://bao", key: "../sys/seal", identity: .init(source: .token, tokenFile: "/t"))
        await expectKMSError(.misconfigured, containing: "kms.openbao.key") { try service(configuration) }
    }

    @Test func aVaultMayNotAskForTokensOfOthers() async throws {
        for resource in [
            "https://management.azure.com", "https://azure.net.evil.com", "https://evil.com", "http://vault.azure.net",
            "net",
        ] {
            let server = try await ScriptedServer { _ in
                .answer(
                    401, headers: ["WWW-Authenticate": #"Bearer authorization="https://x/t", resource="\#(resource)""#],
                    body: "{}")
            }
            let vault = try AzureKeyVault(
                vault: try HTTPEndpoint(server.base), keyName: "k", algorithm: .rsaOAEP256, allowedResource: nil,
                http: try AsyncHTTPService()
            ) { (resource) throws(IdentityError) in
                Issue.record("asked for a token for \(resource)")
                throw IdentityError(.denied, "")
            }
            await expectKMSError(.denied, containing: "kms.azure.resource") { try await vault.checkHealth() }
            await server.stop()
        }
    }
}

import Glibc
import Keys
import Testing

@testable import Datapath

/// NIST's CAVP vectors for GCM, as the PyPI package cryptography_vectors brings them, through the loaded kernel program.
@Suite(.enabled(if: isRoot, needsRoot), .enabled(if: CAVP.folder != nil, CAVP.missing))
struct CAVPTests {
    @Test(arguments: ["gcmEncryptExtIV128.rsp", "gcmEncryptExtIV256.rsp"])
    func seals(file: String) throws {
        let cipher = try KernelCipher()
        let cases = try CAVP.cases(file)
        for vector in cases {
            let sealed = try cipher.seal(
                key: try vector.bytes("Key"), nonce: try vector.bytes("IV"), aad: try vector.bytes("AAD"),
                plaintext: try vector.bytes("PT"))
            let ciphertext = try vector.bytes("CT")
            let tag = try vector.bytes("Tag")
            #expect(sealed.ciphertext == ciphertext, "\(file) \(vector.name)")
            #expect(sealed.tag == tag, "\(file) \(vector.name)")
        }
        #expect(cases.count >= 300)
        print("CAVP \(file): \(cases.count) cases sealed in the kernel")
    }

    @Test(arguments: ["gcmDecrypt128.rsp", "gcmDecrypt256.rsp"])
    func opens(file: String) throws {
        let cipher = try KernelCipher()
        let cases = try CAVP.cases(file)
        var refused = 0
        for vector in cases {
            let plaintext = try cipher.open(
                key: try vector.bytes("Key"), nonce: try vector.bytes("IV"), aad: try vector.bytes("AAD"),
                ciphertext: try vector.bytes("CT"), tag: try vector.bytes("Tag"))
            if vector.mustFail {
                refused += 1
                #expect(plaintext == nil, "\(file) \(vector.name)")
            } else {
                let expected = try vector.bytes("PT")
                #expect(plaintext == expected, "\(file) \(vector.name)")
            }
        }
        #expect(cases.count >= 300)
        #expect(refused > 50)
        print("CAVP \(file): \(cases.count) cases opened in the kernel, \(refused) of them forged and refused")
    }
}

/// Reads CAVP response files.
enum CAVP {
    static let missing: Comment = "the PyPI package cryptography_vectors is not there: run 'make setup'"

    /// In the virtual environment that `make setup` makes.
    static let folder: String? = {
        let found = shell(
            "ls -d \(packageRoot)/.venv/lib/python3*/site-packages/cryptography_vectors/ciphers/AES/GCM 2> /dev/null")
        return found?.split(separator: "\n").first.map(String.init)
    }()

    struct Vector {
        /// Section and number.
        var name: String
        var fields: [Substring: Substring] = [:]
        var mustFail = false

        func bytes(_ field: Substring) throws -> [UInt8] {
            let digits = try #require(fields[field], "\(name) has no \(field)")
            return try #require([UInt8](hex: digits))
        }
    }

    /// All cases of a file with nonces of 96 bits and tags of 128.
    static func cases(_ file: String) throws -> [Vector] {
        let text = try String(contentsOfFile: "\(folder ?? "")/\(file)")
        var cases: [Vector] = []
        var section: [Substring: Substring] = [:]
        var current: Vector?
        func close() {
            if let vector = current, section["IVlen"] == "96", section["Taglen"] == "128" { cases.append(vector) }
            current = nil
        }
        for line in text.split(whereSeparator: \.isNewline) {
            let parts = line.split(separator: "=", maxSplits: 1).map { part in
                part.filter { !"[] ".contains($0) }[...]
            }
            if line.hasPrefix("[") {
                close()
                if parts.count == 2 { section[parts[0]] = parts[1] }
            } else if parts.first == "Count", parts.count == 2 {
                close()
                current = Vector(
                    name: "\(section.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }) \(parts[1])")
            } else if line.hasPrefix("FAIL") {
                current?.mustFail = true
            } else if line.contains("=") {
                current?.fields[parts[0]] = parts.count == 2 ? parts[1] : ""
            }
        }
        close()
        return cases
    }
}

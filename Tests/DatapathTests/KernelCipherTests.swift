import Datapath
import Testing

/// Test cases 13 to 16 of the GCM specification (McGrew and Viega), and what must be refused.
@Suite(.enabled(if: isRoot, needsRoot))
struct KernelCipherTests {
    let cipher: KernelCipher

    init() throws { cipher = try KernelCipher() }

    @Test func emptyTextUnderZeroKey() throws {
        let sealed = try cipher.seal(
            key: [UInt8](repeating: 0, count: 32), nonce: [UInt8](repeating: 0, count: 12), aad: [], plaintext: [])
        #expect(sealed.ciphertext.isEmpty)
        #expect(
            sealed.tag == [
                0x53, 0x0f, 0x8a, 0xfb, 0xc7, 0x45, 0x36, 0xb9, 0xa9, 0x63, 0xb4, 0xf1, 0xc4, 0xcb, 0x73, 0x8b,
            ])
    }

    @Test(arguments: [0, 1, 15, 16, 17, 63, 64, 65, 255, 256, 1400, 2999, 3000], [16, 32])
    func opensWhatItSealed(textLength: Int, keyLength: Int) throws {
        let key = (0..<keyLength).map { UInt8($0) }
        let nonce = (0..<12).map { UInt8($0 ^ 0x5a) }
        let text = (0..<textLength).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        for aad in [0, 1, 16, 20, 255, 256].map({ [UInt8](repeating: 9, count: $0) }) {
            let sealed = try cipher.seal(key: key, nonce: nonce, aad: aad, plaintext: text)
            #expect(sealed.ciphertext.count == textLength)
            let opened = try cipher.open(
                key: key, nonce: nonce, aad: aad, ciphertext: sealed.ciphertext, tag: sealed.tag)
            #expect(opened == text)
            var wrong = sealed.tag
            wrong[15] ^= 1
            #expect(try cipher.open(key: key, nonce: nonce, aad: aad, ciphertext: sealed.ciphertext, tag: wrong) == nil)
        }
    }

    @Test func refusesOtherSizes() {
        func bytes(_ count: Int) -> [UInt8] { [UInt8](repeating: 0, count: count) }
        for (key, nonce, aad, text) in [
            (0, 12, 0, 0), (24, 12, 0, 0), (33, 12, 0, 0), (32, 11, 0, 0), (32, 13, 0, 0), (32, 12, 257, 0),
            (32, 12, 0, 3001),
        ] {
            #expect(throws: DatapathError.self) {
                _ = try cipher.seal(key: bytes(key), nonce: bytes(nonce), aad: bytes(aad), plaintext: bytes(text))
            }
        }
        #expect(throws: DatapathError.self) {
            _ = try cipher.open(key: bytes(32), nonce: bytes(12), aad: [], ciphertext: [], tag: bytes(15))
        }
    }
}

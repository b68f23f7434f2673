import Testing

@testable import Datapath

@Suite struct CipherDriverTests {
    /// Entries as Linux 6.12 has them on x86, after the first key.
    private static let generic = entry("ecb(aes)", "ecb(aes-generic)", 100, "lskcipher")
    private static let instructions = entry("ecb(aes)", "ecb(aes-aesni)", 300, "lskcipher")
    private static let ofUserSpace = entry("ecb(aes)", "ecb-aes-aesni", 400, "skcipher")
    private static let x86 = "processor\t: 0\nflags\t\t: fpu pclmulqdq aes xsave\n"

    private static func entry(_ name: String, _ driver: String, _ priority: Int, _ type: String) -> String {
        """
        name         : \(name)
        driver       : \(driver)
        module       : kernel
        priority     : \(priority)
        refcnt       : 1
        selftest     : passed
        type         : \(type)
        blocksize    : 16


        """
    }

    @Test("The best of those that the kfuncs can take: nobody else's counts")
    func best() {
        let driver = CipherDriver(crypto: Self.ofUserSpace + Self.generic + Self.instructions, cpu: Self.x86)
        #expect(driver?.name == "ecb(aes-aesni)")
        #expect(driver?.leavesInstructionsUnused == false)
        #expect(driver?.warning == nil)
    }

    @Test("C code is told of where the processor could do better", arguments: ["aes-generic", "aes-fixed-time"])
    func slow(cipher: String) {
        let crypto = Self.ofUserSpace + Self.entry("ecb(aes)", "ecb(\(cipher))", 100, "lskcipher")
        let driver = CipherDriver(crypto: crypto, cpu: Self.x86)
        #expect(driver?.warning?.contains("ecb(\(cipher))") == true)
        let arm = "processor\t: 0\nFeatures\t: fp asimd aes pmull\n"
        #expect(CipherDriver(crypto: crypto, cpu: arm)?.leavesInstructionsUnused == true)
        // "vaes" is another feature.
        #expect(CipherDriver(crypto: crypto, cpu: "flags\t\t: fpu vaes\n")?.leavesInstructionsUnused == false)
        #expect(CipherDriver(crypto: crypto, cpu: "")?.warning == nil)
    }

    @Test("Before the first key: what the kernel will make of its best cipher")
    func before() {
        let crypto = Self.entry("aes", "aes-generic", 100, "cipher") + Self.entry("aes", "aes-aesni", 300, "cipher")
        #expect(CipherDriver(crypto: Self.ofUserSpace + crypto, cpu: Self.x86)?.name == "ecb(aes-aesni)")
    }

    @Test(
        "What says nothing, or is cut off, is no driver",
        arguments: ["", "name : ecb(aes)\n", "name\n\n: :\n", "\n\n\n"])
    func nothing(crypto: String) {
        #expect(CipherDriver(crypto: crypto, cpu: Self.x86) == nil)
    }

    @Test("This kernel's own")
    func here() throws {
        let name = try #require(CipherDriver.current()).name
        #expect(name.hasPrefix("ecb(aes-") && name.hasSuffix(")"))
    }
}

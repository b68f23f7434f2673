public import Secrets

/// RFC 4648, both alphabets, strict: no white space, no bits left over.
public enum Base64: Sendable {
    /// `+` and `/`, padded.
    case standard
    /// `-` and `_`, not padded.
    case url

    /// The text of some bytes.
    public func encode(_ bytes: some Collection<UInt8>) -> String {
        String(decoding: encodeBytes(bytes), as: UTF8.self)
    }

    /// The text of some bytes, in ASCII.
    public func encodeBytes(_ bytes: some Collection<UInt8>) -> [UInt8] {
        let letters = alphabet
        var text: [UInt8] = []
        text.reserveCapacity((bytes.count + 2) / 3 * 4)
        var held: UInt32 = 0
        var bits = 0
        for byte in bytes {
            held = held << 8 | UInt32(byte)
            bits += 8
            while bits >= 6 {
                bits -= 6
                text.append(letters[Int(held >> UInt32(bits)) & 63])
            }
        }
        if bits > 0 { text.append(letters[Int(held << UInt32(6 - bits)) & 63]) }
        if self == .standard { while text.count % 4 != 0 { text.append(0x3d) } }
        return text
    }

    /// How many bytes a text stands for; nil when its length cannot be right.
    func decodedCount(_ text: UnsafeRawBufferPointer) -> Int? {
        var count = text.count
        if self == .standard {
            guard count % 4 == 0 else { return nil }
            while count > 0, text.count - count < 2, text[count - 1] == 0x3d { count -= 1 }
        }
        return count % 4 == 1 ? nil : count / 4 * 3 + (count % 4) * 3 / 4
    }

    /// Decodes into a buffer of exactly `decodedCount` bytes. Neither tables nor branches depend on a letter's value, only on
    /// whether it is one.
    func decode(_ text: UnsafeRawBufferPointer, into bytes: UnsafeMutableRawBufferPointer) -> Bool {
        var held: UInt32 = 0
        var bits = 0
        var written = 0
        var bad: UInt32 = 0
        for letter in text {
            if letter == 0x3d && self == .standard { break }
            let value = Self.value(
                letter, plus: self == .standard ? 0x2b : 0x2d, slash: self == .standard ? 0x2f : 0x5f)
            bad |= value & 0x100
            held = (held << 6 | value & 63) & 0xffff
            bits += 6
            if bits >= 8 {
                bits -= 8
                guard written < bytes.count else { return false }
                bytes[written] = UInt8(truncatingIfNeeded: held >> UInt32(bits))
                written += 1
            }
        }
        let left = held & ((1 << UInt32(bits)) - 1)
        return bad == 0 && left == 0 && written == bytes.count
    }

    /// The bytes of a text that is no secret.
    public func decode(_ text: some StringProtocol) -> [UInt8]? {
        let letters = Array(text.utf8)
        return letters.withUnsafeBytes { letters in
            guard let count = decodedCount(letters) else { return nil }
            var bytes = [UInt8](repeating: 0, count: count)
            return bytes.withUnsafeMutableBytes { decode(letters, into: $0) } ? bytes : nil
        }
    }

    /// The bytes of a text that is a secret, straight into secret memory.
    public func decodeSecret(_ text: UnsafeRawBufferPointer) -> SecretBytes? {
        guard let count = decodedCount(text) else { return nil }
        var isGood = false
        let secret = SecretBytes(count: count) { isGood = decode(text, into: $0) }
        return isGood ? secret : nil
    }

    private var alphabet: [UInt8] {
        let common = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
        return Array((common + (self == .standard ? "+/" : "-_")).utf8)
    }

    /// 0 to 63, or 0x100 for no letter: each range adds its part under an arithmetic mask.
    private static func value(_ letter: UInt8, plus: UInt8, slash: UInt8) -> UInt32 {
        let c = Int32(letter)
        func within(_ low: Int32, _ high: Int32) -> Int32 { ((low - 1 - c) & (c - high - 1)) >> 31 }
        let upper = within(0x41, 0x5a)
        let lower = within(0x61, 0x7a)
        let digit = within(0x30, 0x39)
        let p = within(Int32(plus), Int32(plus))
        let s = within(Int32(slash), Int32(slash))
        let value = upper & (c - 0x41) | lower & (c - 0x61 + 26) | digit & (c - 0x30 + 52) | p & 62 | s & 63
        return UInt32(bitPattern: value | ~(upper | lower | digit | p | s) & 0x100)
    }
}

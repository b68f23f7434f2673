internal import Crypto
internal import CryptoExtras
internal import CSys

/// The hash key of GCM.
enum HashKey {
    /// H = AES_key(0^128), NIST SP 800-38D section 6.4. The kernel cannot make it where keys are installed: its AES is for packet
    /// programs only.
    ///
    /// - Parameters:
    ///   - key: 16 or 32 bytes.
    ///   - output: 16 bytes.
    static func compute(key: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer) {
        output.initializeMemory(as: UInt8.self, repeating: 0)
        // `SymmetricKey` zeroes its copy when it is released.
        // The expanded key stands on the library's stack, and the library leaves it there.
        defer { csys_scrub_stack() }
        var block = output.bindMemory(to: UInt8.self)
        do {
            try AES.permute(&block, key: SymmetricKey(data: key))
        } catch {
            // Only other lengths of key or block are refused, and callers have checked the key's.
            preconditionFailure("AES refused a key of \(key.count) bytes")
        }
    }
}

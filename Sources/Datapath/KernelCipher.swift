internal import BPF
internal import BPFObjects
internal import Keys
internal import Secrets
internal import Synchronization

/// AES-GCM (NIST SP 800-38D) as the loaded kernel program computes it for packets, on texts of the caller's: known answers.
///
/// Tags have 16 bytes and nonces 12. The nonce is the caller's, so nothing here protects from using one twice.
public final class KernelCipher: Sendable {
    /// What the kernel program takes.
    public enum Limit {
        /// Bytes.
        public static let keys: Set<Int> = [16, 32]
        /// Bytes.
        public static let nonce = 12
        /// Bytes.
        public static let tag = Int(XE_TAG_LEN)
        /// Bytes, at most.
        public static let aad = Int(XE_AAD_MAX)
        /// Bytes, at most.
        public static let text = Int(XE_GCM_TEXT_MAX)
    }

    private let instance: KernelInstance
    /// The key that the kernel holds. Held during an operation: there is one place for a key.
    private let installed = Mutex<[UInt8]?>(nil)
    private static let place = AssociationID(slot: 1, direction: .send, epoch: 1)

    /// Loads the programs into maps of their own. Needs root.
    public init() throws(DatapathError) {
        instance = try KernelInstance(
            programs: [.gcm],
            options: Datapath.Options(
                nodeID: 1, capacity: Datapath.Capacity(peers: 1, endpoints: 1, strictCIDRs: 1, windows: 1)))
    }

    /// A ciphertext, as long as its plaintext, and its tag.
    public struct Sealed: Sendable, Hashable {
        /// As long as the plaintext.
        public var ciphertext: [UInt8]
        /// 16 bytes.
        public var tag: [UInt8]
    }

    /// Encrypts and authenticates.
    public func seal(key: [UInt8], nonce: [UInt8], aad: [UInt8], plaintext: [UInt8]) throws(DatapathError) -> Sealed {
        try Self.check(key: key, nonce: nonce, aad: aad, text: plaintext)
        let (action, header, text) = try run(
            XE_GCM_SEAL, key: key, nonce: nonce, aad: aad, text: plaintext, tag: [UInt8](repeating: 0, count: Limit.tag)
        )
        guard action == Self.pass else { throw Self.fault }
        return Sealed(ciphertext: text, tag: bytes(of: header.tag))
    }

    /// Verifies and decrypts; nil when the tag does not verify.
    public func open(
        key: [UInt8], nonce: [UInt8], aad: [UInt8], ciphertext: [UInt8], tag: [UInt8]
    ) throws(DatapathError) -> [UInt8]? {
        try Self.check(key: key, nonce: nonce, aad: aad, text: ciphertext)
        guard tag.count == Limit.tag else {
            throw DatapathError(.failed, "the tag has \(tag.count) bytes; expected \(Limit.tag)")
        }
        let (action, _, text) = try run(XE_GCM_OPEN, key: key, nonce: nonce, aad: aad, text: ciphertext, tag: tag)
        switch action {
        case Self.pass: return text
        case Self.drop: return nil
        default: throw Self.fault
        }
    }

    private static let pass: UInt32 = 2  // XDP_PASS
    private static let drop: UInt32 = 1  // XDP_DROP
    private static var fault: DatapathError { DatapathError(.failed, "the kernel's cipher failed") }

    private static func check(key: [UInt8], nonce: [UInt8], aad: [UInt8], text: [UInt8]) throws(DatapathError) {
        guard Limit.keys.contains(key.count) else {
            throw DatapathError(.failed, "the key has \(key.count) bytes; expected 16 or 32")
        }
        guard nonce.count == Limit.nonce else {
            throw DatapathError(.failed, "the nonce has \(nonce.count) bytes; expected \(Limit.nonce)")
        }
        guard aad.count <= Limit.aad else {
            throw DatapathError(.failed, "the AAD has \(aad.count) bytes; expected at most \(Limit.aad)")
        }
        guard text.count <= Limit.text else {
            throw DatapathError(.failed, "the text has \(text.count) bytes; expected at most \(Limit.text)")
        }
    }

    private func run(
        _ operation: xe_gcm_operation, key: [UInt8], nonce: [UInt8], aad: [UInt8], text: [UInt8], tag: [UInt8]
    ) throws(DatapathError) -> (action: UInt32, header: xe_gcm_request, text: [UInt8]) {
        var header = xe_gcm_request()
        header.index = Self.place.index
        header.operation = operation.rawValue
        header.aad_len = UInt32(aad.count)
        header.text_len = UInt32(text.count)
        fill(&header.nonce, from: nonce)
        fill(&header.tag, from: tag)
        let packet = bytes(of: header) + aad + text
        let outcome = installed.withLock { (installed) -> Result<BPFProgram.PacketRun, DatapathError> in
            do throws(DatapathError) {
                if installed != key {
                    installed = nil
                    try install(key)
                    installed = key
                }
                return .success(try instance.run(.gcm, packet: packet))
            } catch {
                return .failure(error)
            }
        }
        let run = try outcome.get()
        let headerSize = MemoryLayout<xe_gcm_request>.size
        guard run.packet.count == packet.count else { throw Self.fault }
        let answer = run.packet.withUnsafeBytes { $0.loadUnaligned(as: xe_gcm_request.self) }
        return (run.action, answer, Array(run.packet.dropFirst(headerSize + aad.count)))
    }

    private func install(_ key: [UInt8]) throws(DatapathError) {
        guard let keyID = KeyID(bytes: [UInt8](repeating: 1, count: Int(XE_KEY_ID_LEN))) else { return }
        let secret = key.withUnsafeBytes { SecretBytes(copying: $0) }
        try instance.replaceKnownAnswerKey(
            AssociationKey(epoch: 1, peerNodeID: 2, spi: 1, keyID: keyID, key: secret), at: Self.place)
    }
}

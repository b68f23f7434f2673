internal import BPFObjects

/// How a packet ended: `enum xe_verdict` of bpf/wire.h. The raw value is the index into the kernel's counters.
public enum Verdict: UInt32, Sendable, Hashable, CaseIterable, Codable {
    // Encrypted and decrypted.
    case encrypted = 0
    case decrypted = 1
    // Passed in clear, by policy.
    case passControl = 2
    case passUnprotected = 3
    case passSameNode = 4
    case passCleartext = 5
    case passUnknownPeer = 6
    case passEtherType = 7
    case passWithdrawing = 8
    // Dropped by policy or authentication.
    case dropCleartext = 16
    case dropAuth = 17
    case dropReplay = 18
    case dropStale = 19
    case dropSpoofed = 20
    case dropUnknownPeer = 21
    case dropUnsupported = 22
    case dropMalformed = 23
    case dropChecksum = 24
    case dropNoKey = 25
    case dropNotReady = 26
    case dropEtherType = 27
    case dropTooBig = 28
    case dropExhausted = 29
    case dropNoRoom = 30
    case dropNoWindow = 31
    case dropService = 32
    // Faults of ours.
    case faultScratch = 40
    case faultCipher = 41
    case faultPacket = 42
    case faultMap = 43

    /// What became of the packet.
    public enum Outcome: String, Sendable, Hashable, Codable {
        /// Encrypted or decrypted, and passed.
        case protected
        /// Passed in clear.
        case passed
        /// Dropped, as it should be.
        case dropped
        /// Dropped because something of ours failed.
        case fault
    }

    /// What became of the packet.
    public var outcome: Outcome {
        switch rawValue {
        case UInt32(XE_ENCRYPTED.rawValue)...UInt32(XE_DECRYPTED.rawValue): .protected
        case ..<UInt32(XE_DROP_CLEARTEXT.rawValue): .passed
        case ..<UInt32(XE_FAULT_SCRATCH.rawValue): .dropped
        default: .fault
        }
    }

    /// The reason's name in status, metrics and documents. Unique together with the outcome.
    public var name: String {
        switch self {
        case .encrypted: "encrypted"
        case .decrypted: "decrypted"
        case .passControl: "control"
        case .passUnprotected: "unprotected"
        case .passSameNode: "same_node"
        case .passCleartext, .dropCleartext: "cleartext"
        case .passUnknownPeer, .dropUnknownPeer: "unknown_peer"
        case .passEtherType, .dropEtherType: "ethertype"
        case .passWithdrawing: "withdrawing"
        case .dropAuth: "auth"
        case .dropReplay: "replay"
        case .dropStale: "stale"
        case .dropSpoofed: "spoofed"
        case .dropUnsupported: "unsupported"
        case .dropMalformed: "malformed"
        case .dropChecksum: "checksum"
        case .dropNoKey: "no_key"
        case .dropNotReady: "not_ready"
        case .dropTooBig: "too_big"
        case .dropExhausted: "exhausted"
        case .dropNoRoom: "no_room"
        case .dropNoWindow: "no_window"
        case .dropService: "service"
        case .faultScratch: "scratch"
        case .faultCipher: "cipher"
        case .faultPacket: "packet"
        case .faultMap: "map"
        }
    }
}

internal import FoundationEssentials

/// What Tests/peers/decode.py found in a capture.
public struct DecoderReport: Decodable, Sendable {
    /// All captured frames.
    public var frames: Int
    /// Between two endpoints on different nodes.
    public var packets: Int
    /// Of these: tag, sender and checksums are right.
    public var verified: Int
    /// Reason to packets.
    public var refused: [String: Int]
    /// Not between such endpoints.
    public var other: Int
    /// Under the key and IV of an earlier, different packet.
    public var duplicateNonces: Int
    /// Exact copies of an earlier packet.
    public var repeatedFrames: Int
    /// Frames with a marker in clear.
    public var markerOnWire: Int
    /// Verified packets with a marker in their plain text.
    public var markerAfterOpening: Int
    /// Such as tcp4 to verified packets.
    public var byKind: [String: Int]
    /// SPI to lane to what was sent on it.
    public var lanes: [String: [String: Lane]]
    /// The first refused packets, in words.
    public var samples: [String]

    /// What was sent on a lane under one SPI.
    public struct Lane: Decodable, Sendable {
        /// How many packets.
        public var packets: Int
        /// The lowest counter.
        public var first: Int
        /// The highest counter.
        public var last: Int
    }

    private enum CodingKeys: String, CodingKey {
        case frames, packets, verified, refused, other, lanes, samples
        case duplicateNonces = "duplicate_nonces"
        case repeatedFrames = "repeated_frames"
        case markerOnWire = "marker_on_wire"
        case markerAfterOpening = "marker_after_opening"
        case byKind = "by_kind"
    }
}

extension Lab {
    /// Decodes a capture. Without keys it only counts frames and markers.
    public func decode(_ capture: String, keys: String?, markers: [String] = [], seconds: Double = 600) throws
        -> DecoderReport
    {
        var command = [Python.interpreter, try Python.script("decode.py")]
        command += keys.map { ["--keys", $0] } ?? ["--plain"]
        command += markers.flatMap { ["--marker", $0] } + [capture]
        let outcome = try run(command, seconds: seconds)
        guard outcome.status <= 1 else { throw LabError("the decoder failed: \(outcome.errors)") }
        do {
            return try JSONDecoder().decode(DecoderReport.self, from: Data(outcome.output.utf8))
        } catch {
            throw LabError("the decoder printed something unexpected (\(error)): \(outcome.output)\(outcome.errors)")
        }
    }
}

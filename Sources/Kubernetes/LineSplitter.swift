internal import Glibc
internal import NIOCore

/// Cuts a stream into lines. Holds one unfinished line, of bounded length.
struct LineSplitter {
    private var buffer = ByteBuffer()
    /// How far the unfinished line has been searched already.
    private var searched = 0
    private let limit: Int

    init(limit: Int) {
        self.limit = limit
    }

    /// Bytes of an unfinished line.
    var pending: Int { buffer.readableBytes }

    mutating func append(_ piece: ByteBuffer) {
        if buffer.readableBytes == 0 {
            buffer = piece
            searched = 0
        } else {
            buffer.writeImmutableBuffer(piece)
        }
    }

    /// The next line without its end; nil when more bytes are needed. Empty lines are left out.
    mutating func next() throws(KubernetesError) -> ByteBuffer? {
        while true {
            let skipped = searched
            let end: Int? = buffer.withUnsafeReadableBytes { bytes in
                guard bytes.count > skipped, let base = bytes.baseAddress else { return nil }
                return memchr(base + skipped, 0x0a, bytes.count - skipped).map { UnsafeRawPointer($0) - base }
            }
            guard let end else {
                searched = buffer.readableBytes
                guard searched <= limit else {
                    throw KubernetesError(.tooLarge, "an event of a watch has more than \(limit) bytes")
                }
                return nil
            }
            let line = buffer.readSlice(length: end)
            buffer.moveReaderIndex(forwardBy: 1)
            searched = 0
            if let line, line.readableBytes > 1 { return line }
        }
    }
}

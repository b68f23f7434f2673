internal import Glibc

/// Small files that configuration names.
enum FileReading {
    /// The whole of a file of at most `limit` bytes. Links are followed: Kubernetes swaps projected files through them.
    static func read(_ path: String, what: String, limit: Int = 1 << 20) throws(KubernetesError) -> [UInt8] {
        func failed(_ error: Int32) -> KubernetesError {
            let why = error == ENOENT ? "it does not exist" : String(cString: strerror(error))
            return KubernetesError(.configuration, "\(what) \(path) cannot be read: \(why)")
        }
        let fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard fd >= 0 else { throw failed(errno) }
        defer { close(fd) }
        var bytes: [UInt8] = []
        while bytes.count <= limit {
            let start = bytes.count
            var got = 0
            bytes.reserveCapacity(start + 16384)
            withUnsafeTemporaryAllocation(byteCount: 16384, alignment: 1) { buffer in
                got = Glibc.read(fd, buffer.baseAddress, buffer.count)
                if got > 0 { bytes.append(contentsOf: buffer[..<got]) }
                // Tokens and keys come this way.
                buffer.initializeMemory(as: UInt8.self, repeating: 0)
            }
            if got == 0 { return bytes }
            if got < 0 && errno != EINTR { throw failed(errno) }
        }
        throw KubernetesError(.configuration, "\(what) \(path) has more than \(limit) bytes: is it the right file?")
    }
}

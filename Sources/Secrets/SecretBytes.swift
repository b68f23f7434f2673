internal import CSys
internal import Glibc

/// Secret bytes: a DEK, a KEK, a derived key, a token.
///
/// They live in `memfd_secret` pages (see `SecretStorage` for what happens where the kernel has none), are read through a
/// closure only, are zeroed on release, and are never printed: description, reflection and interpolation show the count.
/// Every holder shares one copy, which ends with the last of them.
public final class SecretBytes: Sendable {
    /// How many bytes there are.
    public let count: Int
    /// The kind of memory that holds them.
    public let storage: SecretStorage

    // Written by `init` only, before anybody else can see it.
    private nonisolated(unsafe) let base: UnsafeMutableRawPointer
    private let owner: Owner

    private enum Owner {
        case arena
        case pages(PageBox)
    }
    /// Keeps the pages of a secret that is larger than an arena slot.
    private final class PageBox: Sendable {
        nonisolated(unsafe) let pages: SecretPages
        init(_ pages: consuming SecretPages) { self.pages = pages }
    }

    private init(uninitialized count: Int) {
        precondition(count >= 0, "a count is not negative")
        self.count = count
        if count <= SecretArena.slotSize {
            (base, storage) = SecretArena.shared.allocate()
            owner = .arena
        } else {
            let box = PageBox(SecretPages(count: count))
            base = box.pages.base
            storage = box.pages.storage
            owner = .pages(box)
        }
    }

    /// Makes `count` zero bytes and lets `fill` write the secret into them. When it throws, they are zeroed and released.
    public convenience init<Failure: Error>(
        count: Int, fill: (UnsafeMutableRawBufferPointer) throws(Failure) -> Void
    ) throws(Failure) {
        self.init(uninitialized: count)
        try fill(UnsafeMutableRawBufferPointer(start: base, count: count))
    }

    /// `count` random bytes from getrandom(2), which blocks until the kernel's generator is seeded and never fails after.
    public convenience init(random count: Int) {
        self.init(uninitialized: count)
        var done = 0
        while done < count {
            let got = csys_getrandom(base + done, count - done)
            if got > 0 {
                done += got
            } else if errno != EINTR {
                // Nothing sensible can be done without randomness, and a weak key must not exist.
                fatalError("getrandom failed: errno \(errno)")
            }
        }
    }

    /// A copy of bytes that are elsewhere. Whoever holds the original has to zero it.
    public convenience init(copying bytes: UnsafeRawBufferPointer) {
        self.init(uninitialized: bytes.count)
        UnsafeMutableRawBufferPointer(start: base, count: count).copyMemory(from: bytes)
    }

    /// Moves an array's content here and zeroes the array (its own storage; other copies of it, if any, are the caller's).
    public convenience init(zeroing bytes: inout [UInt8]) {
        self.init(uninitialized: bytes.count)
        bytes.withUnsafeMutableBytes { source in
            UnsafeMutableRawBufferPointer(start: base, count: source.count).copyMemory(
                from: UnsafeRawBufferPointer(source))
            wipe(source)
        }
        bytes = []
    }

    deinit {
        switch owner {
        case .arena: SecretArena.shared.release(base)
        case .pages: break  // The pages zero themselves.
        }
    }

    /// Lends the bytes for the time of the call, bounds-checked.
    public func withBytes<Result: ~Copyable, Failure: Error>(
        _ body: (borrowing RawSpan) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try body(UnsafeRawBufferPointer(start: base, count: count).bytes)
    }

    /// Lends the bytes for the time of the call, for C and for swift-crypto. The pointer must not leave the closure.
    public func withUnsafeBytes<Result: ~Copyable, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try body(UnsafeRawBufferPointer(start: base, count: count))
    }
}

extension SecretBytes: Equatable {
    /// Takes the same time wherever the bytes differ. (Counts are not secret.)
    public static func == (a: SecretBytes, b: SecretBytes) -> Bool {
        guard a.count == b.count else { return false }
        var difference: UInt8 = 0
        for i in 0..<a.count {
            difference |=
                a.base.load(fromByteOffset: i, as: UInt8.self) ^ b.base.load(fromByteOffset: i, as: UInt8.self)
        }
        return difference == 0
    }
}

extension SecretBytes: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    /// The count only.
    public var description: String { "<\(count) secret bytes>" }
    /// The count only.
    public var debugDescription: String { description }
    /// Nothing: dump() and test failures show the count only.
    public var customMirror: Mirror { Mirror(self, children: [:]) }
}

/// Zeroes memory in a way that the optimizer keeps: for buffers that held a secret outside of `SecretBytes`.
public func wipe(_ bytes: UnsafeMutableRawBufferPointer) {
    guard let base = bytes.baseAddress else { return }
    csys_explicit_bzero(base, bytes.count)
}

/// Zeroes an array's storage and empties it. Works on the storage itself only while the array is the only holder of it.
public func wipe(_ bytes: inout [UInt8]) {
    bytes.withUnsafeMutableBytes { wipe($0) }
    bytes = []
}

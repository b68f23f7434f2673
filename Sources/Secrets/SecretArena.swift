internal import CSys
internal import Glibc
internal import Synchronization

/// What kind of memory holds a secret.
public enum SecretStorage: String, Sendable, Hashable, Comparable {
    /// `memfd_secret(2)`: the kernel has unmapped these pages from its own address space. No swap, no core dump, no
    /// `/proc/PID/mem`, no reading by another kernel subsystem.
    case memfdSecret = "memfd_secret"
    /// Anonymous pages, locked and excluded from core dumps and from children.
    case lockedMemory = "mlock"
    /// Anonymous pages that could not be locked (`RLIMIT_MEMLOCK`): they may reach swap.
    case unlockedMemory = "unlocked"

    private var rank: Int {
        switch self {
        case .memfdSecret: 0
        case .lockedMemory: 1
        case .unlockedMemory: 2
        }
    }

    /// Better storage is less.
    public static func < (a: SecretStorage, b: SecretStorage) -> Bool { a.rank < b.rank }
}

/// Whole pages of secret memory, owned by one value.
///
/// Zeroed and unmapped when the value ends.
struct SecretPages: ~Copyable {
    let base: UnsafeMutableRawPointer
    let count: Int
    let storage: SecretStorage

    /// Maps enough pages for `count` bytes. Running out of address space ends the process, as any other allocation does.
    init(count: Int) {
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        let size = (max(count, 1) + page - 1) / page * page
        (base, storage) = Self.map(size)
        self.count = size
        // Children get none of it, whichever kind it is.
        _ = madvise(base, size, MADV_DONTFORK)
        _ = madvise(base, size, MADV_DONTDUMP)
    }

    deinit {
        csys_explicit_bzero(base, count)
        munmap(base, count)
    }

    private static func map(_ size: Int) -> (UnsafeMutableRawPointer, SecretStorage) {
        if let base = mapSecret(size) { return (base, .memfdSecret) }
        let base = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let base, base != MAP_FAILED else {
            fatalError("out of memory for a secret of \(size) bytes: errno \(errno)")
        }
        return (base, mlock(base, size) == 0 ? .lockedMemory : .unlockedMemory)
    }

    private static func mapSecret(_ size: Int) -> UnsafeMutableRawPointer? {
        let fd = csys_memfd_secret(UInt32(O_CLOEXEC))
        guard fd >= 0 else { return nil }
        defer { close(fd) }
        guard ftruncate(fd, size) == 0 else { return nil }
        let base = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        guard let base, base != MAP_FAILED else { return nil }
        return base
    }
}

/// Lets secrets of up to 64 bytes (keys, mostly) share pages: a page each would exhaust `RLIMIT_MEMLOCK` on a node with a few
/// thousand peers.
///
/// A slot is zeroed before it is given back, and a page that holds nothing more is unmapped.
final class SecretArena: Sendable {
    static let shared = SecretArena()
    static let slotSize = 64
    private static let slotsPerPage = 64

    private struct Page: ~Copyable {
        let pages: SecretPages
        var used: UInt64
    }
    private struct State: ~Copyable {
        // UnsafeMutablePointer because arrays cannot hold non-copyable values.
        var pages: [UInt: UnsafeMutablePointer<Page>] = [:]
        /// Pages that have a free slot.
        var open: Set<UInt> = []
    }
    private let state = Mutex(State())

    /// A zeroed slot of 64 bytes.
    func allocate() -> (UnsafeMutableRawPointer, SecretStorage) {
        let slot = state.withLock { state -> Slot in
            let address = state.open.first ?? Self.addPage(&state)
            guard let page = state.pages[address] else { fatalError("secret arena lost a page") }
            let index = (~page.pointee.used).trailingZeroBitCount
            page.pointee.used |= 1 << UInt64(index)
            if page.pointee.used == .max { state.open.remove(address) }
            return Slot(
                address: address + UInt(index * Self.slotSize), storage: page.pointee.pages.storage)
        }
        guard let base = UnsafeMutableRawPointer(bitPattern: slot.address) else { fatalError("secret arena is at 0") }
        return (base, slot.storage)
    }

    /// Zeroes a slot and gives it back.
    func release(_ slot: UnsafeMutableRawPointer) {
        csys_explicit_bzero(slot, Self.slotSize)
        let address = UInt(bitPattern: slot)
        state.withLock { state in
            let size = UInt(Self.slotSize * Self.slotsPerPage)
            let start = address / size * size
            guard let page = state.pages[start] else { fatalError("secret arena does not own this slot") }
            page.pointee.used &= ~(1 << UInt64((address - start) / UInt(Self.slotSize)))
            state.open.insert(start)
            if page.pointee.used == 0 && state.open.count > 1 {
                state.open.remove(start)
                state.pages[start] = nil
                page.deinitialize(count: 1)
                page.deallocate()
            }
        }
    }

    private struct Slot {
        var address: UInt
        var storage: SecretStorage
    }

    private static func addPage(_ state: inout State) -> UInt {
        let pages = SecretPages(count: slotSize * slotsPerPage)
        let address = UInt(bitPattern: pages.base)
        let page = UnsafeMutablePointer<Page>.allocate(capacity: 1)
        page.initialize(to: Page(pages: pages, used: 0))
        state.pages[address] = page
        state.open.insert(address)
        return address
    }
}

internal import Glibc

/// A point in time by which something must have happened.
public struct Deadline: Sendable {
    private let end: ContinuousClock.Instant

    /// So many seconds from now, times the patience.
    public static func seconds(_ seconds: Double) -> Deadline {
        Deadline(end: .now + .milliseconds(Int64(seconds * patience * 1000)))
    }

    /// How much slower than usual this machine may be: XE_PATIENCE, or 1. For emulated processors.
    private static let patience: Double = {
        guard let value = getenv("XE_PATIENCE"), let factor = Double(String(cString: value)), factor.isFinite else {
            return 1
        }
        return max(1, factor)
    }()

    /// The time is up.
    public var hasPassed: Bool { ContinuousClock.now >= end }

    /// What is left, in milliseconds; 0 when it has passed.
    var milliseconds: Int32 {
        let left = end - .now
        return Int32(
            clamping: max(0, left.components.seconds * 1000 + left.components.attoseconds / 1_000_000_000_000_000))
    }
}

/// Blocks until `condition` holds; asks again every few milliseconds. Throws when the deadline passes first, naming `what`.
public func wait(
    for what: @autoclosure () -> String, until deadline: Deadline, _ condition: () throws -> Bool
) throws {
    while try !condition() {
        guard !deadline.hasPassed else { throw LabError("waited in vain for \(what())") }
        usleep(5000)
    }
}

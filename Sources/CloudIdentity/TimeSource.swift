internal import Glibc

/// The clocks, injected so that tests own them.
public struct TimeSource: Sendable {
    /// Since some fixed moment; rises while the machine sleeps, never jumps: deadlines and back-off.
    public var monotonic: @Sendable () -> Duration
    /// Seconds since 1970-01-01 UTC: signatures and expiry dates of others.
    public var unixSeconds: @Sendable () -> Int64

    /// Makes a source of two functions.
    public init(monotonic: @escaping @Sendable () -> Duration, unixSeconds: @escaping @Sendable () -> Int64) {
        self.monotonic = monotonic
        self.unixSeconds = unixSeconds
    }

    /// `CLOCK_BOOTTIME` and `CLOCK_REALTIME`.
    public static let system = TimeSource(
        monotonic: {
            var time = timespec()
            clock_gettime(CLOCK_BOOTTIME, &time)
            return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
        },
        unixSeconds: {
            var time = timespec()
            clock_gettime(CLOCK_REALTIME, &time)
            return Int64(time.tv_sec)
        })
}

/// A UTC date and time of the proleptic Gregorian calendar, to the second.
public struct UTCTime: Sendable, Hashable {
    /// Seconds since 1970-01-01 00:00:00.
    public let unixSeconds: Int64

    /// Makes a time.
    public init(unixSeconds: Int64) {
        self.unixSeconds = unixSeconds
    }

    /// Parses RFC 3339 in UTC: `2026-02-01T12:34:56[.789]Z`.
    public init?(rfc3339 text: String) {
        let bytes = Array(text.utf8)
        func number(_ range: Range<Int>) -> Int64? {
            bytes[range].allSatisfy { (0x30...0x39).contains($0) }
                ? Int64(String(decoding: bytes[range], as: UTF8.self)) : nil
        }
        guard bytes.count >= 20, bytes[4] == 0x2d, bytes[7] == 0x2d, bytes[10] == 0x54, bytes[13] == 0x3a,
            bytes[16] == 0x3a,
            let year = number(0..<4), let month = number(5..<7), let day = number(8..<10), let hour = number(11..<13),
            let minute = number(14..<16), let second = number(17..<19), (1...12).contains(month),
            (1...31).contains(day),
            hour < 24, minute < 60, second <= 60
        else { return nil }
        var rest = bytes[19...]
        if rest.first == 0x2e { rest = rest.dropFirst().drop { (0x30...0x39).contains($0) } }
        guard rest.elementsEqual("Z".utf8) || rest.elementsEqual("+00:00".utf8) else { return nil }
        unixSeconds = Self.days(year: year, month: month, day: day) * 86400 + hour * 3600 + minute * 60 + second
    }

    /// Parses the `Date` header of HTTP: `Sun, 01 Feb 2026 12:34:56 GMT`.
    public init?(httpDate text: String) {
        let words = text.split(separator: " ")
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        guard words.count == 6, words[5] == "GMT", let month = months.firstIndex(where: { $0 == words[2] }) else {
            return nil
        }
        self.init(rfc3339: "\(words[3])-\(month < 9 ? "0" : "")\(month + 1)-\(words[1])T\(words[4])Z")
    }

    /// `20260201T123456Z`, as SigV4 wants it.
    public var basic: String {
        let (year, month, day) = Self.date(days: unixSeconds.floorDivided(by: 86400))
        let second = unixSeconds - unixSeconds.floorDivided(by: 86400) * 86400
        func two(_ value: Int64) -> String { value < 10 ? "0\(value)" : "\(value)" }
        return "\(year)\(two(month))\(two(day))T\(two(second / 3600))\(two(second / 60 % 60))\(two(second % 60))Z"
    }

    // Days from civil and back: years begin in March, so that the leap day is the last; eras have 400 years.
    private static func days(year: Int64, month: Int64, day: Int64) -> Int64 {
        let y = month <= 2 ? year - 1 : year
        let era = y.floorDivided(by: 400)
        let yearOfEra = y - era * 400
        let dayOfYear = (153 * ((month + 9) % 12) + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }

    private static func date(days: Int64) -> (Int64, Int64, Int64) {
        let z = days + 719_468
        let era = z.floorDivided(by: 146_097)
        let dayOfEra = z - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let mp = (5 * dayOfYear + 2) / 153
        let month = mp < 10 ? mp + 3 : mp - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * mp + 2) / 5 + 1)
    }
}

extension Int64 {
    fileprivate func floorDivided(by divisor: Int64) -> Int64 {
        let quotient = self / divisor
        return self % divisor < 0 ? quotient - 1 : quotient
    }
}

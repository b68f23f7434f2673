import Testing

@testable import Kubernetes

@Suite struct BackOffTests {
    @Test func growsToItsMaximumWithFullJitter() {
        var backOff = BackOff(base: .milliseconds(250), maximum: .seconds(30))
        let limits = (0..<9).map { _ in backOff.next(random: 1) }
        #expect(limits.prefix(3) == [.milliseconds(250), .milliseconds(500), .seconds(1)])
        #expect(limits.suffix(2) == [.seconds(30), .seconds(30)])
        #expect(backOff.next(random: 0) == .zero)
        #expect(backOff.next(random: 0.5) == .seconds(15))
        backOff.reset()
        #expect(backOff.next(random: 1) == .milliseconds(250))
    }

    @Test func waitsAtLeastAsLongAsTheServerAsks() {
        var backOff = BackOff()
        #expect(backOff.next(random: 0, retryAfter: .seconds(7)) == .seconds(7))
        #expect(backOff.next(random: 1, retryAfter: .seconds(7)) == .milliseconds(7500))
    }
}

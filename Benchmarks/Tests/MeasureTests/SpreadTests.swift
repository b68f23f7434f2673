import Testing

@testable import Measure

@Suite struct SpreadTests {
    @Test func medians() {
        #expect(Spread([]).median == nil)
        #expect(Spread([3, 1, 2]).median == 2)
        #expect(Spread([4, 1, 2, 3]).median == 2.5)
        #expect(Spread([5, 9, 7]).low == 5)
        #expect(Spread([5, 9, 7]).high == 9)
    }

    @Test func percentilesByNearestRank() {
        #expect(percentile(0.5, ofSorted: [Int]()) == nil)
        #expect(percentile(0.5, ofSorted: Array(1...100)) == 50)
        #expect(percentile(0.99, ofSorted: Array(1...100)) == 99)
        #expect(percentile(0.999, ofSorted: Array(1...100)) == 100)
        #expect(percentile(0.5, ofSorted: [7]) == 7)
    }
}

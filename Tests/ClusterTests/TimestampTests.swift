import Testing

@testable import Cluster

@Suite struct TimestampTests {
    @Test(arguments: [
        ("1970-01-01T00:00:00.000Z", 0), ("2000-02-29T23:59:59.999Z", 951_868_799_999),
        ("2026-05-04T12:00:00.250Z", 1_777_896_000_250), ("2100-03-01T00:00:00.000Z", 4_107_542_400_000),
    ])
    func readsAndWrites(_ text: String, _ milliseconds: Int64) {
        #expect(Timestamp(text)?.milliseconds == milliseconds)
        #expect(Timestamp(milliseconds: milliseconds).description == text)
    }

    @Test func everyDayOfEightHundredYearsComesBack() {
        for day in Int64(0)..<292_194 {
            let moment = Timestamp(milliseconds: day * 86_400_000 + 1)
            #expect(Timestamp(moment.description) == moment)
        }
    }

    @Test func fractionsAreOptional() {
        #expect(Timestamp("2026-05-04T12:00:00Z") == Timestamp("2026-05-04T12:00:00.000Z"))
        #expect(Timestamp("2026-05-04T12:00:00.5Z") == Timestamp("2026-05-04T12:00:00.500Z"))
        #expect(Timestamp("2026-05-04T12:00:00.123456789Z") == Timestamp("2026-05-04T12:00:00.123Z"))
    }

    @Test(arguments: [
        "", "Z", "2026-05-04", "2026-05-04T12:00:00", "2026-05-04 12:00:00Z", "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-05-04T24:00:00Z", "2026-05-04T12:60:00Z", "2026-05-04T12:00:00.Z", "2026-05-04T12:00:00+00:00",
        "2026-05-0aT12:00:00Z", "1969-12-31T23:59:59Z", "２026-05-04T12:00:00Z",
    ])
    func refuses(_ text: String) {
        #expect(Timestamp(text) == nil)
    }
}

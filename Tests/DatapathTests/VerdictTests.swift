import BPFObjects
import Testing

@testable import Datapath

@Suite struct VerdictTests {
    /// Every value of the C enum has a case here, and the other way round.
    @Test func everyVerdictHasAName() throws {
        let header = try String(contentsOfSource: "bpf/wire.h")
        let body = try #require(header.split(separator: "enum xe_verdict {").last?.split(separator: "};").first)
        var values: Set<UInt32> = []
        for line in body.split(separator: "\n") {
            let parts = line.split(separator: "=")
            guard parts.count == 2, let value = UInt32(parts[1].drop { $0 == " " }.prefix { $0.isNumber }) else {
                continue
            }
            if value < UInt32(XE_VERDICTS.rawValue) { values.insert(value) }
        }
        #expect(values.count > 20)
        #expect(values == Set(Verdict.allCases.map(\.rawValue)))
        #expect(Verdict.allCases.allSatisfy { !$0.name.isEmpty })
    }

    @Test func namesAreUniqueWithinAnOutcome() {
        let names = Verdict.allCases.map { "\($0.outcome) \($0.name)" }
        #expect(Set(names).count == names.count)
    }

    @Test func outcomes() {
        #expect(Verdict.encrypted.outcome == .protected)
        #expect(Verdict.decrypted.outcome == .protected)
        #expect(Verdict.passControl.outcome == .passed)
        #expect(Verdict.passWithdrawing.outcome == .passed)
        #expect(Verdict.dropCleartext.outcome == .dropped)
        #expect(Verdict.dropNoWindow.outcome == .dropped)
        #expect(Verdict.faultScratch.outcome == .fault)
        #expect(Verdict.faultMap.outcome == .fault)
    }
}

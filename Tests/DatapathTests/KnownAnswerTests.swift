import Testing

@testable import Datapath

@Suite struct KnownAnswerLineTests {
    private func problem(_ line: String) -> String? {
        do {
            _ = try KnownAnswer(line: Array(line.utf8))
            return nil
        } catch {
            return error.description
        }
    }

    private static let zeros12 = String(repeating: "0", count: 24)
    private static let zeros16 = String(repeating: "0", count: 32)

    private func seal(
        key: String = zeros16, nonce: String = zeros12, aad: String = "", plaintext: String = ""
    ) -> String {
        #"{"op":"seal","key":"\#(key)","nonce":"\#(nonce)","aad":"\#(aad)","plaintext":"\#(plaintext)"}"#
    }

    @Test func readsBothOperations() throws {
        let sealing = try KnownAnswer(line: Array(seal(aad: "AbCd", plaintext: "00ff").utf8))
        #expect(sealing.operation == .seal(plaintext: [0, 0xff]))
        #expect(sealing.aad == [0xab, 0xcd])
        let line =
            #" { "tag" : "\#(Self.zeros16)", "ciphertext":"", "aad":"", "op":"open", "nonce":"\#(Self.zeros12)", "key":"\#(Self.zeros16)\#(Self.zeros16)", "more": 7 } "#
            + "\r"
        let opening = try KnownAnswer(line: Array(line.utf8))
        #expect(opening.operation == .open(ciphertext: [], tag: [UInt8](repeating: 0, count: 16)))
        #expect(opening.key.count == 32)
    }

    @Test func largestSizesAreTaken() throws {
        let line = seal(aad: String(repeating: "0", count: 512), plaintext: String(repeating: "0", count: 6000))
        #expect(problem(line) == nil)
    }

    @Test func problemsNameTheFieldAndWhatWasExpected() {
        #expect(problem("")?.contains("JSON") == true)
        #expect(problem("[]") == "the line is not a JSON object")
        #expect(problem("null") != nil)
        #expect(problem("{}")?.contains("missing") == true)
        #expect(problem(#"{"op":"seal"}"#)?.contains("key is missing") == true)
        #expect(problem(seal(key: "00"))?.contains("key has 1 bytes; expected 16 or 32") == true)
        #expect(problem(seal(key: String(repeating: "0", count: 48)))?.contains("24") == true)
        #expect(problem(seal(nonce: "0"))?.contains("nonce is not") == true)
        #expect(problem(seal(nonce: "gg"))?.contains("hexadecimal") == true)
        #expect(problem(seal(nonce: Self.zeros16))?.contains("nonce has 16 bytes; expected 12") == true)
        #expect(problem(seal(aad: String(repeating: "0", count: 514)))?.contains("aad has 257") == true)
        #expect(problem(seal(plaintext: String(repeating: "0", count: 6002)))?.contains("plaintext has 3001") == true)
        #expect(problem(seal().replacing("\"seal\"", with: "\"close\""))?.contains("close") == true)
        #expect(problem(seal().replacing("\"seal\"", with: "7"))?.contains("op is not a string") == true)
        #expect(problem(seal().replacing("\"aad\":\"\"", with: "\"aad\":null"))?.contains("aad is missing") == true)
        #expect(problem(seal().replacing("seal", with: "open"))?.contains("tag is missing") == true)
    }

    @Test func bytesThatAreNoText() {
        for line in [
            [0xff, 0xfe], [0], [0x7b, 0x22, 0xc3, 0x28, 0x22, 0x3a, 0x31, 0x7d], [UInt8](repeating: 0x5b, count: 60000),
        ]
            as [[UInt8]]
        {
            #expect(throws: KnownAnswer.Problem.self) { _ = try KnownAnswer(line: line) }
        }
    }

    @Test func errorsAreJSON() {
        #expect(KnownAnswer.text(error: "say \"no\"\n") == #"{"error":"say \"no\"\n"}"#)
    }
}

@Suite struct LineSplitterTests {
    @Test(arguments: [1, 2, 3, 7, 100]) func cutsWhereverTheBytesAreCut(size: Int) {
        let input = Array("one\n\ntwo\r\n1234567890\n123456789\nlast".utf8)
        var splitter = LineSplitter(limit: 9)
        var lines: [LineSplitter.Line] = []
        var start = 0
        while start < input.count {
            lines += splitter.take(input[start..<min(start + size, input.count)])
            start += size
        }
        if let last = splitter.finish() { lines.append(last) }
        #expect(
            lines == [
                .text(Array("one".utf8)), .text([]), .text(Array("two\r".utf8)), .tooLong,
                .text(Array("123456789".utf8)),
                .text(Array("last".utf8)),
            ])
        #expect(splitter.finish() == nil)
    }

    @Test func tooLongAtTheEnd() {
        var splitter = LineSplitter(limit: 2)
        #expect(splitter.take(Array("abc".utf8)).isEmpty)
        #expect(splitter.finish() == .tooLong)
    }
}

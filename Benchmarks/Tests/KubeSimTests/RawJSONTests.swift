import Testing

@testable import KubeSim

/// What the stand-in does with bytes must be what an API server does with objects.
struct RawJSONTests {
    private func merge(_ target: String, _ patch: String) -> String {
        String(decoding: RawJSON.merge(Array(target.utf8)[...], Array(patch.utf8)[...]), as: UTF8.self)
    }

    @Test func mergePatchOfRFC7396() {
        #expect(merge(#"{"a":"b"}"#, #"{"a":"c"}"#) == #"{"a":"c"}"#)
        #expect(merge(#"{"a":"b"}"#, #"{"b":"c"}"#) == #"{"a":"b","b":"c"}"#)
        #expect(merge(#"{"a":"b"}"#, #"{"a":null}"#) == "{}")
        #expect(merge(#"{"a":["b"]}"#, #"{"a":"c"}"#) == #"{"a":"c"}"#)
        #expect(merge(#"{"a":[{"b":"c"}]}"#, #"{"a":[1]}"#) == #"{"a":[1]}"#)
        #expect(merge(#"{"a":{"b":"c"}}"#, #"{"a":{"b":"d","c":null}}"#) == #"{"a":{"b":"d"}}"#)
        #expect(merge(#"["a","b"]"#, #"{"a":{"bb":{"ccc":null}}}"#) == #"{"a":{"bb":{}}}"#)
    }

    @Test func bracesInTextAreText() {
        let text = Array(#"{ "a" : "}\"{" , "b":[1,{"c":"]"}] }"#.utf8)[...]
        #expect(RawJSON.members(text).count == 2)
        #expect(RawJSON.value(text, "b").map { RawJSON.elements($0).count } == 2)
        #expect(RawJSON.text(text, "a") == #"}\"{"#)
    }
}

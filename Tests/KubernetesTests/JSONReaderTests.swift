import Testing

@testable import Kubernetes

/// What is read without Codable must be what Codable would have read, or nothing.
struct JSONReaderTests {
    private func reading<Result>(
        _ text: String, _ body: (inout JSONReader) throws(JSONReader.Unexpected) -> Result
    ) -> Result? {
        Array(text.utf8).withUnsafeBytes { bytes in
            var reader = JSONReader(bytes)
            guard let result = try? body(&reader), reader.isAtEnd() else { return nil }
            return result
        }
    }

    @Test(arguments: [
        #"{}"#, #"[]"#, #""""#, #""a\"b""#, #""\\""#, #""\\\"]}""#, #"{"a":[{"b":"}"},null,true,-1.5e3],"c":{}}"#,
        "null", " 7 ",
    ])
    func skipsAnyValue(_ text: String) {
        #expect(reading(text) { (json) throws(JSONReader.Unexpected) in try json.skip() } != nil)
    }

    @Test(arguments: [
        "", "{", #"{"a":"#, #"["a","#, #""a"#, #""a\""#, "}", ",", #"{"a":1}}"#, "<html>it works!</html>",
    ])
    func passesOverNothingElse(_ text: String) {
        let isObject: Void? = reading(text) { (json) throws(JSONReader.Unexpected) in
            try json.object { (json, _) throws(JSONReader.Unexpected) in try json.skip() }
        }
        #expect(isObject == nil)
    }

    @Test func numbers() {
        func integer(_ text: String) -> Int8? {
            reading(text) { (json) throws(JSONReader.Unexpected) in try json.integer(Int8.self) }
        }
        #expect(integer("0") == 0 && integer("-0") == 0 && integer("127") == 127 && integer("-128") == -128)
        for text in ["128", "-129", "01", "1.0", "1e2", "", "-", "true", "\"1\""] { #expect(integer(text) == nil) }
    }

    @Test func textWithEscapesIsLeftToCodable() {
        for text in [#""a\nb""#, #""\u0041""#, "\"a\nb\""] {
            #expect(reading(text) { (json) throws(JSONReader.Unexpected) in try json.string() } == nil)
        }
        #expect(reading("\"grün\"") { (json) throws(JSONReader.Unexpected) in try json.string() } == "grün")
    }

    @Test func metadata() throws {
        let text = """
            {"name":"a","namespace":"b","uid":"c","resourceVersion":"7","generation":3,"labels":{"x":"y"},
             "annotations":{"ebpf.xdp/encrypt":"true","kubectl/last":"{\\"a\\":1}"},"managedFields":[{"f:a":{}}],
             "creationTimestamp":null,"deletionTimestamp":"2026-01-01T00:00:00Z","finalizers":["f"]}
            """
        let read = reading(text) { (json) throws(JSONReader.Unexpected) in
            try ObjectMeta(json: &json, annotations: "ebpf.xdp/")
        }
        var expected = ObjectMeta(name: "a", namespace: "b")
        (expected.uid, expected.resourceVersion, expected.generation) = ("c", "7", 3)
        (expected.labels, expected.annotations) = (["x": "y"], ["ebpf.xdp/encrypt": "true"])
        expected.deletionTimestamp = "2026-01-01T00:00:00Z"
        #expect(read == expected)
    }
}

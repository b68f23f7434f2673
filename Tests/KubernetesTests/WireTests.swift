import NIOCore
import Testing

@testable import Kubernetes

@Suite struct WireTests {
    private func with<R>(_ text: String, _ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try Array(text.utf8).withUnsafeBytes { try body($0) }
    }

    @Test func objectsGetTheirKindAndLoseWhatIsTrimmed() throws {
        var widget = Widget("a", size: 3)
        widget.metadata.labels = ["app": "x"]
        let text = String(decoding: try Wire.encode(widget), as: UTF8.self)
        #expect(
            text.contains(#""apiVersion":"tests.example\/v1""#) || text.contains(#""apiVersion":"tests.example/v1""#))
        #expect(text.contains(#""kind":"Widget""#))
        #expect(!text.contains("uid"))
        let decoded = try with(
            #"{"metadata":{"name":"a","annotations":{"dropped":"x","kept":"y"},"managedFields":[{"odd":1}]},"spec":null,"new":{"deep":[1]}}"#
        ) {
            try Wire.decode(Widget.self, $0)
        }
        #expect(decoded.metadata.annotations == ["kept": "y"])
    }

    @Test func oneOddItemDoesNotSpoilAList() throws {
        let text =
            #"{"kind":"WidgetList","metadata":{"resourceVersion":"7","continue":"","unknown":1},"items":["#
            + [
                Widget.json("a", version: 1), Widget.json("b", version: 2, size: "\"big\""),
                #"{"metadata":{"name":"c","namespace":"n","labels":{"x":5}}}"#, "5", Widget.json("d", version: 4),
            ].joined(separator: ",") + "]}"
        let list = try with(text) { try Wire.decodeList(Widget.self, $0) }
        #expect(list.items.map { $0.metadata.name } == ["a", "d"])
        #expect(list.undecodable.map { $0.key.description } == ["default/b", "n/c", ""])
        #expect(list.undecodable[0].problem.contains("spec.size"))
        #expect(list.undecodable[0].resourceVersion == "2")
        #expect(list.continueToken == nil && list.resourceVersion == "7")
    }

    @Test func eventsOfAllTypes() throws {
        func event(_ type: String, _ object: String) throws -> WatchEvent<Widget> {
            try with(#"{"type":"\#(type)","object":\#(object)}"#) { try Wire.decodeEvent(Widget.self, $0) }
        }
        guard case .added(let widget) = try event("ADDED", Widget.json("a", version: 1)) else {
            throw KubernetesError(.other, "")
        }
        #expect(widget.spec?.size == 1)
        guard case .modified = try event("MODIFIED", Widget.json("a", version: 1)) else {
            throw KubernetesError(.other, "")
        }
        // What is gone need not fit its type.
        guard case .deleted(let metadata) = try event("DELETED", Widget.json("a", version: 9, size: "\"big\"")) else {
            throw KubernetesError(.other, "")
        }
        #expect(metadata.resourceVersion == "9" && metadata.uid == "uid-a")
        guard case .undecodable(let object) = try event("MODIFIED", Widget.json("a", version: 9, size: "\"big\""))
        else { throw KubernetesError(.other, "") }
        #expect(object.resourceVersion == "9")
        guard
            case .bookmark("44") = try event(
                "BOOKMARK", #"{"kind":"Widget","metadata":{"resourceVersion":"44","creationTimestamp":null}}"#)
        else { throw KubernetesError(.other, "") }
        guard case .bookmark("") = try event("NOVELTY", "{}") else { throw KubernetesError(.other, "") }
        let gone = #expect(throws: KubernetesError.self) {
            try event(
                "ERROR",
                #"{"kind":"Status","code":410,"reason":"Expired","message":"too old resource version: 1 (10)"}"#)
        }
        #expect(gone?.code == .expired)
        let ahead = #expect(throws: KubernetesError.self) {
            try event(
                "ERROR",
                #"{"code":504,"reason":"Timeout","details":{"causes":[{"reason":"ResourceVersionTooLarge"}],"retryAfterSeconds":1}}"#
            )
        }
        #expect(ahead?.code == .expired && ahead?.retryAfter == .seconds(1))
        for text in ["", "x", "[]", #"{"type":1}"#, #"{"type":"ADDED"}"#] {
            let error = #expect(throws: KubernetesError.self) {
                try with(text) { try Wire.decodeEvent(Widget.self, $0) }
            }
            #expect(error?.code == .decoding)
        }
    }

    @Test(arguments: [
        (400, "BadRequest", KubernetesError.Code.badRequest), (401, "Unauthorized", .unauthorized),
        (403, "Forbidden", .forbidden),
        (404, "NotFound", .notFound), (409, "AlreadyExists", .alreadyExists), (409, "Conflict", .conflict),
        (410, "Gone", .expired),
        (422, "Invalid", .invalid), (429, "TooManyRequests", .tooManyRequests), (500, "InternalError", .server),
        (502, "", .unavailable),
        (503, "ServiceUnavailable", .unavailable), (504, "Timeout", .timeout), (507, "", .server), (418, "", .other),
    ])
    func statuses(_ status: Int, _ reason: String, _ code: KubernetesError.Code) {
        let body = with(#"{"kind":"Status","reason":"\#(reason)","message":"m"}"#) { Wire.Status(body: $0) }
        let error = KubernetesError(body, httpStatus: status, retryAfter: .seconds(100_000))
        #expect(error.code == code && error.message == "m" && error.retryAfter == .seconds(300))
        // A proxy in between answers in its own way.
        let page = with("<html>") { Wire.Status(body: $0) }
        #expect(KubernetesError(page, httpStatus: status, retryAfter: nil).message.contains("\(status)"))
    }

    @Test func linesAreCutWhereverTheStreamIs() throws {
        let text = "first line\nsecond\n\n\nthird\nunfinished"
        for size in 1...text.utf8.count {
            var splitter = LineSplitter(limit: 100)
            var lines: [String] = []
            var rest = Array(text.utf8)[...]
            while !rest.isEmpty {
                splitter.append(ByteBuffer(bytes: rest.prefix(size)))
                rest = rest.dropFirst(size)
                while let line = try splitter.next() { lines.append(String(buffer: line)) }
            }
            #expect(lines == ["first line", "second", "third"])
            #expect(splitter.pending == 10)
        }
    }

    @Test func anEndlessLineIsRefused() throws {
        var splitter = LineSplitter(limit: 100)
        splitter.append(ByteBuffer(repeating: 0x61, count: 100))
        #expect(try splitter.next() == nil)
        splitter.append(ByteBuffer(repeating: 0x61, count: 1))
        #expect(throws: KubernetesError.self) { _ = try splitter.next() }
    }
}

internal import Glibc

/// JSON as bytes, taken apart only as far as somebody asks: objects of an API server are mostly passed on as they are.
enum RawJSON {
    typealias Bytes = [UInt8]

    /// A member of an object: the key without its quotes, and the value's bytes.
    struct Member {
        var key: ArraySlice<UInt8>
        var value: ArraySlice<UInt8>
    }

    /// An object's members in order; none for what is no object.
    static func members(_ bytes: ArraySlice<UInt8>) -> [Member] {
        var members: [Member] = []
        let base = bytes.startIndex
        bytes.withUnsafeBufferPointer { pointer in
            var at = skipSpace(pointer, 0)
            guard at < pointer.count, pointer[at] == UInt8(ascii: "{") else { return }
            at = skipSpace(pointer, at + 1)
            while at < pointer.count, pointer[at] == UInt8(ascii: "\"") {
                let keyEnd = skipString(pointer, at)
                let key = at + 1..<keyEnd - 1
                at = skipSpace(pointer, keyEnd)
                guard at < pointer.count, pointer[at] == UInt8(ascii: ":") else { return }
                let start = skipSpace(pointer, at + 1)
                let end = skipValue(pointer, start)
                members.append(
                    Member(
                        key: bytes[base + key.lowerBound..<base + key.upperBound],
                        value: bytes[base + start..<base + end]))
                at = skipSpace(pointer, end)
                if at < pointer.count, pointer[at] == UInt8(ascii: ",") { at = skipSpace(pointer, at + 1) }
            }
        }
        return members
    }

    /// A list's elements; none for what is no list.
    static func elements(_ bytes: ArraySlice<UInt8>) -> [ArraySlice<UInt8>] {
        var elements: [ArraySlice<UInt8>] = []
        let base = bytes.startIndex
        bytes.withUnsafeBufferPointer { pointer in
            var at = skipSpace(pointer, 0)
            guard at < pointer.count, pointer[at] == UInt8(ascii: "[") else { return }
            at = skipSpace(pointer, at + 1)
            while at < pointer.count, pointer[at] != UInt8(ascii: "]") {
                let end = skipValue(pointer, at)
                guard end > at else { return }
                elements.append(bytes[base + at..<base + end])
                at = skipSpace(pointer, end)
                if at < pointer.count, pointer[at] == UInt8(ascii: ",") { at = skipSpace(pointer, at + 1) }
            }
        }
        return elements
    }

    /// The value of a key, by steps.
    static func value(_ bytes: ArraySlice<UInt8>, _ path: StaticString...) -> ArraySlice<UInt8>? {
        var at = bytes
        for step in path {
            guard let member = members(at).first(where: { isKey($0.key, step) }) else { return nil }
            at = member.value
        }
        return at
    }

    /// The text of a key, by steps. Nothing that is looked at here has escapes.
    static func text(_ bytes: ArraySlice<UInt8>, _ path: StaticString...) -> String? {
        var at = bytes
        for step in path {
            guard let member = members(at).first(where: { isKey($0.key, step) }) else { return nil }
            at = member.value
        }
        guard at.count >= 2, at.first == UInt8(ascii: "\"") else { return nil }
        return String(decoding: at.dropFirst().dropLast(), as: UTF8.self)
    }

    static func isKey(_ bytes: ArraySlice<UInt8>, _ key: StaticString) -> Bool {
        key.withUTF8Buffer { key in
            bytes.count == key.count
                && bytes.withUnsafeBufferPointer { $0.elementsEqual(key) }
        }
    }

    /// RFC 7396.
    static func merge(_ target: ArraySlice<UInt8>, _ patch: ArraySlice<UInt8>) -> Bytes {
        guard patch.first == UInt8(ascii: "{") else { return Bytes(patch) }
        var before = target.first == UInt8(ascii: "{") ? members(target) : []
        var merged: [(key: ArraySlice<UInt8>, value: Bytes)] = []
        for member in members(patch) {
            let index = before.firstIndex { $0.key == member.key }
            if member.value.first == UInt8(ascii: "n") {
                if let index { before.remove(at: index) }
            } else if let index {
                merged.append((member.key, merge(before[index].value, member.value)))
                before.remove(at: index)
            } else {
                // An object as it is may hold nulls, which are no members then.
                merged.append((member.key, merge([], member.value)))
            }
        }
        var out: Bytes = []
        out.reserveCapacity(target.count + patch.count)
        out.append(UInt8(ascii: "{"))
        func add(_ key: ArraySlice<UInt8>, _ value: some Collection<UInt8>) {
            if out.count > 1 { out.append(UInt8(ascii: ",")) }
            out.append(UInt8(ascii: "\""))
            out.append(contentsOf: key)
            out.append(UInt8(ascii: "\""))
            out.append(UInt8(ascii: ":"))
            out.append(contentsOf: value)
        }
        for member in before { add(member.key, member.value) }
        for member in merged { add(member.key, member.value) }
        out.append(UInt8(ascii: "}"))
        return out
    }

    private static func skipSpace(_ bytes: UnsafeBufferPointer<UInt8>, _ start: Int) -> Int {
        var at = start
        while at < bytes.count, bytes[at] <= 0x20 { at += 1 }
        return at
    }

    /// Behind the closing quote of a string that begins here.
    private static func skipString(_ bytes: UnsafeBufferPointer<UInt8>, _ start: Int) -> Int {
        var at = start + 1
        while at < bytes.count {
            if bytes[at] == UInt8(ascii: "\"") { return at + 1 }
            at += bytes[at] == UInt8(ascii: "\\") ? 2 : 1
        }
        return bytes.count
    }

    private static func skipValue(_ bytes: UnsafeBufferPointer<UInt8>, _ start: Int) -> Int {
        guard start < bytes.count else { return start }
        var at = start
        switch bytes[start] {
        case UInt8(ascii: "\""): return skipString(bytes, start)
        case UInt8(ascii: "{"), UInt8(ascii: "["):
            var depth = 0
            while at < bytes.count {
                switch bytes[at] {
                case UInt8(ascii: "\""):
                    at = skipString(bytes, at)
                    continue
                case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
                case UInt8(ascii: "}"), UInt8(ascii: "]"):
                    depth -= 1
                    if depth == 0 { return at + 1 }
                default: break
                }
                at += 1
            }
            return at
        default:
            while at < bytes.count, bytes[at] > 0x20, bytes[at] != UInt8(ascii: ","), bytes[at] != UInt8(ascii: "}"),
                bytes[at] != UInt8(ascii: "]")
            { at += 1 }
            return at
        }
    }
}

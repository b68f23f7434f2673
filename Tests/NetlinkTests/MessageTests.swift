import Testing

@testable import Netlink

/// Answers with bytes of the test's.
private final class CannedTransport: NetlinkTransport {
    var answers: [[ArraySlice<UInt8>]]
    var requests: [(type: UInt16, payload: [UInt8])] = []

    init(_ answers: [[ArraySlice<UInt8>]]) { self.answers = answers }

    func exchange(
        type: UInt16, flags: Int32, payload: [UInt8], operation: String
    ) throws(NetlinkError) -> [ArraySlice<UInt8>] {
        requests.append((type, payload))
        return answers.isEmpty ? [] : answers.removeFirst()
    }
}

@Suite struct MessageTests {
    @Test func attributesAreAlignedAndNested() {
        var payload = Payload()
        payload.attribute(1, text: "abc")
        payload.nested(2) {
            $0.attribute(3, UInt8(7))
            $0.flag(4)
        }
        #expect(
            payload.bytes == [
                8, 0, 1, 0, 0x61, 0x62, 0x63, 0, 16, 0, 2, 0x80, 5, 0, 3, 0, 7, 0, 0, 0, 4, 0, 4, 0,
            ])
        let list = Attribute.list(payload.bytes[...])
        #expect(list.map(\.type) == [1, 2])
        #expect(list[0].text == "abc")
        #expect(list[1].nested.map(\.type) == [3, 4])
        #expect(list[1].nested[0].number(as: UInt8.self) == 7)
        #expect(list[1].nested[0].number(as: UInt32.self) == nil)
    }

    @Test(
        arguments: [
            [], [1], [3, 0, 1, 0], [0, 0, 1, 0, 0, 0, 0, 0], [9, 0, 1, 0, 1, 2, 3, 4], [255, 255, 1, 0, 1, 2, 3, 4],
        ] as [[UInt8]])
    func attributesThatAreCutOff(bytes: [UInt8]) {
        #expect(Attribute.list(bytes[...]).isEmpty)
    }

    @Test func repliesEndWithAcknowledgement() throws {
        var reader = ReplyReader(sequence: 5)
        // Another request's message, then ours, then the acknowledgement.
        let other: [UInt8] = [20, 0, 0, 0, 16, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9]
        let ours: [UInt8] = [20, 0, 0, 0, 16, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]
        let done: [UInt8] =
            [36, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] + [UInt8](repeating: 0, count: 16)
        try reader.read((other + ours)[...], operation: "test")
        #expect(!reader.isComplete)
        try reader.read(done[...], operation: "test")
        #expect(reader.isComplete)
        #expect(reader.payloads == [[1, 2, 3, 4]])
    }

    @Test func errorsCarryErrnoAndText() throws {
        var text = Payload()
        text.attribute(1, text: "no such thing")
        let header: [UInt8] = [16, 0, 0, 0, 20, 0, 5, 0, 5, 0, 0, 0, 0, 0, 0, 0]
        // Flags: capped, with attributes.
        let body = [0xed, 0xff, 0xff, 0xff] + header + text.bytes
        let message: [UInt8] = [UInt8(16 + body.count), 0, 0, 0, 2, 0, 0, 3, 5, 0, 0, 0, 0, 0, 0, 0] + body
        var reader = ReplyReader(sequence: 5)
        #expect {
            try reader.read(message[...], operation: "test")
        } throws: {
            ($0 as? NetlinkError)?.errno == 19 && ($0 as? NetlinkError)?.reason == "no such thing"
        }
    }

    @Test func aDumpThatFailedIsAnError() throws {
        let link: [UInt8] = [20, 0, 0, 0, 16, 0, 2, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]
        func done(_ code: [UInt8]) -> [UInt8] { [20, 0, 0, 0, 3, 0, 2, 0, 5, 0, 0, 0, 0, 0, 0, 0] + code }
        var reader = ReplyReader(sequence: 5)
        try reader.read((link + done([0, 0, 0, 0]))[...], operation: "test")
        #expect(reader.isComplete)
        reader = ReplyReader(sequence: 5)
        #expect {
            try reader.read((link + done([0xa6, 0xff, 0xff, 0xff]))[...], operation: "test")
        } throws: {
            ($0 as? NetlinkError)?.errno == 90
        }
    }

    @Test(
        arguments: [
            [15, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0], [255, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0],
            [16, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0],
        ] as [[UInt8]])
    func malformedRepliesAreErrors(bytes: [UInt8]) {
        var reader = ReplyReader(sequence: 5)
        #expect(throws: NetlinkError.self) { try reader.read(bytes[...], operation: "test") }
    }

    @Test func linkFromBytes() throws {
        var payload = Payload()
        // ifinfomsg: family, pad, type 1, index 7, flags UP, change
        payload.append((UInt8(0), UInt8(0), UInt16(1), Int32(7), UInt32(1), UInt32(0)))
        payload.attribute(3, text: "eth0")
        payload.attribute(4, UInt32(9000))
        payload.attribute(5, Int32(12))
        payload.attribute(37, Int32(3))
        payload.nested(18) { $0.attribute(1, text: "veth") }
        let transport = CannedTransport([[payload.bytes[...]]])
        var socket = RouteSocket(transport: transport)
        let link = try #require(try socket.link(name: "eth0"))
        #expect(link.index == 7)
        #expect(link.name == "eth0")
        #expect(link.mtu == 9000)
        #expect(link.kind == "veth")
        #expect(link.peerIndex == 12)
        #expect(link.peerNamespaceID == 3)
        #expect(link.isUp)
        #expect(transport.requests.map(\.type) == [18])
        #expect(Link(payload: payload.bytes[..<8]) == nil)
    }

    @Test func namesThatNoDeviceCanHaveAreNotAskedFor() throws {
        let transport = CannedTransport([])
        var socket = RouteSocket(transport: transport)
        #expect(try socket.link(name: "") == nil)
        #expect(try socket.link(name: "a-name-of-16-char") == nil)
        #expect(transport.requests.isEmpty)
    }

    @Test func routeKeepsWhatItDoesNotKnow() throws {
        var payload = Payload()
        // rtmsg: family 2, dst 8, src 0, tos 0, table 254, protocol 4, scope 0, type 1, flags LINKDOWN|ONLINK
        payload.append(
            (UInt8(2), UInt8(8), UInt8(0), UInt8(0), UInt8(254), UInt8(4), UInt8(0), UInt8(1), UInt32(20)))
        payload.attribute(1, (UInt8(10), UInt8(0), UInt8(0), UInt8(0)))
        payload.attribute(4, Int32(7))
        payload.attribute(99, UInt32(0x1234_5678))
        let route = try #require(Route(payload: payload.bytes[...]))
        #expect(route.identity.description == "10.0.0.0/8 dev 7")
        #expect(route.mtu == nil)
        #expect(route.isUnicast)
        let request = route.replacement(mtu: 1440)
        #expect(request[8...11] == [4, 0, 0, 0])
        let attributes = Attribute.list(request[12...])
        #expect(attributes.map(\.type) == [1, 4, 99, 8])
        #expect(attributes[3].nested == [Attribute(type: 2, value: [0xa0, 0x05, 0, 0])])
        #expect(Route(payload: request[...])?.mtu == 1440)
        #expect(Route(payload: payload.bytes[..<6]) == nil)
        for length in [33, 160, 255] as [UInt8] {
            var bytes = payload.bytes
            bytes[1] = length
            #expect(Route(payload: bytes[...]) == nil, "a prefix of \(length) bits")
        }
    }
}

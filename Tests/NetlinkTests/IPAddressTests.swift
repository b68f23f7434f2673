import FoundationEssentials
import Testing

@testable import Netlink

@Suite struct IPAddressTests {
    @Test(arguments: [
        ("10.0.0.1", "10.0.0.1"), ("255.255.255.255", "255.255.255.255"), ("0.0.0.0", "0.0.0.0"),
        ("FD00:0:0:0:0:0:0:1", "fd00::1"), ("::", "::"), ("::1", "::1"), ("1::", "1::"),
        // RFC 5952 sections 4.2.2 and 4.2.3: one 0 stays, the longest run is cut, the first of equals.
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"), ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"), ("2001:0db8::0001", "2001:db8::1"),
        ("::1.2.3.4", "::102:304"), ("64:ff9b::1.2.3.4", "64:ff9b::102:304"), ("1:2:3:4:5:6:0:0", "1:2:3:4:5:6::"),
    ])
    func readsAndWrites(text: String, canonical: String) throws {
        let address = try IPAddress(text)
        #expect(address.description == canonical)
        #expect(try IPAddress(canonical) == address)
    }

    @Test(arguments: [
        "", " ", "10.0.0", "10.0.0.1.2", "10.0.0.256", "010.0.0.1", "0x0a.0.0.1", "10.0.0.1 ", " 10.0.0.1",
        "10.0.0.1/8",
        "fe80::1%eth0", ":::", "1::2::3", "12345::", "g::", "::ffff:10.0.0.1", "::ffff:a00:1", "localhost",
        "10.0.0.1\0",
        "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9",
    ])
    func refuses(text: String) {
        #expect(throws: IPParseError.self) { _ = try IPAddress(text) }
    }

    @Test func bytesAreInNetworkOrder() throws {
        let four = try IPAddress("10.1.2.3")
        #expect(four.isIPv4)
        #expect(four.bytes == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3])
        #expect(four.packetBytes == [10, 1, 2, 3])
        #expect(IPAddress(bytes: [10, 1, 2, 3]) == four)
        #expect(IPAddress(bytes: four.bytes) == four)
        let six = try IPAddress("fd00:102::304")
        #expect(!six.isIPv4)
        #expect(six.bytes == [0xfd, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4])
        #expect(six.packetBytes == six.bytes)
        #expect(IPAddress(bytes: [1, 2, 3]) == nil)
    }

    @Test func linkLocal() throws {
        for (text, expected) in [
            ("fe80::1", true), ("febf::", true), ("fec0::", false), ("fe7f::", false), ("169.254.1.1", true),
            ("169.255.0.0", false),
        ] {
            #expect(try IPAddress(text).isLinkLocal == expected, "\(text)")
        }
    }

    @Test func ordersByNumber() throws {
        let sorted = try ["10.0.0.2", "fd00::1", "10.0.0.10", "9.255.255.255"].map { try IPAddress($0) }.sorted()
        #expect(sorted.map(\.description) == ["9.255.255.255", "10.0.0.2", "10.0.0.10", "fd00::1"])
    }

    @Test func travelsAsJSONText() throws {
        let list = try JSONDecoder().decode([IPAddress].self, from: Data(#"["10.0.0.1","FD00::1"]"#.utf8))
        #expect(String(decoding: try JSONEncoder().encode(list), as: UTF8.self) == #"["10.0.0.1","fd00::1"]"#)
        #expect(throws: DecodingError.self) {
            _ = try JSONDecoder().decode([IPAddress].self, from: Data(#"["10.0.0"]"#.utf8))
        }
    }
}

@Suite struct IPPrefixTests {
    @Test(arguments: [
        ("10.0.0.0/8", 104), ("0.0.0.0/0", 96), ("10.1.2.3/32", 128), ("fd00::/8", 8), ("::/0", 0),
        ("fd00::1/128", 128),
        ("fe80::/10", 10),
    ])
    func readsAndWrites(text: String, bits: UInt8) throws {
        let prefix = try IPPrefix(text)
        #expect(prefix.length == bits)
        #expect(prefix.description == text)
        #expect(IPPrefix(address: prefix.address, length: bits) == prefix)
    }

    @Test(arguments: [
        "", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/08", "10.0.0.0/+8", "10.0.0.0/8/8", "/8",
        "fd00::/129",
        "fd00::/1280", "10.0.0.0/8 ", "10.0.0.0/255.0.0.0",
    ])
    func refuses(text: String) {
        #expect(throws: IPParseError.self) { _ = try IPPrefix(text) }
    }

    @Test func namesThePrefixThatWasMeant() {
        #expect {
            _ = try IPPrefix("10.1.2.3/8")
        } throws: {
            "\($0)".contains("10.0.0.0/8")
        }
        #expect {
            _ = try IPPrefix("fd00::1/64")
        } throws: {
            "\($0)".contains("fd00::/64")
        }
    }

    @Test func containsItsFamilyOnly() throws {
        let ten = try IPPrefix("10.0.0.0/8")
        #expect(ten.contains(try IPAddress("10.255.0.1")))
        #expect(!ten.contains(try IPAddress("11.0.0.1")))
        #expect(!ten.contains(try IPAddress("fd00::1")))
        #expect(try IPPrefix("fd00::/9").contains(try IPAddress("fd7f::1")))
        #expect(try !IPPrefix("fd00::/9").contains(try IPAddress("fd80::1")))
        #expect(try !IPPrefix("0.0.0.0/0").contains(try IPAddress("::1")))
    }
}

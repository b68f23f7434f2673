# SPDX-License-Identifier: Apache-2.0
"""The independent implementation itself: known answers, and that it refuses what a receiver must refuse."""

import ipaddress
import random
import struct

import pytest

import corpus
import decode
import vectors
import xdpwire as wire
from receiver import Receiver

KEY = wire.derive(vectors.DEK, vectors.CLUSTER, 1, 1, 2, vectors.INCARNATION[1], vectors.INCARNATION[2])
KEYS = {KEY.spi: [KEY]}


def sealed(protocol=wire.TCP, header=None, payload=b"attack at dawn", addresses=vectors.V4):
    frame = wire.build(*addresses, protocol, header or wire.tcp_header(), payload)
    return wire.seal(frame, KEY.key, KEY.spi, wire.iv(0, 1))


def reason(frame):
    with pytest.raises(wire.Refused) as refused:
        wire.open_(bytes(frame), KEYS)
    return refused.value.reason


def test_document_and_vectors_are_current():
    assert vectors.main([]) == 0


def test_vectors_open_to_the_plain_frame():
    for vector in vectors.packets():
        opened = wire.open_(bytes.fromhex(vector["wire"]), KEYS)
        assert (opened.lane, opened.counter) == (vector["lane"], vector["counter"])
        if "without-checksum" not in vector["name"]:
            assert opened.frame.hex() == vector["plain"]
        # Every length and checksum of what comes out must be right.
        wire.parse(opened.frame)
        wire.parse(bytes.fromhex(vector["wire"]))


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_is_refused(bit):
    frame = sealed()
    for at in range(14, len(frame)):
        flipped = bytearray(frame)
        flipped[at] ^= 1 << bit
        ip = at - 14
        if ip < 20:  # what the header's checksum does not catch says itself that it is wrong
            expected = {"checksum", "malformed", "unsupported"}
        elif ip in (36, 37):  # the TCP checksum
            expected = {"checksum"}
        elif ip in range(40, 44):  # the SPI
            expected = {"cleartext"}
        else:
            expected = {"auth", "cleartext", "malformed"} if ip == 32 else {"auth"}
        assert reason(flipped) in expected, f"byte {ip} of the packet, bit {bit}"


def test_authenticated_fields_do_not_depend_on_checksums():
    frame = bytearray(sealed())
    frame[14 + 20 + 13] ^= 0x04  # the RST flag
    repaired = wire.parse(bytes(frame), verify=False).frame()
    assert reason(repaired) == "auth"


def test_network_may_change_what_belongs_to_it():
    frame = bytearray(sealed())
    frame[14 + 8] -= 3  # TTL
    frame[14 + 1] = 0xB8  # DSCP
    assert reason(frame) == "checksum"
    assert wire.open_(wire.parse(bytes(frame), verify=False).frame(), KEYS).payload == b"attack at dawn"


def test_ports_cannot_be_changed():
    frame = bytearray(sealed(wire.UDP, wire.udp_header()))
    frame[14 + 20 + 3] ^= 1
    assert reason(wire.parse(bytes(frame), verify=False).frame()) == "auth"


@pytest.mark.parametrize("size", range(28))
def test_packet_too_short_for_a_shim(size):
    assert reason(wire.build(*vectors.V4, wire.TCP, wire.tcp_header(), bytes(size))) == "cleartext"


def test_unknown_spi():
    frame = wire.build(*vectors.V6, wire.TCP, wire.tcp_header(), bytes(64))
    assert reason(frame) == "cleartext"


def test_lengths_that_lie():
    frame = sealed(wire.UDP, wire.udp_header())
    assert reason(frame + b"\0") == "malformed"
    assert reason(frame[:-1]) == "malformed"
    short = bytearray(frame)
    struct.pack_into(">H", short, 14 + 20 + 4, 12)
    assert reason(short) == "malformed"


def open_damaged(frame, generator):
    """Opens a frame with some random bytes in it, cut at random: it may be refused, and nothing else may be raised."""
    frame = bytearray(frame)
    for _ in range(generator.randrange(1, 8)):
        frame[generator.randrange(12, len(frame))] = generator.randrange(256)
    frame = frame[:generator.randrange(len(frame) + 1)]
    try:
        wire.open_(bytes(frame), KEYS)
    except wire.Refused:
        pass


def test_random_bytes_do_nothing_but_be_refused():
    generator = random.Random(1)
    for _ in range(20000):
        open_damaged(sealed(), generator)


# ---- the tunnel framing ---------------------------------------------------------------------------------------------

FAMILIES = {4: vectors.V4, 6: vectors.V6}
IP = {4: 20, 6: 40}


def tunnelled(frame, counter=1, key=KEY):
    return wire.seal_tunnel(frame, key.key, key.spi, wire.iv(0, counter))


def sctp(family, size=33, **fields):
    return wire.build_ip(*FAMILIES[family], vectors.SCTP, vectors.text(size), **fields)


def around(outer, inner, counter=1):
    """A tunnel packet around `outer`'s IP header with an authentic inner packet that its sender would never put there."""
    return wire.seal_tunnel(outer, KEY.key, KEY.spi, wire.iv(0, counter), inner)


def repaired(frame):
    """With the outer packet's lengths and IPv4 checksum made right; its UDP checksum stays."""
    frame = bytearray(frame)
    ip = IP[frame[14] >> 4]
    struct.pack_into(">H", frame, 14 + ip + 4, len(frame) - 14 - ip)
    if ip == 40:
        struct.pack_into(">H", frame, 14 + 4, len(frame) - 14 - ip)
    else:
        struct.pack_into(">H", frame, 14 + 2, len(frame) - 14)
        frame[14 + 10:14 + 12] = b"\0\0"
        struct.pack_into(">H", frame, 14 + 10, wire.checksum(bytes(frame[14:14 + ip])))
    return bytes(frame)


def test_tunnel_vectors_open_to_the_plain_frame():
    names = set()
    for vector in vectors.tunnel_packets():
        plain, sent = bytes.fromhex(vector["plain"]), bytes.fromhex(vector["wire"])
        opened = wire.open_(sent, KEYS)
        assert (opened.framing, opened.lane, opened.counter) == ("tunnel", vector["lane"], vector["counter"])
        assert opened.frame == plain and vector["opened"] == vector["plain"]
        _, at, end = wire.bounds(plain)
        version = plain[at] >> 4
        assert 20 <= end - at <= 1440
        assert (opened.payload, opened.version) == (plain[at:end], version)
        assert len(sent) == len(plain) + (60 if version == 4 else 80)
        names.add(vector["name"])
        assert wire.framing(plain, hidden=vector["name"].startswith("hidden")) == "tunnel"
    assert len(names) == 116


def test_which_framing():
    for vector in vectors.packets():
        plain = bytes.fromhex(vector["plain"])
        assert (wire.framing(plain), wire.framing(plain, hidden=True)) == ("inline", "tunnel")
    # Echo of the other family is none.
    for protocol, addresses in ((wire.ICMPV6, vectors.V4), (wire.ICMP, vectors.V6)):
        assert wire.framing(wire.build_ip(*addresses, protocol, wire.echo_header(protocol))) == "tunnel"
    for name, plain in [*vectors.tunnel_only(), *vectors.hidden()]:
        for hidden in (False, True):
            with pytest.raises(wire.Refused) as refused:
                wire.framing(plain + b"\0", hidden)
            assert refused.value.reason == "malformed", name
        with pytest.raises(wire.Refused):
            wire.seal_tunnel(plain + b"\0", KEY.key, KEY.spi, wire.iv(0, 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_outer_headers(family):
    tcp = wire.build(*FAMILIES[family], wire.TCP, wire.tcp_header(), bytes(100))[14 + IP[family]:]
    plain = wire.build_ip(*FAMILIES[family], wire.TCP, tcp, ttl=17, traffic_class=0xB9)
    sent = tunnelled(plain)
    outer = wire.parse(sent)  # all lengths and checksums are right
    assert (outer.protocol, outer.link) == (wire.UDP, plain[:14])
    assert outer.source + outer.destination == b"".join(ipaddress.ip_address(a).packed for a in FAMILIES[family])
    if family == 4:
        assert outer.ip[:2] == plain[14:16] and outer.ip[4:8] == b"\0\0\x40\0" and outer.ip[8] == 17
    else:
        assert outer.ip[:4] == plain[14:18] and outer.ip[7] == 17
    source, destination, _, udp_checksum = struct.unpack(">HHHH", outer.l4)
    assert source >= 0x8000 and destination == 1000 and udp_checksum == 0
    assert outer.payload[:4] == bytes((4 if family == 4 else 41, 1, 0, 5))
    assert outer.payload[4:16] == struct.pack(">I", KEY.spi) + wire.iv(0, 1)


def test_packet_that_does_not_fit():
    fits = wire.build_ip(*vectors.V4, vectors.SCTP, bytes(65535 - 60 - 20))
    assert wire.open_(tunnelled(fits), KEYS).frame == fits
    for family, size in ((4, 65535 - 60 - 20 + 1), (6, 65535 - 40 - 40 + 1)):
        with pytest.raises(wire.Refused) as refused:
            tunnelled(wire.build_ip(*FAMILIES[family], vectors.SCTP, bytes(size)))
        assert refused.value.reason == "too_big"


def expected_of_flip(family, at):
    """What may become of a tunnel packet with a bit of byte `at` of its IP packet flipped. IPv4's checksum is right again."""
    ip, l4 = IP[family], at - IP[family]
    if l4 < 0:
        if family == 4:
            fields = ((1, {"malformed", "unsupported"}), (2, {"opened"}), (4, {"malformed"}), (6, {"opened"}),
                      (7, {"opened", "unsupported"}), (8, {"unsupported"}), (9, {"opened"}), (10, {"unsupported"}),
                      (12, {"opened"}), (20, {"spoofed"}))
        else:
            fields = ((1, {"malformed", "opened"}), (4, {"opened"}), (6, {"malformed"}), (7, {"unsupported"}), (8, {"opened"}),
                      (40, {"spoofed"}))
        return next(expected for end, expected in fields if at < end)
    fields = ((2, {"opened"}), (4, {"cleartext"}), (6, {"malformed"}), (8, {"opened"}),  # UDP: ports, length, checksum
              (16, {"cleartext"}))  # the beginning of the PSP header, and the SPI
    return next((expected for end, expected in fields if l4 < end), {"auth"})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_flipped_bit_of_a_tunnel_packet_is_refused(family):
    plain = sctp(family)
    sent = tunnelled(plain)
    network = 0
    for at in range(len(sent)):
        for bit in range(8):
            flipped = bytearray(sent)
            flipped[at] ^= 1 << bit
            if at < 12:  # Ethernet addresses
                assert wire.open_(bytes(flipped), KEYS).frame[12:] == plain[12:]
                continue
            if at < 14:
                assert reason(flipped) in {"ethertype", "malformed"}
                continue
            if family == 4 and 14 <= at < 34:
                assert reason(flipped) in {"checksum", "malformed", "unsupported"}
                flipped[24:26] = b"\0\0"
                struct.pack_into(">H", flipped, 24, wire.checksum(bytes(flipped[14:34])))
            expected = expected_of_flip(family, at - 14)
            try:
                opened = wire.open_(bytes(flipped), KEYS)
            except wire.Refused as refused:
                assert refused.reason in expected, f"byte {at - 14} of the packet, bit {bit}"
            else:
                assert "opened" in expected, f"byte {at - 14} of the packet, bit {bit}"
                lowered = bytearray(plain)
                hop = 22 if family == 4 else 21
                if at == hop and flipped[at] < plain[at]:
                    lowered = bytearray(wire.changed(plain[14:], hop - 14, flipped[at]))
                    lowered[:0] = plain[:14]
                assert opened.frame == lowered  # and nothing else of it comes through
                network += 1
    # TOS, identification, DF and the reserved flag, TTL, checksum; traffic class and flow label, hop limit; UDP port and checksum.
    assert network == (8 + 16 + 2 + 8 + 16 if family == 4 else 28 + 8) + 32


@pytest.mark.parametrize("family", FAMILIES)
def test_truncated_tunnel_packet(family):
    sent = tunnelled(sctp(family, 0))
    assert wire.open_(sent, KEYS).frame == sctp(family, 0)
    start = 14 + IP[family] + 8
    for end in range(start, len(sent)):  # too short to be one, so it is looked at as an inline packet
        assert reason(repaired(sent[:end])) == "cleartext"
    longer = tunnelled(sctp(family, 1))
    assert reason(repaired(longer[:-1])) == "auth"
    assert reason(longer + b"\0") == "malformed"
    assert reason(longer[:-1]) == "malformed"


@pytest.mark.parametrize("family", FAMILIES)
def test_inner_packet_that_lies(family):
    outer = sctp(family)
    inner = outer[14:]
    assert wire.open_(around(outer, inner), KEYS).frame == outer

    def changed(at, value):
        return inner[:at] + value + inner[at + len(value):]

    addresses, other = (12, 4) if family == 4 else (8, 16), FAMILIES[10 - family]
    size = addresses[1]
    for first in (addresses[0], addresses[0] + size):
        for at in range(first, first + size):
            assert reason(around(outer, changed(at, bytes((inner[at] ^ 1,))))) == "spoofed"
    swapped = inner[addresses[0] + size:addresses[0] + 2 * size] + inner[addresses[0]:addresses[0] + size]
    assert reason(around(outer, changed(addresses[0], swapped))) == "spoofed"
    # Another version: as a whole packet, and in the field only.
    assert reason(around(outer, wire.build_ip(*other, vectors.SCTP, bytes(60))[14:])) == "spoofed"
    for version in range(16):
        if version != family:
            assert reason(around(outer, changed(0, bytes((version << 4 | inner[0] & 15,))))) == "spoofed"
    # Lengths.
    assert reason(around(outer, inner + b"\0")) == "malformed"
    assert reason(around(outer, inner[:-1])) == "malformed"
    at = 2 if family == 4 else 4
    for length in (0, 19, len(inner) - (1 if family == 4 else 41), len(inner) + (1 if family == 4 else -39), 0xFFFF):
        assert reason(around(outer, changed(at, struct.pack(">H", length)))) == "malformed"
    if family == 4:
        for words in range(5):
            assert reason(around(outer, changed(0, bytes((0x40 | words,))))) == "malformed"


def test_packet_that_lies_has_used_its_iv_up():
    knowledge = decode.Knowledge(corpus.description())
    receiver = Receiver(knowledge, 2)
    key = next(k for keys in knowledge.keys.values() for k in keys if (k.sender, k.receiver) == (1, 2))
    plain = sctp(4)
    honest = tunnelled(plain, 7, key)
    lie = bytearray(plain[14:])
    lie[19] ^= 1
    lying = wire.seal_tunnel(plain, key.key, key.spi, wire.iv(0, 7), bytes(lie))
    assert receiver.verdict(lying) == "spoofed"
    assert receiver.verdict(honest) == "replay"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("inner", range(4))
@pytest.mark.parametrize("outer", range(4))
def test_congestion(family, inner, outer):
    plain = sctp(family, traffic_class=0x28 | inner)
    sent = bytearray(tunnelled(plain))
    if family == 4:
        sent[15] = 0x54 | outer  # another DSCP, too
        expected = wire.build_ip(*vectors.V4, vectors.SCTP, vectors.text(33), traffic_class=0x28 | 3)
    else:
        sent[14:16] = struct.pack(">H", 6 << 12 | (0x54 | outer) << 4 | 1)
        expected = wire.build_ip(*vectors.V6, vectors.SCTP, vectors.text(33), traffic_class=0x28 | 3)
    sent = repaired(sent)
    if outer != 3:
        assert wire.open_(sent, KEYS).frame == plain
    elif inner == 0:
        assert reason(sent) == "malformed"
    else:
        assert wire.open_(sent, KEYS).frame == expected


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("left", [0, 1, 61, 64, 65, 255])
def test_hops_on_the_way_count(family, left):
    plain = sctp(family)
    sent = bytearray(tunnelled(plain))
    at = 22 if family == 4 else 21
    assert plain[at] == 64
    sent[at] = left
    opened = wire.open_(repaired(sent), KEYS).frame
    assert opened[at] == min(left, 64)
    assert opened[:at] == plain[:at] and opened[26:] == plain[26:]
    if family == 4:
        assert wire.folded(opened[14:34]) == 0xFFFF


def test_congestion_does_not_make_a_wrong_checksum_right():
    plain = bytearray(sctp(4, traffic_class=1))
    plain[24] ^= 0x10
    sent = bytearray(tunnelled(bytes(plain)))
    assert wire.open_(bytes(sent), KEYS).frame == plain
    sent[15] |= 3
    opened = wire.open_(repaired(sent), KEYS).frame
    assert opened[15] & 3 == 3 and wire.folded(opened[14:34]) == wire.folded(bytes(plain[14:34])) != 0xFFFF


@pytest.mark.parametrize("family", FAMILIES)
def test_inline_packet_to_the_tunnels_port_stays_inline(family):
    header = wire.udp_header(destination_port=wire.TUNNEL_PORT)
    imitation = wire.PSP_START[family] + struct.pack(">I", KEY.spi) + wire.iv(0, 1) + bytes(64)
    for payload in (b"", b"attack at dawn", bytes(200), imitation):
        opened = wire.open_(sealed(wire.UDP, header, payload, FAMILIES[family]), KEYS)
        assert (opened.framing, opened.payload) == ("inline", payload)
    # In clear, what looks like a tunnel packet is one, and does not verify.
    assert reason(wire.build(*FAMILIES[family], wire.UDP, header, imitation)) == "auth"
    # An SPI of another node than the source's.
    frame = tunnelled(sctp(family))
    assert wire.open_(frame, KEYS, sender=1).framing == "tunnel"
    with pytest.raises(wire.Refused) as refused:
        wire.open_(frame, KEYS, sender=3)
    assert refused.value.reason == "spoofed"


@pytest.mark.parametrize("family", FAMILIES)
def test_replay_across_both_framings(family):
    knowledge = decode.Knowledge(corpus.description())
    receiver = Receiver(knowledge, 2, window=64)
    key = next(k for keys in knowledge.keys.values() for k in keys if (k.sender, k.receiver) == (1, 2))
    plain = wire.build(*FAMILIES[family], wire.UDP, wire.udp_header(), b"attack at dawn")

    def framed(framing, counter):
        seal = wire.seal_tunnel if framing == "tunnel" else wire.seal
        return seal(plain, key.key, key.spi, wire.iv(0, counter))

    for first, second, counter in (("inline", "tunnel", 1), ("tunnel", "inline", 2), ("tunnel", "tunnel", 3)):
        assert receiver.verdict(framed(first, counter)) == "decrypted"
        assert receiver.verdict(framed(second, counter)) == "replay"
    assert receiver.verdict(framed("tunnel", 100)) == "decrypted"
    assert receiver.verdict(framed("inline", 36)) == "stale"
    assert receiver.verdict(framed("tunnel", 37)) == "decrypted"
    nought = wire.seal_tunnel(plain, key.key, key.spi, bytes(8))
    assert receiver.verdict(nought) == "malformed"


def test_decoder_counts_tunnel_packets():
    decoder = decode.Decoder(decode.Knowledge(corpus.description()), [b"dawn"])
    key = next(k for keys in decoder.knowledge.keys.values() for k in keys if (k.sender, k.receiver) == (1, 2))
    counter = 0
    for family, addresses in FAMILIES.items():
        for port in (9, wire.TUNNEL_PORT):
            plain = wire.build(*addresses, wire.UDP, wire.udp_header(destination_port=port), b"attack at dawn")
            for seal in (wire.seal, wire.seal_tunnel):
                counter += 1
                frame = seal(plain, key.key, key.spi, wire.iv(0, counter))
                decoder.frame(frame, len(frame))
    report = decoder.report
    assert report.clean and (report.packets, report.verified, report.tunnel) == (8, 8, 4)
    assert report.by_kind == {"udp4": 2, "tunnel4": 2, "udp6": 2, "tunnel6": 2} and report.marker_after_opening == 8
    # A plain packet to the port, and a tunnel packet that was changed.
    decoder.frame(plain, len(plain))
    frame = frame[:-1] + bytes((frame[-1] ^ 1,))
    decoder.frame(frame, len(frame))
    assert report.refused == {"cleartext": 1, "auth": 1} and (report.verified, report.marker_on_wire) == (8, 1)
    # The IV of an inline packet, used again by the tunnel.
    frame = wire.seal_tunnel(plain, key.key, key.spi, wire.iv(0, 1))
    decoder.frame(frame, len(frame))
    assert report.duplicate_nonces == 1


def test_random_bytes_in_tunnel_packets_do_nothing_but_be_refused():
    generator = random.Random(2)
    for number in range(10000):
        open_damaged(tunnelled(sctp((4, 6)[number % 2])), generator)

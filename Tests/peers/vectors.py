#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Known answers of the wire format. `vectors.py --write` writes them, without arguments it checks that they still hold.

They stand in Tests/DatapathTests/vectors/inline.json and tunnel.json (packets: the kernel programs are tested with them) and
between two marker lines of docs/wire-format.md (derivation, and a few complete packets for readers).
"""

import json
import pathlib
import struct
import sys

import xdpwire as wire

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKETS = ROOT / "Tests/DatapathTests/vectors/inline.json"
TUNNEL_PACKETS = ROOT / "Tests/DatapathTests/vectors/tunnel.json"
DOCUMENT = ROOT / "docs/wire-format.md"
BEGIN, END = "<!-- known answers: begin -->\n", "<!-- known answers: end -->\n"

DEK = bytes(range(0x20))
CLUSTER = bytes(range(0xA0, 0xB0))
INCARNATION = {1: bytes(range(0x10, 0x20)), 2: bytes(range(0x30, 0x40)), 0xFFFFFE: bytes(range(0x50, 0x60))}
V4 = ("10.201.1.2", "10.201.2.2")
V6 = ("fd00:201:1::2", "fd00:201:2::2")
SIZES = (0, 1, 15, 16, 17, 64, 1400)
TIMESTAMPS = bytes.fromhex("0101080a0000000100000002")
FORTY_OPTIONS = b"\x01" * 40
SCTP, GRE, NO_NEXT_HEADER = 132, 47, 59
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS = 0, 43, 44, 60
MORE_FRAGMENTS = 0x2000
TAGGED = [(0x8100, 100)]
TWICE_TAGGED = [(0x88A8, 200), (0x8100, 100)]


def derivations():
    for epoch, sender, receiver in ((1, 1, 2), (1, 2, 1), (2, 1, 2), (0xFFFFFFFF, 0xFFFFFE, 1)):
        key = wire.derive(DEK, CLUSTER, epoch, sender, receiver, INCARNATION[sender], INCARNATION[receiver])
        yield {
            "epoch": epoch, "sender": sender, "receiver": receiver,
            "sender_incarnation": INCARNATION[sender].hex(), "receiver_incarnation": INCARNATION[receiver].hex(),
            "key": key.key.hex(), "spi": f"{key.spi:08x}", "key_id": key.key_id.hex(),
        }


def text(size):
    return bytes((7 * i + size) & 0xFF for i in range(size))


def plain_packets(raw, spi):
    """(name, plain frame), in the order in which one lane sends them: the first gets counter 1."""
    kinds = (
        ("tcp4", V4, wire.TCP, wire.tcp_header()),
        ("tcp6", V6, wire.TCP, wire.tcp_header()),
        ("tcp4-timestamps", V4, wire.TCP, wire.tcp_header(options=TIMESTAMPS)),
        ("tcp6-timestamps", V6, wire.TCP, wire.tcp_header(options=TIMESTAMPS)),
        ("tcp4-40-options", V4, wire.TCP, wire.tcp_header(options=FORTY_OPTIONS)),
        ("udp4", V4, wire.UDP, wire.udp_header()),
        ("udp6", V6, wire.UDP, wire.udp_header()),
        ("icmp4-echo", V4, wire.ICMP, wire.echo_header(wire.ICMP)),
        ("icmp6-echo", V6, wire.ICMPV6, wire.echo_header(wire.ICMPV6)),
    )
    out = []
    for name, addresses, protocol, header in kinds:
        for size in SIZES:
            out.append((f"{name}-{size}", wire.build(*addresses, protocol, header, text(size))))
    for name, addresses in (("4", V4), ("6", V6)):
        out.append((f"tcp{name}-vlan-17", wire.build(*addresses, wire.TCP, wire.tcp_header(), text(17), vlan=TAGGED)))
        out.append((f"udp{name}-vlan-64", wire.build(*addresses, wire.UDP, wire.udp_header(), text(64), vlan=TAGGED)))
    syn = wire.tcp_header(flags=0x02, options=bytes.fromhex("020405b4"))
    out.append(("tcp4-syn", wire.build(*V4, wire.TCP, syn, b"")))
    out.append(("tcp4-rst", wire.build(*V4, wire.TCP, wire.tcp_header(flags=0x14), b"")))
    for name, addresses, protocol in (("4", V4, wire.ICMP), ("6", V6, wire.ICMPV6)):
        reply = wire.echo_header(protocol, reply=True)
        out.append((f"icmp{name}-reply-64", wire.build(*addresses, protocol, reply, text(64))))
    for name, addresses, at in (("4", V4, 14 + 20 + 6), ("6", V6, 14 + 40 + 6)):
        # A sender may leave the UDP checksum out. The packet that comes out has one.
        frame = bytearray(wire.build(*addresses, wire.UDP, wire.udp_header(), text(64)))
        frame[at:at + 2] = b"\0\0"
        out.append((f"udp{name}-without-checksum-64", bytes(frame)))
    out.append(("udp4-checksum-ffff", sum_of_zero(lambda frame: frame)))
    iv = wire.iv(0, len(out) + 1)
    out.append(("udp4-wire-checksum-ffff", sum_of_zero(lambda frame: wire.seal(frame, raw, spi, iv))))
    return out


def sum_of_zero(as_sent):
    """A UDP packet whose checksum computes to 0 in the frame `as_sent`, so that ffff stands there."""
    for number in range(1 << 20):
        frame = wire.build(*V4, wire.UDP, wire.udp_header(), number.to_bytes(4, "big"))
        if as_sent(frame)[40:42] == b"\xff\xff":
            return frame
    raise AssertionError("no such packet")


def datagram(addresses, size, **fields):
    """The UDP header and payload of a packet, with a right checksum."""
    frame = wire.build(*addresses, wire.UDP, wire.udp_header(**fields), text(size))
    return frame[14 + (20 if "." in addresses[0] else 40):]


def fragments4(whole, sizes, **fields):
    """Frames with parts of an IPv4 payload, that many bytes each. What is left over is the last one."""
    at = 0
    for size in (*sizes, len(whole) - sum(sizes)):
        more = MORE_FRAGMENTS if at + size < len(whole) else 0
        yield wire.build_ip(*V4, wire.UDP, whole[at:at + size], fragment=more | at // 8, **fields)
        at += size


def fragments6(whole, sizes, **fields):
    at = 0
    for size in (*sizes, len(whole) - sum(sizes)):
        more = at + size < len(whole)
        header = struct.pack(">BBHI", wire.UDP, 0, at | more, 0x1234)
        yield wire.build_ip(*V6, FRAGMENT, header + whole[at:at + size], **fields)
        at += size


def padded(next_header, size=8):
    """A hop-by-hop or destination options header, with nothing but padding in it."""
    return struct.pack(">BBBB", next_header, size // 8 - 1, 1, size - 4) + bytes(size - 4)


def tunnel_only():
    """(name, plain frame) of packets that the inline framing cannot carry."""
    # What remains of 20 and 40 bytes of IP header, up to 1440 bytes in all.
    for name, addresses, sizes in (("4", V4, (0, 1, 7, 8, 11, 12, 13, 44, 1420)), ("6", V6, (0, 1, 7, 8, 9, 24, 1400))):
        for size in sizes:
            yield f"sctp{name}-{size}", wire.build_ip(*addresses, SCTP, text(size))
    for name, addresses in (("4", V4), ("6", V6)):
        yield f"gre{name}-100", wire.build_ip(*addresses, GRE, text(100), traffic_class=0xB8)
        yield f"sctp{name}-vlan-17", wire.build_ip(*addresses, SCTP, text(17), vlan=TAGGED)
        yield f"sctp{name}-vlan-vlan-64", wire.build_ip(*addresses, SCTP, text(64), vlan=TWICE_TAGGED)
        for ecn in (1, 2, 3):
            yield f"sctp{name}-ecn-{ecn}", wire.build_ip(*addresses, SCTP, text(32), traffic_class=0x28 | ecn)
        yield f"sctp{name}-ttl-1", wire.build_ip(*addresses, SCTP, text(32), ttl=1, flow=0)
        yield f"sctp{name}-ttl-255", wire.build_ip(*addresses, SCTP, text(32), ttl=255, flow=0xFFFFF)

    small, large = datagram(V4, 40), datagram(V4, 2860)
    for part, frame in zip(("first-16", "middle-24", "last-8"), fragments4(small, (16, 24)), strict=True):
        yield f"fragment4-{part}", frame
    for part, frame in zip(("first-1416", "middle-32", "last-1420"), fragments4(large, (1416, 32)), strict=True):
        yield f"fragment4-{part}", frame
    last = list(fragments4(datagram(V4, 1), (8,), vlan=TAGGED, traffic_class=2))[1]
    yield "fragment4-vlan-last-1", last
    for part, frame in zip(("first-16", "middle-24", "last-8"), fragments6(datagram(V6, 40), (16, 24)), strict=True):
        yield f"fragment6-{part}", frame
    for part, frame in zip(("first-1392", "last-1392"), fragments6(datagram(V6, 2776), (1392,)), strict=True):
        yield f"fragment6-{part}", frame
    yield "fragment6-atomic-9", next(fragments6(datagram(V6, 1), ()))
    yield "fragment6-vlan-last-1", list(fragments6(datagram(V6, 1), (8,), vlan=TAGGED))[1]

    # Errors about packets that came the other way.
    answer4, answer6 = V4[::-1], V6[::-1]
    for name, type_, code, size in (("port-unreachable", 3, 3, 28), ("port-unreachable", 3, 3, 548),
                                    ("fragmentation-needed", 3, 4, 28), ("time-exceeded", 11, 0, 28)):
        quoted = wire.build(*answer4, wire.UDP, wire.udp_header(5353, 40000), text(1000))[14:][:size]
        message = wire.icmp_error(*V4, wire.ICMP, type_, code, quoted)
        yield f"icmp4-{name}-{size}", wire.build_ip(*V4, wire.ICMP, message, traffic_class=0xC0)
    yield "icmp4-timestamp", wire.build_ip(*V4, wire.ICMP, wire.icmp_error(*V4, wire.ICMP, 13, 0, bytes(12)))
    for name, type_, code, size in (("time-exceeded", 3, 0, 48), ("time-exceeded", 3, 0, 1232),
                                    ("port-unreachable", 1, 4, 48), ("packet-too-big", 2, 0, 56)):
        quoted = wire.build(*answer6, wire.UDP, wire.udp_header(5353, 40000), text(1300))[14:][:size]
        message = wire.icmp_error(*V6, wire.ICMPV6, type_, code, quoted)
        yield f"icmp6-{name}-{size}", wire.build_ip(*V6, wire.ICMPV6, message)

    tcp = wire.build(*V4, wire.TCP, wire.tcp_header(), text(17))[34:]
    yield "options4-router-alert-udp", wire.build_ip(*V4, wire.UDP, datagram(V4, 16), options=bytes.fromhex("94040000"))
    yield "options4-40-tcp", wire.build_ip(*V4, wire.TCP, tcp, options=bytes.fromhex("072704") + bytes(37))
    yield "options4-only", wire.build_ip(*V4, wire.UDP, b"", options=b"\x01" * 4)
    yield "options4-vlan-1400-udp", wire.build_ip(*V4, wire.UDP, datagram(V4, 1392), options=b"\x01" * 20, vlan=TAGGED)
    first = next(fragments4(small, (16,), options=b"\x01" * 8))
    yield "options4-fragment-first-16", first
    yield "hop6-udp-16", wire.build_ip(*V6, HOP_BY_HOP, padded(wire.UDP) + datagram(V6, 16))
    yield "hop6-udp-1384", wire.build_ip(*V6, HOP_BY_HOP, padded(wire.UDP) + datagram(V6, 1384))
    yield "hop6-only", wire.build_ip(*V6, HOP_BY_HOP, padded(NO_NEXT_HEADER))
    tcp = wire.build(*V6, wire.TCP, wire.tcp_header(), text(17))[54:]
    yield "options6-tcp-17", wire.build_ip(*V6, DESTINATION_OPTIONS, padded(wire.TCP, 24) + tcp)
    yield "hop6-vlan-options6-tcp-17", wire.build_ip(
        *V6, HOP_BY_HOP, padded(DESTINATION_OPTIONS) + padded(wire.TCP) + tcp, vlan=TAGGED)
    yield "routing6-udp-16", wire.build_ip(*V6, ROUTING, bytes((wire.UDP, 0, 4, 0)) + bytes(4) + datagram(V6, 16))
    yield "nothing6", wire.build_ip(*V6, NO_NEXT_HEADER, b"")


def hidden():
    """(name, plain frame) of packets that only endpoints with hidden headers send by tunnel."""
    for name, addresses in (("4", V4), ("6", V6)):
        ip = 20 if name == "4" else 40
        for protocol, header, kind in ((wire.TCP, wire.tcp_header(), "tcp"), (wire.UDP, wire.udp_header(), "udp")):
            for size in (0, 1, 15, 16, 17, 64, 1440 - ip - len(header)):
                yield f"hidden-{kind}{name}-{size}", wire.build(*addresses, protocol, header, text(size))
            frame = wire.build(*addresses, protocol, header, text(17), vlan=TAGGED)
            yield f"hidden-{kind}{name}-vlan-17", frame
        header = wire.tcp_header(options=TIMESTAMPS, source_port=65535, destination_port=1)
        yield f"hidden-tcp{name}-timestamps-17", wire.build(*addresses, wire.TCP, header, text(17))
        syn = wire.tcp_header(flags=0x02, options=bytes.fromhex("020405b4"))
        yield f"hidden-tcp{name}-syn", wire.build(*addresses, wire.TCP, syn, b"")
        header = wire.udp_header(destination_port=wire.TUNNEL_PORT)
        yield f"hidden-udp{name}-port-1000-64", wire.build(*addresses, wire.UDP, header, text(64))
        # Unlike by the inline framing, it arrives as it was.
        frame = bytearray(wire.build(*addresses, wire.UDP, wire.udp_header(), text(64)))
        frame[14 + ip + 6:14 + ip + 8] = b"\0\0"
        yield f"hidden-udp{name}-without-checksum-64", bytes(frame)
        protocol = wire.ICMP if name == "4" else wire.ICMPV6
        yield f"hidden-echo{name}-64", wire.build(*addresses, protocol, wire.echo_header(protocol), text(64))
        yield f"hidden-sctp{name}-64", wire.build_ip(*addresses, SCTP, text(64))
    yield "hidden-fragment4-first-16", next(fragments4(datagram(V4, 40), (16,)))
    yield "hidden-fragment6-first-16", next(fragments6(datagram(V6, 40), (16,)))


def in_order(frames, last):
    """(name, frame, lane, counter). Counters rise from 1 in the order of the list: running the plain frames through a sender
    that has just installed the key, on CPU 0, gives the wire frames byte by byte."""
    sent = [(name, frame, 0, n + 1) for n, (name, frame) in enumerate(frames)]
    # For receivers only: other lanes, and the last counter.
    return sent + [("lane-3", last, 3, 1), ("lane-65535", last, 65535, 1), ("counter-2^48-1", last, 1, (1 << 48) - 1)]


def sealed(sent, key, seal):
    for name, frame, lane, counter in sent:
        iv = wire.iv(lane, counter)
        out = seal(frame, key.key, key.spi, iv)
        opened = wire.open_(out, {key.spi: [key]}).frame
        yield {"name": name, "lane": lane, "counter": counter, "key": key.key.hex(), "spi": f"{key.spi:08x}",
               "iv": iv.hex(), "plain": frame.hex(), "wire": out.hex(), "opened": opened.hex()}


def first_key():
    return wire.derive(DEK, CLUSTER, 1, 1, 2, INCARNATION[1], INCARNATION[2])


def packets():
    key = first_key()
    frame = wire.build(*V4, wire.TCP, wire.tcp_header(), text(64))
    return sealed(in_order(plain_packets(key.key, key.spi), frame), key, wire.seal)


def tunnel_packets():
    last = wire.build_ip(*V4, SCTP, text(64))
    return sealed(in_order([*tunnel_only(), *hidden()], last), first_key(), wire.seal_tunnel)


def packets_json(framing, vectors, more=""):
    lines = ",\n".join("    " + json.dumps(vector) for vector in vectors)
    about = (f"Packets of the {framing} framing from node 1 to node 2, made by Tests/peers/vectors.py; see "
             f"docs/wire-format.md. `plain` enters a sender, `wire` leaves it; `opened` leaves the receiver.{more}")
    return f'{{\n  "about": {json.dumps(about)},\n  "vectors": [\n{lines}\n  ]\n}}\n'


def wrapped(text, width=96):
    return "\n".join("        " + text[i:i + width] for i in range(0, len(text), width))


def document():
    out = [f"All derivations start from\n\n    DEK        = {DEK.hex()}\n    cluster id = {CLUSTER.hex()}\n"]
    for number, v in enumerate(derivations(), 1):
        out.append(
            f"Derivation {number}:\n\n"
            f"    epoch                = {v['epoch']}\n"
            f"    sender node id       = {v['sender']}\n"
            f"    receiver node id     = {v['receiver']}\n"
            f"    sender incarnation   = {v['sender_incarnation']}\n"
            f"    receiver incarnation = {v['receiver_incarnation']}\n"
            f"    key                  = {v['key']}\n"
            f"    SPI                  = {v['spi']}\n"
            f"    key id               = {v['key_id']}\n")
    out.append("Complete frames, under the key of derivation 1 (all of them: `inline.json` and `tunnel.json` in\n"
               "`Tests/DatapathTests/vectors`). By the inline framing:\n")
    out += shown(packets(), "tcp4-timestamps-17", "udp6-1", "icmp4-echo-16", "icmp6-echo-0", "udp4-vlan-64")
    out.append("By the tunnel framing (the second one with hidden headers):\n")
    out += shown(tunnel_packets(), "icmp4-port-unreachable-28", "hidden-udp6-1", "fragment4-vlan-last-1")
    return "\n".join(out)


def shown(vectors, *names):
    by_name = {vector["name"]: vector for vector in vectors}
    for name in names:
        v = by_name[name]
        yield f"`{name}`, IV {v['iv']}:\n\n    plain\n{wrapped(v['plain'])}\n    wire\n{wrapped(v['wire'])}\n"


def main(arguments):
    text = DOCUMENT.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    fresh = {
        DOCUMENT: before + BEGIN + "\n" + document() + "\n" + END + after,
        PACKETS: packets_json("inline", packets()),
        TUNNEL_PACKETS: packets_json("tunnel", tunnel_packets(), " The names of what only endpoints with hidden headers send "
                                     "so begin with `hidden`."),
    }
    if "--write" in arguments:
        PACKETS.parent.mkdir(parents=True, exist_ok=True)
        for path, content in fresh.items():
            path.write_text(content)
        return 0
    stale = [path for path, content in fresh.items() if not path.exists() or path.read_text() != content]
    for path in stale:
        print(f"{path.relative_to(ROOT)}: not what Tests/peers/vectors.py computes; was it edited by hand?")
    print(f"{len([*packets(), *tunnel_packets()])} packets and {len(list(derivations()))} derivations: {'differ' if stale else 'agree'}")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Known answers of the wire format. `vectors.py --write` writes them, without arguments it checks that they still hold.

They stand in Tests/DatapathTests/vectors/inline.json (packets: the kernel programs are tested with them) and between two
marker lines of docs/wire-format.md (derivation, and a few complete packets for readers).
"""

import json
import pathlib
import sys

import xdpwire as wire

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKETS = ROOT / "Tests/DatapathTests/vectors/inline.json"
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
    tagged = [(0x8100, 100)]
    for name, addresses in (("4", V4), ("6", V6)):
        out.append((f"tcp{name}-vlan-17", wire.build(*addresses, wire.TCP, wire.tcp_header(), text(17), vlan=tagged)))
        out.append((f"udp{name}-vlan-64", wire.build(*addresses, wire.UDP, wire.udp_header(), text(64), vlan=tagged)))
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


def packets():
    key = wire.derive(DEK, CLUSTER, 1, 1, 2, INCARNATION[1], INCARNATION[2])
    # Counters rise from 1 in the order of the list: running the plain frames through a sender that has just installed the
    # key, on CPU 0, gives the wire frames byte by byte.
    sent = [(name, frame, 0, n + 1) for n, (name, frame) in enumerate(plain_packets(key.key, key.spi))]
    # For receivers only: other lanes, and the last counter.
    frame = wire.build(*V4, wire.TCP, wire.tcp_header(), text(64))
    sent += [("lane-3", frame, 3, 1), ("lane-65535", frame, 65535, 1), ("counter-2^48-1", frame, 1, (1 << 48) - 1)]
    for name, frame, lane, counter in sent:
        iv = wire.iv(lane, counter)
        out = wire.seal(frame, key.key, key.spi, iv)
        opened = wire.open_(out, {key.spi: [key]}).frame
        yield {"name": name, "lane": lane, "counter": counter, "key": key.key.hex(), "spi": f"{key.spi:08x}",
               "iv": iv.hex(), "plain": frame.hex(), "wire": out.hex(), "opened": opened.hex()}


def packets_json():
    lines = ",\n".join("    " + json.dumps(vector) for vector in packets())
    about = ("Packets of the inline framing from node 1 to node 2, made by Tests/peers/vectors.py; see "
             "docs/wire-format.md. `plain` enters a sender, `wire` leaves it; `opened` leaves the receiver.")
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
    shown = ("tcp4-timestamps-17", "udp6-1", "icmp4-echo-16", "icmp6-echo-0", "udp4-vlan-64")
    out.append("Complete frames, under the key of derivation 1 (all of them: `Tests/DatapathTests/vectors/inline.json`):\n")
    by_name = {vector["name"]: vector for vector in packets()}
    for name in shown:
        v = by_name[name]
        out.append(f"`{name}`, IV {v['iv']}:\n\n    plain\n{wrapped(v['plain'])}\n    wire\n{wrapped(v['wire'])}\n")
    return "\n".join(out)


def main(arguments):
    text = DOCUMENT.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    fresh = {DOCUMENT: before + BEGIN + "\n" + document() + "\n" + END + after, PACKETS: packets_json()}
    if "--write" in arguments:
        PACKETS.parent.mkdir(parents=True, exist_ok=True)
        for path, content in fresh.items():
            path.write_text(content)
        return 0
    stale = [path for path, content in fresh.items() if not path.exists() or path.read_text() != content]
    for path in stale:
        print(f"{path.relative_to(ROOT)}: not what Tests/peers/vectors.py computes; was it edited by hand?")
    print(f"{len(list(packets()))} packets and {len(list(derivations()))} derivations: {'differ' if stale else 'agree'}")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

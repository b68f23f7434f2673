#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sends packets that a receiver must refuse, and says which verdict each must get.

    inject.py --keys KEYS.json --interface NAME --mac DESTINATION-MAC --from NODE --to NODE \
              --source ADDRESS --destination ADDRESS --count N [--strict-cidr CIDR]... KIND

It knows the keys, so it can also make authentic packets, on lanes that no CPU has. Kinds:

    reorder      authentic packets in any order inside of the window, then left of it
    replay       authentic packets, each sent again
    captured     packets that pass the interface now, each sent again at once
    aged         packets that passed the interface more than a window ago
    crossed      authentic packets, each IV by both framings
    flip:FIELD   one bit of FIELD turned over, checksums as they were; "all" takes every field in turn
    forge:FIELD  the same, with checksums made right again
    lie          authentic tunnel packets whose inner packet has other addresses, another version, or wrong lengths
    congestion   authentic tunnel packets, with each ECN field outside and inside
    cleartext    plain packets from a protected address
    unknown-spi  sealed under a key that nobody has
    spoofed      sealed under this node's key, from another node's address (--source)
    same-node    plain packets from the address of a pod of the receiving node (--source)
    truncated    a known SPI with nothing, or too little, behind it
    random       random bytes behind the Ethernet header

With --framing tunnel, what is sealed is a tunnel packet; otherwise an inline one, where nothing else stands above.

Prints {"sent": N, "expected": {VERDICT: packets}} as JSON. Expectations come from receiver.py, which knows docs/wire-format.md only.
"""

import argparse
import collections
import errno
import ipaddress
import json
import os
import random
import select
import socket
import struct
import sys
import time

import xdpwire as wire
from decode import Knowledge, listen
from receiver import Receiver

PORT = 9  # discard: what gets through must not disturb anybody
SCTP = 132
SO_SNDBUFFORCE = 32  # linux/socket.h; not in the socket module
MARK = b"INJECTED "

# Field -> (offset from the IP header, bits that may be turned over: a mask for each of its bytes). "L4" and "text" offsets follow.
IPV4 = {
    "version": (0, b"\xf0"), "header-length": (0, b"\x0f"), "dscp": (1, b"\xff"), "total-length": (2, b"\xff\xff"),
    "identification": (4, b"\xff\xff"), "fragment": (6, b"\x3f\xff"), "ttl": (8, b"\xff"), "protocol": (9, b"\xff"),
    "header-checksum": (10, b"\xff\xff"), "source": (12, b"\xff" * 4), "destination": (16, b"\xff" * 4),
}
IPV6 = {
    "version": (0, b"\xf0"), "payload-length": (4, b"\xff\xff"), "next-header": (6, b"\xff"),
    "source": (8, b"\xff" * 16), "destination": (24, b"\xff" * 16),
}
TCP = {
    "source-port": (0, b"\xff\xff"), "destination-port": (2, b"\xff\xff"), "sequence": (4, b"\xff" * 4),
    "acknowledgement": (8, b"\xff" * 4), "data-offset": (12, b"\xf0"), "flags": (12, b"\x0f\xff"),
    "window": (14, b"\xff\xff"), "checksum": (16, b"\xff\xff"), "urgent": (18, b"\xff\xff"), "options": (20, b"\xff" * 12),
}
UDP = {
    "source-port": (0, b"\xff\xff"), "destination-port": (2, b"\xff\xff"), "length": (4, b"\xff\xff"),
    "checksum": (6, b"\xff\xff"),
}
ECHO = {"type": (0, b"\xff"), "checksum": (2, b"\xff\xff"), "identifier": (4, b"\xff\xff"), "sequence": (6, b"\xff\xff")}
HEADERS = {wire.TCP: TCP, wire.UDP: UDP, wire.ICMP: ECHO, wire.ICMPV6: ECHO}
PSP = {
    "psp.next-header": (0, b"\xff"), "psp.extension-length": (1, b"\xff"), "psp.crypt-offset": (2, b"\xff"),
    "psp.version": (3, b"\xff"), "psp.spi": (4, b"\xff" * 4), "psp.iv": (8, b"\xff" * 8), "inner": (16, b"\xff" * 60),
    "icv": (-16, b"\xff" * 16),
}
SHIM = {"spi": (0, b"\xff" * 4), "iv": (4, b"\xff" * 8), "tag": (12, b"\xff" * 16), "text": (28, b"\xff" * 40)}


def fields(version, protocol, framing="inline"):
    """name -> (offset from the IP header, or from the end if negative, masks) for a sealed packet."""
    l4 = 20 if version == 4 else 40
    if framing == "tunnel":
        table = fields(version, wire.UDP)
        table = {name: value for name, value in table.items() if name not in SHIM}
        return table | {name: (at if at < 0 else l4 + 8 + at, masks) for name, (at, masks) in PSP.items()}
    header = {wire.TCP: 32, wire.UDP: 8}.get(protocol, 8)
    table = {f"ip.{name}": value for name, value in (IPV4 if version == 4 else IPV6).items()}
    table |= {f"l4.{name}": (l4 + at, masks) for name, (at, masks) in HEADERS[protocol].items()}
    return table | {name: (l4 + header + at, masks) for name, (at, masks) in SHIM.items()}


class Injector:
    """Makes packets of a kind, notes what must become of each, and gives them to `transmit`."""

    def __init__(self, options, knowledge, receiver, transmit, source_mac):
        self.options, self.receiver, self.transmit = options, receiver, transmit
        # The epoch that is in use: the highest.
        self.key = max((key for keys in knowledge.keys.values() for key in keys
                        if (key.sender, key.receiver) == (options.from_node, options.to_node)), key=lambda key: key.epoch)
        self.dice = random.Random(options.seed)
        # Lanes that no CPU has, fresh ones for each run: nobody else's windows are touched.
        self.lane = 1000 + self.dice.randrange(64000)
        self.counter = 0
        self.expected, self.sent = collections.Counter(), 0
        self.version = ipaddress.ip_address(options.source).version
        kind = wire.ETHERTYPE_IPV4 if self.version == 4 else wire.ETHERTYPE_IPV6
        self.link = bytes.fromhex(options.mac.replace(":", "")) + source_mac + struct.pack(">H", kind)

    def send(self, frame):
        verdict = self.receiver.verdict(frame)
        self.expected[verdict] += 1
        self.sent += 1
        self.transmit(frame, verdict)

    def run(self, kind):
        """One of the kinds above."""
        name, _, field = kind.partition(":")
        if name in ("flip", "forge"):
            for each in self.table() if field == "all" else [field]:
                self.flip(each, name == "forge")
        else:
            getattr(self, name.replace("-", "_"))()

    def table(self):
        tunnel = self.options.framing == "tunnel"
        return fields(self.version, None if tunnel else wire.parse(self.plain()).protocol, self.options.framing)

    def plain(self, size=40):
        text = (MARK * (size // len(MARK) + 1))[:size]
        if self.options.protocol == "sctp":
            return wire.build_ip(self.options.source, self.options.destination, SCTP, text, link=self.link)
        protocol = {"tcp": wire.TCP, "udp": wire.UDP}.get(
            self.options.protocol, wire.ICMP if self.version == 4 else wire.ICMPV6)
        header = {
            wire.TCP: wire.tcp_header(destination_port=self.options.port, flags=0x10, options=bytes.fromhex("0101080a" + "00" * 8)),
            wire.UDP: wire.udp_header(destination_port=self.options.port),
        }.get(protocol) or wire.echo_header(protocol, reply=True)
        return wire.build(self.options.source, self.options.destination, protocol, header, text, link=self.link)

    def sealed(self, lane=None, counter=None, key=None, framing=None, inner=None):
        """An authentic packet; the next of our first lane unless told otherwise. `inner`: what a tunnel packet says instead."""
        if counter is None:
            self.counter += 1
            counter = self.counter
        key = key or self.key
        iv = wire.iv(self.lane if lane is None else lane, counter)
        if (framing or self.options.framing) == "tunnel":
            return wire.seal_tunnel(self.plain(), key.key, key.spi, iv, inner)
        return wire.seal(self.plain(), key.key, key.spi, iv)

    def count(self):
        return range(self.options.count)

    # ---- kinds ----

    def reorder(self):
        size, order = self.options.window, []
        top = self.options.count + size
        order = list(range(top - size + 1, top))[-self.options.count:]
        self.dice.shuffle(order)
        self.send(self.sealed(counter=top))
        for counter in order:  # each of them new, in any order
            self.send(self.sealed(counter=counter))
        for _ in self.count():  # left of the window
            self.send(self.sealed(counter=self.dice.randrange(1, top - size + 1)))

    def replay(self):
        recent = collections.deque(maxlen=self.options.window // 2)
        frame = self.sealed()
        self.send(frame)
        recent.append(frame)
        for number in self.count():
            if number % 16 == 0:
                recent.append(self.sealed())
                self.send(recent[-1])
            self.send(self.dice.choice(recent))

    def passing(self, newest=False):
        """Sealed packets of others from our node to the other, as they pass the interface: all, or always the newest."""
        capture = listen(self.options.interface)
        capture.settimeout(20)
        seen = set()
        while True:
            frame = capture.recv(65536)
            try:
                packet = wire.parse(frame, verify=False)
                tunnel = wire.is_tunnel(packet, {self.key.spi: [self.key]})
                spi, iv, _ = wire.psp(packet) if tunnel else wire.shim(packet)
            except wire.Refused:
                continue
            number = int.from_bytes(iv, "big")
            if spi == self.key.spi and number >> 48 < 1000 and number not in seen:
                seen.add(number)
                yield frame, number >> 48, number & (1 << 48) - 1
                while newest and select.select([capture], [], [], 0)[0]:
                    capture.recv(1)

    def again(self, frame, verdict):
        self.expected[verdict] += 1
        self.sent += 1
        self.transmit(frame, verdict)

    def captured(self):
        """Each packet 20 times, right after it has passed; that is far less than a window ago."""
        for frame, _, _ in self.passing(newest=True):
            time.sleep(0.002)  # the receiver has seen it by then
            for _ in range(20):
                self.again(frame, "replay")
                if self.sent >= self.options.count:
                    return

    def aged(self):
        old = {}
        for frame, lane, counter in self.passing():
            frames = old.setdefault(lane, [])
            if len(frames) < 50:
                frames.append((frame, counter))
            elif counter > frames[-1][1] + self.options.window + 64:
                time.sleep(0.002)
                for number in self.count():
                    self.again(frames[number % len(frames)][0], "stale")
                return

    def flip(self, field, repair):
        at, masks = self.table()[field]
        bits = [(byte, bit) for byte, mask in enumerate(masks) for bit in range(8) if mask >> bit & 1]
        for number in self.count():
            frame = bytearray(self.sealed())
            byte, bit = bits[number % len(bits)]
            frame[(at if at < 0 else len(self.link) + at) + byte] ^= 1 << bit
            if repair:
                try:
                    frame = wire.parse(bytes(frame), verify=False).frame()
                except wire.Refused:
                    pass  # it says itself that it is wrong
            self.send(bytes(frame))

    def crossed(self):
        for number in self.count():
            framings = ("inline", "tunnel") if number % 2 else ("tunnel", "inline")
            for framing in framings:
                self.send(self.sealed(counter=number + 1, framing=framing))

    def lie(self):
        at = len(self.link)
        first, last = (12, 20) if self.version == 4 else (8, 40)  # the addresses
        for number in self.count():
            inner = bytearray(self.plain()[at:])
            length, kind = (2 if self.version == 4 else 4), number % 6
            if kind == 0:
                inner[self.dice.randrange(first, last)] ^= 1 << self.dice.randrange(8)
            elif kind == 1:
                inner[0] ^= self.dice.randrange(1, 16) << 4
            elif kind == 2:
                inner += bytes(self.dice.randrange(1, 20))
            elif kind == 3:
                del inner[-self.dice.randrange(1, 20):]
            elif kind == 4 or self.version == 6:
                inner[length + 1] ^= self.dice.randrange(1, 256)
            else:
                inner[0] = 0x40 | self.dice.randrange(5)
            self.send(self.sealed(framing="tunnel", inner=bytes(inner)))

    def congestion(self):
        at = len(self.link)
        for number in self.count():
            inner, outer = number & 3, number >> 2 & 3
            plain = wire.build_ip(self.options.source, self.options.destination, SCTP, MARK, traffic_class=inner, link=self.link)
            self.counter += 1
            frame = bytearray(wire.seal_tunnel(plain, self.key.key, self.key.spi, wire.iv(self.lane, self.counter)))
            if self.version == 4:
                frame[at + 1] = outer
            else:
                frame[at + 1] = frame[at + 1] & 0xCF | outer << 4
            self.send(wire.parse(bytes(frame), verify=False).frame())

    def cleartext(self):
        for number in self.count():
            self.send(self.plain(size=number % 100))

    def unknown_spi(self):
        unknown = [self.key.spi ^ other << 24 for other in range(1, 0x7F)]
        unknown = [spi for spi in unknown if spi not in self.receiver.keys]
        for _ in self.count():
            self.send(self.sealed(key=wire.TrafficKey(os.urandom(32), self.dice.choice(unknown), 0, 0, 0, b"")))

    def spoofed(self):
        for _ in self.count():
            self.send(self.sealed())

    def same_node(self):
        for number in self.count():
            self.send(self.plain(size=number % 100))

    def truncated(self):
        for number in self.count():
            packet = wire.parse(self.sealed(), verify=False)
            shortest = wire.PSP + len(packet.ip) + wire.ICV if self.options.framing == "tunnel" else wire.SHIM
            packet.payload = packet.payload[:number % shortest]
            self.send(packet.frame())

    def random(self):
        for number in self.count():
            self.send(self.link + self.dice.randbytes(number % 200))


def sender(interface, once=False):
    """What transmits on an interface, and the interface's address. `once`: what the device itself refuses is not sent again."""
    device = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    device.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 32 << 20)
    device.bind((interface, 0))

    sent = 0

    def transmit(frame, _):
        # A veth with XDP holds 256 frames: faster than that, it is the queue that drops them.
        nonlocal sent
        sent += 1
        if sent % 32 == 0:
            time.sleep(0.001)
        while True:
            try:
                device.send(frame)
                return
            except OSError as problem:
                if problem.errno != errno.ENOBUFS:  # the queue is full, or a tc program has dropped it
                    raise
                if once:
                    return
                time.sleep(0.001)

    return transmit, device.getsockname()[4]


def parser():
    options = argparse.ArgumentParser(description="Send packets that must be refused.")
    options.add_argument("kind")
    options.add_argument("--keys")
    options.add_argument("--interface")
    options.add_argument("--mac", default="02:00:00:00:00:0b")
    options.add_argument("--from", dest="from_node", type=int, required=True)
    options.add_argument("--to", dest="to_node", type=int, required=True)
    options.add_argument("--source", required=True)
    options.add_argument("--destination", required=True)
    options.add_argument("--protocol", choices=["tcp", "udp", "echo", "sctp"], default="udp")
    options.add_argument("--port", type=int, default=PORT)
    options.add_argument("--framing", choices=["inline", "tunnel"], default="inline")
    options.add_argument("--strict-cidr", action="append", default=[])
    options.add_argument("--window", type=int, default=2048)
    options.add_argument("--count", type=int, default=100)
    options.add_argument("--once", action="store_true")
    options.add_argument("--seed", type=int, default=None)
    return options


def main():
    options = parser().parse_args()
    with open(options.keys) as file:
        knowledge = Knowledge(json.load(file))
    receiver = Receiver(knowledge, options.to_node, options.strict_cidr, options.window)
    injector = Injector(options, knowledge, receiver, *sender(options.interface, options.once))
    injector.run(options.kind)
    print(json.dumps({"sent": injector.sent, "expected": dict(injector.expected)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

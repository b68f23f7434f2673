# SPDX-License-Identifier: Apache-2.0
"""What a receiver must do with a packet, as an oracle: the table in docs/wire-format.md, "What a receiver does", and nothing else.

The injector asks it what verdict each of its packets must get, and the tests compare that with the kernel's counters.
"""

import ipaddress

import xdpwire as wire

# Verdicts of packets that go on into the pod; their names are those of `enum xe_verdict` in lower case.
PASSED = {"decrypted", "pass_control", "pass_unprotected"}


class Window:
    """The replay window of a key and lane."""

    def __init__(self, size):
        self.size, self.top, self.seen = size, 0, set()

    def check(self, counter):
        if counter <= self.top - self.size:
            raise wire.Refused("stale")
        if counter in self.seen:
            raise wire.Refused("replay")

    def mark(self, counter):
        self.top = max(self.top, counter)
        self.seen.add(counter)
        if len(self.seen) > 4 * self.size:
            self.seen = {c for c in self.seen if c > self.top - self.size}


class Receiver:
    """Node `number` of the cluster that `knowledge` (decode.Knowledge) describes; all of its endpoints are strict."""

    def __init__(self, knowledge, number, strict_cidrs=(), window=2048):
        self.number, self.node_of, self.size = number, knowledge.node_of, window
        self.keys = {spi: [key for key in keys if key.receiver == number] for spi, keys in knowledge.keys.items()}
        self.strict_cidrs = [ipaddress.ip_network(cidr) for cidr in strict_cidrs]
        self.windows = {}

    def verdict(self, frame):
        try:
            return self.judge(frame)
        except wire.Refused as refused:
            return refused.reason

    def judge(self, frame):
        kind, at = wire.ethertype(frame)
        if kind == wire.ETHERTYPE_ARP:
            return "pass_control"
        if kind not in (wire.ETHERTYPE_IPV4, wire.ETHERTYPE_IPV6):
            raise wire.Refused("ethertype")
        source, destination = self.addresses(frame, kind, at)
        sender = self.node_of.get(source)
        to_us = self.node_of.get(destination) == self.number
        if sender is None:
            if to_us and self.in_strict_cidr(source):
                raise wire.Refused("unknown_peer")
            return "pass_unprotected"
        if sender == self.number:
            raise wire.Refused("spoofed")  # the injector is no pod of ours

        try:
            packet = wire.parse(frame, verify="ip")
        except wire.Refused as refused:
            return self.cleartext(destination, refused.reason)
        if wire.is_tunnel(packet, self.keys):
            spi, iv, _ = wire.psp(packet)
            if sender not in {key.sender for key in self.keys[spi]}:
                raise wire.Refused("spoofed")
        else:
            spi = int.from_bytes(packet.payload[:4], "big") if len(packet.payload) >= 4 else 0
            senders = {key.sender for key in self.keys.get(spi, ())}
            if not senders:
                return self.cleartext(destination, None)
            if sender not in senders:
                raise wire.Refused("spoofed")
            if len(packet.payload) < wire.SHIM:
                raise wire.Refused("malformed")
            iv = packet.payload[4:12]
        lane, counter = int.from_bytes(iv[:2], "big"), int.from_bytes(iv[2:], "big")
        if counter == 0:
            raise wire.Refused("malformed")
        window = self.windows.setdefault((spi, lane), Window(self.size))
        window.check(counter)
        wire.open_(frame, self.keys, sender, mark=lambda: window.mark(counter))
        return "decrypted"

    @staticmethod
    def addresses(frame, kind, at):
        """Source and destination. A packet whose IP lengths lie is refused here, whoever it is from."""
        if kind == wire.ETHERTYPE_IPV4:
            header = frame[at:at + 20]
            total = int.from_bytes(header[2:4], "big")
            if len(header) < 20 or header[0] >> 4 != 4 or header[0] & 15 < 5 or total < 20 or at + total > len(frame):
                raise wire.Refused("malformed")
            return header[12:16], header[16:20]
        header = frame[at:at + 40]
        if len(header) < 40 or header[0] >> 4 != 6 or at + 40 + int.from_bytes(header[4:6], "big") > len(frame):
            raise wire.Refused("malformed")
        return header[8:24], header[24:40]

    def in_strict_cidr(self, address):
        return any(ipaddress.ip_address(address) in cidr for cidr in self.strict_cidrs)

    def cleartext(self, destination, problem):
        if problem == "checksum":  # its addresses mean nothing
            raise wire.Refused("checksum")
        if destination not in self.node_of and self.in_strict_cidr(destination):
            raise wire.Refused("unknown_peer")
        if self.node_of.get(destination) != self.number:
            return "pass_unprotected"
        raise wire.Refused("malformed" if problem == "malformed" else "cleartext")

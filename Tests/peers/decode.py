#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Says of every packet of a capture whether it is what docs/wire-format.md promises.

    decode.py --keys KEYS.json [--marker TEXT]... FILE.pcap       a classic pcap file (tcpdump -w); "-" reads it from stdin
    decode.py --keys KEYS.json --interface NAME --packets N       N packets live, from a device of this network namespace
    decode.py --plain [--marker TEXT]... FILE.pcap                without keys: counts packets and markers only

KEYS.json holds what a node knows (make it private, DEKs are secret):

    {"cluster_id": hex, "deks": {"EPOCH": hex}, "nodes": {"ID": {"incarnations": [hex], "endpoints": [address]}}}

Prints a JSON object; see `Report`. Exits with 1 when a packet between endpoints did not verify, a (SPI, IV) was seen twice, a
checksum or length was wrong, or a marker was seen in clear; with 2 when it could not do its work.
"""

import argparse
import ipaddress
import itertools
import json
import socket
import struct
import sys
from dataclasses import asdict, dataclass, field

import xdpwire as wire

SO_RCVBUFFORCE, ETH_P_ALL = 33, 3  # linux/socket.h, linux/if_ether.h; not in the socket module


@dataclass
class Report:
    frames: int = 0  # all captured frames
    packets: int = 0  # between two endpoints on different nodes
    verified: int = 0  # of these: the tag is right, and so are the SPI's sender and all checksums
    tunnel: int = 0  # of the verified ones: by the tunnel framing
    refused: dict = field(default_factory=dict)  # reason -> packets
    other: int = 0  # not between two such endpoints: ARP, neighbour discovery, node traffic
    truncated: int = 0  # frames that the capture does not hold whole
    duplicate_nonces: int = 0  # packets under the key and IV of an earlier, different one
    repeated_frames: int = 0  # exact copies of an earlier packet, as replays are
    marker_on_wire: int = 0  # frames with a marker in clear
    marker_after_opening: int = 0  # verified packets with a marker in their plain text
    plain_bytes: int = 0  # in verified packets: of payload by the inline framing, of whole packets by the tunnel framing
    by_kind: dict = field(default_factory=dict)  # such as "tcp4", or "tunnel4" whatever is inside -> verified packets
    lanes: dict = field(default_factory=dict)  # SPI -> lane -> {"packets", "first", "last"} counters
    samples: list = field(default_factory=list)  # the first refused packets, in words

    @property
    def clean(self):
        return not self.refused and not self.duplicate_nonces and not self.marker_on_wire and not self.truncated


KINDS = {(6, 4): "tcp4", (6, 6): "tcp6", (17, 4): "udp4", (17, 6): "udp6", (1, 4): "icmp4", (58, 6): "icmp6"}


class Knowledge:
    """Every traffic key that the nodes may have used, by SPI, and which node an address belongs to."""

    def __init__(self, description):
        cluster = bytes.fromhex(description["cluster_id"])
        nodes = {int(number): node for number, node in description["nodes"].items()}
        self.node_of = {
            ipaddress.ip_address(address).packed: number
            for number, node in nodes.items() for address in node.get("endpoints", ())
        }
        self.keys = {}
        for (sender, a), (receiver, b) in itertools.permutations(nodes.items(), 2):
            for epoch, dek in description["deks"].items():
                for ours, theirs in itertools.product(a["incarnations"], b["incarnations"]):
                    key = wire.derive(bytes.fromhex(dek), cluster, int(epoch), sender, receiver,
                                      bytes.fromhex(ours), bytes.fromhex(theirs))
                    self.keys.setdefault(key.spi, []).append(key)


class Decoder:
    def __init__(self, knowledge, markers):
        self.knowledge, self.markers, self.report = knowledge, markers, Report()
        self.seen = {}  # nonce -> tag

    def frame(self, frame, length):
        report = self.report
        report.frames += 1
        if any(marker in frame for marker in self.markers):
            report.marker_on_wire += 1
        if len(frame) < length:
            report.truncated += 1
            return
        nodes = self.nodes(frame)
        if nodes is None:
            report.other += 1
            return
        report.packets += 1
        try:
            self.packet(frame, *nodes)
        except wire.Refused as refused:
            report.refused[refused.reason] = report.refused.get(refused.reason, 0) + 1
            if len(report.samples) < 10:
                report.samples.append(f"frame {report.frames}: {refused}, {frame[:96].hex()}")

    def nodes(self, frame):
        """The nodes of both addresses; nil when the packet is none that must be protected."""
        if self.knowledge is None:
            return None
        try:
            kind, at = wire.ethertype(frame)
        except wire.Refused:
            return None
        if kind == wire.ETHERTYPE_IPV4:
            source, destination = frame[at + 12:at + 16], frame[at + 16:at + 20]
        elif kind == wire.ETHERTYPE_IPV6:
            source, destination = frame[at + 8:at + 24], frame[at + 24:at + 40]
        else:
            return None
        nodes = self.knowledge.node_of.get(source), self.knowledge.node_of.get(destination)
        return None if None in nodes or nodes[0] == nodes[1] else nodes

    def packet(self, frame, sender, receiver):
        report = self.report
        opened = wire.open_(frame, self.knowledge.keys, sender)
        if (opened.key.sender, opened.key.receiver) != (sender, receiver):
            raise wire.Refused("spoofed", f"SPI of {opened.key.sender} for {opened.key.receiver}")
        # The key, not the SPI: a node that starts afresh may draw the same SPI again, for another key.
        nonce = opened.key.key, opened.lane, opened.counter
        if nonce not in self.seen:
            self.seen[nonce] = opened.tag
        elif self.seen[nonce] == opened.tag:
            report.repeated_frames += 1
        else:
            report.duplicate_nonces += 1

        report.verified += 1
        report.tunnel += opened.framing == "tunnel"
        report.plain_bytes += len(opened.payload)
        if any(marker in opened.payload for marker in self.markers):
            report.marker_after_opening += 1
        kind = KINDS[opened.protocol, opened.version] if opened.framing == "inline" else f"tunnel{opened.version}"
        report.by_kind[kind] = report.by_kind.get(kind, 0) + 1
        lane = report.lanes.setdefault(f"{opened.key.spi:08x}", {}).setdefault(
            str(opened.lane), {"packets": 0, "first": opened.counter, "last": opened.counter})
        lane["packets"] += 1
        lane["first"] = min(lane["first"], opened.counter)
        lane["last"] = max(lane["last"], opened.counter)


def pcap(stream):
    """(frame, original length) of each record of a classic pcap file of Ethernet frames."""
    header = stream.read(24)
    orders = {b"\xd4\xc3\xb2\xa1": "<", b"\x4d\x3c\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">", b"\xa1\xb2\x3c\x4d": ">"}
    order = orders.get(header[:4])
    if len(header) < 24 or order is None:
        raise ValueError("not a classic pcap file (of tcpdump -w)")
    if struct.unpack_from(order + "I", header, 20)[0] & 0xFFFF != 1:
        raise ValueError("not a capture of an Ethernet device")
    while len(record := stream.read(16)) == 16:
        captured, original = struct.unpack_from(order + "II", record, 8)
        yield stream.read(captured), original


def listen(interface):
    """A packet socket with the frames of this interface, both ways."""
    capture = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # with a protocol it would have those of all interfaces at first
    capture.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    capture.bind((interface, ETH_P_ALL))
    return capture


def live(interface, packets):
    capture = listen(interface)
    print("capturing", file=sys.stderr, flush=True)
    for _ in range(packets):
        frame = capture.recv(65536)
        yield frame, len(frame)


def main():
    arguments = argparse.ArgumentParser(description="Verify and count the packets of a capture.")
    arguments.add_argument("file", nargs="?")
    arguments.add_argument("--keys")
    arguments.add_argument("--plain", action="store_true")
    arguments.add_argument("--marker", action="append", default=[])
    arguments.add_argument("--interface")
    arguments.add_argument("--packets", type=int, default=1)
    options = arguments.parse_args()
    if options.plain == bool(options.keys):
        arguments.error("either --keys FILE or --plain")
    if bool(options.file) == bool(options.interface):
        arguments.error("either a capture file or --interface")

    try:
        knowledge = None
        if options.keys:
            with open(options.keys) as file:
                knowledge = Knowledge(json.load(file))
        decoder = Decoder(knowledge, [marker.encode() for marker in options.marker])
        if options.interface:
            frames = live(options.interface, options.packets)
        else:
            frames = pcap(sys.stdin.buffer if options.file == "-" else open(options.file, "rb"))
        for frame, length in frames:
            decoder.frame(frame, length)
    except (OSError, ValueError, KeyError) as problem:
        print(f"decode.py: {type(problem).__name__}: {problem}", file=sys.stderr)
        return 2
    print(json.dumps(asdict(decoder.report), indent=1))
    return 0 if options.plain or decoder.report.clean else 1


if __name__ == "__main__":
    sys.exit(main())

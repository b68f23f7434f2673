# SPDX-License-Identifier: Apache-2.0
"""The wire format of xdp-encryptor, version 1, in Python: written from docs/wire-format.md alone.

An implementation that shares no line with the product, so that a mistake has to be made twice to go unseen. It derives
keys, seals and opens packets of the inline framing, and builds plain packets to do so with. Integers are big-endian;
"frame" always means an Ethernet frame without its FCS.
"""

import ipaddress
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_ARP = 0x0800, 0x86DD, 0x0806
ETHERTYPE_VLAN = (0x8100, 0x88A8)
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
ECHO = {ICMP: (8, 0), ICMPV6: (128, 129)}
SHIM = 4 + 8 + 16
CHECKSUM_AT = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}


class Refused(Exception):
    """A packet that a receiver must drop. `reason` is the verdict's name in docs/drops.md."""

    def __init__(self, reason, detail=""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


# ---- keys -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrafficKey:
    """One direction of one pair of nodes in one epoch."""

    key: bytes
    spi: int
    epoch: int
    sender: int
    receiver: int
    key_id: bytes  # a fingerprint: tells keys apart without showing them


def derive(dek, cluster_id, epoch, sender, receiver, sender_incarnation, receiver_incarnation):
    """The traffic key and SPI for packets from node `sender` to node `receiver`."""
    assert len(dek) == 32 and len(cluster_id) == len(sender_incarnation) == len(receiver_incarnation) == 16
    assert 0 < sender < 1 << 24 and 0 < receiver < 1 << 24
    context = struct.pack(">III", epoch, sender, receiver) + sender_incarnation + receiver_incarnation

    def expand(label, length):
        return HKDF(algorithm=hashes.SHA256(), length=length, salt=cluster_id, info=label + context).derive(dek)

    out = expand(b"xdp-encryptor/1 traffic", 33)
    spi = (epoch & 1) << 31 | (out[32] & 0x7F) << 24 | sender
    return TrafficKey(out[:32], spi, epoch, sender, receiver, expand(b"xdp-encryptor/1 key id", 16))


def iv(lane, counter):
    assert 0 <= lane < 1 << 16 and 0 < counter < 1 << 48
    return struct.pack(">Q", lane << 48 | counter)


# ---- checksums ------------------------------------------------------------------------------------------------------


def folded(data):
    """The one's complement sum of 16-bit words (RFC 1071). 2^16 = 1 (mod 65535), so it is a remainder."""
    if len(data) % 2:
        data += b"\0"
    number = int.from_bytes(data, "big")
    return number % 0xFFFF or (0xFFFF if number else 0)


def checksum(data):
    return ~folded(data) & 0xFFFF


# ---- packets --------------------------------------------------------------------------------------------------------


@dataclass
class Packet:
    """A frame taken apart: the inline framing touches TCP, UDP and echo packets without fragments and options only."""

    link: bytes  # Ethernet header with VLAN tags
    ip: bytes  # IP header
    l4: bytes  # TCP header with options; UDP header; 8 bytes of ICMP echo
    payload: bytes  # what follows it
    protocol: int
    source: bytes
    destination: bytes

    @property
    def version(self):
        return self.ip[0] >> 4

    def pseudo_header(self, length):
        if self.protocol == ICMP:
            return b""
        return self.source + self.destination + struct.pack(">II", length, self.protocol)

    def additional_data(self):
        header = bytearray(self.l4)
        at = CHECKSUM_AT[self.protocol]
        header[at:at + 2] = b"\0\0"
        if self.protocol == UDP:
            header[4:6] = b"\0\0"
        fixed = struct.pack(">BBH", self.protocol, self.version, len(header))
        return self.source + self.destination + fixed + bytes(header)

    def frame(self):
        """The bytes, with every length and checksum made right for the payload as it is now."""
        l4, length = bytearray(self.l4), len(self.l4) + len(self.payload)
        if self.protocol == UDP:
            l4[4:6] = struct.pack(">H", length)
        at = CHECKSUM_AT[self.protocol]
        l4[at:at + 2] = b"\0\0"
        value = checksum(self.pseudo_header(length) + bytes(l4) + self.payload)
        if self.protocol == UDP and value == 0:
            value = 0xFFFF  # 0 would mean "none" (RFC 768)
        l4[at:at + 2] = struct.pack(">H", value)

        ip = bytearray(self.ip)
        if self.version == 4:
            ip[2:4] = struct.pack(">H", len(ip) + length)
            ip[10:12] = b"\0\0"
            ip[10:12] = struct.pack(">H", checksum(bytes(ip)))
        else:
            ip[4:6] = struct.pack(">H", length)
        return self.link + bytes(ip) + bytes(l4) + self.payload


def ethertype(frame):
    """The EtherType behind up to two VLAN tags, and where its packet begins."""
    at = 12
    for _ in range(3):
        if len(frame) < at + 2:
            raise Refused("malformed", "no EtherType")
        kind, = struct.unpack_from(">H", frame, at)
        at += 2
        if kind not in ETHERTYPE_VLAN:
            return kind, at
        at += 2
    raise Refused("ethertype", "more than two VLAN tags")


def parse(frame, verify=True):
    """Takes a frame apart, or raises Refused; the checks stand in the order of docs/wire-format.md. Without `verify`, checksums
    may be wrong; `verify` "ip" looks at the IPv4 header's only."""
    kind, at = ethertype(frame)
    if kind == ETHERTYPE_IPV4:
        if len(frame) < at + 20 or frame[at] >> 4 != 4 or frame[at] & 15 < 5:
            raise Refused("malformed", "IPv4 header")
        end = at + struct.unpack_from(">H", frame, at + 2)[0]
        if end < at + 20 or end > len(frame):
            raise Refused("malformed", "IPv4 total length")
        if frame[at] & 15 > 5:
            raise Refused("unsupported", "IPv4 options")
        ip = frame[at:at + 20]
        if struct.unpack_from(">H", ip, 6)[0] & 0x3FFF:
            raise Refused("unsupported", "fragment")
        if verify and folded(ip) != 0xFFFF:
            raise Refused("checksum", "IPv4 header")
        protocol, source, destination = ip[9], ip[12:16], ip[16:20]
    elif kind == ETHERTYPE_IPV6:
        if len(frame) < at + 40 or frame[at] >> 4 != 6:
            raise Refused("malformed", "IPv6 header")
        end = at + 40 + struct.unpack_from(">H", frame, at + 4)[0]
        if end > len(frame):
            raise Refused("malformed", "IPv6 payload length")
        ip = frame[at:at + 40]
        protocol, source, destination = ip[6], ip[8:24], ip[24:40]
    else:
        raise Refused("ethertype", f"{kind:04x}")
    if end < len(frame):
        raise Refused("malformed", "bytes behind the IP packet")

    rest = frame[at + len(ip):]
    if len(rest) < 8:
        raise Refused("malformed", "L4 header")
    if protocol == TCP:
        length = (rest[12] >> 4) * 4 if len(rest) >= 20 else 0
        if length < 20 or length > len(rest):
            raise Refused("malformed", "TCP header")
    elif protocol == UDP:
        length = 8
        if struct.unpack_from(">H", rest, 4)[0] != len(rest):
            raise Refused("malformed", "UDP length")
    elif protocol == (ICMP if kind == ETHERTYPE_IPV4 else ICMPV6):
        length = 8
        if rest[0] not in ECHO[protocol]:
            raise Refused("unsupported", f"ICMP type {rest[0]}")
    else:
        raise Refused("unsupported", f"protocol {protocol}")

    packet = Packet(frame[:at], ip, rest[:length], rest[length:], protocol, source, destination)
    no_checksum = protocol == UDP and rest[6:8] == b"\0\0"
    if verify and verify != "ip" and not no_checksum:
        verify_checksum(packet)
    return packet


def verify_checksum(packet):
    """Raises Refused unless the L4 checksum is right."""
    length = len(packet.l4) + len(packet.payload)
    if folded(packet.pseudo_header(length) + packet.l4 + packet.payload) != 0xFFFF:
        raise Refused("checksum", "L4")
    if packet.protocol == UDP and packet.l4[6:8] == b"\0\0":
        raise Refused("checksum", "none")


# ---- the inline framing ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    """A packet that verified."""

    packet: Packet  # its fields, with the plain payload
    key: TrafficKey
    lane: int
    counter: int
    tag: bytes

    @property
    def frame(self):
        return self.packet.frame()

    @property
    def payload(self):
        return self.packet.payload


def shim(packet):
    """The SPI, IV and tag that a wire packet carries."""
    if len(packet.payload) < SHIM:
        raise Refused("cleartext", "too short for a shim")
    spi, = struct.unpack_from(">I", packet.payload)
    return spi, packet.payload[4:12], packet.payload[12:SHIM]


def seal(frame, key, spi, iv_bytes):
    """The wire frame for a plain one."""
    packet = parse(frame)
    sealed = AESGCM(key).encrypt(struct.pack(">I", spi) + iv_bytes, packet.payload, packet.additional_data())
    packet.payload = struct.pack(">I", spi) + iv_bytes + sealed[-16:] + sealed[:-16]
    return packet.frame()


def open_(frame, keys):
    """The plain frame for a wire one. `keys` maps an SPI to the TrafficKeys that may stand behind it."""
    packet = parse(frame, verify="ip")
    spi, iv_bytes, tag = shim(packet)
    candidates = keys.get(spi)
    if not candidates:
        raise Refused("cleartext", f"unknown SPI {spi:08x}")
    nonce, sealed = struct.pack(">I", spi) + iv_bytes, packet.payload[SHIM:] + tag
    for candidate in candidates:
        try:
            plain = AESGCM(candidate.key).decrypt(nonce, sealed, packet.additional_data())
        except InvalidTag:
            continue
        verify_checksum(packet)
        packet.payload = plain
        number, = struct.unpack(">Q", iv_bytes)
        return Opened(packet, candidate, number >> 48, number & (1 << 48) - 1, tag)
    raise Refused("auth", f"SPI {spi:08x}")


# ---- plain packets to test with -------------------------------------------------------------------------------------

MAC_A, MAC_B = bytes.fromhex("02000000000a"), bytes.fromhex("02000000000b")


def ethernet(kind, vlan=(), source=MAC_A, destination=MAC_B):
    tags = b"".join(struct.pack(">HH", tpid, tci) for tpid, tci in vlan)
    return destination + source + tags + struct.pack(">H", kind)


def build(source, destination, protocol, l4, payload, vlan=(), ttl=64, identification=1, link=None):
    """A plain frame with right lengths and checksums. Addresses as text or `ipaddress` values."""
    source, destination = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    if source.version == 4:
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 0, identification, 0x4000, ttl, protocol, 0)
    else:
        ip = struct.pack(">IHBB", 6 << 28 | 0x12345, 0, protocol, ttl)
    ip += source.packed + destination.packed
    kind = ETHERTYPE_IPV4 if source.version == 4 else ETHERTYPE_IPV6
    link = link if link is not None else ethernet(kind, vlan)
    return Packet(link, ip, l4, payload, protocol, source.packed, destination.packed).frame()


def tcp_header(source_port=40000, destination_port=8080, options=b"", flags=0x18, sequence=1, acknowledgement=1):
    assert len(options) % 4 == 0 and len(options) <= 40
    offset = (20 + len(options)) // 4 << 12
    return struct.pack(">HHIIHHHH", source_port, destination_port, sequence, acknowledgement,
                       offset | flags, 502, 0, 0) + options


def udp_header(source_port=40000, destination_port=5353):
    return struct.pack(">HHHH", source_port, destination_port, 0, 0)


def echo_header(protocol, identifier=0x1234, sequence=1, reply=False):
    return struct.pack(">BBHHH", ECHO[protocol][reply], 0, 0, identifier, sequence)

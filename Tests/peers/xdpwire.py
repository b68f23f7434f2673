# SPDX-License-Identifier: Apache-2.0
"""The wire format of xdp-encryptor, version 1, in Python: written from docs/wire-format.md alone.

An implementation that shares no line with the product, so that a mistake has to be made twice to go unseen. It derives
keys, seals and opens packets of both framings, and builds plain packets to do so with. Integers are big-endian;
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
TUNNEL_PORT = 1000
# Next header, header extension length, crypt offset; S and D 0, version 1, V 0 and the last bit 1. By the IP version.
PSP_START = {4: bytes((4, 1, 0, 0x05)), 6: bytes((41, 1, 0, 0x05))}
PSP, ICV = 4 + 4 + 8, 16
CE = 3


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
    """A frame taken apart: a TCP, UDP or echo packet that is no fragment and has no options. Every wire packet is one."""

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


def bounds(frame):
    """The EtherType of a frame with an IP packet, and where that begins and ends; Refused when its lengths contradict the frame."""
    kind, at = ethertype(frame)
    if kind == ETHERTYPE_IPV4:
        if len(frame) < at + 20 or frame[at] >> 4 != 4 or frame[at] & 15 < 5:
            raise Refused("malformed", "IPv4 header")
        end = at + struct.unpack_from(">H", frame, at + 2)[0]
        if end < at + 20 or end > len(frame):
            raise Refused("malformed", "IPv4 total length")
    elif kind == ETHERTYPE_IPV6:
        if len(frame) < at + 40 or frame[at] >> 4 != 6:
            raise Refused("malformed", "IPv6 header")
        end = at + 40 + struct.unpack_from(">H", frame, at + 4)[0]
        if end > len(frame):
            raise Refused("malformed", "IPv6 payload length")
    else:
        raise Refused("ethertype", f"{kind:04x}")
    return kind, at, end


def framing(frame, hidden=False):
    """"inline" or "tunnel": how a sender must frame a plain packet that is to be encrypted, or Refused. `hidden`: one of the
    endpoints asks for hidden headers. Neighbour and router discovery must have been told apart before."""
    _, _, end = bounds(frame)
    if end < len(frame):
        raise Refused("malformed", "bytes behind the IP packet")
    if hidden:
        return "tunnel"
    try:
        parse(frame, verify=False)
    except Refused as refused:
        if refused.reason != "unsupported":
            raise
        return "tunnel"
    return "inline"


def parse(frame, verify=True):
    """Takes a frame apart, or raises Refused; the checks stand in the order of docs/wire-format.md. Without `verify`, checksums
    may be wrong; `verify` "ip" looks at the IPv4 header's only. `unsupported` is what the inline framing cannot carry."""
    kind, at, end = bounds(frame)
    if kind == ETHERTYPE_IPV4:
        if frame[at] & 15 > 5:
            raise Refused("unsupported", "IPv4 options")
        ip = frame[at:at + 20]
        if struct.unpack_from(">H", ip, 6)[0] & 0x3FFF:
            raise Refused("unsupported", "fragment")
        if verify and folded(ip) != 0xFFFF:
            raise Refused("checksum", "IPv4 header")
        protocol, source, destination = ip[9], ip[12:16], ip[16:20]
    else:
        ip = frame[at:at + 40]
        protocol, source, destination = ip[6], ip[8:24], ip[24:40]
    if end < len(frame):
        raise Refused("malformed", "bytes behind the IP packet")

    rest = frame[at + len(ip):]
    if protocol not in (TCP, UDP, ICMP if kind == ETHERTYPE_IPV4 else ICMPV6):
        raise Refused("unsupported", f"protocol {protocol}")
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
    else:
        length = 8
        if rest[0] not in ECHO[protocol]:
            raise Refused("unsupported", f"ICMP type {rest[0]}")

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


# ---- both framings --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    """A packet that verified."""

    framing: str  # "inline" or "tunnel"
    frame: bytes  # the plain one
    payload: bytes  # what was encrypted: what follows the L4 header, or the whole IP packet
    version: int
    protocol: int  # of the plain packet's IP header
    key: TrafficKey
    lane: int
    counter: int
    tag: bytes


def decrypt(candidates, spi, iv_bytes, sealed, additional_data):
    """The plain text, and the key of `candidates` under which it verifies."""
    for candidate in candidates:
        try:
            return AESGCM(candidate.key).decrypt(struct.pack(">I", spi) + iv_bytes, sealed, additional_data), candidate
        except InvalidTag:
            continue
    raise Refused("auth", f"SPI {spi:08x}")


def open_(frame, keys, sender=None, mark=lambda: None):
    """Opens a wire frame of either framing. `keys` maps an SPI to the TrafficKeys that may stand behind it; `sender` is the node
    of the frame's source address, where the caller knows that. `mark` is called when the IV must be marked as seen: a tunnel
    packet may still be refused after that."""
    packet = parse(frame, verify="ip")
    if is_tunnel(packet, keys):
        return open_tunnel(packet, keys, sender, mark)
    return open_inline(packet, keys, mark)


# ---- the inline framing ---------------------------------------------------------------------------------------------


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


def open_inline(packet, keys, mark):
    spi, iv_bytes, tag = shim(packet)
    candidates = keys.get(spi)
    if not candidates:
        raise Refused("cleartext", f"unknown SPI {spi:08x}")
    plain, key = decrypt(candidates, spi, iv_bytes, packet.payload[SHIM:] + tag, packet.additional_data())
    verify_checksum(packet)
    mark()
    packet.payload = plain
    number, = struct.unpack(">Q", iv_bytes)
    return Opened("inline", packet.frame(), plain, packet.version, packet.protocol, key,
                  number >> 48, number & (1 << 48) - 1, tag)


# ---- the tunnel framing ---------------------------------------------------------------------------------------------


def mapped(address):
    """16 bytes of an address: IPv4 as ::ffff:a.b.c.d."""
    return address if len(address) == 16 else bytes(10) + b"\xff\xff" + address


def source_port(frame):
    """The UDP source port of the product's own tunnel packets. Any from 32768 would do; a receiver does not check it."""
    _, at, _ = bounds(frame)
    if frame[at] >> 4 == 4:
        protocol, source, destination = frame[at + 9], frame[at + 12:at + 16], frame[at + 16:at + 20]
    else:
        protocol, source, destination = frame[at + 6], frame[at + 8:at + 24], frame[at + 24:at + 40]
    ports = 0
    try:
        packet = parse(frame, verify=False)
        if packet.protocol in (TCP, UDP):
            ports, = struct.unpack_from(">I", packet.l4)
    except Refused:
        pass
    value = 0
    for word in struct.unpack("<8I", mapped(source) + mapped(destination)) + (protocol, ports):
        value = (value ^ word) * 0x9E3779B1 & 0xFFFFFFFF
    return 0x8000 | value >> 17


def seal_tunnel(frame, key, spi, iv_bytes, inner=None):
    """The wire frame for a plain one, whatever IP packet it holds. Nothing of that is looked at but its length. To test receivers
    with, something else may be sealed under its addresses: `inner`."""
    _, at, end = bounds(frame)
    if end < len(frame):
        raise Refused("malformed", "bytes behind the IP packet")
    plain = frame[at:]
    inner = plain if inner is None else inner
    version = plain[0] >> 4
    header = PSP_START[version] + struct.pack(">I", spi) + iv_bytes
    sealed = header + AESGCM(key).encrypt(struct.pack(">I", spi) + iv_bytes, inner, header)
    length = 8 + len(sealed)
    if length + (20 if version == 4 else 0) > 0xFFFF:
        raise Refused("too_big", f"{len(inner)} bytes")
    if version == 4:
        ip = bytearray(struct.pack(">BBHHHBBH", 0x45, plain[1], 20 + length, 0, 0x4000, plain[8], UDP, 0) + plain[12:20])
        ip[10:12] = struct.pack(">H", checksum(bytes(ip)))
    else:
        ip = plain[:4] + struct.pack(">HBB", length, UDP, plain[7]) + plain[8:40]
    return frame[:at] + bytes(ip) + struct.pack(">HHHH", source_port(frame), TUNNEL_PORT, length, 0) + sealed


def is_tunnel(packet, keys):
    """Whether a receiver takes a wire packet for one of the tunnel framing; all others are looked at as inline ones."""
    if packet.protocol != UDP or struct.unpack_from(">H", packet.l4, 2)[0] != TUNNEL_PORT:
        return False
    # The outer IP header has no options: it is as long as the shortest inner one.
    if len(packet.payload) < PSP + len(packet.ip) + ICV or packet.payload[:4] != PSP_START[packet.version]:
        return False
    spi, = struct.unpack_from(">I", packet.payload, 4)
    return bool(keys.get(spi))


def psp(packet):
    """The SPI, IV and tag of a wire packet for which `is_tunnel` holds."""
    spi, = struct.unpack_from(">I", packet.payload, 4)
    return spi, packet.payload[8:PSP], packet.payload[-ICV:]


def open_tunnel(packet, keys, sender, mark):
    spi, iv_bytes, tag = psp(packet)
    candidates = [key for key in keys[spi] if sender in (None, key.sender)]
    if not candidates:
        raise Refused("spoofed", f"SPI {spi:08x} of another node")
    inner, key = decrypt(candidates, spi, iv_bytes, packet.payload[PSP:], packet.payload[:PSP])
    mark()
    plain = decapsulated(packet, inner)
    number, = struct.unpack(">Q", iv_bytes)
    return Opened("tunnel", packet.link + plain, plain, packet.version, plain[9 if packet.version == 4 else 6], key,
                  number >> 48, number & (1 << 48) - 1, tag)


def decapsulated(packet, inner):
    """The inner packet as it goes to the pod, or Refused. It is authentic, but its sender may still say what is not so."""
    version = inner[0] >> 4
    if version != packet.version:
        raise Refused("spoofed", f"version {version} inside of {packet.version}")
    if version == 4:
        addresses, length = inner[12:20], struct.unpack_from(">H", inner, 2)[0]
    else:
        addresses, length = inner[8:40], 40 + struct.unpack_from(">H", inner, 4)[0]
    if addresses != packet.source + packet.destination:
        raise Refused("spoofed", "inner addresses")
    if length != len(inner):
        raise Refused("malformed", "inner length")
    if version == 4 and inner[0] & 15 < 5:
        raise Refused("malformed", "inner header length")
    return hops(packet.ip, congestion(ecn(packet.ip), inner))


def ecn(ip):
    """The ECN field of an IP header."""
    return ip[1] & 3 if ip[0] >> 4 == 4 else ip[1] >> 4 & 3


def congestion(outer, inner):
    """The inner packet with what the network has noted in the outer ECN field (RFC 6040)."""
    if outer != CE or ecn(inner) == CE:
        return inner
    if ecn(inner) == 0:
        raise Refused("malformed", "congestion experienced, by a packet whose sender does not know of that")
    return changed(inner, 1, inner[1] | (CE if inner[0] >> 4 == 4 else CE << 4))


def hops(ip, inner):
    """The inner packet with the hops that the outer one has made: the lower TTL or hop limit of both."""
    at = 8 if inner[0] >> 4 == 4 else 7
    return changed(inner, at, min(inner[at], ip[at]))


def changed(packet, at, value):
    """An IP packet with another byte in its header; over IPv4, the checksum is updated and not computed anew (RFC 1624), so that a
    wrong one stays wrong."""
    if packet[at] == value:
        return packet
    after = bytearray(packet)
    after[at] = value
    if packet[0] >> 4 == 4:
        word = at & ~1
        sum_ = (~int.from_bytes(packet[10:12], "big") & 0xFFFF) + (~int.from_bytes(packet[word:word + 2], "big") & 0xFFFF)
        sum_ += int.from_bytes(after[word:word + 2], "big")
        while sum_ >> 16:
            sum_ = (sum_ & 0xFFFF) + (sum_ >> 16)
        after[10:12] = struct.pack(">H", ~sum_ & 0xFFFF)
    return bytes(after)


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


def build_ip(source, destination, protocol, body, vlan=(), options=b"", fragment=0x4000, traffic_class=0, flow=0x12345, ttl=64,
             identification=1, link=None):
    """A plain frame with any IP packet: `options` is IPv4's, `fragment` the 16 bits of its flags and offset. IPv6 extension headers
    are part of the body."""
    source, destination = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    assert len(options) % 4 == 0
    link = link or ethernet(ETHERTYPE_IPV4 if source.version == 4 else ETHERTYPE_IPV6, vlan)
    if source.version == 4:
        length = 20 + len(options)
        ip = bytearray(struct.pack(">BBHHHBBH", 0x40 | length // 4, traffic_class, length + len(body), identification, fragment,
                                   ttl, protocol, 0) + source.packed + destination.packed + options)
        ip[10:12] = struct.pack(">H", checksum(bytes(ip)))
        return link + bytes(ip) + body
    ip = struct.pack(">IHBB", 6 << 28 | traffic_class << 20 | flow, len(body), protocol, ttl)
    return link + ip + source.packed + destination.packed + body


def icmp_error(source, destination, protocol, type_, code, quoted):
    """An ICMP or ICMPv6 message of another type than echo, with its checksum."""
    source, destination = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    message = bytearray(struct.pack(">BBHI", type_, code, 0, 0) + quoted)
    pseudo = source.packed + destination.packed + struct.pack(">II", len(message), protocol) if protocol == ICMPV6 else b""
    message[2:4] = struct.pack(">H", checksum(pseudo + bytes(message)))
    return bytes(message)


def tcp_header(source_port=40000, destination_port=8080, options=b"", flags=0x18, sequence=1, acknowledgement=1):
    assert len(options) % 4 == 0 and len(options) <= 40
    offset = (20 + len(options)) // 4 << 12
    return struct.pack(">HHIIHHHH", source_port, destination_port, sequence, acknowledgement,
                       offset | flags, 502, 0, 0) + options


def udp_header(source_port=40000, destination_port=5353):
    return struct.pack(">HHHH", source_port, destination_port, 0, 0)


def echo_header(protocol, identifier=0x1234, sequence=1, reply=False):
    return struct.pack(">BBHHH", ECHO[protocol][reply], 0, 0, identifier, sequence)

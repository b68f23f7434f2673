# SPDX-License-Identifier: Apache-2.0
"""The independent implementation itself: known answers, and that it refuses what a receiver must refuse."""

import random
import struct

import pytest

import vectors
import xdpwire as wire

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


def test_random_bytes_do_nothing_but_be_refused():
    generator = random.Random(1)
    for _ in range(20000):
        frame = bytearray(sealed())
        for _ in range(generator.randrange(1, 8)):
            frame[generator.randrange(12, len(frame))] = generator.randrange(256)
        frame = frame[:generator.randrange(len(frame) + 1)]
        try:
            wire.open_(bytes(frame), KEYS)
        except wire.Refused:
            pass

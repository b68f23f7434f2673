#!/usr/bin/env python3
"""Writes vectors.json: known answers for the derivation of traffic keys, made without any code of this project.

HKDF is written out from RFC 5869 with the standard library's hmac; nothing else is needed. Run it again after a change of
docs/wire-format.md and compare: `python3 make_vectors.py > vectors.json`.
"""

import hashlib
import hmac
import json


def hkdf(ikm: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    prk = hmac.new(salt, ikm, hashlib.sha256).digest()
    out, block = b"", b""
    for counter in range(1, 256):
        if len(out) >= length:
            break
        block = hmac.new(prk, block + info + bytes([counter]), hashlib.sha256).digest()
        out += block
    return out[:length]


def check_hkdf() -> None:
    """RFC 5869, test case 1."""
    okm = hkdf(bytes([0x0B]) * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
    assert okm.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"


def vector(name, dek, cluster, epoch, sender, receiver, sender_incarnation, receiver_incarnation, lane, counter):
    context = (
        epoch.to_bytes(4, "big")
        + sender.to_bytes(4, "big")
        + receiver.to_bytes(4, "big")
        + sender_incarnation
        + receiver_incarnation
    )
    out = hkdf(dek, cluster, b"xdp-encryptor/1 traffic" + context, 33)
    key_id = hkdf(dek, cluster, b"xdp-encryptor/1 key id" + context, 16)
    spi = (epoch & 1) << 31 | (out[32] & 0x7F) << 24 | sender
    nonce = spi.to_bytes(4, "big") + lane.to_bytes(2, "big") + counter.to_bytes(6, "big")
    return {
        "name": name,
        "dek": dek.hex(),
        "cluster": cluster.hex(),
        "epoch": epoch,
        "sender": sender,
        "receiver": receiver,
        "senderIncarnation": sender_incarnation.hex(),
        "receiverIncarnation": receiver_incarnation.hex(),
        "key": out[:32].hex(),
        "keyByte33": out[32],
        "spi": f"{spi:08x}",
        "keyID": key_id.hex(),
        "lane": lane,
        "counter": counter,
        "nonce": nonce.hex(),
    }


def main() -> None:
    check_hkdf()
    dek, cluster = bytes(range(32)), bytes(range(0x10, 0x20))
    a, b, c = bytes([0xAA]) * 16, bytes([0xBB]) * 16, bytes(range(0xF0, 0x100))
    vectors = [
        vector("first epoch, node 1 to node 2", dek, cluster, 1, 1, 2, a, b, 0, 1),
        vector("first epoch, node 2 to node 1", dek, cluster, 1, 2, 1, b, a, 0, 1),
        vector("next epoch: the other parity", dek, cluster, 2, 1, 2, a, b, 3, 258),
        vector("the sender has a new incarnation", dek, cluster, 1, 1, 2, c, b, 0, 1),
        vector("the receiver has a new incarnation", dek, cluster, 1, 1, 2, a, c, 0, 1),
        vector("largest numbers", dek, cluster, 2**32 - 1, 2**24 - 1, 2**24 - 2, a, b, 65535, 2**48 - 1),
        vector(
            "derivation 4 of docs/wire-format.md", bytes(range(32)), bytes(range(0xA0, 0xB0)), 2**32 - 1, 2**24 - 2, 1,
            bytes(range(0x50, 0x60)), bytes(range(0x10, 0x20)), 65535, 2**48 - 1,
        ),
        vector("another cluster", dek, bytes(16), 1, 1, 2, a, b, 0, 1),
        vector("another DEK", hashlib.sha256(b"another DEK").digest(), cluster, 1, 1, 2, a, b, 7, 2**32),
    ]
    print(json.dumps(vectors, indent=2))


if __name__ == "__main__":
    main()

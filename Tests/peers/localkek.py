# SPDX-License-Identifier: Apache-2.0
"""Unwraps DEKs of provider `local`: written from docs/local-wrap.md alone."""

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

LOCAL = 1


def read_keks(path):
    """The KEKs of a file, by version."""
    with open(path) as file:
        keks = [bytes.fromhex(line) for line in file.read().split()]
    return {kek_version(kek): kek for kek in keks}


def kek_version(kek):
    info = b"xdp-encryptor/1 kek version"
    return HKDF(algorithm=hashes.SHA256(), length=8, salt=None, info=info).derive(kek).hex()


def context(cluster_id, epoch, purpose=b"traffic"):
    return b"xdp-encryptor/1 dek" + cluster_id + struct.pack(">IB", epoch, len(purpose)) + purpose


def unwrap(blob, keks, cluster_id, epoch):
    """The DEK in a blob. Raises ValueError when it is malformed or does not belong to this KEK, cluster and epoch."""
    version, provider = blob[0], blob[1]
    if (version, provider) != (1, LOCAL):
        raise ValueError(f"blob of version {version}, provider {provider}")
    fields, rest = [], blob[2:]
    for _ in range(3):
        length, = struct.unpack_from(">H", rest)
        fields.append(rest[2:2 + length])
        rest = rest[2 + length:]
    kek_id, kek_name, wrapped = fields
    if rest or kek_id != b"file" or len(wrapped) != 60:
        raise ValueError("malformed blob")
    kek = keks.get(kek_name.decode())
    if kek is None:
        raise ValueError(f"wrapped with KEK {kek_name.decode()}, which the file does not hold")
    try:
        return AESGCM(kek).decrypt(wrapped[:12], wrapped[12:], context(cluster_id, epoch))
    except InvalidTag:
        raise ValueError(f"the DEK of epoch {epoch} is not authentic") from None

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""find_secrets.py --keys KEYS.json --text TEXT DUMP.json: looks for secrets in the output of `bpftool -j map dump`.

Searched for: every DEK, every traffic key that follows from it, its hash key H = AES(key, 0), each as a whole, by halves and in either byte
order, and the text. Exits with 1 when one is there.
"""

import argparse
import json
import sys

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from decode import Knowledge


def raw_bytes(value):
    """Every run of bytes in a dump: lists of "0x.." strings."""
    if isinstance(value, list):
        if value and all(isinstance(item, str) and item.startswith("0x") for item in value):
            yield bytes(int(item, 16) for item in value)
        else:
            for item in value:
                yield from raw_bytes(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name != "formatted":
                yield from raw_bytes(item)


def hash_key(key):
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return encryptor.update(bytes(16)) + encryptor.finalize()


def main():
    parser = argparse.ArgumentParser(description="Look for secrets in a dump of a map.")
    parser.add_argument("--keys", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("dump")
    options = parser.parse_args()
    with open(options.keys) as file:
        description = json.load(file)
    secrets = {"the text": options.text.encode()}
    for epoch, dek in description["deks"].items():
        secrets[f"the DEK of epoch {epoch}"] = bytes.fromhex(dek)
    for keys in Knowledge(description).keys.values():
        for key in keys:
            name = f"epoch {key.epoch}, {key.sender} to {key.receiver}"
            secrets[f"the key of {name}"] = key.key
            secrets[f"H of {name}"] = hash_key(key.key)
    # Half of a secret is one, too; and words may be stored the other way round.
    needles = {}
    for name, secret in secrets.items():
        for part in (secret[:len(secret) // 2], secret[len(secret) // 2:]):
            needles[part] = needles[part[::-1]] = name
    with open(options.dump) as file:
        haystacks = list(raw_bytes(json.load(file)))
    found = sorted({name for needle, name in needles.items() for bytes_ in haystacks if needle in bytes_})
    for name in found:
        print(f"found {name}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

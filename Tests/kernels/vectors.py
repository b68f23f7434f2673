"""vectors.py IN OUT: random texts for `xdp-encryptor gcm`, and the answers that Python's cryptography gives.

IN gets one JSON request a line, OUT one JSON answer a line, as the command prints it.
"""

import json
import os
import random
import sys

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TEXTS = [0, 1, 15, 16, 17, 31, 63, 64, 65, 255, 256, 1000, 1400, 2999, 3000]
AADS = [0, 1, 12, 16, 20, 48, 255, 256]


def requests():
    for key_len in (16, 32):
        for text_len in TEXTS:
            for aad_len in AADS:
                yield os.urandom(key_len), os.urandom(12), os.urandom(aad_len), os.urandom(text_len)


def main(requests_path, answers_path):
    with open(requests_path, "w") as asked, open(answers_path, "w") as expected:

        def write(request, answer):
            for file, value in ((asked, request), (expected, answer)):
                file.write(json.dumps(value, separators=(",", ":")) + "\n")

        for key, nonce, aad, text in requests():
            sealed = AESGCM(key).encrypt(nonce, text, aad)
            ciphertext, tag = sealed[:-16], sealed[-16:]
            common = {"key": key.hex(), "nonce": nonce.hex(), "aad": aad.hex()}
            write(
                {"op": "seal", **common, "plaintext": text.hex()},
                {"ciphertext": ciphertext.hex(), "tag": tag.hex()},
            )
            write(
                {"op": "open", **common, "ciphertext": ciphertext.hex(), "tag": tag.hex()},
                {"plaintext": text.hex()},
            )
            # One bit of one of the four, which is not empty.
            forged = {"nonce": nonce, "aad": aad, "ciphertext": ciphertext, "tag": tag}
            name = random.choice([name for name, value in forged.items() if value])
            bit = random.randrange(len(forged[name]) * 8)
            changed = bytearray(forged[name])
            changed[bit // 8] ^= 1 << bit % 8
            forged[name] = bytes(changed)
            write(
                {"op": "open", "key": key.hex(), **{name: value.hex() for name, value in forged.items()}},
                {"error": "authentication failed"},
            )


if __name__ == "__main__":
    main(*sys.argv[1:])

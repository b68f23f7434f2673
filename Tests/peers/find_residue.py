#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""find_residue.py --keys KEYS.json [--secret FILE]... [--pid PID]... [--folder FOLDER]...: looks for secrets where none may be.

Searched for: every DEK of KEYS.json, every traffic key that follows from it, and the content of each secret FILE (tokens, KEKs); as they
are, in hexadecimal, and in base64 (as a whole, and without the ends that depend on what stands before and behind). Searched in: all memory
that the kernel lets root read of the processes, and all files of the folders except KEYS.json, the secret files and captures.
Prints JSON: {"places": how many were searched, "found": {place: [name, ...]}}; exits with 1 when something was found.
"""

import argparse
import base64
import json
import pathlib
import sys

from decode import Knowledge


def forms(secret):
    """A secret as it may be written down."""
    plain = base64.b64encode(secret).rstrip(b"=")
    yield "bytes", secret
    yield "hexadecimal", secret.hex().encode()
    yield "base64", plain[:-1]
    yield "base64url", base64.urlsafe_b64encode(secret).rstrip(b"=")[:-1]


def memory(pid):
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for line in maps:
            area, permissions = line.split()[:2]
            if not permissions.startswith("rw") or "[vvar" in line:
                continue
            low, high = (int(end, 16) for end in area.split("-"))
            try:
                mem.seek(low)
                yield line.split()[-1], mem.read(high - low)
            except (OSError, ValueError, OverflowError):
                pass  # memfd_secret: not even root


def main():
    parser = argparse.ArgumentParser(description="Look for secrets in processes and files.")
    parser.add_argument("--keys", required=True, type=pathlib.Path)
    for name in ("secret", "pid", "folder"):
        parser.add_argument(f"--{name}", action="append", default=[])
    options = parser.parse_args()
    description = json.loads(options.keys.read_text())
    secrets = {f"DEK of epoch {epoch}": bytes.fromhex(dek) for epoch, dek in description["deks"].items()}
    for keys in Knowledge(description).keys.values():
        for key in keys:
            secrets[f"key of epoch {key.epoch} from {key.sender} to {key.receiver}"] = key.key
    for path in options.secret:
        content = pathlib.Path(path).read_bytes().strip()
        secrets[f"content of {pathlib.Path(path).name}"] = content
        if len(content) == 64:
            secrets[f"KEK of {pathlib.Path(path).name}"] = bytes.fromhex(content.decode())
    needles = [(f"{name} ({form})", text) for name, secret in secrets.items() for form, text in forms(secret)]
    skipped = {options.keys.resolve(), *(pathlib.Path(path).resolve() for path in options.secret)}
    places, found = 0, {}

    def search(place, content):
        for name, text in needles:
            if text in content:
                found.setdefault(place, []).append(name)

    for pid in options.pid:
        for area, content in memory(pid):
            places += 1
            search(f"process {pid} {area}", content)
    for folder in options.folder:
        for path in pathlib.Path(folder).rglob("*"):
            if path.is_file() and path.resolve() not in skipped and path.suffix != ".pcap":
                places += 1
                search(str(path), path.read_bytes())
    print(json.dumps({"places": places, "found": found}))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the decoder's KEYS.json of a cluster directory and the KEK file of provider `local`.

    cluster_keys.py --cluster DIRECTORY (--kek FILE | --kms URL) --output KEYS.json

URL is the control server of Tests/kms/servers.py, which unwraps with the official SDK of the cloud that wrapped.

Adds to what KEYS.json holds already, so that epochs and incarnations that have gone meanwhile stay known. For the lab only: the
output holds DEKs in clear.
"""

import argparse
import base64
import json
import os
import pathlib
import sys
import urllib.request

import localkek


def hexadecimal(text):
    """The cluster's 16-byte values, however they are written: hexadecimal, with or without dashes."""
    return bytes.fromhex(text.replace("-", "")).hex()


def objects(folder):
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))
            if not path.name.startswith(".")}


def ask(control, blob, cluster_id, epoch):
    body = json.dumps({"blob": base64.b64encode(blob).decode(), "cluster": cluster_id, "epoch": epoch}).encode()
    request = urllib.request.Request(f"{control}/all/unwrap", method="POST", data=body)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["dek"]


def main():
    parser = argparse.ArgumentParser(description="Unwrap a lab cluster's DEKs for the decoder.")
    for name in ("cluster", "output"):
        parser.add_argument(f"--{name}", required=True, type=pathlib.Path)
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--kek", type=pathlib.Path)
    who.add_argument("--kms")
    options = parser.parse_args()
    try:
        cluster_id = hexadecimal(json.loads((options.cluster / "cluster.json").read_text())["id"])
        known = json.loads(options.output.read_text()) if options.output.exists() else {}
        known = {"cluster_id": cluster_id, "deks": known.get("deks", {}), "nodes": known.get("nodes", {})}
        keks = localkek.read_keks(options.kek) if options.kek else {}
        for epoch in objects(options.cluster / "epochs").values():
            if str(epoch["number"]) not in known["deks"]:
                blob = base64.b64decode(epoch["wrappedDEK"], validate=True)
                if options.kms:
                    dek = ask(options.kms, blob, cluster_id, epoch["number"])
                else:
                    dek = localkek.unwrap(blob, keks, bytes.fromhex(cluster_id), epoch["number"]).hex()
                known["deks"][str(epoch["number"])] = dek
        numbers = {}
        for name, node in objects(options.cluster / "nodes").items():
            numbers[name] = str(node["id"])
            entry = known["nodes"].setdefault(str(node["id"]), {"incarnations": [], "endpoints": []})
            incarnation = hexadecimal(node["incarnation"])
            if incarnation not in entry["incarnations"]:
                entry["incarnations"].append(incarnation)
        for endpoint in objects(options.cluster / "endpoints").values():
            if endpoint["node"] in numbers:
                entry = known["nodes"][numbers[endpoint["node"]]]
                entry["endpoints"] = sorted(set(entry["endpoints"]) | set(endpoint["addresses"]))
        text = json.dumps(known, indent=1)
    except (OSError, ValueError, KeyError, TypeError) as problem:
        print(f"cluster_keys.py: {type(problem).__name__}: {problem}", file=sys.stderr)
        return 2
    temporary = options.output.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    temporary.rename(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())

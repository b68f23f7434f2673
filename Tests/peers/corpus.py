#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""corpus.py: frames for node 2, and the verdict that each must get, in this order (windows move on the way).

Prints JSON for a test that runs the kernel program on every frame:

    {"receiver": 2, "endpoints": {ADDRESS: NODE}, "strict_cidrs": [CIDR],
     "keys": [{"sender": NODE, "epoch": N, "spi": hex, "key": hex}], "frames": [[NAME, FRAME hex, VERDICT]]}

Every bit of every header field, of the shim or PSP header and of the text is turned over, once with checksums as they were and once
with right ones.
"""

import json
import sys

import inject
import vectors
import xdpwire as wire
from decode import Knowledge
from receiver import Receiver

STRICT = ["10.200.0.0/13", "fd00:200::/24"]


def description():
    nodes = {
        number: {"incarnations": [bytes([0x11 * number] * 16).hex()],
                 "endpoints": [f"10.201.{number}.2", f"fd00:201:{number}::2"]}
        for number in (1, 2, 3)
    }
    return {"cluster_id": vectors.CLUSTER.hex(), "deks": {"1": vectors.DEK.hex()}, "nodes": nodes}


def main():
    cluster = description()
    knowledge = Knowledge(cluster)
    receiver = Receiver(knowledge, 2, STRICT)
    frames = []
    lane = 0
    for family in (4, 6):
        source, destination, other = (f"10.201.{n}.2" if family == 4 else f"fd00:201:{n}::2" for n in (1, 2, 3))
        for framing, protocol, port in (("inline", "udp", 9), ("inline", "tcp", 9), ("inline", "echo", 9), ("tunnel", "udp", 9),
                                        ("tunnel", "sctp", 9), ("inline", "udp", wire.TUNNEL_PORT)):
            kinds = ["flip:all", "forge:all", "replay", "reorder", "cleartext", "unknown-spi", "truncated", "random", "spoofed"]
            if framing == "tunnel":
                kinds += ["lie", "congestion"] + ["crossed"] * (protocol == "udp")
            for kind in kinds:
                sender = 3 if kind == "spoofed" else 1
                name = f"{kind} {protocol}{family}"
                name += " by tunnel" if framing == "tunnel" else " to the tunnel's port" if port == wire.TUNNEL_PORT else ""
                arguments = [kind, "--from", str(sender), "--to", "2", "--source", source, "--destination", destination,
                             "--protocol", protocol, "--framing", framing, "--port", str(port), "--seed", "1"]
                options = inject.parser().parse_args(arguments)

                def transmit(frame, verdict, name=name):
                    frames.append([name, frame.hex(), verdict])

                injector = inject.Injector(options, knowledge, receiver, transmit, wire.MAC_A)
                lane += 1
                injector.lane = lane
                if kind in ("flip:all", "forge:all"):
                    # As many as the field has bits.
                    for field, (_, masks) in injector.table().items():
                        options.count = sum(mask.bit_count() for mask in masks)
                        injector.flip(field, kind == "forge:all")
                else:
                    options.count = 60
                    injector.run(kind)
        # A source that is in a strict CIDR and not known.
        stranger = source.replace("201", "202", 1)
        frames.append([f"stranger {family}", wire.build(stranger, destination, wire.UDP, wire.udp_header(9), b"hello").hex(),
                       "unknown_peer"])
    keys = [{"sender": key.sender, "epoch": key.epoch, "spi": f"{key.spi:08x}", "key": key.key.hex(),
             "key_id": key.key_id.hex()}
            for keys in knowledge.keys.values() for key in keys if key.receiver == 2]
    endpoints = {address: number for number, node in cluster["nodes"].items() for address in node["endpoints"]}
    json.dump({"receiver": 2, "endpoints": endpoints, "strict_cidrs": STRICT, "keys": keys, "frames": frames}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())

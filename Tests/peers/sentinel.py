#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""sentinel.py INTERFACE TEXT: sends one frame of a local experimental EtherType with TEXT in it, to mark a place in a capture."""

import socket
import sys

# IEEE 802 local experimental EtherType 1; a multicast address that no bridge forwards.
frame = bytes.fromhex("0180c200000e" "020000000001" "88b5") + sys.argv[2].encode()
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as device:
    device.bind((sys.argv[1], 0))
    device.send(frame)

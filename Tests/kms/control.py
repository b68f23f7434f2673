#!/usr/bin/env python3
"""Asks the control server of servers.py for something: control.py URL [JSON]. Prints its answer; standard library only."""

import sys
import urllib.error
import urllib.request

try:
    body = (sys.argv[2] if len(sys.argv) > 2 else "{}").encode()
    with urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="POST", data=body), timeout=30) as answer:
        print(answer.read().decode())
except urllib.error.HTTPError as problem:
    sys.exit(f"control.py: {sys.argv[1]}: {problem}: {problem.read().decode()}")
except OSError as problem:
    sys.exit(f"control.py: {sys.argv[1]}: {problem}")

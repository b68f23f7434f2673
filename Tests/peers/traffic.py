#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Traffic between pods whose arrival is checked byte by byte.

    traffic.py serve                                    TCP and UDP servers for all of the below; prints "ready"
    traffic.py file ADDRESS --bytes N                   one TCP connection, N bytes, SHA-256 compared at the end
    traffic.py parallel ADDRESS --connections N         N connections at once, each with its own bytes
    traffic.py sizes ADDRESS --first N --last M         a UDP datagram of each size, echoed; TCP segments of each size
    traffic.py odd ADDRESS                              half-open, half-closed, reset and refused connections
    traffic.py refused ADDRESS                          a UDP datagram to a port where nobody listens: an ICMP error comes back
    traffic.py stream ADDRESS --rate N [--seconds S]    numbered UDP datagrams and TCP records, echoed; until S or SIGTERM

Every payload holds the marker text, if one is given, so that a capture can be searched for it. Each command prints one JSON object
and exits with 0 when all of its traffic arrived as it should, with 1 otherwise.
"""

import argparse
import concurrent.futures
import errno
import hashlib
import ipaddress
import json
import random
import signal
import socket
import struct
import sys
import threading
import time

TCP_PORT, UDP_PORT, CLOSED_PORT, DISCARD_PORT = 8080, 5353, 8081, 9
PATIENCE = 20  # seconds that anything may take before it counts as lost
SO_RCVBUFFORCE = 33  # linux/socket.h; not in the socket module


def family(address):
    return socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET


def connect(address, port=TCP_PORT):
    connection = socket.socket(family(address), socket.SOCK_STREAM)
    connection.settimeout(PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.connect((address, port))
    return connection


def exactly(connection, count):
    parts = []
    while count:
        part = connection.recv(min(count, 1 << 16))
        if not part:
            raise ConnectionError("closed early")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


# ---- servers --------------------------------------------------------------------------------------------------------
#
# A connection begins with a letter and a length of eight bytes: F (hash what comes, answer with the SHA-256) or E (echo what comes).


def serve_connection(connection):
    with connection:
        try:
            connection.settimeout(PATIENCE)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            kind, length = struct.unpack(">cQ", exactly(connection, 9))
            if kind == b"F":
                digest, buffer = hashlib.sha256(), bytearray(1 << 18)
                while length:
                    count = connection.recv_into(buffer, min(length, len(buffer)))
                    if not count:
                        return
                    digest.update(memoryview(buffer)[:count])
                    length -= count
                connection.sendall(digest.digest())
            else:
                while data := connection.recv(1 << 16):
                    connection.sendall(data)
        except OSError:
            pass  # clients are cut off on purpose


def serve():
    listener = socket.create_server(("::", TCP_PORT), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    datagrams.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
    datagrams.bind(("::", UDP_PORT))
    discard = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)  # injected packets that may get through end here
    discard.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    discard.bind(("::", DISCARD_PORT))
    print("ready", flush=True)

    def echo():
        while True:
            data, source = datagrams.recvfrom(65536)
            datagrams.sendto(data, source)

    threading.Thread(target=echo, daemon=True).start()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve_connection, args=(connection,), daemon=True).start()


# ---- clients --------------------------------------------------------------------------------------------------------


def send_file(address, count, marker, seed=0):
    """Sends `count` bytes; returns whether the other end computed the same SHA-256."""
    block = (marker.encode() or b".") * (1 << 18)
    block = bytearray(block[:1 << 18])
    generator, digest, left = random.Random(seed), hashlib.sha256(), count
    with connect(address) as connection:
        connection.sendall(struct.pack(">cQ", b"F", count))
        while left:
            # Something that differs from block to block, at a place that does too.
            struct.pack_into(">QQ", block, generator.randrange(len(block) - 16), seed, left)
            part = memoryview(block)[:min(left, len(block))]
            digest.update(part)
            connection.sendall(part)
            left -= len(part)
        return exactly(connection, 32) == digest.digest()


def file(options):
    started = time.monotonic()
    same = send_file(options.address, options.bytes, options.marker)
    return same, {"bytes": options.bytes, "seconds": round(time.monotonic() - started, 3), "equal": same}


def parallel(options):
    def one(number):
        try:
            return send_file(options.address, 20000 + number, options.marker, seed=number)
        except OSError:
            return False

    with concurrent.futures.ThreadPoolExecutor(options.connections) as pool:
        equal = sum(pool.map(one, range(options.connections)))
    return equal == options.connections, {"connections": options.connections, "equal": equal}


def payload(size, marker, number):
    unit = f"{number} {marker} ".encode()
    return (unit * (size // len(unit) + 1))[:size]


def sizes(options):
    """Every size once over UDP and once as one TCP segment. UDP is sent again when lost, a few times: counted."""
    wrong, lost, again = [], [], 0
    with socket.socket(family(options.address), socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(1)
        datagrams.connect((options.address, UDP_PORT))
        for size in range(options.first, options.last + 1):
            sent = payload(size, options.marker, size)
            for _ in range(options.attempts):
                datagrams.send(sent)
                try:
                    if datagrams.recv(65536) != sent:
                        wrong.append(size)
                    break
                except TimeoutError:
                    again += 1
            else:
                lost.append(size)
    with connect(options.address) as connection:
        connection.sendall(struct.pack(">cQ", b"E", 0))
        for size in range(max(1, options.first), options.last + 1):
            sent = payload(size, options.marker, size)
            connection.sendall(sent)
            if exactly(connection, size) != sent:
                wrong.append(size)
    good = not wrong and not lost
    return good, {"sizes": options.last - options.first + 1, "wrong": wrong, "lost": lost, "sent_again": again}


def odd(options):
    """Connections that end, or never begin, in other ways than usual."""
    results = {}
    try:  # Refused: the RST comes back.
        connect(options.address, CLOSED_PORT).close()
        results["refused"] = False
    except ConnectionRefusedError:
        results["refused"] = True

    for _ in range(50):  # Reset by us with unsent data.
        connection = connect(options.address)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(struct.pack(">cQ", b"F", 1 << 20) + b"x" * 1000)
        connection.close()
    results["reset"] = send_file(options.address, 10000, options.marker)

    with connect(options.address) as connection:  # Half-closed: our FIN first, their bytes afterwards.
        connection.sendall(struct.pack(">cQ", b"F", 100000) + bytes(100000))
        connection.shutdown(socket.SHUT_WR)
        results["half_closed"] = exactly(connection, 32) == hashlib.sha256(bytes(100000)).digest()

    results["half_open"] = half_open(options.address)
    results["after"] = send_file(options.address, 10000, options.marker)
    return all(results.values()), results


def refused(options):
    with socket.socket(family(options.address), socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(PATIENCE)
        datagrams.connect((options.address, CLOSED_PORT))
        try:
            datagrams.send(b"anybody?")
            datagrams.recv(1)
            answer = "a datagram"
        except ConnectionRefusedError:
            answer = "refused"
        except TimeoutError:
            answer = None
    return answer == "refused", {"answer": answer}


def half_open(address):
    """Sends SYNs from a raw socket, which no socket of ours stands behind; every SYN-ACK must come back."""
    with socket.socket(family(address), socket.SOCK_DGRAM) as probe:
        probe.connect((address, UDP_PORT))
        source = ipaddress.ip_address(probe.getsockname()[0]).packed
    destination = ipaddress.ip_address(address).packed
    ports = set(range(20001, 20101))
    with socket.socket(family(address), socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.settimeout(PATIENCE)
        for port in ports:
            segment = struct.pack(">HHIIHHHH", port, TCP_PORT, port, 0, 5 << 12 | 2, 65535, 0, 0)
            sum_ = sum(struct.unpack(">10H", segment)) + sum(struct.unpack(f">{len(source)}H", source + destination))
            sum_ += socket.IPPROTO_TCP + len(segment)
            while sum_ >> 16:
                sum_ = (sum_ & 0xFFFF) + (sum_ >> 16)
            raw.sendto(segment[:16] + struct.pack(">H", ~sum_ & 0xFFFF) + segment[18:], (address, 0))
        try:
            while ports:
                data = raw.recv(65536)
                if len(source) == 4:
                    data = data[(data[0] & 15) * 4:]
                from_, to, _, acknowledged, flags = struct.unpack_from(">HHIIH", data)
                if from_ == TCP_PORT and flags & 0x12 == 0x12 and acknowledged == to + 1:
                    ports.discard(to)
        except TimeoutError:
            pass
    return not ports


def stream(options):
    """Steady traffic. A datagram that has not come back when the stream has been quiet for two seconds is lost."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    datagrams = socket.socket(family(options.address), socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
    datagrams.connect((options.address, UDP_PORT))
    datagrams.settimeout(2)
    sent, received, gap, refused = 0, set(), [0.0], [0]
    wrong = [0]

    def collect():
        last = time.monotonic()
        while True:
            try:
                data = datagrams.recv(65536)
            except TimeoutError:
                if stop.is_set():
                    return
                continue
            except OSError:
                refused[0] += 1
                continue
            now = time.monotonic()
            gap[0], last = max(gap[0], now - last), now
            number = int(data.split(b" ", 1)[0])
            if data != payload(options.size, options.marker, number):
                wrong[0] += 1
            received.add(number)
            if stop.is_set() and len(received) >= sent:
                return

    records, broken, tcp_gap = [0], [], [0.0]

    def tcp():
        try:
            with connect(options.address) as connection:
                connection.sendall(struct.pack(">cQ", b"E", 0))
                while not stop.is_set():
                    record = payload(3000, options.marker, records[0])
                    started = time.monotonic()
                    connection.sendall(record)
                    if exactly(connection, len(record)) != record:
                        broken.append("other bytes came back")
                        return
                    tcp_gap[0] = max(tcp_gap[0], time.monotonic() - started)
                    records[0] += 1
                    stop.wait(0.002)
        except OSError as problem:
            broken.append(f"{type(problem).__name__}: {problem}")

    threads = [threading.Thread(target=work, daemon=True) for work in (collect, tcp)]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    started = time.monotonic()
    while not stop.is_set():
        now = time.monotonic() - started
        if options.seconds and now >= options.seconds:
            break
        while sent < now * options.rate:
            try:
                datagrams.send(payload(options.size, options.marker, sent))
            except OSError as problem:
                if problem.errno not in (errno.ECONNREFUSED, errno.EPERM, errno.ENOBUFS):
                    raise
                refused[0] += 1
            sent += 1
        stop.wait(0.001)
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
    lost = sent - len(received)
    good = not lost and not broken and not wrong[0] and sent > 0 and records[0] > 0
    return good, {
        "datagrams": sent, "lost": lost, "wrong": wrong[0], "refused": refused[0],
        "longest_gap_ms": round(gap[0] * 1000, 1), "records": records[0],
        "longest_record_ms": round(tcp_gap[0] * 1000, 1), "tcp_problem": broken[0] if broken else None,
    }


def main():
    parser = argparse.ArgumentParser(description="Checked traffic between pods.")
    parser.add_argument("command", choices=["serve", "file", "parallel", "sizes", "odd", "refused", "stream"])
    parser.add_argument("address", nargs="?")
    parser.add_argument("--marker", default="")
    parser.add_argument("--bytes", type=int, default=1 << 20)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--last", type=int, default=1400)
    parser.add_argument("--attempts", type=int, default=5)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--size", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=0)
    options = parser.parse_args()
    if options.command == "serve":
        return serve()
    if not options.address:
        parser.error("an address is needed")
    try:
        good, result = globals()[options.command](options)
    except OSError as problem:
        good, result = False, {"problem": f"{type(problem).__name__}: {problem}"}
    print(json.dumps(result))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

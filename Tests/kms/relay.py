"""Makes the servers' loopback ports reachable on the loopback of other network namespaces: the demo's nodes live in such."""

import ctypes
import os
import socket
import threading

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def enter(descriptor):
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def listeners(namespace, ports):
    """Sockets stay in the namespace in which they were made; the thread that makes them goes there and comes back."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(namespace, os.O_RDONLY)
    try:
        enter(there)
        try:
            return [socket.create_server(("127.0.0.1", port)) for port in ports]
        finally:
            enter(home)
    finally:
        os.close(there)
        os.close(home)


def pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def serve(listener, port):
    while True:
        near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", port))
        for ends in ((near, far), (far, near)):
            threading.Thread(target=pump, args=ends, daemon=True).start()


def relay(namespace, ports):
    for listener, port in zip(listeners(namespace, ports), ports):
        threading.Thread(target=serve, args=(listener, port), daemon=True).start()

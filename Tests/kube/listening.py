"""Sockets, also in other network namespaces, and certificates."""

import ctypes
import os
import socket
import ssl
import subprocess
import threading


def listening_socket(address, port):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.setblocking(False)
    return sock


def socket_in_namespace(path, address, port):
    """A socket stays in the network namespace in which it was made; only a thread goes there."""
    result = []

    def make():
        libc = ctypes.CDLL(None, use_errno=True)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(fd, 0x40000000) != 0:
                raise OSError(ctypes.get_errno(), f"setns {path}")
            result.append(listening_socket(address, port))
        except OSError as problem:
            result.append(problem)
        finally:
            os.close(fd)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(result[0], OSError):
        raise result[0]
    return result[0]


def make_tls(folder):
    """A CA, a certificate of 127.0.0.1, ::1 and localhost, and a client's (CN=admin, O=system:masters), made with openssl."""
    os.makedirs(folder, exist_ok=True)

    def run(*command):
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("openssl", "req", "-x509", *key, "-days", "2", "-subj", "/CN=stand-in CA", "-keyout", "ca.key", "-out", "ca.crt",
        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
    for name, subject, extension in (
        ("server", "/CN=kubernetes", "subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost,DNS:kubernetes.default.svc"),
        ("client", "/O=system:masters/CN=admin", "extendedKeyUsage=clientAuth"),
    ):
        run("openssl", "req", *key, "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        with open(f"{folder}/{name}.ext", "w") as file:
            file.write(extension + "\n")
        run("openssl", "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", f"{name}.ext", "-out", f"{name}.crt")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/server.crt", f"{folder}/server.key")
    context.load_verify_locations(f"{folder}/ca.crt")
    context.verify_mode = ssl.CERT_OPTIONAL
    return context, {"ca": f"{folder}/ca.crt", "clientCertificate": f"{folder}/client.crt", "clientKey": f"{folder}/client.key"}

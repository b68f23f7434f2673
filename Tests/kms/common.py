"""What the stand-ins share: a server on a free loopback port, certificates, and the tokens of a Kubernetes cluster."""

import base64
import datetime
import ipaddress
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Refusal(Exception):
    """An answer other than 200, raised from anywhere in a handler."""

    def __init__(self, status, body, headers=None):
        self.status, self.body, self.headers = status, body, headers or {}


class Request:
    def __init__(self, handler):
        parts = urlsplit(handler.path)
        self.method = handler.command
        self.path = unquote(parts.path)
        self.query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        self.headers = handler.headers
        self.raw = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))

    @property
    def json(self):
        return json.loads(self.raw) if self.raw else {}

    @property
    def form(self):
        return {k: v[0] for k, v in parse_qs(self.raw.decode()).items()}

    @property
    def bearer(self):
        kind, _, token = (self.headers.get("Authorization") or "").partition(" ")
        return token if kind == "Bearer" else None


class Server:
    """Serves `answer(request) -> body or (status, body, headers)` on 127.0.0.1; `tls` is a (certificate, key) pair of files."""

    def __init__(self, answer, tls=None):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def _run(self):
                try:
                    result = answer(Request(self))
                except Refusal as refusal:
                    result = (refusal.status, refusal.body, refusal.headers)
                except Exception as problem:  # a fault of the stand-in: say so instead of closing the connection
                    result = (500, {"error": f"{type(problem).__name__}: {problem}"}, {})
                status, body, headers = result if isinstance(result, tuple) else (200, result, {})
                data = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                if "Content-Type" not in headers:
                    self.send_header("Content-Type", "application/json; charset=utf-8")
                self.send_header("Content-Length", str(len(data)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _run

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.base = f"{'https' if tls else 'http'}://127.0.0.1:{self.http.server_port}"
        self.authority = f"127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


def make_certificates(folder):
    """A CA and a certificate for 127.0.0.1; returns the three paths (CA, certificate, key)."""
    now = datetime.datetime.now(datetime.timezone.utc)

    def build(name, issuer, public, signer, is_ca):
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if not is_ca:
            names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(signer, hashes.SHA256())

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = build("stand-in CA", "stand-in CA", ca_key.public_key(), ca_key, True)
    leaf = build("127.0.0.1", "stand-in CA", key.public_key(), ca_key, False)
    paths = [folder / name for name in ("ca.pem", "server.pem", "server.key")]
    paths[0].write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    paths[2].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return [str(path) for path in paths]


class Cluster:
    """Issues projected service-account tokens (RS256), and verifies them as the clouds' token services do."""

    issuer = "https://kubernetes.default.svc.cluster.local"
    subject = "system:serviceaccount:xdp-encryptor:ebpf-xdp-keymgr"

    def __init__(self):
        self.key = rsa.generate_private_key(65537, 2048)

    @property
    def public_pem(self):
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()

    def token(self, audience, lifetime=3600):
        now = int(time.time())
        claims = {
            "iss": self.issuer, "sub": self.subject, "aud": [audience], "iat": now - 10, "nbf": now - 10, "exp": now + lifetime,
            "kubernetes.io": {
                "namespace": "xdp-encryptor", "serviceaccount": {"name": "ebpf-xdp-keymgr", "uid": "1-2-3"},
                "pod": {"name": "p", "uid": "4-5-6"},
            },
        }
        head = b64url(json.dumps({"alg": "RS256", "typ": "JWT", "kid": "1"}).encode())
        text = f"{head}.{b64url(json.dumps(claims).encode())}"
        return f"{text}.{b64url(self.key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def verify(self, token, audience):
        """The claims; raises ValueError with "expired" or another reason."""
        try:
            head, body, signature = token.split(".")
            self.key.public_key().verify(
                unb64url(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256()
            )
            claims = json.loads(unb64url(body))
        except Exception as error:
            raise ValueError("not a token of this issuer") from error
        if claims["exp"] < time.time():
            raise ValueError("token has expired")
        if audience not in claims["aud"]:
            raise ValueError("wrong audience")
        return claims

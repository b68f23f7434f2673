"""HTTP/1.1 as far as clients of the API need it: requests, answers, and the streams of watches."""

import asyncio
import json
import socket
import traceback
from urllib.parse import parse_qsl, unquote

from access import User
from refusal import Refusal
from storage import Watcher, dumps

MAXIMUM_BODY = 3 << 20
# A watcher that reads more slowly than this is sent away, as the real server does.
MAXIMUM_BACKLOG = 256 << 20


class Request:
    """One HTTP request."""

    __slots__ = ("method", "target", "path", "query", "headers", "body", "user", "agent", "dry_run", "managers")

    def __init__(self, method, target, headers, body):
        self.method, self.target, self.headers, self.body = method, target, headers, body
        path, _, query = target.partition("?")
        self.path = unquote(path)
        self.query = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
        self.agent = headers.get("user-agent", "unknown").split("/")[0]
        self.dry_run = self.query.get("dryRun") == "All"
        self.user = self.managers = None

    @property
    def is_watch(self):
        return self.method == "GET" and self.query.get("watch") in ("1", "true")


class Connection(asyncio.Protocol):
    """HTTP/1.1, one request after the other."""

    def __init__(self, server, is_control):
        self.server, self.is_control = server, is_control
        self.buffer, self.busy, self.watcher, self.timers = bytearray(), False, None, []
        self.pending, self.flushing = [], False

    def connection_made(self, transport):
        self.transport = transport
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.is_control:
            self.server.connections.add(self)

    def connection_lost(self, _):
        self.server.connections.discard(self)
        self.end_watch()
        self.busy = True

    def data_received(self, data):
        self.buffer += data
        self.process()

    def process(self):
        while not self.busy:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            lines = self.buffer[:end].decode("latin-1").split("\r\n")
            method, target, _ = lines[0].split(" ", 2)
            headers = {}
            for line in lines[1:]:
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            length = int(headers.get("content-length", 0))
            if length > MAXIMUM_BODY * (100 if self.is_control else 1) or "transfer-encoding" in headers:
                self.answer(413, dumps(Refusal(413, "RequestEntityTooLarge", "the request is too large, or chunked").body).encode())
                self.transport.close()
                return
            if len(self.buffer) < end + 4 + length:
                return
            request = Request(method, target, headers, bytes(self.buffer[end + 4:end + 4 + length]))
            del self.buffer[:end + 4 + length]
            self.busy = True
            if self.is_control:
                self.control(request)
            else:
                self.begin(request)

    def begin(self, request):
        server = self.server
        server.counters["requests"] += 1
        rule = server.faults.find(request.method, request.target, request.is_watch)
        delay = server.faults.delay
        if delay:
            self.timers.append(server.loop.call_later(delay, self.run, request, rule))
        else:
            self.run(request, rule)

    def run(self, request, rule):
        if self.transport.is_closing():
            return
        if rule is not None:
            self.server.counters["faults"] += 1
            if rule.kind == "close":
                self.transport.abort()
            elif rule.kind == "garbage":
                self.answer(200, b"<html>it works!</html>")
            elif rule.kind == "status":
                headers = {"Retry-After": str(rule.retry_after)} if rule.retry_after is not None else {}
                self.refuse(Refusal(rule.status, rule.reason, rule.message, None, headers))
            return
        try:
            request.user = self.server.access.identify(request.headers, self.certificate_user())
            self.server.route(self, request)
        except Refusal as refusal:
            self.refuse(refusal)
        except Exception as problem:  # a fault of the stand-in: say so, loudly
            traceback.print_exc()
            self.refuse(Refusal(500, "InternalError", f"the stand-in failed: {type(problem).__name__}: {problem}"))

    def certificate_user(self):
        certificate = self.transport.get_extra_info("peercert")
        if not certificate:
            return None
        subject = [pair for part in certificate.get("subject", ()) for pair in part]
        names = [value for name, value in subject if name == "commonName"]
        return User(names[0], [value for name, value in subject if name == "organizationName"]) if names else None

    # Answers

    def refuse(self, refusal):
        self.server.counters[str(refusal.status)] += 1
        self.answer(refusal.status, dumps(refusal.body).encode(), refusal.headers)

    def answer(self, status, body, headers=None):
        if self.transport.is_closing():
            return
        reason = "OK" if status < 300 else "Refused"
        head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        for name, value in (headers or {}).items():
            head += f"{name}: {value}\r\n"
        self.transport.write(head.encode() + b"\r\n" + body)
        self.busy = False
        if self.buffer:
            self.server.loop.call_soon(self.process)

    # Watches

    def watch(self, resource, version, namespace, query):
        watcher = Watcher(self.server.storage, resource, version, namespace, query, self.send)
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.server.counters["watches"] += 1
        if not watcher.begin():
            return self.end_watch()
        self.watcher = watcher
        self.server.watching.add(self)
        seconds = float(query.get("timeoutSeconds") or 1800)
        self.timers.append(self.server.loop.call_later(seconds, self.finish_watch))

    def send(self, chunk):
        """Watch events of one turn of the loop go out together."""
        self.pending.append(chunk)
        if not self.flushing and not self.server.faults.stalled:
            self.flushing = True
            self.server.loop.call_soon(self.flush)

    def flush(self):
        self.flushing = False
        if self.server.faults.stalled or not self.pending or self.transport.is_closing():
            return
        if self.server.cutting and self.watcher:
            chunk = self.pending[0]
            self.transport.write(chunk[:len(chunk) // 2])
            self.server.cutting.discard(self)
            self.transport.close()
            return
        self.server.counters["events"] += len(self.pending)
        self.transport.write(b"".join(self.pending))
        self.pending.clear()
        if self.transport.get_write_buffer_size() > MAXIMUM_BACKLOG:
            self.transport.abort()

    def finish_watch(self):
        if self.watcher.bookmarks:
            self.watcher.bookmark()
        self.end_watch()

    def end_watch(self):
        """The end of the body; the connection can be used again."""
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()
        if self.watcher:
            self.watcher.end()
            self.watcher = None
            self.server.watching.discard(self)
        if not self.transport.is_closing():
            self.flush()
            self.transport.write(b"0\r\n\r\n")
            self.busy = False

    def control(self, request):
        try:
            self.answer(200, dumps(self.server.control(json.loads(request.body or b"{}"))).encode())
        except Refusal as refusal:
            self.refuse(refusal)
        except Exception as problem:
            traceback.print_exc()
            self.answer(400, dumps({"message": f"{type(problem).__name__}: {problem}"}).encode())

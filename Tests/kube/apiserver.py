#!/usr/bin/env python3
"""A stand-in for the Kubernetes API server, for tests: `apiserver.py [--port N] [--tls FOLDER] [--token T=USER[,GROUP...]] ...`

Standard library only. Real semantics of what a client depends on: versions, lists in pages that are consistent, watches with bookmarks
and a window of history, optimistic locking, status subresources, generations, finalizers, server-side apply with field ownership, CRDs
with schemas (pruning, defaults, validation), discovery, bearer tokens and client certificates with RBAC. It prints one line of JSON
when it listens: `{"port", "control", "ca"?, "clientCertificate"?, "clientKey"?}`.

What it does not do: controllers of any kind (garbage collection, endpoints, kubelets), CEL beyond `self == oldSelf`, admission policies
(it stores them), OpenAPI and Table output, YAML bodies, conversion between versions of a kind (they are served alike), HTTP/2. The
events of the core group and of events.k8s.io are two kinds here.

`POST /_control` on the control port (never faulty) takes JSON with any of:
  {"down": true|false}        refuse connections, end those that there are
  {"delay": SECONDS}          before every answer
  {"fail": {"kind": "status"|"garbage"|"close"|"stall", "status": 429, "reason", "message", "retryAfter": SECONDS, "times": N,
            "method", "path": REGEX, "watch": true|false}}      appends a rule; null removes all
  {"drop": true}              end all watches            {"cut": true}     ... in the middle of an event
  {"stall": true|false}       watches fall silent but stay connected
  {"compact": true}           forget history: 410        {"bookmark": true} send one to everybody now
  {"load": [OBJECT...]}       store objects as they are, status included, with the namespaces that they need
  {"tokens": {TOKEN: {"user", "groups", "extra"} | null}}       from the first token on, RBAC is enforced
  {"listen": {"namespaces": [PATH...], "addresses": [A...]}}    also on loopback of network namespaces, or on other addresses; same port
  {"clear": true}             no more faults
and answers as `GET /_control`: version, counters, watches, and what each user has used.
"""

import argparse
import asyncio
import collections
import gc
import json
import os
import re
import signal
import sys
import time

import kinds
from access import Access, User
from connection import Connection
from faults import Faults, Rule
from listening import listening_socket, make_tls, socket_in_namespace
from objects import Objects
from refusal import Refusal
from storage import Storage, dumps

SUCCESS = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Server:
    def __init__(self, options):
        self.options = options
        self.storage = Storage(options.history)
        for kind in kinds.built_in():
            self.storage.add(kind)
        self.objects = Objects(self.storage, track_fields=not options.no_managed_fields, graceful_pods=options.graceful_pods)
        self.access = Access(self.storage)
        self.faults = Faults()
        self.connections, self.watching, self.cutting = set(), set(), set()
        self.counters = collections.Counter()
        self.listeners, self.down = [], False
        for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
            self.objects.load({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        for text in options.token:
            token, _, identity = text.partition("=")
            user, *groups = identity.split(",")
            self.access.tokens[token] = User(user, groups)
        for path in options.load:
            with open(path) as file:
                content = json.load(file)
            for obj in content if isinstance(content, list) else content.get("items", [content]):
                self.objects.load(obj)

    # Requests

    def route(self, connection, request):
        parts = [part for part in request.path.split("/") if part]
        if not parts or parts[0] not in ("api", "apis"):
            return connection.answer(*self.about(request.path))
        if parts[0] == "api":
            if len(parts) == 1:
                return self.reply(connection, {"kind": "APIVersions", "versions": ["v1"]})
            group, version, rest = "", parts[1], parts[2:]
        else:
            if len(parts) == 1:
                groups = sorted({resource.group for resource in self.storage.resources.values() if resource.group})
                return self.reply(connection, {"kind": "APIGroupList", "apiVersion": "v1", "groups": [self.group(name) for name in groups]})
            group = parts[1]
            if len(parts) == 2:
                return self.reply(connection, {"kind": "APIGroup", "apiVersion": "v1", **self.group(group)})
            version, rest = parts[2], parts[3:]
        if not rest:
            return self.reply(connection, self.resources(group, version))
        namespace = None
        if rest[0] == "namespaces" and len(rest) >= 3 and not (group == "" and len(rest) == 3 and rest[2] in ("status", "finalize")):
            namespace, rest = rest[1], rest[2:]
        plural, name, subresource = (rest + [None, None])[:3]
        resource = self.storage.resource(group, plural)
        if resource is None or version not in resource.versions or len(rest) > 3:
            raise missing()
        if namespace is not None and not resource.namespaced:
            raise missing()
        if namespace is None and resource.namespaced and (name or request.method == "POST"):
            raise missing()
        self.serve(connection, request, resource, version, namespace, name, subresource)

    def serve(self, connection, request, resource, version, namespace, name, subresource):
        verb = VERBS.get(request.method)
        if verb is None:
            raise Refusal(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        if verb == "get" and not name:
            verb = "watch" if request.is_watch else "list"
        elif verb == "delete" and not name:
            verb = "deletecollection"
        selected = name
        if name is None:
            # A list or watch of one name counts as one object for RBAC.
            for part in request.query.get("fieldSelector", "").split(","):
                if part.startswith("metadata.name="):
                    selected = part.partition("=")[2].lstrip("=")
        self.access.check(request.user, verb, resource, subresource, namespace, selected)
        if subresource == "token" and resource.plural == "serviceaccounts" and verb == "create":
            return self.issue_token(connection, namespace, name)
        if subresource and not (subresource == "status" and resource.status) or subresource and verb not in ("get", "update", "patch"):
            raise missing()
        objects = self.objects
        if verb == "get":
            return self.reply_entry(connection, resource, version, objects.existing(resource, namespace, name))
        if verb == "list":
            self.counters["lists"] += 1
            return connection.answer(200, self.storage.page(resource, version, namespace, request.query))
        if verb == "watch":
            return connection.watch(resource, version, namespace, request.query)
        if verb == "create":
            if name:
                raise Refusal(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
            return self.reply_entry(connection, resource, version, objects.create(resource, version, namespace, request.body, request), 201)
        if verb == "update":
            entry = objects.replace(resource, version, namespace, name, subresource, request.body, request)
            return self.reply_entry(connection, resource, version, entry)
        if verb == "patch":
            content_type = request.headers.get("content-type", "").split(";")[0].strip()
            result, created = objects.patch(resource, version, namespace, name, subresource, content_type, request.body, request), False
            if isinstance(result, tuple):
                result, created = result
            return self.reply_entry(connection, resource, version, result, 201 if created else 200)
        options = json.loads(request.body) if request.body else {}
        if verb == "deletecollection":
            selection = {name: value for name, value in request.query.items() if name.endswith("Selector")}
            for item in json.loads(self.storage.page(resource, version, namespace, selection))["items"]:
                objects.delete(resource, item["metadata"].get("namespace"), item["metadata"]["name"], options, request)
            return self.reply(connection, SUCCESS)
        left = objects.delete(resource, namespace, name, options, request)
        if left is not None:
            return self.reply_entry(connection, resource, version, left)
        self.reply(connection, SUCCESS | {"details": {"name": name, "group": resource.group, "kind": resource.plural}})

    def reply(self, connection, body, status=200):
        connection.answer(status, dumps(body).encode())

    def reply_entry(self, connection, resource, version, entry, status=200):
        connection.answer(status, resource.prefix(version) + entry.raw)

    def issue_token(self, connection, namespace, name):
        token = "sa-" + os.urandom(16).hex()
        if self.access.tokens:
            self.access.tokens[token] = User(f"system:serviceaccount:{namespace}:{name}")
        expiry = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        answer = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": {}}
        self.reply(connection, answer | {"status": {"token": token, "expirationTimestamp": expiry}}, 201)

    # Discovery

    def about(self, path):
        if path in ("/healthz", "/livez", "/readyz"):
            return 200, b"ok"
        if path == "/version":
            return 200, dumps({"major": "1", "minor": "32", "gitVersion": "v1.32.0-stand-in", "platform": "linux/amd64"}).encode()
        raise missing()

    def group(self, name):
        versions = []
        for resource in self.storage.resources.values():
            if resource.group == name:
                versions += [version for version in resource.versions if version not in versions]
        if not versions:
            raise missing()
        versions.sort(key=preference, reverse=True)
        described = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
        return {"name": name, "versions": described, "preferredVersion": described[0]}

    def resources(self, group, version):
        found = []
        for resource in self.storage.resources.values():
            if resource.group != group or version not in resource.versions:
                continue
            common = {"namespaced": resource.namespaced, "kind": resource.kind}
            verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
            names = {"name": resource.plural, "singularName": resource.singular, "shortNames": resource.short}
            found.append({**names, **common, "verbs": verbs})
            if resource.status:
                found.append({"name": resource.plural + "/status", "singularName": "", **common, "verbs": ["get", "patch", "update"]})
        if not found:
            raise missing()
        group_version = f"{group}/{version}" if group else version
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": found}

    # Control

    def control(self, given):
        for key, value in given.items():
            getattr(self, "control_" + key)(value)
        return {
            "version": str(self.storage.version), "counters": dict(self.counters), "watches": len(self.watching),
            "connections": len(self.connections), "down": self.down,
            "used": {user: sorted(used) for user, used in self.access.used.items()},
        }

    def control_down(self, value):
        if value == self.down:
            return
        self.down = value
        if value:
            for listener in self.listeners:
                listener.close()
            self.listeners.clear()
            for connection in list(self.connections):
                connection.transport.abort()
        else:
            for place in self.places:
                self.open(place)

    def control_delay(self, value):
        self.faults.delay = float(value)

    def control_fail(self, value):
        if value is None:
            self.faults.rules.clear()
        else:
            self.faults.rules.append(Rule(value))

    def control_drop(self, _):
        for connection in list(self.watching):
            connection.transport.abort()

    def control_cut(self, _):
        self.cutting = set(self.watching)

    def control_stall(self, value):
        self.faults.stalled = bool(value)
        if not value:
            for connection in list(self.watching):
                connection.flush()

    def control_compact(self, _):
        self.storage.compact()

    def control_bookmark(self, _):
        for connection in list(self.watching):
            if connection.watcher and connection.watcher.bookmarks:
                connection.watcher.bookmark()

    def control_load(self, objects):
        for obj in objects:
            self.objects.load(obj)

    def control_tokens(self, tokens):
        for token, user in tokens.items():
            if user is None:
                self.access.tokens.pop(token, None)
            else:
                self.access.tokens[token] = User(user["user"], user.get("groups", ()), user.get("extra"))

    def control_listen(self, where):
        places = [(path, "127.0.0.1") for path in where.get("namespaces", ())]
        places += [(None, address) for address in where.get("addresses", ())]
        for place in places:
            self.places.append(place)
            self.open(place)

    def control_clear(self, _):
        self.faults.clear()
        self.cutting = set()
        if self.down:
            self.control_down(False)

    # Sockets

    def open(self, place):
        """Listens at an address in a network namespace (None: ours). The socket accepts from now on; answers come soon."""
        namespace, address = place
        sock = socket_in_namespace(namespace, address, self.port) if namespace else listening_socket(address, self.port)
        self.port = sock.getsockname()[1]
        sock.listen(1024)
        self.loop.create_task(self.accept(sock))

    async def accept(self, sock):
        listener = await self.loop.create_server(lambda: Connection(self, False), sock=sock, ssl=self.tls, backlog=1024)
        if self.down:
            listener.close()
        else:
            self.listeners.append(listener)

    async def run(self):
        self.loop = asyncio.get_running_loop()
        description = {}
        self.tls = None
        if self.options.tls:
            self.tls, files = make_tls(self.options.tls)
            description |= files
        self.port, self.places = self.options.port, [(None, "127.0.0.1")]
        self.open(self.places[0])
        control = await self.loop.create_server(lambda: Connection(self, True), "127.0.0.1", 0)
        description |= {"port": self.port, "control": control.sockets[0].getsockname()[1]}
        print(dumps(description), flush=True)
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            self.loop.add_signal_handler(number, stop.set)
        bookmarks = self.loop.create_task(self.send_bookmarks())
        await stop.wait()
        bookmarks.cancel()

    async def send_bookmarks(self):
        while True:
            await asyncio.sleep(self.options.bookmark_interval)
            self.control_bookmark(True)


def missing():
    return Refusal(404, "NotFound", "the server could not find the requested resource", {})


def preference(version):
    """v2 before v1 before v1beta1 before v1alpha1."""
    found = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if not found:
        return (-1, 0, 0)
    return ({None: 2, "beta": 1, "alpha": 0}[found[2]], int(found[1]), int(found[3] or 0))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0 for a free one")
    parser.add_argument("--tls", metavar="FOLDER", help="serve TLS; certificates are made in this folder")
    parser.add_argument("--token", action="append", default=[], metavar="TOKEN=USER[,GROUP...]", help="from the first on, RBAC is enforced")
    parser.add_argument("--load", action="append", default=[], metavar="FILE", help="JSON: an object, a list of objects, or a List")
    parser.add_argument("--history", type=int, default=20000, help="changes of each kind that watches can resume over")
    parser.add_argument("--bookmark-interval", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--no-managed-fields", action="store_true", help="less work: no field ownership but that of server-side apply")
    parser.add_argument("--graceful-pods", action="store_true",
                        help="deleted pods on nodes stay until they are deleted with grace period 0")
    options = parser.parse_args()
    # Objects live long: looking through them for garbage all the time costs more than it frees.
    gc.set_threshold(100_000, 50, 50)
    asyncio.run(Server(options).run())


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A real kube-apiserver in the place of the stand-in: `server.py --bin FOLDER [--folder FOLDER]`

Starts etcd, kube-apiserver and kube-controller-manager of FOLDER on loopback, with TLS, RBAC, and tokens of service accounts; applies
deploy/crds and the RBAC of deploy/kustomize/base with kubectl. If FOLDER has apiextensions-apiserver, that one, of a recent Kubernetes,
serves CustomResourceDefinitions and custom resources behind the older server, which passes such requests on (API aggregation).

Prints one line of JSON when everything is there, as apiserver.py does:
  port         plain HTTP on loopback, for the tests themselves: requests are passed on with an administrator's certificate
  control      takes {"listen": {"namespaces": [PATH...]}} and {"down": true|false}, as apiserver.py
  kubeconfigs  files for operator and keymgr, each with the token of its service account
  admin        a kubeconfig file for kubectl
  versions     what runs
Everything ends with SIGTERM.
"""

import argparse
import asyncio
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from listening import listening_socket, make_tls, socket_in_namespace  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[3]
NAMESPACE = "xdp-encryptor"
# No nodes run here: nothing may evict the pods of nodes that say nothing.
CONTROLLERS = "namespace,garbagecollector,serviceaccount,serviceaccount-token,clusterrole-aggregation,root-ca-cert-publisher"


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Cluster:
    def __init__(self, binaries, folder):
        self.binaries, self.folder, self.processes = pathlib.Path(binaries).resolve(), pathlib.Path(folder).resolve(), []

    def start(self, name, *arguments):
        log = open(self.folder / f"{name}.log", "w")
        path = self.binaries / name
        command = [path if path.exists() else name, *arguments]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, preexec_fn=end_with_parent)
        self.processes.append((name, process))

    def stop(self):
        for _, process in reversed(self.processes):
            process.terminate()
        for _, process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def check(self):
        for name, process in self.processes:
            if process.poll() is not None:
                raise SystemExit(f"server.py: {name} ended: {(self.folder / f'{name}.log').read_text()[-3000:]}")

    def until(self, what, condition, seconds=90):
        deadline = time.monotonic() + seconds
        problem = ""
        while time.monotonic() < deadline:
            self.check()
            try:
                if condition():
                    return
            except (OSError, KeyError, subprocess.CalledProcessError) as error:
                problem = getattr(error, "stderr", None) or error
            time.sleep(0.1)
        raise SystemExit(f"server.py: waited in vain for {what}: {problem}")

    # Certificates and files

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def certificates(self):
        make_tls(str(self.folder))
        self.openssl("genrsa", "-out", "accounts.key", "2048")
        # Who passes requests on to another API server says so with a certificate of its own authority.
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        self.openssl("req", "-x509", *key, "-days", "2", "-subj", "/CN=front CA", "-keyout", "front-ca.key", "-out", "front-ca.crt",
                     "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
        self.openssl("req", *key, "-subj", "/CN=front-proxy-client", "-keyout", "front.key", "-out", "front.csr")
        (self.folder / "front.ext").write_text("extendedKeyUsage=clientAuth\n")
        self.openssl("x509", "-req", "-in", "front.csr", "-CA", "front-ca.crt", "-CAkey", "front-ca.key", "-CAcreateserial", "-days", "2",
                     "-extfile", "front.ext", "-out", "front.crt")

    def kubeconfig(self, name, port, user):
        path = self.folder / f"{name}.kubeconfig"
        path.write_text(f"""apiVersion: v1
kind: Config
clusters: [{{name: real, cluster: {{server: "https://127.0.0.1:{port}", certificate-authority: {self.folder}/ca.crt}}}}]
users: [{{name: {name}, user: {user}}}]
contexts: [{{name: real, context: {{cluster: real, user: {name}, namespace: {NAMESPACE}}}}}]
current-context: real
""")
        return str(path)

    def kubectl(self, *arguments):
        command = ["kubectl", "--kubeconfig", self.folder / "admin.kubeconfig", "--cache-dir", self.folder / "cache", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise SystemExit(f"server.py: kubectl {' '.join(map(str, arguments))}: {done.stdout}{done.stderr}")

    def ask(self, method, path, body=None, kind="application/json", server=None):
        context = ssl.create_default_context(cafile=self.folder / "ca.crt")
        if server:
            # It has made its certificate itself.
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(self.folder / "client.crt", self.folder / "client.key")
        request = urllib.request.Request(f"{server or f'https://127.0.0.1:{self.port}'}{path}", method=method, headers={"Content-Type": kind})
        request.data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        with opener.open(request, timeout=30) as answer:
            content, self.warnings = answer.read(), answer.headers.get_all("Warning")
        return json.loads(content) if content.startswith(b"{") else content.decode()

    # Servers

    def run(self, relay):
        self.certificates()
        etcd, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self.port = free_port()
        self.start("etcd", "--data-dir", self.folder / "etcd", "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
                   "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}")
        at = self.folder
        self.start(
            "kube-apiserver", f"--etcd-servers={etcd}", "--bind-address=127.0.0.1", f"--secure-port={self.port}",
            # Where the service `kubernetes` would lead; nobody goes there.
            "--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16",
            f"--tls-cert-file={at}/server.crt", f"--tls-private-key-file={at}/server.key", f"--client-ca-file={at}/ca.crt",
            "--authorization-mode=RBAC", "--anonymous-auth=false", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={at}/accounts.key", f"--service-account-key-file={at}/accounts.key",
            # Pods here are objects only: nothing mounts a token.
            "--disable-admission-plugins=ServiceAccount",
            f"--requestheader-client-ca-file={at}/front-ca.crt", "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={at}/front.crt", f"--proxy-client-key-file={at}/front.key")
        self.kubeconfig("admin", self.port, f"{{client-certificate: {at}/client.crt, client-key: {at}/client.key}}")
        self.until("kube-apiserver", lambda: self.ask("GET", "/readyz") == "ok")
        self.start("kube-controller-manager", f"--kubeconfig={at}/admin.kubeconfig", "--leader-elect=false", f"--controllers={CONTROLLERS}",
                   f"--service-account-private-key-file={at}/accounts.key", f"--root-ca-file={at}/ca.crt", "--port=0",
                   f"--secure-port={free_port()}", "--bind-address=127.0.0.1", "--use-service-account-credentials=false")
        known = self.binaries / "kube-apiserver.version"
        version = known.read_text().strip() if known.exists() else self.ask("GET", "/version")["gitVersion"]
        versions = {"kube-apiserver": version, "etcd": self.text("etcd", "--version").split()[2]}
        if (self.binaries / "apiextensions-apiserver").exists():
            versions["apiextensions-apiserver"] = self.extend(etcd)
        versions["kubectl"] = json.loads(self.text("kubectl", "version", "--client", "-o", "json"))["clientVersion"]["gitVersion"]
        self.install("apiextensions-apiserver" in versions)
        configurations = {name: self.account(name, relay) for name in ("operator", "keymgr")}
        return {"kubeconfigs": configurations, "admin": f"{at}/admin.kubeconfig", "versions": versions, "folder": str(at)}

    def text(self, name, *arguments):
        path = self.binaries / name
        return subprocess.run([path if path.exists() else name, *arguments], capture_output=True, text=True).stdout

    def extend(self, etcd):
        """A newer server for CRDs and custom resources, behind kube-apiserver."""
        port, admin = free_port(), self.folder / "admin.kubeconfig"
        self.start(
            "apiextensions-apiserver", f"--etcd-servers={etcd}", "--etcd-prefix=/registry/extensions", "--bind-address=127.0.0.1",
            f"--secure-port={port}", f"--cert-dir={self.folder}/extensions", f"--kubeconfig={admin}", f"--authentication-kubeconfig={admin}",
            f"--authorization-kubeconfig={admin}",
            # Kinds that the older server does not have; deploy's policies are evaluated by check.
            "--enable-priority-and-fairness=false",
            "--disable-admission-plugins=MutatingAdmissionPolicy,ValidatingAdmissionPolicy,MutatingAdmissionWebhook,ValidatingAdmissionWebhook")
        where = f"https://127.0.0.1:{port}"
        self.until("apiextensions-apiserver", lambda: self.ask("GET", "/readyz", server=where) == "ok")
        # The kinds first: an API that is not there yet when it is asked for the first time counts as gone for half a minute.
        for path in sorted((ROOT / "deploy/crds").glob("encr*.yaml")):
            self.take(path, where)
        for kind, plural in (("VirtualService", "virtualservices"), ("ServiceEntry", "serviceentries"), ("DestinationRule", "destinationrules")):
            schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
            self.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", {
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": f"{plural}.networking.istio.io"},
                "spec": {"group": "networking.istio.io", "scope": "Namespaced", "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
                         "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}]}}, server=where)
        groups = (("apiextensions.k8s.io", "v1"), ("encryption.ebpf.xdp", "v1alpha1"), ("networking.istio.io", "v1"))
        for group, version in groups:
            self.until(group, lambda: self.ask("GET", f"/apis/{group}/{version}", server=where)["resources"])
        self.ask("POST", "/api/v1/namespaces/kube-system/services", {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "extensions"},
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}})
        for group, version in groups:
            name = f"{version}.{group}"
            spec = {"group": group, "version": version, "groupPriorityMinimum": 16700, "versionPriority": 15, "insecureSkipTLSVerify": True,
                    "service": {"namespace": "kube-system", "name": "extensions", "port": port}}
            path = "/apis/apiregistration.k8s.io/v1/apiservices"
            body = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name}, "spec": spec}
            try:
                present = self.ask("GET", f"{path}/{name}")
                body["metadata"] = present["metadata"] | {"labels": {}}
                self.ask("PUT", f"{path}/{name}", body)
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    raise
                self.ask("POST", path, body)
            self.until(name, lambda: self.ask("GET", f"/apis/{group}/{version}")["resources"])
        # It has kept the older server's own answers for a moment.
        kinds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        self.until("the way to apiextensions-apiserver", lambda: len(self.ask("GET", kinds)["items"]) >= 7)
        return (self.binaries / "apiextensions-apiserver.version").read_text().strip()

    # What deploy/ has

    def install(self, is_new):
        crds, base = ROOT / "deploy/crds", ROOT / "deploy/kustomize/base"
        kinds = [f"customresourcedefinition/{path.stem}.encryption.ebpf.xdp" for path in sorted(crds.glob("encr*.yaml"))]
        # Without validation by kubectl: it has the older server's description, which lacks x-kubernetes-validations.
        self.kubectl("apply", "--validate=false", "-k", crds)
        if is_new:
            self.kubectl("apply", "--server-side", "--force-conflicts", "--validate=false", "-k", crds)
        self.kubectl("wait", "--for=condition=Established", "--timeout=60s", *kinds)
        for name in ("namespace", "serviceaccounts", "rbac-operator", "rbac-keymgr", "rbac-people"):
            self.kubectl("apply", "--server-side", "-f", base / f"{name}.yaml")

    def take(self, path, server):
        """Server-side apply of a CRD, with every odd field an error, and without a warning."""
        where = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{path.stem}.encryption.ebpf.xdp"
        options = "?fieldManager=strict&force=true&fieldValidation=Strict"
        try:
            self.ask("PATCH", where + options, path.read_bytes(), "application/apply-patch+yaml", server)
        except urllib.error.HTTPError as error:
            raise SystemExit(f"server.py: {path}: {error.read().decode()}")
        if self.warnings:
            raise SystemExit(f"server.py: {path}: {self.warnings}")

    def account(self, name, port):
        """A kubeconfig with a token of a service account, as a pod has it: bound to an audience and a time."""
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/ebpf-xdp-{name}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
        token = self.folder / f"{name}.token"
        token.touch(0o600)
        token.write_text(self.ask("POST", path, request)["status"]["token"])
        return self.kubeconfig(name, port, f"{{tokenFile: {token}}}")


def end_with_parent():
    """The servers end when this program ends, however it ends."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Front:
    """Ways to the server: one with an administrator's certificate, and one that only passes bytes on, also from network namespaces."""

    def __init__(self, cluster):
        self.cluster, self.listeners, self.connections, self.places, self.down = cluster, [], set(), [(None, "127.0.0.1")], False

    async def pass_on(self, reader, writer, context=None):
        try:
            far = await asyncio.open_connection("127.0.0.1", self.cluster.port, ssl=context)
        except OSError:
            writer.transport.abort()
            return
        if context is None:
            self.connections.add(writer)
        try:
            await asyncio.gather(copy(reader, far[1]), copy(far[0], writer))
        finally:
            self.connections.discard(writer)
            far[1].transport.abort()
            writer.transport.abort()

    async def as_administrator(self, reader, writer):
        folder = self.cluster.folder
        context = ssl.create_default_context(cafile=folder / "ca.crt")
        context.load_cert_chain(folder / "client.crt", folder / "client.key")
        await self.pass_on(reader, writer, context)

    async def listen(self, namespace, address):
        sock = socket_in_namespace(namespace, address, self.port) if namespace else listening_socket(address, self.port)
        sock.listen(1024)
        self.listeners.append(await asyncio.start_server(self.pass_on, sock=sock))

    async def control(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = next((int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
            given = json.loads(await reader.readexactly(length) or b"{}")
            for path in given.get("listen", {}).get("namespaces", []):
                self.places.append((path, "127.0.0.1"))
                await self.listen(path, "127.0.0.1")
            if "down" in given and given["down"] != self.down:
                self.down = given["down"]
                if self.down:
                    for listener in self.listeners:
                        listener.close()
                    self.listeners.clear()
                    for connection in list(self.connections):
                        connection.transport.abort()
                else:
                    for place in self.places:
                        await self.listen(*place)
            body = json.dumps({"down": self.down}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
        finally:
            writer.close()


async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof() if writer.can_write_eof() else writer.close()
    except (OSError, RuntimeError):
        writer.transport.abort()


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, help="kube-apiserver, kube-controller-manager, perhaps etcd and apiextensions-apiserver")
    parser.add_argument("--folder", help="for certificates, tokens and logs; removed at the end unless it is given")
    options = parser.parse_args()
    folder = options.folder or tempfile.mkdtemp(prefix="xdp-encryptor-real-")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    cluster = Cluster(options.bin, folder)
    try:
        front = Front(cluster)
        front.port = free_port()
        starting = loop.run_in_executor(None, cluster.run, front.port)
        stopping = loop.create_task(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return
        description = starting.result()
        await front.listen(None, "127.0.0.1")
        plain = await asyncio.start_server(front.as_administrator, "127.0.0.1", 0)
        control = await asyncio.start_server(front.control, "127.0.0.1", 0)
        description |= {"port": plain.sockets[0].getsockname()[1], "control": control.sockets[0].getsockname()[1]}
        print(json.dumps(description), flush=True)
        await stop.wait()
    finally:
        cluster.stop()
        if not options.folder:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(main())

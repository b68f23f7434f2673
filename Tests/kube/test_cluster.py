"""The images on a cluster: an API server (the stand-in) with the CRDs and RBAC of the rendered manifests, operator and keymgr in containers as
the manifests describe them, each with the token of its service account. A policy appears, a pod is protected; it goes, protection ends.

Needs what test_images.py needs.
"""

import base64
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from deployment import ROOT, kustomize, pod_spec
from test_images import KEYMGR, OPERATOR, Container, images, keymgr, node, run, store  # noqa: F401

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")

NAMESPACE = "xdp-encryptor"
GROUP = "/apis/encryption.ebpf.xdp/v1alpha1"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
ACCOUNTS = {KEYMGR: "ebpf-xdp-keymgr", OPERATOR: "ebpf-xdp-operator"}


class Server:
    """The stand-in, seen with an administrator's eyes."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "Tests/kube/apiserver.py", "--tls", folder], stdout=subprocess.PIPE, stderr=open(folder / "apiserver.log", "w"), text=True
        )
        self.description = json.loads(self.process.stdout.readline())
        self.context = ssl.create_default_context(cafile=self.description["ca"])
        self.control(tokens={"admin": {"user": "admin", "groups": ["system:masters"]}})

    def control(self, **what) -> dict:
        request = urllib.request.Request(f"http://127.0.0.1:{self.description['control']}/_control", json.dumps(what).encode(), method="POST")
        return json.load(urllib.request.urlopen(request, timeout=10))

    def ask(self, method: str, path: str, body=None) -> dict:
        request = urllib.request.Request(f"https://127.0.0.1:{self.description['port']}{path}", method=method)
        request.add_header("Authorization", "Bearer admin")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=10, context=self.context) as answer:
            return json.load(answer)

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


def claims(name: str, namespace: str) -> str:
    """A token of a service account, as far as anybody looks into it."""
    part = base64.urlsafe_b64encode(json.dumps({"sub": f"system:serviceaccount:{namespace}:{name}"}).encode()).decode().rstrip("=")
    return f"e30.{part}.{name}"


def until(what: str, condition, seconds=60, otherwise=lambda: ""):
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (KeyError, IndexError, TypeError, urllib.error.HTTPError):
            pass
        assert time.monotonic() < deadline, f"{what}: {otherwise()}"
        time.sleep(0.2)


def granted(objects, role: str) -> set[str]:
    rules = [rule for item in objects if item["kind"] in ("ClusterRole", "Role") and item["metadata"]["name"] == role for rule in item["rules"]]
    return {
        f"{verb} {resource}" + (f".{group}" if group else "")
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_manifests_and_images_protect_a_pod(images, node, tmp_path):  # noqa: F811
    name, pod, folder, pins = node
    objects = [json.loads(json.dumps(item, default=str)) for item in kustomize("kustomize/overlays/local")]
    server = Server(tmp_path)
    (folder / "run").mkdir()
    kek = folder / "kek"
    kek.write_text("ab" * 32 + "\n")
    kek.chmod(0o400)
    configurations = {file: json.loads(text) for item in objects if item["kind"] == "ConfigMap" for file, text in item["data"].items()}
    # The test's own pins, so that it does not meet others.
    configurations["keymgr.json"]["pinPath"] = str(pins)
    configurations["operator.json"]["strictCIDRs"] = ["10.99.0.0/16"]
    for file, configuration in configurations.items():
        (folder / file).write_text(json.dumps(configuration))

    try:
        server.control(listen={"namespaces": [f"/run/netns/{name}"]})
        for crd in [item for item in objects if item["kind"] == "CustomResourceDefinition"]:
            server.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
        rbac = [item for item in objects if item["apiVersion"].startswith("rbac.")]
        labels = {"app": "web"}
        made = "2026-05-04T12:00:00Z"
        server.control(
            load=[
                *rbac,
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
                {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a", "labels": {"kubernetes.io/os": "linux"}}, "status": {"addresses": []}},
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": "web", "namespace": "shop", "uid": "5d0d8a2e-6b0f-4c5e-9d2b-0f6f0f3c9a01", "labels": labels, "creationTimestamp": made},
                    "spec": {"nodeName": "node-a", "containers": [{"name": "c", "image": "i"}]},
                    "status": {"phase": "Running", "podIP": "10.99.0.7", "podIPs": [{"ip": "10.99.0.7"}]},
                },
            ]
        )
        tokens = {}
        for account in ACCOUNTS.values():
            user = {"user": f"system:serviceaccount:{NAMESPACE}:{account}", "groups": [f"system:serviceaccounts:{NAMESPACE}"]}
            user["extra"] = {"authentication.kubernetes.io/node-name": ["node-a"]}
            tokens[claims(account, NAMESPACE)] = user
            secrets = folder / account
            secrets.mkdir()
            (secrets / "token").write_text(claims(account, NAMESPACE))
            (secrets / "namespace").write_text(NAMESPACE)
            (secrets / "ca.crt").write_text(Path(server.description["ca"]).read_text())
        server.control(tokens=tokens)

        reachable = [f"KUBERNETES_SERVICE_HOST=127.0.0.1", f"KUBERNETES_SERVICE_PORT={server.description['port']}"]
        daemon = pod_spec(objects, "DaemonSet")["containers"][0]
        first = keymgr(images, node, daemon["command"], daemon["securityContext"]["capabilities"]["add"], cluster=None, token=folder / ACCOUNTS[KEYMGR])
        first.spec["process"]["env"] += [*reachable, "NODE_NAME=node-a", f"POD_NAMESPACE={NAMESPACE}", "KMS_PROVIDER=local"]
        deployment = pod_spec(objects, "Deployment")
        decider = Container(
            images[OPERATOR][0],
            deployment["containers"][0]["command"],
            deployment["securityContext"]["runAsUser"],
            [],
            {
                TOKEN: (folder / ACCOUNTS[OPERATOR], "ro"),
                "/etc/xdp-encryptor/operator.json": (folder / "operator.json", "ro"),
                "/etc/xdp-encryptor/kek": (kek, "ro"),
            },
            [*reachable, "POD_NAME=ebpf-xdp-operator-0", f"POD_NAMESPACE={NAMESPACE}", "KMS_PROVIDER=local"],
            host_network=True,
        )
        for target in TOKEN, "/etc/xdp-encryptor/operator.json", "/etc/xdp-encryptor/kek":
            place = images[OPERATOR][0] / target.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.mkdir(exist_ok=True) if target == TOKEN else place.touch()

        def encryption_node() -> dict:
            return server.ask("GET", f"{GROUP}/encryptionnodes/node-a")

        def policy() -> dict:
            return server.ask("GET", f"{GROUP}/encryptionpolicies/first")

        def conditions(item: dict) -> dict[str, str]:
            return {condition["type"]: condition["status"] for condition in item["status"]["conditions"]}

        with decider.started(name), first.started(name):

            def logs() -> str:
                return f"operator:\n{decider.log}\nkeymgr:\n{first.log}"

            until("the node is ready", lambda: conditions(encryption_node())["Ready"] == "True", otherwise=logs)
            until("the first epoch is active", lambda: server.ask("GET", f"{GROUP}/encryptionepochs/epoch-1")["status"]["phase"] == "active", otherwise=logs)
            spec = {"podSelector": {"matchLabels": labels}, "mode": "strict"}
            server.ask("POST", f"{GROUP}/encryptionpolicies", {"apiVersion": "encryption.ebpf.xdp/v1alpha1", "kind": "EncryptionPolicy", "metadata": {"name": "first"}, "spec": spec})
            until("the pod is attached", lambda: encryption_node()["status"]["endpoints"][0]["state"] == "ready", otherwise=logs)
            until("the policy counts it", lambda: policy()["status"]["protectedPods"] == 1 and conditions(policy())["Accepted"] == "True", otherwise=logs)
            annotations = server.ask("GET", "/api/v1/namespaces/shop/pods/web")["metadata"]["annotations"]
            assert annotations["ebpf.xdp/encrypt"] == "true" and annotations["ebpf.xdp/policy"] == "strict;EncryptionPolicy/first"
            assert encryption_node()["status"]["endpointCount"] == 1
            (entry,) = server.ask("GET", f"{GROUP}/encryptedendpointslices")["items"]
            assert entry["spec"]["nodeCount"] == 1 and entry["spec"]["addressCount"] == 1
            assert "10.99.0.0/16" in server.ask("GET", f"/api/v1/namespaces/{NAMESPACE}/configmaps/xdp-encryptor-cluster")["data"]["cluster.json"]
            assert "xdp" in run("ip", "-n", pod, "link", "show", "eth0").stdout
            # Probes, as the kubelet asks, and metrics.
            for container in daemon, deployment["containers"][0]:
                port = container["ports"][0]["containerPort"]
                paths = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe") if probe in container}
                for path in [*paths, "/metrics"]:
                    ask = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{port}{path}', timeout=5).status)"
                    answer = run("nsenter", f"--net=/run/netns/{name}", sys.executable, "-c", ask)
                    assert answer.stdout.strip() == "200", f"{container['name']} {path}: {answer.stderr}"
            assert first.execute("/usr/bin/xdp-encryptor", "status", "--pin-path", pins).returncode == 0

            server.ask("DELETE", f"{GROUP}/encryptionpolicies/first")
            until("protection has ended", lambda: encryption_node()["status"]["endpoints"] == [], otherwise=logs)
            until(
                "the annotations are gone",
                lambda: not any(key.startswith("ebpf.xdp/") for key in server.ask("GET", "/api/v1/namespaces/shop/pods/web")["metadata"].get("annotations", {})),
                otherwise=logs,
            )
            assert "xdp" not in run("ip", "-n", pod, "link", "show", "eth0").stdout

            used = server.control()["used"]
            print()
            for account in ACCOUNTS.values():
                asked, may = set(used[f"system:serviceaccount:{NAMESPACE}:{account}"]), granted(objects, account)
                print(f"RBAC {account}: {len(asked & may)} rights used of {len(may)}; not used here: {', '.join(sorted(may - asked)) or 'none'}")
                assert asked <= may, f"{account} asks for what it may not: {sorted(asked - may)}"
    finally:
        keymgr(images, node, ["/usr/bin/ebpf-xdp-keymgr", "detach", "--config", "/etc/xdp-encryptor/keymgr.json"], ["BPF", "NET_ADMIN", "PERFMON", "SYS_ADMIN"], cluster=None).wait(name)
        server.stop()
    assert not pins.exists()

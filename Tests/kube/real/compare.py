#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Asks the stand-in and a real API server the same, and says where the answers differ: `compare.py --bin FOLDER`

What counts is what a client decides by: the status, its reason, causes, and parts of the object. Exit status 1 for differences.

Known, and not asked: the stand-in evaluates no rules in CEL but `self == oldSelf` and none of admission policies, makes no tables, and keeps
events of the core group and of events.k8s.io apart.
"""

import argparse
import contextlib
import json
import pathlib
import subprocess
import sys
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
OURS = "/apis/encryption.ebpf.xdp/v1alpha1"
EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
PODS = "/api/v1/namespaces/default/pods"
MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"


class Server:
    def __init__(self, *command):
        self.process = subprocess.Popen([sys.executable, "-B", *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"compare.py: {command[0]} did not start")
        self.url = f"http://127.0.0.1:{json.loads(line)['port']}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def ask(self, method, path, body=None, kind="application/json"):
        """Status, and the body; of a watch, its first line."""
        request = urllib.request.Request(self.url + path, method=method, headers={"Content-Type": kind})
        request.data = None if body is None else json.dumps(body).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as answer:
                return answer.status, json.loads(answer.readline() or b"{}")
        except urllib.error.HTTPError as error:
            content = error.read()
            return error.code, json.loads(content) if content.startswith(b"{") else {}


def policy(name, **spec):
    return {"apiVersion": "encryption.ebpf.xdp/v1alpha1", "kind": "EncryptionPolicy", "metadata": {"name": name}, "spec": spec}


def node(name, **spec):
    return {"apiVersion": "encryption.ebpf.xdp/v1alpha1", "kind": "EncryptionNode", "metadata": {"name": name}, "spec": spec}


def event(name, **more):
    return {"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": name, "namespace": "default"}, "type": "Normal",
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "encryption.ebpf.xdp/operator", "reportingInstance": "i",
            "action": "A", "reason": "R", "note": "n", "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}} | more


def pod(name, **more):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"} | more,
            "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}}


def questions(ask):
    """Yields what is asked, and what of the answer counts. `ask` asks the server."""
    def of(answer, *paths):
        status, body = answer
        found = {"status": status}
        if body.get("kind") == "Status":
            found["reason"] = body.get("reason") or None
            fields = {cause.get("field") for cause in body.get("details", {}).get("causes", [])}
            # "<nil>": rules were not evaluated because the object is wrong anyway.
            found["fields"] = sorted(fields - {None, "<nil>"})
        for path in paths:
            at = body
            for step in path.split("."):
                at = at.get(step) if isinstance(at, dict) else None
            found[path] = at
        return found

    made = ask("POST", f"{OURS}/encryptionpolicies", policy("p"))
    yield "defaults of a new object", of(made, "spec", "metadata.generation", "status")
    version, uid = made[1]["metadata"]["resourceVersion"], made[1]["metadata"]["uid"]
    yield "the name is taken", of(ask("POST", f"{OURS}/encryptionpolicies", policy("p")))
    yield "a value that is not allowed", of(ask("POST", f"{OURS}/encryptionpolicies", policy("q", mode="x")))
    yield "a field that is not known", of(ask("POST", f"{OURS}/encryptionpolicies", policy("r", x=1)), "spec")
    yield "a version at creation", of(ask("POST", f"{OURS}/encryptionpolicies", {**policy("q"), "metadata": {"name": "q", "resourceVersion": "1"}}))
    yield "replaced without a version", of(ask("PUT", f"{OURS}/encryptionpolicies/p", policy("p")))
    change = {**policy("p", mode="permissive"), "metadata": {"name": "p", "resourceVersion": version}}
    changed = ask("PUT", f"{OURS}/encryptionpolicies/p", change)
    yield "replaced", of(changed, "spec.mode", "metadata.generation")
    yield "replaced over an old version", of(ask("PUT", f"{OURS}/encryptionpolicies/p", change))
    old = {"metadata": {"resourceVersion": version}, "spec": {"enforced": True}}
    yield "patched over an old version", of(ask("PATCH", f"{OURS}/encryptionpolicies/p", old, MERGE))
    yield "patched", of(ask("PATCH", f"{OURS}/encryptionpolicies/p", {"spec": {"enforced": True}}, MERGE), "spec", "metadata.generation")
    yield "patched with nothing new", of(ask("PATCH", f"{OURS}/encryptionpolicies/p", {"spec": {"enforced": True}}, MERGE), "metadata.generation")
    same = ask("GET", f"{OURS}/encryptionpolicies/p")[1]["metadata"]["resourceVersion"]
    again = ask("PATCH", f"{OURS}/encryptionpolicies/p", {"spec": {"enforced": True}}, MERGE)[1]["metadata"]["resourceVersion"]
    yield "nothing new makes no version", {"same": same == again}
    yield "status by the main path", of(ask("PATCH", f"{OURS}/encryptionpolicies/p", {"status": {"selectedPods": 1}}, MERGE), "status")
    told = ask("PATCH", f"{OURS}/encryptionpolicies/p/status", {"status": {"selectedPods": 1}, "spec": {"mode": "strict"}}, MERGE)
    yield "status by its own path", of(told, "status", "spec.mode", "metadata.generation")
    yield "a wrong status", of(ask("PATCH", f"{OURS}/encryptionpolicies/p/status", {"status": {"selectedPods": -1}}, MERGE))
    yield "a patch of what is not there", of(ask("PATCH", f"{OURS}/encryptionpolicies/none", {"spec": {}}, MERGE))
    yield "a patch that breaks the schema", of(ask("PATCH", f"{OURS}/encryptionpolicies/p", {"spec": {"mode": 1}}, MERGE))
    another = {"metadata": {"uid": "other"}, "spec": {"enforced": False}}
    yield "a patch of another object", of(ask("PATCH", f"{OURS}/encryptionpolicies/p", another, MERGE))
    applied = ask("PATCH", f"{OURS}/encryptionpolicies/a?fieldManager=one&force=true", policy("a", mode="strict"), APPLY)
    yield "applied", of(applied, "spec.mode")
    yield "applied by another", of(ask("PATCH", f"{OURS}/encryptionpolicies/a?fieldManager=two", policy("a", mode="permissive"), APPLY))
    yield "a field that its manager gave up", of(ask("PATCH", f"{OURS}/encryptionpolicies/a?fieldManager=one&force=true", policy("a"), APPLY), "spec.mode")
    other = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "other"}}
    yield "deleted, if it is another", of(ask("DELETE", f"{OURS}/encryptionpolicies/p", other))
    this = {**other, "preconditions": {"uid": uid}}
    yield "deleted", of(ask("DELETE", f"{OURS}/encryptionpolicies/p", this), "kind")
    yield "deleted again", of(ask("DELETE", f"{OURS}/encryptionpolicies/p", this))

    times = {"notBefore": "2026-01-01T00:00:00.000Z", "notAfter": "2026-01-02T00:00:00.000Z", "acknowledgeBy": "2026-01-01T00:01:00.000Z"}
    spec = {"number": 3, "wrappedDEK": "+/+/", "provider": "local", "kekID": "k", "kekVersion": "1", **times}
    epoch = {"apiVersion": "encryption.ebpf.xdp/v1alpha1", "kind": "EncryptionEpoch", "metadata": {"name": "epoch-3"}, "spec": spec}
    yield "an epoch", of(ask("POST", f"{OURS}/encryptionepochs", epoch), "spec")
    yield "its status", of(ask("PATCH", f"{OURS}/encryptionepochs/epoch-3/status", {"status": {"phase": "active"}}, MERGE), "status.phase")
    yield "it changes", of(ask("PATCH", f"{OURS}/encryptionepochs/epoch-3", {"spec": {"kekVersion": "2"}}, MERGE))

    yield "a node", of(ask("POST", f"{OURS}/encryptionnodes", node("n", nodeID=7)), "spec")
    yield "its number changes", of(ask("PATCH", f"{OURS}/encryptionnodes/n", {"spec": {"nodeID": 8}}, MERGE))
    yield "without its number", of(ask("POST", f"{OURS}/encryptionnodes", node("m")))
    yield "a list by name", {"names": [n["metadata"]["name"] for n in ask("GET", f"{OURS}/encryptionnodes?fieldSelector=metadata.name%3Dn")[1]["items"]]}
    yield "a list by a field that cannot be", of(ask("GET", f"{OURS}/encryptionnodes?fieldSelector=spec.nodeID%3D7"))
    for name in "bcd":
        ask("POST", f"{OURS}/encryptionpolicies", policy(name))
    page = ask("GET", f"{OURS}/encryptionpolicies?limit=2")[1]
    yield "a page", {"count": len(page["items"]), "more": bool(page["metadata"].get("continue")), "left": page["metadata"].get("remainingItemCount")}
    rest = ask("GET", f"{OURS}/encryptionpolicies?limit=9&continue={page['metadata']['continue']}")[1]
    yield "the rest", {"count": len(rest["items"]), "same": rest["metadata"]["resourceVersion"] == page["metadata"]["resourceVersion"]}
    yield "a page of nowhere", of(ask("GET", f"{OURS}/encryptionpolicies?limit=2&continue=x"))
    yield "a watch from now", of(ask("GET", f"{OURS}/encryptionpolicies?watch=1&resourceVersion={version}&timeoutSeconds=1"), "type")
    ahead = ask("GET", f"{OURS}/encryptionpolicies?resourceVersion=99999999")
    yield "a list from the future", {"status": ahead[0], "causes": [c.get("reason") for c in ahead[1].get("details", {}).get("causes", [])]}
    yield "a kind that is not there", {"status": ask("GET", f"{OURS}/nothings")[0]}
    yield "a group that is not there", {"status": ask("GET", "/apis/nothing.example.com")[0]}

    yield "an event", of(ask("POST", EVENTS, event("a")), "series")
    series = {"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}}
    yield "an event once more", of(ask("PATCH", f"{EVENTS}/a", series, MERGE), "series.count")
    yield "an event without an action", of(ask("POST", EVENTS, event("b", action="")))
    yield "an event without a time", of(ask("POST", EVENTS, event("c", eventTime=None)))
    yield "an event with a long note", of(ask("POST", EVENTS, event("d", note="x" * 1025)))
    yield "an event of no known type", of(ask("POST", EVENTS, event("e", type="Odd")))

    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l", "namespace": "default"}, "spec": {"holderIdentity": "a"}}
    yield "a lease", of(ask("POST", LEASES, lease))
    yield "replaced without a version", of(ask("PUT", f"{LEASES}/l", lease))
    wrong = {**lease, "metadata": {"name": "w", "namespace": "default"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 0}}
    yield "a lease of no time", of(ask("POST", LEASES, wrong))

    yield "a pod", of(ask("POST", PODS, pod("p")), "status.phase")
    yield "its annotations", of(ask("PATCH", f"{PODS}/p", {"metadata": {"annotations": {"a": "b"}}}, MERGE), "metadata.annotations")
    yield "an annotation goes", of(ask("PATCH", f"{PODS}/p", {"metadata": {"annotations": {"a": None}}}, MERGE), "metadata.annotations")
    another = {"metadata": {"uid": "other", "annotations": {"a": "b"}}}
    yield "annotations of another pod", of(ask("PATCH", f"{PODS}/p", another, MERGE))
    another["metadata"]["resourceVersion"] = "1"
    yield "annotations of an old version of another pod", of(ask("PATCH", f"{PODS}/p", another, MERGE))
    yield "a pod in no namespace", of(ask("POST", "/api/v1/namespaces/none/pods", {**pod("p"), "metadata": {"name": "p"}}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    options = parser.parse_args()
    crds = [str(path) for path in sorted((ROOT / "deploy/crds").glob("encr*.yaml"))]
    differ = count = 0
    with contextlib.ExitStack() as stack:
        real = stack.enter_context(Server(HERE / "server.py", "--bin", options.bin))
        stand_in = stack.enter_context(Server(ROOT / "Tests/kube/apiserver.py"))
        subprocess.run([sys.executable, ROOT / "Tests/peers/kube.py", "--server", stand_in.url, "apply", *crds], check=True)
        for (what, right), (_, ours) in zip(questions(real.ask), questions(stand_in.ask), strict=True):
            count += 1
            if right != ours:
                differ += 1
                print(f"{what}:\n  real      {json.dumps(right)}\n  stand-in  {json.dumps(ours)}")
    print(f"{count} answers compared, {differ} differ")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What people, kubelets and controllers would do in a lab's Kubernetes, on an API server without authentication on loopback.

    kube.py --server URL get PATH                       prints the object or list
    kube.py --server URL apply FILE...                  creates or replaces what stands in YAML or JSON files, status included
    kube.py --server URL delete PATH
    kube.py --server URL patch PATH JSON                merge patch; PATH may end in /status
    kube.py --server URL wait PATH EXPRESSION [--seconds N]    until EXPRESSION (Python, the object is `o`; None: not there) is true
    kube.py --server URL control JSON                   asks the control server of Tests/kube/apiserver.py for something
    kube.py --server URL cluster DIRECTORY              the cluster as a cluster directory, for cluster_keys.py

PATH is below the server, such as /api/v1/namespaces/shop/pods/web-0.
"""

import argparse
import json
import pathlib
import sys
import time
import urllib.error
import urllib.request

GROUP = "/apis/encryption.ebpf.xdp/v1alpha1"


class API:
    def __init__(self, server):
        self.server = server.rstrip("/")
        # Proxies of the environment are not for loopback.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.plurals = {}

    def ask(self, method, path, body=None, kind="application/json"):
        """The answer as an object; None for what is not there."""
        if method == "DELETE":
            # A pod goes at once: there is no kubelet to end it.
            body = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.server + path, method=method, data=data, headers={"Content-Type": kind})
        try:
            with self.opener.open(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise SystemExit(f"kube.py: {method} {path}: {error.code} {error.read().decode(errors='replace')[:500]}")

    def list(self, path):
        answer = self.ask("GET", path)
        return answer["items"] if answer else []

    def folder(self, object_):
        """The path of an object's collection, by discovery; an older server may have another version of the kind."""
        wanted, kind = object_["apiVersion"], object_["kind"]
        group = wanted.partition("/")[0]
        versions = [wanted]
        if (wanted, kind) not in self.plurals and "/" in wanted:
            versions += [v["groupVersion"] for v in (self.ask("GET", f"/apis/{group}") or {"versions": []})["versions"]]
        for version in versions:
            if (wanted, kind) in self.plurals:
                break
            base = f"/apis/{version}" if "/" in version else f"/api/{version}"
            for resource in (self.ask("GET", base) or {"resources": []})["resources"]:
                if resource["kind"] == kind and "/" not in resource["name"]:
                    self.plurals[wanted, kind] = (version, base, resource["name"], resource["namespaced"])
        if (wanted, kind) not in self.plurals:
            raise SystemExit(f"kube.py: the server has no {kind} in {wanted}")
        object_["apiVersion"], base, plural, namespaced = self.plurals[wanted, kind]
        namespace = object_["metadata"].get("namespace", "default")
        return f"{base}/namespaces/{namespace}/{plural}" if namespaced else f"{base}/{plural}"

    def apply(self, object_):
        folder = self.folder(object_)
        path = f"{folder}/{object_['metadata']['name']}"
        present = self.ask("GET", path)
        if present is None:
            result = self.ask("POST", folder, object_)
        else:
            object_["metadata"]["resourceVersion"] = present["metadata"]["resourceVersion"]
            result = self.ask("PUT", path, object_)
        if "status" in object_:
            self.ask("PATCH", f"{path}/status", {"status": object_["status"]}, "application/merge-patch+json")
        return result

    def patch(self, path, body):
        return self.ask("PATCH", path, body, "application/merge-patch+json")


def documents(path):
    """Objects of a file."""
    import yaml

    for document in yaml.safe_load_all(pathlib.Path(path).read_text()):
        yield from (document["items"] if document and document.get("kind") == "List" else [document] if document else [])


def cluster_directory(api, path):
    """Writes what the decoder's keys are made of, as a cluster directory holds it."""
    maps = [m for m in api.list("/api/v1/configmaps") if m["metadata"]["name"] == "xdp-encryptor-cluster"]
    if not maps:
        raise SystemExit("kube.py: there is no ConfigMap xdp-encryptor-cluster")
    for folder in ("nodes", "endpoints", "epochs"):
        (path / folder).mkdir(parents=True, exist_ok=True)
    (path / "cluster.json").write_text(maps[0]["data"]["cluster.json"])
    for epoch in api.list(f"{GROUP}/encryptionepochs"):
        (path / "epochs" / f"{epoch['spec']['number']}.json").write_text(json.dumps(epoch["spec"]))
    for node in api.list(f"{GROUP}/encryptionnodes"):
        name, status = node["metadata"]["name"], node.get("status", {})
        if "incarnation" not in status:
            continue
        (path / "nodes" / f"{name}.json").write_text(json.dumps(status))
        published = {e["name"]: e["addresses"] for e in status.get("endpoints", [])}
        wanted = {e["name"]: e["addresses"] for e in node.get("spec", {}).get("endpoints", [])}
        for endpoint, addresses in {**wanted, **published}.items():
            (path / "endpoints" / f"{endpoint}.json").write_text(json.dumps({"node": name, "addresses": addresses}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("command", choices=["get", "apply", "delete", "patch", "wait", "control", "cluster"])
    parser.add_argument("arguments", nargs="+")
    options = parser.parse_args()
    api, arguments = API(options.server), options.arguments
    if options.command == "get":
        print(json.dumps(api.ask("GET", arguments[0]), indent=1))
    elif options.command == "apply":
        for path in arguments:
            for document in documents(path):
                api.apply(document)
    elif options.command == "delete":
        api.ask("DELETE", arguments[0])
    elif options.command == "patch":
        api.patch(arguments[0], json.loads(arguments[1]))
    elif options.command == "control":
        api.ask("POST", "/_control", json.loads(arguments[0]))
    elif options.command == "cluster":
        cluster_directory(api, pathlib.Path(arguments[0]))
    else:
        path, expression = arguments
        deadline, seen = time.monotonic() + options.seconds, None
        while time.monotonic() < deadline:
            seen = api.ask("GET", path)
            try:
                if eval(expression, {"o": seen}):  # noqa: S307: the tests' own
                    return 0
            except (KeyError, TypeError, IndexError):
                pass
            time.sleep(0.05)
        print(f"kube.py: waited in vain for {expression} of {path}; it is {json.dumps(seen)[:3000]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the manifests in deploy/ come to, by the real engines: Helm's as a library, kustomize inside of kubectl."""

import copy
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "xdp-encryptor"
PROVIDERS = ["local", "eks", "gke", "aks", "openbao"]

sys.path.insert(0, str(DEPLOY))
import generate  # noqa: E402

# Beside the interpreter of the virtual environment; the machine's own may be older.
KUBECTL = Path(sys.executable).parent / "kubectl"


def key(item: dict) -> tuple[str, str, str]:
    return item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]


def by_key(items: list[dict]) -> dict[tuple[str, str, str], dict]:
    result = {}
    for item in items:
        assert key(item) not in result, f"{key(item)} twice"
        result[key(item)] = item
    return result


@functools.cache
def kustomize(folder: str) -> tuple[dict, ...]:
    """Objects of a folder below deploy/."""
    text = subprocess.run(
        [KUBECTL, "kustomize", DEPLOY / folder], check=True, capture_output=True, text=True, env={**os.environ, "HOME": "/nonexistent"}
    ).stdout
    return tuple(yaml.safe_load_all(text))


def chart(values: dict) -> list[dict]:
    """Objects of the chart, its CRDs too."""
    documents = [text for name, text in generate.render(values).items()]
    crds = [path.read_text() for path in sorted((CHART / "crds").glob("*.yaml"))]
    return [item for text in documents + crds for item in yaml.safe_load_all(text) if item]


def example(provider: str) -> list[dict]:
    """Objects of the chart with the example for a provider."""
    return chart(generate.merged({"namespace": {"create": True}}, generate.example(provider)))


def pod_spec(items, kind: str) -> dict:
    return next(item for item in items if item["kind"] == kind)["spec"]["template"]["spec"]


def comparable(items) -> dict[tuple[str, str, str], dict]:
    """Without what differs by design: hashes in the names of ConfigMaps, checksums in annotations, the order of lists of names."""

    def walk(value):
        if isinstance(value, dict):
            return {k: walk(v) for k, v in value.items() if k != "xdp-encryptor/configuration"}
        if isinstance(value, list):
            walked = [walk(entry) for entry in value]
            if all(isinstance(entry, dict) and "name" in entry for entry in walked):
                walked.sort(key=lambda entry: entry["name"])
            return walked
        return value

    def without_hash(holder: dict):
        holder["name"] = re.sub(r"^(ebpf-xdp-(?:keymgr|operator)-config)-[0-9a-z]{10}$", r"\1", holder["name"])

    result = []
    for item in copy.deepcopy(list(items)):
        item = walk(item)
        if item["kind"] == "ConfigMap":
            without_hash(item["metadata"])
        template = item.get("spec", {}).get("template", {}) if isinstance(item.get("spec"), dict) else {}
        for volume in template.get("spec", {}).get("volumes", []):
            if "configMap" in volume:
                without_hash(volume["configMap"])
        if template.get("metadata", {}).get("annotations") == {}:
            del template["metadata"]["annotations"]
        result.append(item)
    return by_key(result)

#!/usr/bin/env python3
"""Writes what follows from the chart, so that the chart and the kustomize base cannot drift: deploy/kustomize/base (all but its
kustomization.yaml), the configurations of the overlays, and the chart's copy of the CRDs. `make check-deploy` complains when a file
is not what this would write.

    deploy/generate.py [--check]
"""

import re
import sys
from pathlib import Path

import helm_python
import yaml

ROOT = Path(__file__).resolve().parent
CHART = ROOT / "helm" / "xdp-encryptor"
BASE = ROOT / "kustomize" / "base"
NAMESPACE = "xdp-encryptor"
MARK = "# Generated from deploy/helm/xdp-encryptor by deploy/generate.py (make deploy-base): change it there.\n"


def render(values: dict) -> dict[str, str]:
    """What Helm makes of the chart: file names of templates and their documents, as text."""
    with helm_python.Chart.load(CHART) as chart:
        rendered = chart.render(values=values, name="xdp-encryptor", namespace=NAMESPACE)
    return {Path(name).name: text.strip("\n") + "\n" for name, text in rendered.items() if text.strip() and name.endswith(".yaml")}


def merged(first: dict, second: dict) -> dict:
    """`second` over `first`, as Helm does with several files of values."""
    result = dict(first)
    for key, value in second.items():
        result[key] = merged(result[key], value) if isinstance(value, dict) and isinstance(result.get(key), dict) else value
    return result


def example(name: str) -> dict:
    return yaml.safe_load((CHART / "examples" / f"{name}.yaml").read_text())


def configurations(rendered: dict[str, str]) -> dict[str, str]:
    """keymgr.json and operator.json out of the ConfigMaps."""
    return {name: text for document in yaml.safe_load_all(rendered["configmaps.yaml"]) for name, text in document["data"].items()}


def without_checksums(text: str) -> str:
    """Kustomize names ConfigMaps by their content, so nothing needs the checksum that starts new pods under Helm."""
    text = re.sub(r"( *# A changed configuration [^\n]*\n)? *xdp-encryptor/configuration: [^\n]*\n", "", text)
    return re.sub(r"\n *annotations:\n(?= *spec:)", "\n", text)


def files() -> dict[Path, str]:
    """Everything that is generated."""
    result = {CHART / "crds" / path.name: path.read_text() for path in sorted((ROOT / "crds").glob("*.yaml")) if path.name != "kustomization.yaml"}
    base_values = {"namespace": {"create": True}, "kms": {"later": True}}
    base = render(base_values)
    for name, text in configurations(base).items():
        result[BASE / name] = text
    for name, text in base.items():
        if name != "configmaps.yaml":
            result[BASE / name] = MARK + without_checksums(text)
    for component, value, name in [("critical-pods-quota", "criticalPodsQuota", "quota.yaml"), ("service-monitor", "serviceMonitor", "servicemonitor.yaml")]:
        text = render(merged(base_values, {value: {"enabled": True}}))[name]
        result[ROOT / "kustomize" / "components" / component / name] = MARK + text
    for path in sorted((CHART / "examples").glob("*.yaml")):
        for name, text in configurations(render(example(path.stem))).items():
            result[ROOT / "kustomize" / "overlays" / path.stem / name] = text
    return result


def main() -> int:
    stale = {path: text for path, text in files().items() if not path.exists() or path.read_text() != text}
    known = set(files()) | {BASE / "kustomization.yaml"}
    surplus = [path for folder in (BASE, CHART / "crds") for path in folder.iterdir() if path not in known]
    if "--check" in sys.argv:
        for path in [*stale, *surplus]:
            print(f"{path.relative_to(ROOT.parent)} is not what the chart makes of it: run make deploy-base", file=sys.stderr)
        return 1 if stale or surplus else 0
    for path, text in stale.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(f"wrote {path.relative_to(ROOT.parent)}")
    for path in surplus:
        path.unlink()
        print(f"removed {path.relative_to(ROOT.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

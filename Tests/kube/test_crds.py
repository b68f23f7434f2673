"""The CRDs: structural, bounded, and of the same mind as the Swift types, whose samples stand in samples/."""

import copy
import ipaddress
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from deployment import DEPLOY, example
from rules import evaluate

CRDS = {crd["spec"]["names"]["kind"]: crd for path in sorted((DEPLOY / "crds").glob("encr*.yaml")) for crd in [yaml.safe_load(path.read_text())]}
SAMPLES = sorted((Path(__file__).parent / "samples").glob("*.json"))

FORMATS = jsonschema.FormatChecker(formats=())


@FORMATS.checks("cidr", raises=ValueError)
def is_cidr(text) -> bool:
    return not isinstance(text, str) or bool(ipaddress.ip_network(text, strict=False))


def schema(kind: str) -> dict:
    return CRDS[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def strict(value):
    """The same schema, in which an unknown key is an error and not dropped. The API server knows metadata by itself."""
    value = copy.deepcopy(value)

    def walk(node, path):
        if node.get("type") == "object" and "properties" in node and path != ("metadata",):
            node["additionalProperties"] = False
        for name, inner in node.get("properties", {}).items():
            walk(inner, (*path, name))
        if isinstance(node.get("items"), dict):
            walk(node["items"], (*path, "[]"))

    walk(value, ())
    return value


def broken_rules(node, value, root=True):
    """Messages of CEL rules that a new object breaks; rules about oldSelf hold for changes."""
    for rule in node.get("x-kubernetes-validations", []):
        if "oldSelf" not in rule["rule"] and not evaluate(rule["rule"], self=value):
            yield rule["message"]
    for name, inner in node.get("properties", {}).items():
        if isinstance(value, dict) and name in value:
            yield from broken_rules(inner, value[name], False)
    if isinstance(node.get("items"), dict) and isinstance(value, list):
        for entry in value:
            yield from broken_rules(node["items"], entry, False)


def problems(item: dict) -> list[str]:
    """Why the API server would refuse an object; empty: it would not."""
    whole = strict(schema(item["kind"]))
    found = [f"{'/'.join(map(str, error.path))}: {error.message}" for error in jsonschema.Draft7Validator(whole, format_checker=FORMATS).iter_errors(item)]
    return found or list(broken_rules(whole, item))


@pytest.mark.parametrize("kind", sorted(CRDS))
def test_schemas_are_structural_and_bounded(kind):
    """What kube-apiserver asks of structural schemas, and a bound on everything that could grow."""

    def walk(node, path):
        assert node.get("type") in ("object", "array", "string", "integer", "boolean"), path
        match node["type"]:
            case "object":
                assert "properties" in node or "maxProperties" in node or path == ("metadata",), path
            case "array":
                assert "maxItems" in node and "items" in node and "x-kubernetes-list-type" in node, path
                walk(node["items"], (*path, "[]"))
                for name in node.get("x-kubernetes-list-map-keys", []):
                    assert name in node["items"]["required"], path
            case "string":
                assert "maxLength" in node or "enum" in node or path in (("apiVersion",), ("kind",)), path
            case "integer":
                assert node["format"] == "int64" and "minimum" in node, path
        if isinstance(node.get("additionalProperties"), dict):
            walk(node["additionalProperties"], (*path, "*"))
        for name, inner in node.get("properties", {}).items():
            assert "description" in inner or path[-1:] in (("[]",), ("pod",)) or len(path) == 0, (*path, name)
            walk(inner, (*path, name))
        assert set(node.get("required", [])) <= set(node.get("properties", {})), path

    walk(schema(kind), ())


@pytest.mark.parametrize("kind", sorted(CRDS))
def test_names_and_columns(kind):
    crd = CRDS[kind]
    names, version = crd["spec"]["names"], crd["spec"]["versions"][0]
    assert crd["metadata"]["name"] == f"{names['plural']}.{crd['spec']['group']}" and crd["spec"]["scope"] == "Cluster"
    assert names["categories"] == ["encryption"] and len(names["shortNames"]) == 1
    assert version["name"] == "v1alpha1" and version["served"] and version["storage"]
    for column in version["additionalPrinterColumns"]:
        node = {"properties": {"metadata": {"properties": {"creationTimestamp": {"type": "string"}}, "type": "object"}}}
        node["properties"] |= {name: inner for name, inner in version["schema"]["openAPIV3Schema"]["properties"].items() if name != "metadata"}
        for step in column["jsonPath"].removeprefix(".").replace("[?", ".[?").split("."):
            if step.startswith("[?"):
                node = node["items"]
            elif step.startswith("type=="):
                continue
            else:
                node = node["properties"][step.split(")")[0].strip('"')] if "properties" in node else node
        assert node


def test_they_fit_into_an_object():
    # kubectl apply without --server-side keeps a copy in an annotation of 256 KiB at most.
    for crd in CRDS.values():
        assert len(json.dumps(crd)) < 100_000


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_samples_of_the_swift_types_fit(path):
    for item in json.loads(path.read_text()):
        assert problems(item) == []


def test_there_are_samples_of_every_kind():
    kinds = {item["kind"] for path in SAMPLES for item in json.loads(path.read_text())}
    assert kinds == set(CRDS)


def test_samples_fill_every_field_of_the_schemas():
    """Else a field that Swift writes under another name would go unseen."""

    def unseen(node, values, path):
        for name, inner in node.get("properties", {}).items():
            found = [value[name] for value in values if isinstance(value, dict) and name in value]
            if not found:
                yield ".".join((*path, name))
            else:
                yield from unseen(inner, found, (*path, name))
        if isinstance(node.get("items"), dict):
            yield from unseen(node["items"], [entry for value in values if isinstance(value, list) for entry in value], path)

    items = [item for path in SAMPLES for item in json.loads(path.read_text())]
    for kind in CRDS:
        of_kind = [item for item in items if item["kind"] == kind]
        assert list(unseen(schema(kind), of_kind, ())) == [], kind


def policy(name="p", **spec):
    return {"apiVersion": "encryption.ebpf.xdp/v1alpha1", "kind": "EncryptionPolicy", "metadata": {"name": name}, "spec": spec}


GOOD = [
    policy(),
    policy(mode="permissive", headers="hidden", enforced=True, strictCIDRs=["10.0.0.0/8", "fd00::/8", "::/0", "2001:db8::/128"]),
    policy(podSelector={"matchLabels": {"app": "x"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}, {"key": "c", "operator": "Exists"}]}),
    policy(namespaceSelector={"matchExpressions": [{"key": "c", "operator": "DoesNotExist", "values": []}]}),
]
BAD = [
    policy(mode="Strict"),
    policy(headers="none"),
    policy(strictCIDRs=["10.0.0.0"]),
    policy(strictCIDRs=["10.0.0.0/33"]),
    policy(strictCIDRs=["10.0.0.256/8"]),
    policy(strictCIDRs=["fd00::/129"]),
    policy(strictCIDRs=["fd00::%eth0/64"]),
    policy(strictCIDRs=["10.0.0.0/08"]),
    policy(strictCIDRs=["example.com/8"]),
    policy(strictCIDRs=["10.0.0.0/8"] * 65),
    policy(enforced="true"),
    policy(podselector={}),
    policy(podSelector={"matchExpressions": [{"key": "a", "operator": "In"}]}),
    policy(podSelector={"matchExpressions": [{"key": "a", "operator": "NotIn", "values": []}]}),
    policy(podSelector={"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
    policy(podSelector={"matchExpressions": [{"key": "a", "operator": "Equals", "values": ["b"]}]}),
    policy(name="p" * 64),
    {"apiVersion": "encryption.ebpf.xdp/v1alpha1", "kind": "EncryptionPolicy", "metadata": {"name": "p"}},
]


@pytest.mark.parametrize("item", GOOD, ids=lambda item: json.dumps(item["spec"])[:60])
def test_policies_that_are_taken(item):
    assert problems(item) == []


@pytest.mark.parametrize("item", BAD, ids=lambda item: json.dumps(item.get("spec"))[:60])
def test_policies_that_are_refused(item):
    assert problems(item)


def sample(kind: str) -> dict:
    return copy.deepcopy(next(item for path in SAMPLES for item in json.loads(path.read_text()) if item["kind"] == kind))


@pytest.mark.parametrize(
    "change",
    [
        lambda epoch: epoch["metadata"].update(name="epoch-99"),
        lambda epoch: epoch["metadata"].update(name=f"epoch-0{epoch['spec']['number']}"),
        lambda epoch: epoch["spec"].update(number=0),
        lambda epoch: epoch["spec"].update(notAfter=epoch["spec"]["notBefore"]),
        lambda epoch: epoch["spec"].update(notAfter="tomorrow"),
        lambda epoch: epoch["spec"].update(notAfter="2026-05-04T12:00:00.000+01:00"),
        lambda epoch: epoch["spec"].update(wrappedDEK="not base64!"),
        lambda epoch: epoch["spec"].update(wrappedDEK=""),
        lambda epoch: epoch["spec"].update(provider="paper"),
        lambda epoch: epoch["spec"].pop("acknowledgeBy"),
    ],
)
def test_epochs_that_are_refused(change):
    epoch = sample("EncryptionEpoch")
    assert problems(epoch) == []
    change(epoch)
    assert problems(epoch)


def test_a_slice_has_nodes_or_changes():
    slices = json.loads((Path(__file__).parent / "samples/encryptedendpointslices.json").read_text())
    whole = next(item for item in slices if item["spec"].get("nodes"))
    changes = next(item for item in slices if "changes" in item["spec"])
    assert problems(whole) == [] and problems(changes) == []
    assert problems({**whole, "spec": {**whole["spec"], "changes": changes["spec"]["changes"]}})
    assert problems({**whole, "spec": {"sequence": 1}})
    assert problems({**changes, "spec": {"sequence": 1, "changes": [{"name": "node-a"}]}})


@pytest.mark.parametrize("headers, is_taken", [("visible", True), ("hidden", True), ("none", False), (None, True)])
def test_headers_in_slices_and_changes(headers, is_taken):
    slices = json.loads((Path(__file__).parent / "samples/encryptedendpointslices.json").read_text())
    whole = next(item for item in slices if item["spec"].get("nodes"))
    changes = next(item for item in slices if "changes" in item["spec"])
    for item, entry in [(whole, whole["spec"]["nodes"][0]), (changes, changes["spec"]["changes"][0])]:
        entry["endpoints"][0].pop("headers", None)
        if headers:
            entry["endpoints"][0]["headers"] = headers
        assert (problems(item) == []) == is_taken


def test_rules_can_read_all_that_is_in_their_reach():
    """Servers decode strings of format byte for rules, with the alphabet that base64 has in URLs: those with + or / break every rule."""
    def formats(node):
        if isinstance(node, dict):
            yield from [node["format"]] if isinstance(node.get("format"), str) else []
            for child in node.values():
                yield from formats(child)
        elif isinstance(node, list):
            for child in node:
                yield from formats(child)

    for crd in CRDS.values():
        assert "byte" not in formats(crd)


def test_what_must_not_change():
    rules = {rule["rule"] for rule in schema("EncryptionEpoch")["properties"]["spec"]["x-kubernetes-validations"]}
    assert "self == oldSelf" in rules
    node = schema("EncryptionNode")["properties"]["spec"]["properties"]["nodeID"]["x-kubernetes-validations"]
    assert [rule["rule"] for rule in node] == ["self == oldSelf"]
    assert evaluate("self == oldSelf", self=7, oldSelf=7) and not evaluate("self == oldSelf", self=7, oldSelf=8)


@pytest.mark.parametrize(
    "change",
    [
        lambda node: node["spec"].update(nodeID=0),
        lambda node: node["spec"].update(nodeID=1 << 24),
        lambda node: node["spec"]["endpoints"][0].update(addresses=[]),
        lambda node: node["spec"]["endpoints"][0].update(addresses=["10.0.0.1/32"]),
        lambda node: node["spec"]["endpoints"][0].update(addresses=["fe80::1%eth0"]),
        lambda node: node["spec"]["endpoints"][0].update(mode="loose"),
        lambda node: node["spec"]["endpoints"][0].update(headers="none"),
        lambda node: node["status"]["endpoints"][0].update(headers="none"),
        lambda node: node["status"].update(incarnation="00"),
        lambda node: node["status"].update(appliedThrough=-1),
        lambda node: node["status"].update(problems=[node["status"]["problems"][0]] * 21),
        lambda node: node["status"].update(conditions=[{"type": "Ready", "status": "Yes", "lastTransitionTime": "2026-05-04T12:00:00Z", "reason": "R", "message": ""}]),
    ],
)
def test_nodes_that_are_refused(change):
    node = sample("EncryptionNode")
    assert problems(node) == []
    change(node)
    assert problems(node)


def test_the_charts_crds_are_these():
    shipped = {item["metadata"]["name"]: item for item in example("eks") if item["kind"] == "CustomResourceDefinition"}
    assert shipped == {crd["metadata"]["name"]: crd for crd in CRDS.values()}

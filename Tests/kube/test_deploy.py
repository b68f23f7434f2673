"""deploy/ as a whole: chart and kustomize base agree, the API's schemas take both, and nothing has more rights than it should."""

import json
import re
import shutil

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml

from deployment import CHART, DEPLOY, PROVIDERS, ROOT, by_key, chart, comparable, example, generate, kustomize, pod_spec

OLDEST, NEWEST = "1.30", "1.37"


def test_what_is_generated_is_up_to_date():
    stale = [str(path) for path, text in generate.files().items() if not path.exists() or path.read_text() != text]
    assert not stale, f"run make deploy-base: {stale}"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_chart_and_overlay_are_the_same(provider):
    ours, theirs = comparable(example(provider)), comparable(kustomize(f"kustomize/overlays/{provider}"))
    assert sorted(ours) == sorted(theirs)
    for name in ours:
        assert ours[name] == theirs[name], name


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_schemas_of_the_api_take_everything(provider, version):
    for item in [*example(provider), *kustomize(f"kustomize/overlays/{provider}")]:
        kubernetes_validate.validate(item, version, strict=True)


def test_the_schemas_of_the_api_would_refuse_a_wrong_key():
    wrong = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "x"}, "automount": True}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, OLDEST, strict=True)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_helm_lints_the_chart(provider):
    report = helm_python.lint(CHART, generate.example(provider), strict=True, kube_version=f"v{OLDEST}.0", namespace="xdp-encryptor")
    assert report["errors"] == [] and all(message["severity"] < 2 for message in report["messages"]), report


def test_every_value_is_in_the_schema_and_explained():
    def keys(value, path=()):
        for name, inner in value.items() if isinstance(value, dict) else ():
            yield (*path, name)
            yield from keys(inner, (*path, name))

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    jsonschema.validate(values, json.loads((CHART / "values.schema.json").read_text()))
    text = (CHART / "values.yaml").read_text()
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    for path in keys(values):
        if path[:2] in [("keymgr", "resources"), ("operator", "resources")]:
            continue
        assert re.search(rf"\b{re.escape(path[-1])}\b", templates), f"{'.'.join(path)} is used nowhere"
    assert text.count("#") > 40


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({}, "kms.provider is not set"),
        ({"kms": {"provider": "aws"}}, "kms.settings is empty"),
        ({"kms": {"provider": "gpc"}}, "provider"),
        ({"kms": {"provider": "local"}, "keymgr": {"replayWindow": 100}}, "replayWindow"),
        ({"kms": {"provider": "local"}, "operators": {}}, "operators"),
        ({"kms": {"provider": "local"}, "socketLoadBalancing": {"cgroup": "sys/fs/cgroup"}}, "cgroup"),
        ({"kms": {"provider": "local"}, "socketLoadBalancing": {"exceptNamespaces": ["Kube_System"]}}, "exceptNamespaces"),
    ],
)
def test_values_that_cannot_work_are_refused(values, sentence):
    with pytest.raises(helm_python.HelmError, match=sentence):
        generate.render(values)


def test_versions_agree():
    version = re.search(r'version: "([^"]+)"', (ROOT / "Sources/keymgr/Keymgr.swift").read_text()).group(1)
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about["version"] == about["appVersion"] == version
    assert re.search(rf"newTag: {re.escape(version)}\b", (DEPLOY / "kustomize/overlays/eks/kustomization.yaml").read_text())


def test_values_reach_the_objects():
    items = chart(
        {
            "image": {"registry": "registry.example.com/p/", "keymgr": {"digest": "sha256:" + "0" * 64}, "tag": "9"},
            "kms": {"provider": "local", "kekSecret": {"name": "other", "key": "k"}, "ca": {"configMap": "own-ca"}},
            "cni": {"enabled": False},
            "admission": {"enabled": False},
            "networkPolicy": {"enabled": False},
            "podDisruptionBudget": {"enabled": False},
            "operator": {"replicas": 3},
        }
    )
    keymgr, operator = pod_spec(items, "DaemonSet"), pod_spec(items, "Deployment")
    assert keymgr["containers"][0]["image"] == "registry.example.com/p/xdp-encryptor-keymgr@sha256:" + "0" * 64
    assert operator["containers"][0]["image"] == "registry.example.com/p/xdp-encryptor-operator:9"
    assert "initContainers" not in keymgr and not any(volume["name"].startswith("cni") for volume in keymgr["volumes"])
    kinds = {item["kind"] for item in items}
    assert not kinds & {"ValidatingAdmissionPolicy", "NetworkPolicy", "PodDisruptionBudget", "Namespace"}
    mounts = {mount["name"]: mount for mount in operator["containers"][0]["volumeMounts"]}
    assert mounts["kek"]["subPath"] == "k" and mounts["ca"]["subPath"] == "ca.pem"
    assert {item["metadata"]["name"] for item in items if item["kind"] == "Service"} == {"ebpf-xdp-operator"}
    role = next(item for item in items if item["kind"] == "ClusterRole" and item["metadata"]["name"] == "ebpf-xdp-keymgr")
    assert not any("pods" in rule["resources"] for rule in role["rules"]), "no CNI plugin, no right to read pods"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_security_of_pods(provider):
    items = example(provider)
    keymgr, operator = pod_spec(items, "DaemonSet"), pod_spec(items, "Deployment")
    for spec in keymgr, operator:
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"] + spec.get("initContainers", []):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] and context["allowPrivilegeEscalation"] is False
            assert context["capabilities"]["drop"] == ["ALL"] and "privileged" not in context
            assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]
            for mount in container["volumeMounts"]:
                # The API server refuses it without privileged.
                assert mount.get("mountPropagation") != "Bidirectional"
    assert keymgr["hostNetwork"] and not keymgr["hostPID"] and "hostIPC" not in keymgr
    assert set(keymgr["containers"][0]["securityContext"]["capabilities"]["add"]) == {"BPF", "NET_ADMIN", "PERFMON", "SYS_ADMIN", "IPC_LOCK"}
    assert "hostNetwork" not in operator and "add" not in operator["containers"][0]["securityContext"]["capabilities"]
    assert not any("hostPath" in volume for volume in operator["volumes"])
    # Root is for the KEK file of trials only.
    assert operator["securityContext"].get("runAsNonRoot", False) == (provider != "local")


def configurations_of(items) -> dict[str, dict]:
    """keymgr.json and operator.json."""
    return {name: json.loads(text) for item in items if item["kind"] == "ConfigMap" for name, text in item["data"].items()}


def test_configurations_are_json_and_name_the_provider():
    for provider, kms in zip(PROVIDERS, ["local", "aws", "gcp", "azure", "openbao"]):
        items = example(provider)
        data = configurations_of(items)
        assert sorted(data) == ["keymgr.json", "operator.json"]
        for configuration in data.values():
            assert configuration["kms"]["provider"] == kms and kms in configuration["kms"]
        for kind in "DaemonSet", "Deployment":
            environment = {entry["name"]: entry.get("value") for entry in pod_spec(items, kind)["containers"][0]["env"]}
            assert environment["KMS_PROVIDER"] == kms


def rules(items, role: str) -> set[tuple[str, str, str]]:
    """(group, resource, verb) of the ClusterRole and the Roles of a name."""
    return {
        (group, resource, verb)
        for item in items
        if item["kind"] in ("ClusterRole", "Role") and item["metadata"]["name"] == role
        for rule in item["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_rights_are_no_more_than_they_should_be():
    items = example("eks")
    keymgr, operator = rules(items, "ebpf-xdp-keymgr"), rules(items, "ebpf-xdp-operator")
    assert not any("*" in rule for rule in keymgr | operator)
    writes = {"create", "update", "patch", "delete", "deletecollection"}
    assert {rule for rule in keymgr if rule[2] in writes} == {
        ("encryption.ebpf.xdp", "encryptionnodes/status", "update"),
    }
    assert {rule[2] for rule in keymgr if rule[1] == "pods"} == {"get"}
    for rights in keymgr, operator:
        assert not any(resource in ("secrets", "serviceaccounts/token", "nodes/proxy", "pods/exec") for _, resource, _ in rights)
    # What nodes say of themselves is theirs to say.
    assert not any(resource == "encryptionnodes/status" and verb in writes for _, resource, verb in operator)
    assert {(resource, verb) for group, resource, verb in operator if group == "" and verb in writes} == {
        ("pods", "patch"),
        ("configmaps", "create"),
        ("configmaps", "update"),
    }
    for item in items:
        for rule in item.get("rules", []) if item["kind"] == "Role" else []:
            assert rule.get("resourceNames") or rule["verbs"] == ["create"], "rights in a namespace are for objects by name"


SERVICES = {(group, resource, verb) for group, resource in [("", "services"), ("discovery.k8s.io", "endpointslices")] for verb in ("get", "list", "watch")}


@pytest.mark.parametrize("values", [{}, {"cgroup": "/sys/fs/cgroup/unified", "exceptNamespaces": ["mesh"]}])
def test_socket_load_balancing(values):
    off, on = (chart({"kms": {"provider": "local"}, "socketLoadBalancing": {"enabled": enabled, **values}}) for enabled in (False, True))
    for items, enabled in (off, False), (on, True):
        data = configurations_of(items)
        told = data["keymgr.json"]["cluster"]["socketLoadBalancing"]
        # keymgr and the operator are told the same.
        assert told["enabled"] is data["operator.json"]["socketLoadBalancing"] is enabled
        assert told["exceptNamespaces"] == values.get("exceptNamespaces", [])
        spec = pod_spec(items, "DaemonSet")
        mounts = {mount["name"]: mount for mount in spec["containers"][0]["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert ("cgroup" in mounts) == ("cgroup" in volumes) == enabled
        if enabled:
            assert mounts["cgroup"] == {"name": "cgroup", "mountPath": told["cgroup"], "readOnly": True}
            assert volumes["cgroup"]["hostPath"] == {"path": values.get("cgroup", "/sys/fs/cgroup"), "type": "Directory"}
        assert all(mount["name"] != "cgroup" for container in spec["containers"][1:] for mount in container["volumeMounts"])
    # Nothing else is granted, and nothing to the operator.
    assert rules(on, "ebpf-xdp-keymgr") - rules(off, "ebpf-xdp-keymgr") == SERVICES
    assert not rules(off, "ebpf-xdp-keymgr") & SERVICES and rules(off, "ebpf-xdp-keymgr") < rules(on, "ebpf-xdp-keymgr")
    assert rules(on, "ebpf-xdp-operator") == rules(off, "ebpf-xdp-operator")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_socket_load_balancing_is_off_unless_it_is_turned_on(provider):
    for items in example(provider), kustomize(f"kustomize/overlays/{provider}"):
        data = configurations_of(items)
        assert data["keymgr.json"]["cluster"]["socketLoadBalancing"]["enabled"] is data["operator.json"]["socketLoadBalancing"] is False
        assert not rules(items, "ebpf-xdp-keymgr") & SERVICES


def uncommented(path, pattern: str) -> str:
    """The text of a file without the comment signs of lines that match."""
    text, count = re.subn(rf"^( *)# ({pattern})$", r"\1\2", path.read_text(), flags=re.M)
    assert count > 0, f"{path.name}: nothing to uncomment"
    return text


@pytest.mark.parametrize("provider", ["eks", "gke", "aks"])
def test_what_comments_say_turns_socket_load_balancing_on(provider, tmp_path):
    values = yaml.safe_load(uncommented(CHART / "examples" / f"{provider}.yaml", r"socketLoadBalancing:|  enabled: true"))
    assert values == generate.merged(generate.example(provider), {"socketLoadBalancing": {"enabled": True}})
    for folder in "kustomize", "crds":
        shutil.copytree(DEPLOY / folder, tmp_path / folder)
    overlay = tmp_path / "kustomize/overlays" / provider
    (overlay / "kustomization.yaml").write_text(uncommented(overlay / "kustomization.yaml", r".*components/socket-load-balancing\]?"))
    for name, text in generate.configurations(generate.render(values)).items():
        (overlay / name).write_text(text)
    ours = comparable(chart(generate.merged({"namespace": {"create": True}}, values)))
    theirs = comparable(kustomize(str(overlay)))
    assert rules(theirs.values(), "ebpf-xdp-keymgr") >= SERVICES
    assert sorted(ours) == sorted(theirs)
    for name in ours:
        assert ours[name] == theirs[name], name


def test_the_operator_may_delete_what_it_deletes():
    """Nothing else fails for long when that right is missing: objects pile up."""
    read = lambda folder: "".join(path.read_text() for path in sorted((ROOT / "Sources" / folder).rglob("*.swift")))  # noqa: E731
    plurals = dict(re.findall(r'struct (\w+): KubernetesObject[^}]*?EncryptionAPI\.kind\("\w+", "(\w+)"\)', read("Cluster")))
    deleted = {plurals[name] for name in re.findall(r"api\.delete\(\s*(\w+)\.self", read("Operator"))}
    assert deleted == {"encryptionnodes", "encryptionepochs", "encryptedendpointslices"}
    rights = rules(example("eks"), "ebpf-xdp-operator")
    assert {resource for group, resource, verb in rights if group == "encryption.ebpf.xdp" and verb == "delete"} == deleted


def test_selectors_select():
    items = by_key(example("eks"))
    for (kind, namespace, name), item in items.items():
        if kind in ("Deployment", "DaemonSet"):
            labels = item["spec"]["template"]["metadata"]["labels"]
            assert item["spec"]["selector"]["matchLabels"].items() <= labels.items()
            assert ("ServiceAccount", namespace, item["spec"]["template"]["spec"]["serviceAccountName"]) in items
            for volume in item["spec"]["template"]["spec"]["volumes"]:
                if "configMap" in volume:
                    assert ("ConfigMap", namespace, volume["configMap"]["name"]) in items
            mounts = {mount["name"] for container in item["spec"]["template"]["spec"]["containers"] + item["spec"]["template"]["spec"].get("initContainers", []) for mount in container["volumeMounts"]}
            assert mounts == {volume["name"] for volume in item["spec"]["template"]["spec"]["volumes"]}
        if kind in ("PodDisruptionBudget", "NetworkPolicy"):
            selector = item["spec"].get("selector") or item["spec"]["podSelector"]
            assert selector["matchLabels"].items() <= items["Deployment", namespace, "ebpf-xdp-operator"]["spec"]["template"]["metadata"]["labels"].items()
        if kind in ("ClusterRoleBinding", "RoleBinding"):
            assert (item["roleRef"]["kind"], namespace, item["roleRef"]["name"]) in items
            for subject in item["subjects"]:
                assert ("ServiceAccount", subject["namespace"], subject["name"]) in items
        if kind == "ValidatingAdmissionPolicyBinding":
            assert ("ValidatingAdmissionPolicy", "", item["spec"]["policyName"]) in items


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_uninstall_undoes_what_the_daemonset_does(version):
    items = list(yaml.safe_load_all((DEPLOY / "uninstall.yaml").read_text()))
    for item in items:
        kubernetes_validate.validate(item, version, strict=True)
    theirs = pod_spec(items, "DaemonSet")
    ours = pod_spec(kustomize("kustomize/base"), "DaemonSet")
    volumes = {volume["name"]: volume for volume in theirs["volumes"] if "hostPath" in volume}
    assert volumes == {volume["name"]: volume for volume in ours["volumes"] if "hostPath" in volume}
    mounts = {mount["name"]: mount for container in ours["containers"] for mount in container["volumeMounts"]}
    image = ours["containers"][0]["image"]
    for container in theirs["initContainers"] + theirs["containers"]:
        assert container["image"] == image
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"] and container["securityContext"]["readOnlyRootFilesystem"]
        for mount in container["volumeMounts"]:
            assert mount == mounts[mount["name"]]
    assert json.loads(items[0]["data"]["keymgr.json"])["cluster"] == {"source": "kubernetes"}
    assert theirs["automountServiceAccountToken"] is False


@pytest.mark.parametrize("listen, isOpen", [("127.0.0.1:9401", False), ("[::1]:9401", False), ("0.0.0.0:9500", True), ("[::]:9500", True)])
def test_metrics_of_keymgr_are_scraped_where_they_can_be_reached(listen, isOpen):
    items = chart({"kms": {"provider": "local"}, "keymgr": {"listen": listen}, "serviceMonitor": {"enabled": True, "labels": {"release": "p"}}})
    both = {"ebpf-xdp-operator", "ebpf-xdp-keymgr"} if isOpen else {"ebpf-xdp-operator"}
    for kind in "Service", "ServiceMonitor":
        assert {item["metadata"]["name"] for item in items if item["kind"] == kind} == both
    for monitor in (item for item in items if item["kind"] == "ServiceMonitor"):
        assert monitor["metadata"]["labels"]["release"] == "p"
        (service,) = [item for item in items if item["kind"] == "Service" and item["metadata"]["name"] == monitor["metadata"]["name"]]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= {port["name"] for port in service["spec"]["ports"]}
    port = int(listen.rsplit(":", 1)[1])
    keymgr = pod_spec(items, "DaemonSet")["containers"][0]
    assert keymgr["ports"][0]["containerPort"] == port
    # The kubelet asks where keymgr listens.
    for probe in "startupProbe", "readinessProbe", "livenessProbe":
        assert keymgr[probe]["httpGet"]["host"] == ("::1" if listen.startswith("[") else "127.0.0.1")

"""The admission policies, evaluated: who may write what."""

import pytest

from deployment import example
from rules import AUTHORIZER, admits

POLICIES = {item["metadata"]["name"]: item for item in example("eks") if item["kind"] == "ValidatingAdmissionPolicy"}
KEYMGR = "system:serviceaccount:xdp-encryptor:ebpf-xdp-keymgr"
OPERATOR = "system:serviceaccount:xdp-encryptor:ebpf-xdp-operator"
REPLICASETS = "system:serviceaccount:kube-system:replicaset-controller"
NODE = "authentication.kubernetes.io/node-name"


@pytest.mark.parametrize(
    "user, extra, name, passes",
    [
        (KEYMGR, {NODE: ["node-a"]}, "node-a", True),
        (KEYMGR, {NODE: ["node-a"]}, "node-b", False),
        (KEYMGR, {NODE: ["node-a", "node-b"]}, "node-b", False),
        (KEYMGR, {NODE: []}, "node-a", False),
        # A token that is bound to no pod, such as one of `kubectl create token`.
        (KEYMGR, {"authentication.kubernetes.io/credential-id": ["JTI=1"]}, "node-a", False),
        (KEYMGR, None, "node-a", False),
        (OPERATOR, None, "node-a", True),
        ("admin", None, "node-a", True),
        ("system:serviceaccount:elsewhere:ebpf-xdp-keymgr", {NODE: ["node-a"]}, "node-b", True),
    ],
)
def test_a_keymgr_writes_its_own_node(user, extra, name, passes):
    policy = POLICIES["ebpf-xdp-keymgr-own-node"]
    thing = {"metadata": {"name": name}}
    assert admits(policy, user=user, extra=extra, name=name, old=thing, new=thing) == passes


def pod(annotations=None) -> dict:
    return {"metadata": {"name": "x", **({} if annotations is None else {"annotations": annotations})}}


ON, OFF, OTHER = {"ebpf.xdp/encrypt": "true"}, {"ebpf.xdp/encrypt": "false"}, {"example.com/a": "b"}
CHANGES = [  # before, after, whether ebpf.xdp/* changes
    (None, None, False),
    (None, OTHER, False),
    (OTHER, None, False),
    (ON, ON, False),
    (ON, {**ON, **OTHER}, False),
    ({**ON, **OTHER}, ON, False),
    (None, ON, True),
    (ON, None, True),
    (ON, {}, True),
    (ON, OTHER, True),
    (ON, OFF, True),
    ({}, OFF, True),
    (ON, {**ON, "ebpf.xdp/managed-by": "ebpf-xdp-operator"}, True),
    ({**ON, "ebpf.xdp/managed-by": "ebpf-xdp-operator"}, ON, True),
]


@pytest.mark.parametrize("before, after, changes", CHANGES)
def test_annotations_of_pods(before, after, changes):
    policy = POLICIES["xdp-encryptor-pod-annotations"]
    old, new = pod(before), pod(after)
    assert admits(policy, user="someone", old=old, new=new) == (not changes)
    assert admits(policy, user="someone", old=old, new=new, allowed=True)
    assert admits(policy, user=OPERATOR, old=old, new=new)
    # Of an update, controllers are asked like everybody else.
    assert admits(policy, user=REPLICASETS, old=old, new=new) == (not changes)


@pytest.mark.parametrize("annotations, has", [(None, False), ({}, False), (OTHER, False), (ON, True), (OFF, True)])
def test_annotations_of_new_pods(annotations, has):
    policy = POLICIES["xdp-encryptor-pod-annotations"]
    assert admits(policy, user="someone", operation="CREATE", new=pod(annotations)) == (not has)
    assert admits(policy, user="someone", operation="CREATE", new=pod(annotations), allowed=True)
    assert admits(policy, user=REPLICASETS, operation="CREATE", new=pod(annotations))
    assert admits(policy, user="system:serviceaccount:n:replicaset-controller", operation="CREATE", new=pod(annotations)) == (not has)


def workload(kind: str, annotations) -> dict:
    template = {} if annotations is None else {"metadata": {"annotations": annotations}}
    match kind:
        case "PodTemplate":
            return {"metadata": {"name": "x"}, "template": template}
        case "CronJob":
            return {"metadata": {"name": "x"}, "spec": {"jobTemplate": {"spec": {"template": template}}}}
        case _:
            return {"metadata": {"name": "x"}, "spec": {"template": template}}


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob", "ReplicationController", "PodTemplate"])
def test_annotations_of_templates(kind):
    policy = POLICIES["xdp-encryptor-template-annotations"]
    for before, after, changes in CHANGES:
        old, new = workload(kind, before), workload(kind, after)
        assert admits(policy, user="someone", kind=kind, old=old, new=new) == (not changes), (before, after)
        assert admits(policy, user="someone", kind=kind, old=old, new=new, allowed=True)
    for annotations, has in [(None, False), (OTHER, False), (ON, True), (OFF, True)]:
        assert admits(policy, user="someone", kind=kind, operation="CREATE", new=workload(kind, annotations)) == (not has)
    assert admits(policy, user="system:serviceaccount:kube-system:deployment-controller", kind=kind, operation="CREATE", new=workload(kind, OFF))


def test_the_right_that_is_asked_for_can_be_granted():
    (annotator,) = [item for item in example("eks") if item["kind"] == "ClusterRole" and item["metadata"]["name"] == "xdp-encryptor-annotator"]
    asked = {
        found for policy in POLICIES.values() for validation in policy["spec"]["validations"] for found in AUTHORIZER.findall(validation["expression"])
    }
    granted = {(group, resource, verb) for rule in annotator["rules"] for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert asked == granted


def test_they_deny_and_fail_closed():
    bindings = {item["spec"]["policyName"]: item for item in example("eks") if item["kind"] == "ValidatingAdmissionPolicyBinding"}
    for name, policy in POLICIES.items():
        assert policy["spec"]["failurePolicy"] == "Fail"
        assert bindings[name]["spec"]["validationActions"] == ["Deny"]

"""The kinds that every API server has (those that somebody here may need), and those that CRDs add."""

from refusal import invalid
from storage import Resource


def built_in():
    def kind(group, plural, name, namespaced, version="v1", **more):
        return Resource(group, plural, name, [version], namespaced, **more)

    workload = {"status": True, "generation": True}
    rbac, admission = "rbac.authorization.k8s.io", "admissionregistration.k8s.io"
    event_fields = ("involvedObject.name", "involvedObject.kind", "reason", "type")
    return [
        kind("", "namespaces", "Namespace", False, status=True, short=["ns"], fields=("status.phase",)),
        kind("", "nodes", "Node", False, status=True, short=["no"], fields=("spec.unschedulable",)),
        kind("", "pods", "Pod", True, status=True, short=["po"],
             fields=("spec.nodeName", "status.phase", "status.podIP", "spec.restartPolicy", "spec.serviceAccountName")),
        kind("", "services", "Service", True, status=True, short=["svc"], fields=("spec.clusterIP", "spec.type")),
        kind("", "configmaps", "ConfigMap", True, short=["cm"]),
        kind("", "secrets", "Secret", True, fields=("type",)),
        kind("", "serviceaccounts", "ServiceAccount", True, short=["sa"]),
        kind("", "endpoints", "Endpoints", True, short=["ep"]),
        kind("", "events", "Event", True, short=["ev"], fields=event_fields),
        kind("events.k8s.io", "events", "Event", True, short=["ev"], fields=("regarding.name", "regarding.kind", "reason", "type")),
        kind("apps", "daemonsets", "DaemonSet", True, short=["ds"], **workload),
        kind("apps", "deployments", "Deployment", True, short=["deploy"], **workload),
        kind("apps", "statefulsets", "StatefulSet", True, short=["sts"], **workload),
        kind("apps", "replicasets", "ReplicaSet", True, short=["rs"], **workload),
        kind("batch", "jobs", "Job", True, **workload),
        kind("discovery.k8s.io", "endpointslices", "EndpointSlice", True, generation=True),
        kind("coordination.k8s.io", "leases", "Lease", True),
        kind("networking.k8s.io", "networkpolicies", "NetworkPolicy", True, generation=True, short=["netpol"]),
        kind("policy", "poddisruptionbudgets", "PodDisruptionBudget", True, short=["pdb"], **workload),
        kind("scheduling.k8s.io", "priorityclasses", "PriorityClass", False, short=["pc"]),
        kind(rbac, "roles", "Role", True), kind(rbac, "rolebindings", "RoleBinding", True),
        kind(rbac, "clusterroles", "ClusterRole", False), kind(rbac, "clusterrolebindings", "ClusterRoleBinding", False),
        kind(admission, "validatingadmissionpolicies", "ValidatingAdmissionPolicy", False, **workload),
        kind(admission, "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", False, generation=True),
        kind("apiextensions.k8s.io", "customresourcedefinitions", "CustomResourceDefinition", False, short=["crd", "crds"], **workload),
    ]


def from_crd(crd, definition):
    """The kind that a CustomResourceDefinition adds. `definition`: the kind of CRDs, for messages."""
    spec, name = crd.get("spec", {}), crd["metadata"]["name"]
    names, versions = spec.get("names", {}), spec.get("versions", [])
    errors = []
    if name != f"{names.get('plural')}.{spec.get('group')}":
        errors.append(("metadata.name", f'Invalid value: "{name}": must be spec.names.plural+"."+spec.group'))
    if not names.get("kind"):
        errors.append(("spec.names.kind", "Required value"))
    if spec.get("scope") not in ("Namespaced", "Cluster"):
        errors.append(("spec.scope", f'Unsupported value: "{spec.get("scope")}": supported values: "Cluster", "Namespaced"'))
    storage = [version["name"] for version in versions if version.get("storage")]
    if len(storage) != 1:
        errors.append(("spec.versions", "Invalid value: must have exactly one version marked as storage version"))
    for version in versions:
        if not version.get("schema", {}).get("openAPIV3Schema"):
            errors.append((f"spec.versions[{version['name']}].schema.openAPIV3Schema", "Required value: schemas are required"))
    if errors:
        raise invalid(definition, name, errors)
    fields = {field["jsonPath"].lstrip(".") for version in versions for field in version.get("selectableFields", [])}
    return Resource(
        spec["group"], names["plural"], names["kind"], [version["name"] for version in versions if version.get("served")],
        spec["scope"] == "Namespaced", generation=True, short=names.get("shortNames", ()), singular=names.get("singular"),
        status=any("status" in version.get("subresources", {}) for version in versions), custom=True,
        schemas={version["name"]: version["schema"]["openAPIV3Schema"] for version in versions}, storage_version=storage[0],
        fields=fields)

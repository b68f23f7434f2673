"""What the API server does with objects on their way in: create, replace, patch, apply, delete."""

import json
import random
import re
import time
import uuid

import kinds
import schema as schemas
from managed_fields import Managers
from refusal import MODIFIED, Refusal, already_exists, conflict, invalid, not_found
from storage import Entry, clone

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
# Names of RBAC objects only have to fit into a path.
LOOSE_NAME = re.compile(r"[^/%]+")
# Fields that only the server writes.
KEPT = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion", "generateName")


MERGE_PATCH, STRATEGIC_MERGE_PATCH = "application/merge-patch+json", "application/strategic-merge-patch+json"


def unmet(title, given, actual):
    return f"Precondition failed: {title} in precondition: {given}, {title} in object meta: {actual}"


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def merge(target, patch):
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = merge(target.get(name), value)
    return target


def json_patch(target, operations):
    """RFC 6902: add, remove, replace, test."""
    for operation in operations:
        steps = [step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:]]
        at = target
        try:
            for step in steps[:-1]:
                at = at[int(step)] if isinstance(at, list) else at[step]
            last, op = steps[-1], operation["op"]
            if isinstance(at, list):
                if op == "add":
                    at.insert(len(at) if last == "-" else int(last), operation["value"])
                    continue
                last = int(last)
            if op == "test" and at[last] != operation["value"]:
                raise Refusal(422, "Invalid", f"testing value {operation['path']} failed")
            if op == "remove":
                del at[last]
            elif op in ("add", "replace"):
                if op == "replace":
                    at[last]  # must exist
                at[last] = operation["value"]
        except (KeyError, IndexError, ValueError, TypeError):
            raise Refusal(422, "Invalid", f"the server rejected our request: path {operation['path']} does not exist") from None
    return target


class Objects:
    """`request`: an object with `user`, `query`, `agent` (the User-Agent's name) and `dry_run`."""

    def __init__(self, storage, *, track_fields=True, graceful_pods=False):
        self.storage, self.track_fields, self.graceful_pods = storage, track_fields, graceful_pods

    # Verbs

    def create(self, resource, version, namespace, body, request):
        obj = self.parsed(resource, version, namespace, None, body)
        metadata = obj["metadata"]
        if not metadata.get("name"):
            if not metadata.get("generateName"):
                raise invalid(resource, "", [("metadata.name", "Required value: name or generateName is required")])
            metadata["name"] = metadata["generateName"] + "".join(random.choices("bcdfghjklmnpqrstvwxz2456789", k=5))
        if metadata.get("resourceVersion"):
            # Without a reason: so it comes from the storage.
            raise Refusal(500, "", "resourceVersion should not be set on objects to be created")
        return self.finish_create(resource, version, namespace, obj, request, "Update")

    def finish_create(self, resource, version, namespace, obj, request, operation):
        metadata = obj["metadata"]
        name = metadata["name"]
        pattern = LOOSE_NAME if resource.group == "rbac.authorization.k8s.io" else NAME
        if not pattern.fullmatch(name) or len(name) > 253:
            raise invalid(resource, name, [("metadata.name", f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of '
                                            "lower case alphanumeric characters, '-' or '.'")])
        if resource.namespaced:
            metadata["namespace"] = namespace
            home = self.storage.resource("", "namespaces").objects.get(("", namespace))
            if home is None:
                raise not_found(self.storage.resource("", "namespaces"), namespace)
        key = (namespace if resource.namespaced else "", name)
        if key in resource.objects:
            raise already_exists(resource, name)
        for field in ("deletionTimestamp", "deletionGracePeriodSeconds"):
            metadata.pop(field, None)
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = now()
        if resource.generation:
            metadata["generation"] = 1
        if resource.status:
            obj.pop("status", None)
        self.admit(resource, version, obj, None, None)
        if resource.plural == "pods" and not resource.group:
            obj["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
        if resource.plural == "namespaces":
            obj.setdefault("spec", {"finalizers": ["kubernetes"]})
            obj["status"] = {"phase": "Active"}
            metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = name
        managers = Managers()
        if self.track_fields:
            who = (self.manager(request, operation), operation, "")
            if operation == "Update":
                managers = managers.updated(who, None, obj, self.merge_schema(resource, version), resource.api_version(version), now())
            else:
                managers = request.managers
        return self.store(resource, key, obj, managers, request)

    def replace(self, resource, version, namespace, name, subresource, body, request):
        obj = self.parsed(resource, version, namespace, name, body)
        old = self.existing(resource, namespace, name)
        asked = obj["metadata"].get("resourceVersion")
        if not asked and (resource.custom or resource.plural == "leases"):
            raise invalid(resource, name, [("metadata.resourceVersion", "Invalid value: 0: must be specified for an update")])
        return self.change(resource, version, old, obj, subresource, request, "Update")

    def patch(self, resource, version, namespace, name, subresource, content_type, body, request):
        if content_type == "application/apply-patch+yaml":
            return self.apply(resource, version, namespace, name, subresource, body, request)
        old = self.existing(resource, namespace, name)
        try:
            patch = json.loads(body)
        except ValueError:
            raise Refusal(400, "BadRequest", "the patch is not JSON") from None
        obj = old.object()
        version_before = obj["metadata"].pop("resourceVersion")
        if content_type == "application/json-patch+json":
            obj = json_patch(obj, patch)
        elif content_type == MERGE_PATCH or content_type == STRATEGIC_MERGE_PATCH and not resource.custom:
            obj = merge(obj, patch)
        else:
            raise Refusal(415, "UnsupportedMediaType", f"the body of the request was in an unknown format - {content_type}")
        obj["metadata"].setdefault("resourceVersion", version_before)
        uid = old.object()["metadata"]["uid"]
        if obj["metadata"]["resourceVersion"] == version_before and obj["metadata"].get("uid") not in (None, uid):
            # A patch has no preconditions: the uid is one more field that cannot be changed.
            raise invalid(resource, name, [("metadata.uid", f'Invalid value: "{obj["metadata"]["uid"]}": field is immutable')])
        obj = self.parsed(resource, version, namespace, name, json.dumps(obj).encode())
        return self.change(resource, version, old, obj, subresource, request, "Update")

    def apply(self, resource, version, namespace, name, subresource, body, request):
        manager = request.query.get("fieldManager")
        if not manager:
            raise Refusal(422, "Invalid", "PatchOptions is invalid: fieldManager: Required value: is required for apply patch")
        try:
            configuration = json.loads(body)
        except ValueError:
            raise Refusal(400, "BadRequest", "this API server reads applied configurations as JSON only (which is YAML)") from None
        if configuration.get("metadata", {}).get("managedFields"):
            raise Refusal(400, "BadRequest", "metadata.managedFields must be nil")
        if not configuration.get("apiVersion") or not configuration.get("kind"):
            raise Refusal(400, "BadRequest", "apiVersion and kind must be set in an applied configuration")
        configuration = self.parsed(resource, version, namespace, name, json.dumps(configuration).encode())
        asked = configuration["metadata"].pop("resourceVersion", None)
        uid = configuration["metadata"].pop("uid", None)
        key = (namespace if resource.namespaced else "", name)
        old = resource.objects.get(key)
        if old is None and (subresource or asked or uid):
            raise not_found(resource, name) if subresource else conflict(resource, name, MODIFIED)
        if subresource:
            configuration = {"metadata": {"name": name}, **({"status": configuration["status"]} if "status" in configuration else {})}
        elif resource.status:
            configuration.pop("status", None)
        schema = self.merge_schema(resource, version)
        if schema:
            # Without defaults: nobody owns what nobody has written.
            properties = {**schema.get("properties", {}), "metadata": {"x-kubernetes-preserve-unknown-fields": True}}
            schemas.prune(configuration, {**schema, "properties": properties}, False)
        live = old.object() if old else {"metadata": {"name": name, **({"namespace": namespace} if resource.namespaced else {})}}
        managers = (old.managers if old else Managers()).applied(
            (manager, "Apply", subresource or ""), live, clone(configuration), schema, resource.api_version(version), now(),
            request.query.get("force") == "true", resource, name)
        request.managers = managers
        if old is None:
            return self.finish_create(resource, version, namespace, live, request, "Apply"), True
        if asked:
            live["metadata"]["resourceVersion"] = asked
        if uid:
            live["metadata"]["uid"] = uid
        return self.change(resource, version, old, live, subresource, request, "Apply"), False

    def delete(self, resource, namespace, name, options, request):
        """Returns the object that stays for now, or None."""
        old = self.existing(resource, namespace, name)
        obj = old.object()
        metadata = obj["metadata"]
        for field, given in ((f, (options.get("preconditions") or {}).get(f)) for f in ("uid", "resourceVersion")):
            if given and given != metadata[field]:
                title = "UID" if field == "uid" else "ResourceVersion"
                raise conflict(resource, name, unmet(title, given, metadata[field]))
        if request.dry_run:
            return old
        grace = options.get("gracePeriodSeconds", request.query.get("gracePeriodSeconds"))
        if resource.plural == "pods" and obj.get("spec", {}).get("nodeName"):
            # The kubelet ends it and then deletes it with grace 0.
            grace = int(grace) if grace is not None else 30 if self.graceful_pods else 0
        else:
            grace = 0
        if metadata.get("finalizers") or grace > 0:
            if metadata.get("deletionTimestamp") and grace >= metadata.get("deletionGracePeriodSeconds", 0):
                return old
            metadata["deletionTimestamp"] = now()
            metadata["deletionGracePeriodSeconds"] = grace
            if metadata.get("generation"):
                metadata["generation"] += 1
            return self.storage.put(resource, old.key, obj, old.managers)
        self.gone(resource, old.key, obj)
        return None

    def gone(self, resource, key, obj):
        if resource.plural == "namespaces" and not resource.group:
            for other in list(self.storage.resources.values()):
                for inside in [k for k in other.objects if k[0] == key[1]] if other.namespaced else []:
                    self.storage.delete(other, inside)
        last = self.storage.delete(resource, key)
        if resource.plural == "customresourcedefinitions":
            kind = self.storage.resource(obj["spec"]["group"], obj["spec"]["names"]["plural"])
            if kind:
                self.storage.remove(kind)
        return last

    def load(self, obj):
        """Stores an object as it is, status included, with the namespace that it needs: what a test begins with."""
        resource, version = self.storage.find(obj["apiVersion"], obj["kind"])
        metadata = obj["metadata"]
        namespace = metadata.get("namespace", "default") if resource.namespaced else ""
        if namespace and ("", namespace) not in self.storage.resource("", "namespaces").objects:
            self.load({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        if namespace:
            metadata["namespace"] = namespace
        key = (namespace, metadata["name"])
        old = resource.objects.get(key)
        obj = {name: value for name, value in obj.items() if name not in ("apiVersion", "kind")}
        metadata["uid"] = metadata.get("uid") or (json.loads(b"{" + old.raw)["metadata"]["uid"] if old else str(uuid.uuid4()))
        metadata.setdefault("creationTimestamp", now())
        if resource.generation:
            metadata.setdefault("generation", 1)
        if resource.plural == "namespaces":
            metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata["name"]
            obj.setdefault("status", {"phase": "Active"})
        self.admit(resource, version, obj, old.object() if old else None, None)
        return self.storage.put(resource, key, obj)

    # Steps

    def parsed(self, resource, version, namespace, name, body):
        try:
            obj = json.loads(body)
        except ValueError:
            raise Refusal(400, "BadRequest", "the object provided is unrecognized: the body is not JSON") from None
        if not isinstance(obj, dict):
            raise Refusal(400, "BadRequest", "the body is no object")
        given = (obj.pop("apiVersion", None) or resource.api_version(version), obj.pop("kind", None) or resource.kind)
        if given != (resource.api_version(version), resource.kind):
            wanted = f"{resource.kind} of {resource.api_version(version)}"
            raise Refusal(400, "BadRequest", f'{given[1]} in version "{given[0]}" cannot be handled as a {wanted}')
        metadata = obj.setdefault("metadata", {})
        metadata.pop("managedFields", None)
        for field in [field for field, value in metadata.items() if value is None]:
            del metadata[field]
        for field in ("labels", "annotations"):
            for label, value in (metadata.get(field) or {}).items():
                if not isinstance(value, str):
                    raise Refusal(400, "BadRequest", f"metadata.{field}.{label}: expected a string")
            if not metadata.get(field):
                metadata.pop(field, None)
        if name and metadata.setdefault("name", name) != name:
            raise Refusal(400, "BadRequest", f'the name of the object ({metadata["name"]}) does not match the name on the URL ({name})')
        if resource.namespaced and metadata.setdefault("namespace", namespace) != namespace:
            raise Refusal(400, "BadRequest", f'the namespace of the provided object does not match the namespace sent on the request')
        if not resource.namespaced:
            metadata.pop("namespace", None)
        return obj

    def existing(self, resource, namespace, name):
        entry = resource.objects.get((namespace if resource.namespaced else "", name))
        if entry is None:
            raise not_found(resource, name)
        return entry

    def change(self, resource, version, old, obj, subresource, request, operation):
        before, name = old.object(), old.key[1]
        metadata, kept = obj["metadata"], before["metadata"]
        if metadata.get("resourceVersion") and metadata["resourceVersion"] != kept["resourceVersion"]:
            raise conflict(resource, name, MODIFIED)
        if metadata.get("uid") and metadata["uid"] != kept["uid"]:
            raise conflict(resource, name, unmet("UID", metadata["uid"], kept["uid"]))
        if subresource:
            # Of a status write nothing but the status counts.
            obj = {**before, "status": obj["status"]} if "status" in obj else {k: v for k, v in before.items() if k != "status"}
        elif resource.status:
            obj.pop("status", None)
            if "status" in before:
                obj["status"] = before["status"]
        obj["metadata"] = metadata = dict(kept if subresource else metadata)
        for field in KEPT:
            metadata.pop(field, None)
            if field in kept:
                metadata[field] = kept[field]
        self.admit(resource, version, obj, before, subresource)
        if resource.generation and self.specification(resource, obj) != self.specification(resource, before):
            metadata["generation"] = kept.get("generation", 0) + 1
        if kept.get("deletionTimestamp") and set(metadata.get("finalizers") or []) - set(kept.get("finalizers") or []):
            why = "Forbidden: no new finalizers can be added if the object is being deleted"
            raise invalid(resource, name, [("metadata.finalizers", why)])
        if obj == before and (operation == "Update" or request.managers.owned == old.managers.owned):
            # Nothing changes: no new version, no event.
            return old
        managers = old.managers
        if operation == "Apply":
            managers = request.managers
        elif self.track_fields:
            who = (self.manager(request, operation), operation, subresource or "")
            managers = managers.updated(who, before, obj, self.merge_schema(resource, version), resource.api_version(version), now())
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers") and not metadata.get("deletionGracePeriodSeconds"):
            return old if request.dry_run else self.gone(resource, old.key, obj)
        return self.store(resource, old.key, obj, managers, request)

    def store(self, resource, key, obj, managers, request):
        if request.dry_run:
            return Entry(key, 0, obj, managers, resource)
        return self.storage.put(resource, key, obj, managers)

    def admit(self, resource, version, obj, old, subresource):
        """Schemas and the rules of single kinds; may change the object."""
        name = obj["metadata"]["name"]
        schema = self.merge_schema(resource, version)
        if schema:
            errors = []
            content = self.without_metadata(obj)
            schemas.prune(content, schema)
            required = [field for field in schema.get("required", []) if field != "metadata"]
            schemas.validate(content, {**schema, "required": required}, "", old and self.without_metadata(old), errors)
            if errors:
                raise invalid(resource, name, errors)
            for field in [field for field in obj if field != "metadata" and field not in content]:
                del obj[field]
            obj.update(content)
        if resource.plural == "events" and resource.group:
            self.check_event(name, obj, old, resource)
        if resource.plural == "leases":
            seconds = obj.get("spec", {}).get("leaseDurationSeconds")
            if seconds is not None and seconds <= 0:
                raise invalid(resource, name, [("spec.leaseDurationSeconds", "must be greater than 0")])
        if resource.plural == "customresourcedefinitions" and not subresource:
            self.define(obj)

    def check_event(self, name, obj, old, resource):
        required = ("eventTime", "reportingController", "reportingInstance", "action", "reason", "type")
        wrong = [(field, "Required value") for field in required if not obj.get(field)]
        if obj.get("regarding", {}).get("namespace", "default") != obj["metadata"].get("namespace"):
            wrong.append(("regarding.namespace", "does not match event.namespace"))
        if len(obj.get("note", "").encode()) > 1024:
            wrong.append(("message", "can have at most 1024 characters"))
        if obj.get("type") not in (None, "Normal", "Warning"):
            wrong.append(("type", "has invalid value"))
        series = obj.get("series")
        if series and (series.get("count", 0) < 2 or not series.get("lastObservedTime")):
            wrong.append(("series", "count must be at least 2, and lastObservedTime is required"))

        def fixed(event):
            return {field: value for field, value in event.items() if field not in ("series", "metadata")}

        if old and fixed(old) != fixed(obj):
            wrong.append(("event", "field is immutable"))
        if wrong:
            raise invalid(resource, name, wrong)

    def define(self, crd):
        names, group = crd["spec"].get("names", {}), crd["spec"].get("group")
        names.setdefault("singular", names.get("kind", "").lower())
        names.setdefault("listKind", names.get("kind", "") + "List")
        kind = kinds.from_crd(crd, self.storage.resource("apiextensions.k8s.io", "customresourcedefinitions"))
        known = self.storage.resource(group, names["plural"])
        if known is None:
            self.storage.add(kind)
        else:
            for field in ("versions", "schemas", "status", "short", "singular", "storage_version", "fields"):
                setattr(known, field, getattr(kind, field))
        since = crd["metadata"].get("creationTimestamp", now())
        crd["status"] = {
            "acceptedNames": names, "storedVersions": [kind.storage_version],
            "conditions": [
                {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": since}
                for kind, reason, message in (
                    ("NamesAccepted", "NoConflicts", "no conflicts found"),
                    ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
                )
            ],
        }

    def manager(self, request, operation):
        return request.query.get("fieldManager") or request.agent

    def merge_schema(self, resource, version):
        return resource.schemas.get(version) if resource.custom else None

    def without_metadata(self, obj):
        return {name: value for name, value in obj.items() if name != "metadata"}

    def specification(self, resource, obj):
        """What `generation` counts changes of."""
        ignored = {"metadata"} | ({"status"} if resource.status or not resource.custom else set())
        return {name: value for name, value in obj.items() if name not in ignored}

"""Who owns which field: managedFields, and server-side apply on top of it.

A path is a tuple of fieldsV1 elements: `f:NAME`, `k:{keys of a list item}`, `v:VALUE` of a set, `.` for the item itself. Values that are
not merged (atomic lists, scalars, empty maps) are leaves.
"""

import functools
import json

from refusal import Refusal, details

# How lists of built-in kinds merge; everything else is atomic here. CRDs say it themselves (x-kubernetes-list-type).
BUILT_IN = {
    "f:conditions": ("map", ("type",)), "f:ownerReferences": ("map", ("uid",)), "f:finalizers": ("set", ()),
    "f:containers": ("map", ("name",)), "f:initContainers": ("map", ("name",)), "f:podIPs": ("map", ("ip",)),
}
ATOMIC = ("atomic", ())
# Not owned by anybody.
UNTRACKED = {
    ("f:apiVersion",), ("f:kind",), ("f:metadata", "f:name"), ("f:metadata", "f:namespace"), ("f:metadata", "f:uid"),
    ("f:metadata", "f:resourceVersion"), ("f:metadata", "f:generation"), ("f:metadata", "f:creationTimestamp"),
    ("f:metadata", "f:deletionTimestamp"), ("f:metadata", "f:deletionGracePeriodSeconds"), ("f:metadata", "f:managedFields"),
    ("f:metadata", "f:generateName"), ("f:metadata", "f:selfLink"), ("f:metadata",),
}


def list_kind(path, schema):
    """How the list at a path merges. `schema`: of its kind; None for built-in kinds."""
    if schema is None or path[:1] == ("f:metadata",):
        return BUILT_IN.get(path[-1], ATOMIC)
    for element in path:
        if schema is None:
            return ATOMIC
        if element.startswith("f:"):
            properties = schema.get("properties", {})
            schema = properties.get(element[2:], schema.get("additionalProperties"))
            if not isinstance(schema, dict):
                schema = None
        else:
            schema = schema.get("items")
    if schema is None:
        return ATOMIC
    kind = schema.get("x-kubernetes-list-type", "atomic")
    return (kind, tuple(schema.get("x-kubernetes-list-map-keys", ())))


def is_atomic_map(path, schema):
    for element in path:
        if not isinstance(schema, dict):
            return False
        if element.startswith("f:"):
            schema = schema.get("properties", {}).get(element[2:], schema.get("additionalProperties"))
        else:
            schema = schema.get("items")
    return isinstance(schema, dict) and schema.get("x-kubernetes-map-type") == "atomic"


def item_key(item, keys):
    return "k:" + json.dumps({key: item.get(key) for key in keys}, separators=(",", ":"), sort_keys=True)


def leaves(value, schema=None, path=(), into=None):
    """Every leaf of an object: {path: value}."""
    if into is None:
        into = {}
    if isinstance(value, dict) and value and not (path and schema and is_atomic_map(path, schema)):
        for name, child in value.items():
            leaves(child, schema, path + ("f:" + name,), into)
        return into
    if isinstance(value, list) and value and path:
        kind, keys = list_kind(path, schema)
        if kind == "map" and all(isinstance(item, dict) for item in value):
            for item in value:
                at = path + (item_key(item, keys),)
                into[at + (".",)] = True
                for name, child in item.items():
                    leaves(child, schema, at + ("f:" + name,), into)
            return into
        if kind == "set":
            for item in value:
                into[path + ("v:" + json.dumps(item),)] = item
            return into
    if path not in UNTRACKED:
        into[path] = value
    return into


def find(items, element):
    """The item of a list that a `k:` element names."""
    wanted = json.loads(element[2:])
    for item in items:
        if isinstance(item, dict) and all(item.get(key) == value for key, value in wanted.items()):
            return item
    return None


def put(root, path, value):
    """Sets a leaf, making what is above it."""
    at = root
    for index, element in enumerate(path):
        last = index == len(path) - 1
        if element == ".":
            return
        if element.startswith("f:"):
            name = element[2:]
            if last:
                at[name] = value
                return
            following = path[index + 1]
            child = at.get(name)
            wanted = dict if following.startswith("f:") else list
            if not isinstance(child, wanted):
                child = at[name] = wanted()
            at = child
        elif element.startswith("k:"):
            found = find(at, element)
            if found is None:
                found = json.loads(element[2:])
                at.append(found)
            at = found
        else:
            if value not in at:
                at.append(value)
            return


def take(root, path):
    """Removes a leaf, and maps and lists above it that are empty then."""
    steps, at = [], root
    for element in path[:-1]:
        if element.startswith("f:"):
            child = at.get(element[2:]) if isinstance(at, dict) else None
        else:
            child = find(at, element) if isinstance(at, list) else None
        if child is None:
            return
        steps.append((at, element, child))
        at = child
    last = path[-1]
    if last == ".":
        # The item goes when nothing of it is left but its keys.
        parent, element, item = steps.pop()
        if set(item) <= set(json.loads(element[2:])):
            parent.remove(item)
        at = parent
    elif last.startswith("f:") and isinstance(at, dict):
        at.pop(last[2:], None)
    elif last.startswith("v:") and isinstance(at, list):
        value = json.loads(last[2:])
        if value in at:
            at.remove(value)
    for parent, element, child in reversed(steps):
        if child or not element.startswith("f:") or (parent is root):
            break
        parent.pop(element[2:], None)


def is_key(path):
    """A field that identifies its list item: goes with the item only."""
    return len(path) > 1 and path[-2].startswith("k:") and path[-1][2:] in json.loads(path[-2][2:])


INTERNED = {}


def interned(paths):
    """Objects that are alike share one set."""
    paths = frozenset(paths)
    return INTERNED.setdefault(paths, paths)


@functools.lru_cache(maxsize=4096)
def tree(paths):
    root = {}
    for path in sorted(paths):
        at = root
        for element in path:
            at = at.setdefault(element, {})
    return root


def describe(path):
    """As the API server names a field in a conflict."""
    text = ""
    for element in path:
        if element.startswith("f:"):
            text += "." + element[2:]
        elif element.startswith("k:"):
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in json.loads(element[2:]).items()) + "]"
        elif element.startswith("v:"):
            text += f"[={element[2:]}]"
    return text


class Managers:
    """{(manager, operation, subresource): (paths, apiVersion, time)}; immutable."""

    __slots__ = ("owned",)

    def __init__(self, owned=None):
        self.owned = owned or {}

    def json(self):
        entries = []
        for (manager, operation, subresource), (paths, version, time) in self.owned.items():
            entry = {
                "manager": manager, "operation": operation, "apiVersion": version, "time": time, "fieldsType": "FieldsV1",
                "fieldsV1": tree(paths),
            }
            if subresource:
                entry["subresource"] = subresource
            entries.append(entry)
        return entries

    def updated(self, who, old, new, schema, version, time):
        """After a create, replace or patch: what has changed belongs to its writer alone."""
        before, after = leaves(old, schema) if old else {}, leaves(new, schema)
        changed = {path for path, value in after.items() if path not in before or before[path] != value}
        touched = changed | (before.keys() - after.keys())
        if not touched:
            return self
        owned = {}
        for key, (paths, its_version, its_time) in self.owned.items():
            rest = paths - touched if not paths.isdisjoint(touched) else paths
            if rest:
                owned[key] = (interned(rest), its_version, its_time)
        mine = owned.get(who, (frozenset(), version, time))[0] | changed
        if mine:
            owned[who] = (interned(mine), version, time)
        return Managers(owned)

    def applied(self, who, live, configuration, schema, version, time, force, resource, name):
        """Server-side apply: returns the managers after it, and changes `live`."""
        wanted = leaves(configuration, schema)
        current = leaves(live, schema)
        owned = dict(self.owned)
        conflicts = []
        for key, (paths, its_version, its_time) in list(owned.items()):
            if key == who:
                continue
            clash = {path for path in wanted if path in paths and current.get(path) != wanted[path]}
            if not clash:
                continue
            if force:
                rest = paths - clash
                if rest:
                    owned[key] = (interned(rest), its_version, its_time)
                else:
                    del owned[key]
            else:
                conflicts += [(key[0], key[1], its_version, path) for path in sorted(clash)]
        if conflicts:
            raise apply_conflict(conflicts, resource, name)
        before = owned.get(who, (frozenset(), None, None))[0]
        others = frozenset().union(*(paths for key, (paths, _, _) in owned.items() if key != who))
        # Items last: they go only when nothing is left of them.
        for path in sorted(before - wanted.keys() - others, key=lambda path: (path[-1] == ".", path)):
            if not is_key(path):
                take(live, path)
        for path, value in wanted.items():
            put(live, path, value)
        now = interned(wanted.keys())
        if now:
            if who not in owned or owned[who][0] != now:
                owned[who] = (now, version, time)
        else:
            owned.pop(who, None)
        return Managers(owned)


def apply_conflict(conflicts, resource, name):
    by_manager = {}
    for manager, operation, version, path in conflicts:
        via = f" using {version}" if operation == "Update" else ""
        by_manager.setdefault(f'"{manager}"{via}', []).append(describe(path))
    if len(conflicts) == 1:
        (manager, paths), = by_manager.items()
        message = f"Apply failed with 1 conflict: conflict with {manager}: {paths[0]}"
    else:
        lines = []
        for manager, paths in by_manager.items():
            lines += [f"conflicts with {manager}:"] + [f"- {path}" for path in paths]
        message = f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines)
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {manager}", "field": path}
        for manager, paths in by_manager.items() for path in paths
    ]
    return Refusal(409, "Conflict", message, details(resource, name) | {"causes": causes})

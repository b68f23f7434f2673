"""What etcd and the watch cache do: one version counter for everything, objects as bytes, a window of history, watchers."""

import base64
import collections
import copy
import itertools
import json

import selection
from managed_fields import Managers
from refusal import Refusal, expired


def dumps(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class Resource:
    """A kind, its objects, and their recent history."""

    def __init__(self, group, plural, kind, versions, namespaced, *, status=False, generation=False, short=(), singular=None,
                 schemas=None, storage_version=None, custom=False, verbs=None, fields=()):
        self.group, self.plural, self.kind, self.versions, self.namespaced = group, plural, kind, list(versions), namespaced
        self.status, self.generation, self.short, self.singular = status, generation, list(short), singular or kind.lower()
        self.schemas, self.custom = schemas or {}, custom
        self.storage_version = storage_version or self.versions[0]
        self.fields = {"metadata.name", "metadata.namespace", *fields}
        self.objects = {}
        self.history = collections.deque()
        self.version = 0
        # Watches from versions before this one are too old.
        self.oldest = 0
        self.watchers = set()
        self.order = None

    @property
    def qualified(self):
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def api_version(self, version):
        return f"{self.group}/{version}" if self.group else version

    def prefix(self, version):
        return f'{{"kind":"{self.kind}","apiVersion":"{self.api_version(version)}",'.encode()

    def sorted_keys(self):
        if self.order is None:
            self.order = sorted(self.objects)
        return self.order


class Entry:
    """One version of one object. Never changed."""

    __slots__ = ("key", "version", "raw", "labels", "fields", "managers")

    def __init__(self, key, version, obj, managers, resource, raw=None):
        self.key, self.version, self.managers = key, version, managers
        metadata = obj["metadata"]
        if raw is None:
            if managers.owned:
                # Not in the dictionary that the caller goes on to use.
                obj = {**obj, "metadata": {**metadata, "managedFields": managers.json()}}
            raw = dumps(obj)[1:].encode()
        # Everything after the opening brace: what comes before depends on the version in which it is asked for.
        self.raw = raw
        self.labels = metadata.get("labels") or {}
        self.fields = {path: selected(obj, path) for path in resource.fields}

    def object(self):
        """A copy, without apiVersion, kind and managedFields."""
        obj = json.loads(b"{" + self.raw)
        obj["metadata"].pop("managedFields", None)
        return obj


def selected(obj, path):
    at = obj
    for name in path.split("."):
        at = at.get(name) if isinstance(at, dict) else None
    return "" if at is None else at if isinstance(at, str) else str(at).lower() if isinstance(at, bool) else str(at)


class Event:
    """A change, serialised once however many watch."""

    __slots__ = ("kind", "version", "entry", "previous", "lines")

    def __init__(self, kind, version, entry, previous):
        self.kind, self.version, self.entry, self.previous, self.lines = kind, version, entry, previous, {}

    def chunk(self, kind, resource, version):
        """As a chunk of an HTTP body."""
        found = self.lines.get((kind, version))
        if found is None:
            found = self.lines[(kind, version)] = chunk(kind.encode(), resource.prefix(version) + self.entry.raw)
        return found


def chunk(kind, obj):
    line = b'{"type":"%s","object":%s}\n' % (kind, obj)
    return b"%x\r\n%s\r\n" % (len(line), line)


class Storage:
    def __init__(self, window):
        self.version = 1000
        self.window = window
        self.resources = {}
        self.snapshots = collections.OrderedDict()
        self.snapshot_ids = itertools.count(1)
        self.compacted = 0

    # Kinds

    def add(self, resource):
        resource.oldest = resource.version = self.version
        self.resources[(resource.group, resource.plural)] = resource
        return resource

    def remove(self, resource):
        for key in list(resource.objects):
            self.delete(resource, key)
        del self.resources[(resource.group, resource.plural)]

    def resource(self, group, plural):
        return self.resources.get((group, plural))

    def find(self, api_version, kind):
        group, _, version = api_version.rpartition("/")
        for resource in self.resources.values():
            if resource.group == group and resource.kind == kind and version in resource.versions:
                return resource, version
        raise Refusal(404, "NotFound", f'no matches for kind "{kind}" in version "{api_version}"')

    # Objects

    def put(self, resource, key, obj, managers=None):
        """Stores a new version of an object (its metadata gets the version) and tells the watchers."""
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        previous = resource.objects.get(key)
        entry = Entry(key, self.version, obj, managers or Managers(), resource)
        resource.objects[key] = entry
        if previous is None:
            resource.order = None
        self.publish(resource, Event("ADDED" if previous is None else "MODIFIED", self.version, entry, previous))
        return entry

    def delete(self, resource, key):
        self.version += 1
        previous = resource.objects.pop(key)
        resource.order = None
        obj = previous.object()
        obj["metadata"]["resourceVersion"] = str(self.version)
        last = Entry(key, self.version, obj, previous.managers, resource)
        self.publish(resource, Event("DELETED", self.version, last, previous))
        return last

    def publish(self, resource, event):
        resource.version = event.version
        resource.history.append(event)
        while len(resource.history) > self.window:
            resource.oldest = resource.history.popleft().version
        for watcher in list(resource.watchers):
            watcher.take(event)

    def compact(self):
        """Forgets history: lists in progress and watches that are not connected have to begin again."""
        self.compacted = self.version
        for resource in self.resources.values():
            resource.history.clear()
            resource.oldest = self.version
        self.snapshots.clear()

    # Lists

    def page(self, resource, version, namespace, query):
        """The body of a list."""
        limit = int(query.get("limit") or 0)
        token = query.get("continue")
        wanted = selection.both(query.get("labelSelector"), query.get("fieldSelector"), resource)
        if token:
            try:
                state = json.loads(base64.urlsafe_b64decode(token))
                snapshot_id, start = state["id"], state["start"]
            except ValueError:
                raise Refusal(400, "BadRequest", "continue key is not valid") from None
            found = self.snapshots.get(snapshot_id)
            if found is None:
                raise expired(
                    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
                    "the continue parameter.")
            at, entries = found
        else:
            self.check_list_version(query)
            at, start = self.version, 0
            entries = [resource.objects[key] for key in resource.sorted_keys()]
            if namespace:
                entries = [entry for entry in entries if entry.key[0] == namespace]
            if wanted:
                entries = [entry for entry in entries if wanted(entry)]
            snapshot_id = None
        end = start + limit if limit else len(entries)
        metadata = {"resourceVersion": str(at)}
        if end < len(entries):
            if snapshot_id is None:
                snapshot_id = next(self.snapshot_ids)
                self.snapshots[snapshot_id] = (at, entries)
                while len(self.snapshots) > 64:
                    self.snapshots.popitem(last=False)
            state = dumps({"v": "meta.k8s.io/v1", "rv": at, "id": snapshot_id, "start": end})
            metadata["continue"] = base64.urlsafe_b64encode(state.encode()).decode()
            if not wanted:
                metadata["remainingItemCount"] = len(entries) - end
        # Items of lists of built-in kinds have no kind of their own; those of custom ones do.
        prefix = resource.prefix(version) if resource.custom else b"{"
        items = b",".join([prefix + entry.raw for entry in entries[start:end]])
        head = f'{{"kind":"{resource.kind}List","apiVersion":"{resource.api_version(version)}","metadata":{dumps(metadata)},"items":['
        return head.encode() + items + b"]}"

    def check_list_version(self, query):
        asked = query.get("resourceVersion") or "0"
        if not asked.isdigit():
            raise Refusal(400, "BadRequest", f'invalid resource version "{asked}"')
        if int(asked) > self.version:
            raise too_large(int(asked), self.version)
        if query.get("resourceVersionMatch") == "Exact" and int(asked) < self.version and int(asked) <= self.compacted:
            raise expired(f"The resourceVersion for the provided list is too old: {asked}")


def too_large(asked, current):
    return Refusal(
        504, "Timeout", f"Too large resource version: {asked}, current: {current}",
        {"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}], "retryAfterSeconds": 1})


class Watcher:
    """One watch: what it is sent, and how far it has got."""

    def __init__(self, storage, resource, version, namespace, query, send):
        self.storage, self.resource, self.version, self.namespace, self.send = storage, resource, version, namespace, send
        self.wanted = selection.both(query.get("labelSelector"), query.get("fieldSelector"), resource)
        self.start = query.get("resourceVersion") or "0"
        self.bookmarks = query.get("allowWatchBookmarks") in ("1", "true")
        if not self.start.isdigit():
            raise Refusal(400, "BadRequest", f'invalid resource version "{self.start}"')

    def begin(self):
        """Sends what there is to catch up with. Returns False when the version is too old: the stream ends with an ERROR event."""
        start = int(self.start)
        if start > self.storage.version:
            self.send(error_chunk(too_large(start, self.storage.version)))
            return False
        if start == 0:
            for key in self.resource.sorted_keys():
                entry = self.resource.objects[key]
                if self.sees(entry):
                    self.send(chunk(b"ADDED", self.resource.prefix(self.version) + entry.raw))
        elif start < self.resource.oldest:
            self.send(error_chunk(expired(f"too old resource version: {start} ({self.resource.oldest})")))
            return False
        else:
            for event in self.resource.history:
                if event.version > start:
                    self.take(event)
        self.resource.watchers.add(self)
        return True

    def end(self):
        self.resource.watchers.discard(self)

    def sees(self, entry):
        return entry is not None and (not self.namespace or entry.key[0] == self.namespace) and (not self.wanted or self.wanted(entry))

    def take(self, event):
        now, before = self.sees(event.entry), self.sees(event.previous)
        if event.kind == "DELETED":
            kind = "DELETED" if before else None
        elif now:
            kind = "MODIFIED" if before else "ADDED"
        else:
            # It is no longer selected.
            kind = "DELETED" if before else None
        if kind:
            self.send(event.chunk(kind, self.resource, self.version))

    def bookmark(self):
        obj = {"metadata": {"resourceVersion": str(self.storage.version), "creationTimestamp": None}}
        self.send(chunk(b"BOOKMARK", self.resource.prefix(self.version) + dumps(obj)[1:].encode()))


def error_chunk(refusal):
    return chunk(b"ERROR", dumps(refusal.body).encode())


def clone(obj):
    return copy.deepcopy(obj)

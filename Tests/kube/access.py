"""Who asks (bearer tokens, client certificates), and whether the Roles and Bindings in the server let them."""

from refusal import Refusal


class User:
    __slots__ = ("name", "groups", "extra")

    def __init__(self, name, groups=(), extra=None):
        self.name, self.extra = name, extra or {}
        self.groups = set(groups) | {"system:authenticated"}
        if name.startswith("system:serviceaccount:"):
            self.groups |= {"system:serviceaccounts", "system:serviceaccounts:" + name.split(":")[2]}


ADMIN = User("system:admin", ["system:masters"])


class Access:
    """Open to everybody until there is a token; then nobody gets more than the RBAC objects give."""

    def __init__(self, storage):
        self.storage = storage
        self.tokens = {}
        self.used = {}
        self.rules_cache = (None, {})

    def identify(self, headers, certificate_user=None):
        if not self.tokens:
            return certificate_user or ADMIN
        kind, _, token = headers.get("authorization", "").partition(" ")
        user = self.tokens.get(token) if kind == "Bearer" else certificate_user
        if user is None:
            raise Refusal(401, "Unauthorized", "Unauthorized")
        return user

    def check(self, user, verb, resource, subresource, namespace, name):
        plural = resource.plural + (f"/{subresource}" if subresource else "")
        self.used.setdefault(user.name, set()).add(f"{verb} {plural}" + (f".{resource.group}" if resource.group else ""))
        if "system:masters" in user.groups or self.allows(user, verb, resource.group, plural, namespace, name):
            return
        where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        what = f'"{name}" ' if name else ""
        full = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
        raise Refusal(
            403, "Forbidden",
            f'{full} {what}is forbidden: User "{user.name}" cannot {verb} resource "{plural}" in API group "{resource.group}" {where}',
            {"name": name or "", "group": resource.group, "kind": resource.plural},
        )

    def allows(self, user, verb, group, plural, namespace, name):
        for scope, rules in self.rules(user):
            if scope is not None and scope != namespace:
                continue
            for rule in rules:
                if (
                    matches(rule.get("verbs"), verb) and matches(rule.get("apiGroups"), group)
                    and resource_matches(rule.get("resources"), plural)
                    and (not rule.get("resourceNames") or name in rule["resourceNames"])
                ):
                    return True
        return False

    def rules(self, user):
        """(namespace or None, rules) of everything that is bound to a user; kept until an RBAC object changes."""
        rbac = {plural: self.storage.resource("rbac.authorization.k8s.io", plural) for plural in
                ("roles", "clusterroles", "rolebindings", "clusterrolebindings")}
        version = sum(resource.version for resource in rbac.values())
        if self.rules_cache[0] != version:
            self.rules_cache = (version, {})
        cached = self.rules_cache[1].get(user.name)
        if cached is not None:
            return cached
        found = []
        for plural in ("clusterrolebindings", "rolebindings"):
            for (namespace, _), entry in rbac[plural].objects.items():
                binding = entry.object()
                if any(is_subject(subject, user, namespace) for subject in binding.get("subjects") or []):
                    ref = binding["roleRef"]
                    at = rbac["clusterroles"], ("", ref["name"])
                    if ref["kind"] == "Role":
                        at = rbac["roles"], (namespace, ref["name"])
                    role = at[0].objects.get(at[1])
                    if role:
                        found.append((namespace or None, role.object().get("rules") or []))
        self.rules_cache[1][user.name] = found
        return found


def is_subject(subject, user, namespace):
    if subject["kind"] == "ServiceAccount":
        return user.name == f"system:serviceaccount:{subject.get('namespace') or namespace}:{subject['name']}"
    if subject["kind"] == "Group":
        return subject["name"] in user.groups
    return subject["name"] == user.name


def matches(allowed, value):
    return bool(allowed) and ("*" in allowed or value in allowed)


def resource_matches(allowed, plural):
    if matches(allowed, plural):
        return True
    return "/" in plural and "*/" + plural.split("/", 1)[1] in (allowed or [])

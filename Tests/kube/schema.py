"""Structural schemas of CRDs: pruning, defaults, validation. Of CEL only `self == oldSelf` is known; other rules are not evaluated."""

import copy
import ipaddress
import re

TYPES = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
}
DATE_TIME = re.compile(r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$")


def join(path, name):
    return f"{path}.{name}" if path else name


def quoted(value):
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


def prune(value, schema, defaults=True):
    """Drops what the schema does not have, and fills in defaults; in place."""
    if isinstance(value, dict):
        properties, extra = schema.get("properties", {}), schema.get("additionalProperties")
        if not schema.get("x-kubernetes-preserve-unknown-fields") and not extra:
            for name in [name for name in value if name not in properties]:
                del value[name]
        for name, child in properties.items():
            if defaults and "default" in child and value.get(name) is None and not (name in value and child.get("nullable")):
                value[name] = copy.deepcopy(child["default"])
            elif name in value and value[name] is None and not child.get("nullable"):
                del value[name]
        for name, item in value.items():
            child = properties.get(name, extra)
            if isinstance(child, dict):
                prune(item, child, defaults)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            prune(item, schema["items"], defaults)


def validate(value, schema, path, old, errors):
    """Appends (field, message) to `errors`."""
    if value is None:
        if not schema.get("nullable"):
            errors.append((path, 'Invalid value: "null"'))
        return
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            errors.append((path, "Invalid value: must be an integer or a string"))
        return
    kind = schema.get("type")
    wrong = kind and (not isinstance(value, TYPES[kind]) or isinstance(value, bool) and kind != "boolean")
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        wrong = False
    if wrong:
        given = "boolean" if isinstance(value, bool) else next(name for name, its in TYPES.items() if isinstance(value, its))
        errors.append((path, f'Invalid value: "{given}": {path} in body must be of type {kind}: "{given}"'))
        return
    if "enum" in schema and value not in schema["enum"]:
        errors.append((path, f"Unsupported value: {quoted(value)}: supported values: " + ", ".join(quoted(v) for v in schema["enum"])))
    if isinstance(value, str):
        text(value, schema, path, errors)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        number(value, schema, path, errors)
    elif isinstance(value, list):
        array(value, schema, path, old, errors)
    elif isinstance(value, dict):
        mapping(value, schema, path, old, errors)
    rules = schema.get("x-kubernetes-validations", [])
    if rules and old is not None and (problem := undecodable(value, schema)):
        errors.append((path, f'Invalid value: "{kind or "object"}": {problem} evaluating rule: {rules[0].get("message", rules[0]["rule"])}'))
        return
    for rule in rules:
        if re.sub(r"\s", "", rule.get("rule", "")) in ("self==oldSelf", "oldSelf==self") and old is not None and old != value:
            errors.append((path, f'Invalid value: "{kind or "object"}": ' + rule.get("message", f"failed rule: {rule['rule']}")))


def undecodable(value, schema):
    """Rules see strings of format byte decoded, with the alphabet that base64 has in URLs."""
    if isinstance(value, str) and schema.get("format") == "byte" and re.search("[+/]", value):
        return f"Invalid byte formatted string {value}: illegal base64 data"
    children = []
    if isinstance(value, dict):
        children = [(item, schema.get("properties", {}).get(name, schema.get("additionalProperties"))) for name, item in value.items()]
    elif isinstance(value, list):
        children = [(item, schema.get("items")) for item in value]
    return next((problem for item, child in children if isinstance(child, dict) and (problem := undecodable(item, child))), None)


def text(value, schema, path, errors):
    if len(value) > schema.get("maxLength", 1 << 60):
        errors.append((path, f"Too long: may not be more than {schema['maxLength']} bytes"))
    if len(value) < schema.get("minLength", 0):
        errors.append((path, f'Invalid value: "{value}": {path} in body should be at least {schema["minLength"]} chars long'))
    if "pattern" in schema and not re.search(schema["pattern"], value):
        errors.append((path, f'Invalid value: "{value}": {path} in body should match \'{schema["pattern"]}\''))
    form = schema.get("format")
    good = True
    if form == "date-time":
        good = bool(DATE_TIME.match(value))
    elif form in ("ipv4", "ipv6", "cidr"):
        try:
            if form == "cidr":
                ipaddress.ip_network(value, strict=False)
            else:
                good = ipaddress.ip_address(value).version == int(form[3])
        except ValueError:
            good = False
    elif form == "byte":
        good = bool(re.fullmatch(r"[A-Za-z0-9+/]*={0,2}", value)) and len(value) % 4 == 0
    if not good:
        errors.append((path, f'Invalid value: "{value}": {path} in body must be of type {form}: "{value}"'))


def number(value, schema, path, errors):
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and (value < low or schema.get("exclusiveMinimum") and value == low):
        errors.append((path, f"Invalid value: {value}: {path} in body should be greater than or equal to {low}"))
    if high is not None and (value > high or schema.get("exclusiveMaximum") and value == high):
        errors.append((path, f"Invalid value: {value}: {path} in body should be less than or equal to {high}"))
    bits = {"int32": 31, "int64": 63}.get(schema.get("format"))
    if bits and not -(1 << bits) <= value < 1 << bits:
        errors.append((path, f"Invalid value: {value}: {path} in body must be of type {schema['format']}"))


def array(value, schema, path, old, errors):
    if len(value) > schema.get("maxItems", 1 << 60):
        errors.append((path, f"Too many: {len(value)}: must have at most {schema['maxItems']} items"))
    if len(value) < schema.get("minItems", 0):
        errors.append((path, f"Invalid value: {len(value)}: {path} in body should have at least {schema['minItems']} items"))
    kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys", [])
    if kind in ("map", "set"):
        seen = []
        for index, item in enumerate(value):
            identity = [item.get(key) for key in keys] if kind == "map" and isinstance(item, dict) else item
            if identity in seen:
                errors.append((f"{path}[{index}]", f"Duplicate value: {identity}"))
            seen.append(identity)
    if isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            validate(item, schema["items"], f"{path}[{index}]", None, errors)


def mapping(value, schema, path, old, errors):
    for name in schema.get("required", []):
        if name not in value:
            errors.append((join(path, name), "Required value"))
    choices = schema.get("oneOf", [])
    if choices and sum(all(name in value for name in choice["required"]) for choice in choices) != 1:
        errors.append((path, f'Invalid value: "": "{path}" must validate one and only one schema (oneOf)'))
    if len(value) > schema.get("maxProperties", 1 << 60):
        errors.append((path, f"Too many: {len(value)}: must have at most {schema['maxProperties']} items"))
    properties, extra = schema.get("properties", {}), schema.get("additionalProperties")
    for name, item in value.items():
        child = properties.get(name, extra)
        if isinstance(child, dict):
            validate(item, child, join(path, name), old.get(name) if isinstance(old, dict) else None, errors)

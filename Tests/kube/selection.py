"""Label and field selectors: text to a function of an entry."""

import re

from refusal import Refusal

SET = re.compile(r"^\s*([^\s!=,()]+)\s+(in|notin)\s+\(([^)]*)\)\s*$")


def split(text):
    """At commas outside of parentheses."""
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return [part for part in parts if part.strip()]


def labels(text):
    """A predicate on a dictionary of labels; None when everything matches."""
    checks = []
    for part in split(text or ""):
        found = SET.match(part)
        if found:
            key, operator, values = found[1], found[2], {value.strip() for value in found[3].split(",")}
            if operator == "in":
                checks.append(lambda l, k=key, v=values: l.get(k) in v)
            else:
                checks.append(lambda l, k=key, v=values: l.get(k) not in v)
        elif "!=" in part:
            key, value = (side.strip() for side in part.split("!=", 1))
            checks.append(lambda l, k=key, v=value: l.get(k) != v)
        elif "=" in part:
            key, value = (side.strip() for side in part.replace("==", "=").split("=", 1))
            checks.append(lambda l, k=key, v=value: l.get(k) == v)
        elif part.strip().startswith("!"):
            checks.append(lambda l, k=part.strip()[1:]: k not in l)
        else:
            checks.append(lambda l, k=part.strip(): k in l)
    return (lambda l: all(check(l) for check in checks)) if checks else None


def fields(text, resource):
    """A predicate on an entry's selectable fields; None when everything matches."""
    checks = []
    for part in split(text or ""):
        negative = "!=" in part
        sides = part.split("!=", 1) if negative else part.replace("==", "=").split("=", 1)
        if len(sides) != 2:
            raise Refusal(400, "BadRequest", f'invalid selector: "{text}"')
        key, value = sides[0].strip(), sides[1].strip()
        if key not in resource.fields:
            raise Refusal(400, "BadRequest", f"field label not supported: {key}")
        checks.append(lambda f, k=key, v=value, n=negative: (f.get(k, "") == v) != n)
    return (lambda f: all(check(f) for check in checks)) if checks else None


def both(label_text, field_text, resource):
    """A predicate on entries; None when everything matches."""
    by_label, by_field = labels(label_text), fields(field_text, resource)
    if by_label and by_field:
        return lambda entry: by_label(entry.labels) and by_field(entry.fields)
    if by_label:
        return lambda entry: by_label(entry.labels)
    if by_field:
        return lambda entry: by_field(entry.fields)
    return None

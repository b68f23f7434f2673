"""CEL rules as the API server evaluates them, for tests: a CEL engine, and what Kubernetes adds replaced by variables."""

import re

import cel

# The one question that policies ask the authorizer; its answer is the variable `allowed`.
AUTHORIZER = re.compile(r"authorizer\.group\('([^']+)'\)\.resource\('([^']+)'\)\.namespace\(request\.namespace\)\.check\('([^']+)'\)\.allowed\(\)")


def evaluate(expression: str, **variables):
    context = cel.Context()
    # Of Kubernetes' own functions, the one that a rule uses.
    context.add_function("substring", lambda text, begin: text[begin:])
    for name, value in variables.items():
        context.add_variable(name, value)
    return cel.evaluate(expression, context)


class Lazy(dict):
    """Variables of a policy: each is evaluated with those before it. One that fails is not there: it may not be asked for."""


def admits(policy: dict, *, user: str, operation="UPDATE", kind="Pod", name="x", namespace="n", extra=None, old=None, new=None, allowed=False) -> bool:
    """Whether a ValidatingAdmissionPolicy lets a request pass that matches its constraints."""
    request = {
        "operation": operation,
        "name": name,
        "namespace": namespace,
        "kind": {"kind": kind},
        "userInfo": {"username": user, **({"extra": extra} if extra is not None else {})},
    }
    known = {"request": request, "object": new, "oldObject": old}
    spec = policy["spec"]
    if not all(evaluate(condition["expression"], **known) for condition in spec.get("matchConditions", [])):
        return True
    variables = Lazy()
    for variable in spec.get("variables", []):
        try:
            variables[variable["name"]] = evaluate(variable["expression"], variables=dict(variables), **known)
        except Exception:  # noqa: BLE001 - as in the API server: an error only if somebody asks for it
            continue
    for validation in spec["validations"]:
        expression = AUTHORIZER.sub("allowed", validation["expression"])
        assert "authorizer" not in expression
        if not evaluate(expression, variables=dict(variables), allowed=allowed, **known):
            return False
    return True

"""Answers other than 2xx, as metav1.Status."""


class Refusal(Exception):
    """Raised anywhere; becomes the answer."""

    def __init__(self, status, reason, message, details=None, headers=None):
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message
        self.details, self.headers = details, headers or {}

    @property
    def body(self):
        body = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message,
            "reason": self.reason, "code": self.status,
        }
        if self.details:
            body["details"] = self.details
        return body


def not_found(resource, name):
    return Refusal(404, "NotFound", f'{resource.qualified} "{name}" not found', details(resource, name))


def already_exists(resource, name):
    return Refusal(409, "AlreadyExists", f'{resource.qualified} "{name}" already exists', details(resource, name))


def conflict(resource, name, why):
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return Refusal(409, "Conflict", message, details(resource, name))


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def invalid(resource, name, errors):
    """`errors`: (field, message) pairs."""
    text = ", ".join(f"{field}: {message}" for field, message in errors)
    if len(errors) > 1:
        text = f"[{text}]"
    causes = [{"reason": "FieldValueInvalid", "message": message, "field": field} for field, message in errors]
    kind = resource.kind + (f".{resource.group}" if resource.group else "")
    return Refusal(422, "Invalid", f'{kind} "{name}" is invalid: {text}', details(resource, name) | {"causes": causes})


def details(resource, name):
    answer = {"name": name, "kind": resource.plural}
    if resource.group:
        answer["group"] = resource.group
    return answer


def expired(message):
    return Refusal(410, "Expired", message)

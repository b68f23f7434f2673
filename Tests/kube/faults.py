"""Bad days, on demand."""

import re


class Rule:
    """What happens to requests that match, `times` times (or until cleared)."""

    def __init__(self, given):
        self.kind = given.get("kind", "status")
        if self.kind not in ("status", "garbage", "close", "stall"):
            raise ValueError(f"no fault {self.kind}")
        self.status, self.reason = given.get("status", 500), given.get("reason", "InternalError")
        self.message = given.get("message", "a fault on demand")
        self.retry_after = given.get("retryAfter")
        self.times = given.get("times")
        self.method, self.path = given.get("method"), re.compile(given.get("path", ""))
        self.watch = given.get("watch")
        self.hits = 0

    def takes(self, method, target, is_watch):
        if self.times is not None and self.hits >= self.times:
            return False
        if self.method and self.method != method or not self.path.search(target) or self.watch not in (None, is_watch):
            return False
        self.hits += 1
        return True


class Faults:
    def __init__(self):
        self.clear()

    def clear(self):
        self.rules, self.delay, self.stalled = [], 0.0, False

    def find(self, method, target, is_watch):
        return next((rule for rule in self.rules if rule.takes(method, target, is_watch)), None)

"""What can be made to go wrong at the API server: by a test in the same program, or over HTTP at `/simcluster/faults`."""

from __future__ import annotations

import msgspec
import trio


class Fault(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Happens to every request that matches, `times` times. The first of several that match wins."""

    verbs: tuple[str, ...] = ()
    """get, list, watch, create, update, patch, delete, deletecollection, discovery; empty for all."""
    resources: tuple[str, ...] = ()
    """Plurals, with `/status` for the subresource; empty for all."""
    user_agent: str = ""
    """Part of the User-Agent header: so only one of several clients suffers."""
    times: int | None = None
    """None: until removed."""
    delay_seconds: float = 0.0
    """Waits so long, then goes on."""
    status: int = 0
    """Answers with it (429, 500, 503, 403 ...) and does nothing."""
    reason: str = ""
    message: str = "fault injected"
    retry_after: int | None = None
    """Seconds, in the header and in the Status' details."""
    drop: str = ""
    """`before`: the connection breaks and nothing is done; `after`: it is done and the connection breaks in the answer."""


_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}
WRITES = ("create", "update", "patch", "delete", "deletecollection")


class Faults:
    """The list, and two things that happen at once: watches cut, history compacted (the server's `compact`)."""

    def __init__(self) -> None:
        self.list: list[Fault] = []
        self._cut = trio.Event()

    def add(self, fault: Fault) -> Fault:
        self.list.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """Takes it back; one whose times are used up is gone already."""
        self.list = [other for other in self.list if other is not fault]

    def clear(self) -> None:
        self.list.clear()

    def throttle(self, *, retry_after: int = 1, times: int | None = None, verbs: tuple[str, ...] = ()) -> Fault:
        return self.add(Fault(status=429, retry_after=retry_after, times=times, verbs=verbs, message="too many requests, try again later"))

    def fail(self, status: int = 500, *, times: int | None = None, verbs: tuple[str, ...] = (), resources: tuple[str, ...] = ()) -> Fault:
        return self.add(Fault(status=status, times=times, verbs=verbs, resources=resources))

    def slow(self, seconds: float, *, times: int | None = None, verbs: tuple[str, ...] = ()) -> Fault:
        return self.add(Fault(delay_seconds=seconds, times=times, verbs=verbs))

    def drop(self, when: str = "before", *, times: int | None = None, verbs: tuple[str, ...] = ()) -> Fault:
        return self.add(Fault(drop=when, times=times, verbs=verbs))

    def refuse_writes(self, status: int = 503) -> Fault:
        return self.add(Fault(status=status, verbs=WRITES, message="the server is currently read-only"))

    def cut_watches(self) -> None:
        """Every open watch ends as if its connection broke."""
        self._cut.set()
        self._cut = trio.Event()

    @property
    def cut(self) -> trio.Event:
        """Set when the watches that are open now are to end."""
        return self._cut

    def next(self, verb: str, resource: str, user_agent: str) -> Fault | None:
        """The fault that befalls a request; counts it."""
        for fault in self.list:
            if (fault.verbs and verb not in fault.verbs) or (fault.resources and resource not in fault.resources):
                continue
            if fault.user_agent not in user_agent:
                continue
            if fault.times is not None:
                fault.times -= 1
                if fault.times <= 0:
                    self.remove(fault)
            return fault
        return None


def reason_of(fault: Fault) -> str:
    return fault.reason or _REASONS.get(fault.status, "InternalError" if fault.status >= 500 else "Unknown")

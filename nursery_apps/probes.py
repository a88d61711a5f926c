"""/healthz, /readyz and /metrics over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import trio

from nursery_apps.http_service import Answer, HttpService, Limits, Request

REQUEST_SECONDS: Final = 10.0
"""The kubelet's probes give up after 1 s."""
CONNECTIONS: Final = 16
"""A kubelet, two scrapers and a person. A probe that fails restarts the driver, so nobody may hold up the kubelet's for long."""
LIMITS: Final = Limits(body_bytes=8 * 1024, request_seconds=REQUEST_SECONDS, answer_seconds=REQUEST_SECONDS, connections=CONNECTIONS)

Check = Callable[[], str | None]
"""None if all is well, else a sentence that says what is not."""


class Probes:
    """Serves what three functions say."""

    def __init__(self, *, live: Mapping[str, Check], ready: Mapping[str, Check], metrics: Callable[[], bytes]) -> None:
        self._pages: Mapping[str, Callable[[], Answer]] = {
            "/healthz": lambda: _checked(live),
            "/readyz": lambda: _checked(ready),
            "/metrics": lambda: Answer(200, metrics(), "text/plain; version=0.0.4; charset=utf-8"),
        }
        self._http = HttpService(self, name="the probes", limits=LIMITS)

    async def serve(self, address: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; `started` with the port.

        An empty address means all of both families. Port 0 of the settings means off and never gets here; here it means any.

        Raises:
            OSError: the port cannot be bound.
        """
        await self._http.serve(address, port, task_status=task_status)

    async def run(self, address: str, port: int, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The same by the settings, which switch it off with port 0."""
        await self._http.run(address, port, task_status=task_status)

    def refusal(self, request: Request) -> Answer | None:
        if request.method not in ("GET", "HEAD"):
            return Answer(405, b"only GET and HEAD\n")
        if request.path not in self._pages:
            return Answer(404, b"/healthz, /readyz and /metrics are served\n")
        return None

    async def respond(self, request: Request) -> Answer:
        return self._pages[request.path]()


def _checked(checks: Mapping[str, Check]) -> Answer:
    lines = {name: check() for name, check in checks.items()}
    text = "".join(f"[{'ok' if why is None else 'no'}] {name}{'' if why is None else ': ' + why}\n" for name, why in lines.items())
    return Answer(200 if all(why is None for why in lines.values()) else 503, text.encode())

"""Receives Alertmanager's notifications, with the status codes that make it try again when that may help, and only then."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from typing import Final

import trio

from dra import alerts
from dra.alerts import Filters, Malformed
from nursery_apps.controller.tainter import Tainter
from nursery_apps.http_service import Answer, Limits, Request
from nursery_apps.seams import ApiError

log = logging.getLogger(__name__)

LIMITS: Final = Limits(body_bytes=alerts.BODY_BYTES, request_seconds=10, answer_seconds=60, connections=8)
"""Alertmanagers of one cluster are three at most, and send one notification of a group after the other."""
OUTCOMES: Final = ("applied", "partly", "ignored", "malformed", "failed")


class AlertReceiver:
    """A `nursery_apps.http_service.Service`."""

    def __init__(
        self, tainter: Tainter, *, filters: Callable[[], Filters], token: Callable[[], str | None] | None, on_outcome: Callable[[str], None]
    ) -> None:
        """
        Args:
            token: what callers have to show, None if nothing is asked; None from it means that nobody can show anything yet.
            on_outcome: told one of OUTCOMES for each notification.
        """
        self._tainter = tainter
        self._filters = filters
        self._token = token
        self._on_outcome = on_outcome

    def refusal(self, request: Request) -> Answer | None:
        if request.path != alerts.PATH:
            return _said(404, f"notifications are taken at {alerts.PATH}")
        if request.method != "POST":
            return _said(405, "notifications are sent by POST")
        if self._token is not None and not _shows(request, self._token()):
            return _said(401, "a bearer token is needed, and the right one")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _said(415, "notifications are application/json")
        return None

    async def respond(self, request: Request) -> Answer:
        try:
            heard = alerts.parse(request.body, self._filters())
        except Malformed as error:
            log.warning("a notification is of no use: %s", error)
            self._on_outcome("malformed")
            return _said(400, str(error))
        for text in heard.ignored:
            log.info("ignored: %s", text)
        try:
            ignored = await self._tainter.apply(heard.alerts)
        except ApiError as error:
            # A 5xx makes Alertmanager send it again.
            self._on_outcome("failed")
            return _said(503, f"the API server: {error}")
        except trio.Cancelled:
            self._on_outcome("failed")
            raise
        for text in ignored:
            log.warning("ignored: %s", text)
        left_out = [*heard.ignored, *ignored]
        done = len(heard.alerts) - len(ignored)
        self._on_outcome("applied" if not left_out else "partly" if done else "ignored")
        return _said(200, "\n".join([f"{done} alerts taken, {len(left_out)} ignored", *left_out]))


def _shows(request: Request, token: str | None) -> bool:
    kind, _, shown = request.headers.get("authorization", "").partition(" ")
    return bool(token) and kind.lower() == "bearer" and hmac.compare_digest(shown.strip().encode(), (token or "").encode())


def _said(status: int, text: str) -> Answer:
    return Answer(status, f"{text}\n".encode())

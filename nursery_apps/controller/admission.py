"""The admission webhook: an AdmissionReview in, a verdict out. It asks nobody, so it is as fast as its answer is short."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from dra import admission
from dra.admission import Malformed
from nursery_apps.http_service import Answer, Limits, Request

log = logging.getLogger(__name__)

LIMITS: Final = Limits(body_bytes=admission.BODY_BYTES, request_seconds=10, answer_seconds=10, connections=64)
"""The API server waits for 10 s at most, and opens a connection for each of the claims that a Job of many pods brings."""
OUTCOMES: Final = ("allowed", "refused", "foreign", "malformed")


class Admission:
    """A `nursery_apps.http_service.Service`."""

    def __init__(self, *, on_outcome: Callable[[str], None]) -> None:
        """`on_outcome` is told one of OUTCOMES for each review."""
        self._on_outcome = on_outcome

    def refusal(self, request: Request) -> Answer | None:
        if request.path != admission.PATH:
            return Answer(404, f"reviews are taken at {admission.PATH}\n".encode())
        if request.method != "POST":
            return Answer(405, b"reviews are sent by POST\n")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return Answer(415, b"reviews are application/json\n")
        return None

    async def respond(self, request: Request) -> Answer:
        try:
            verdict = admission.judge(request.body)
        except Malformed as error:
            log.warning("a review cannot be judged: %s", error)
            self._on_outcome("malformed")
            return Answer(400, f"{error}\n".encode())
        self._on_outcome(verdict.outcome)
        if verdict.message:
            log.info("refused: %s", verdict.message)
        return Answer(200, verdict.body, "application/json")

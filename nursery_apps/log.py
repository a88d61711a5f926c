"""Log lines for people or for machines: one event a line, with the claim it is about."""

from __future__ import annotations

import contextvars
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, TextIO

CLAIM: contextvars.ContextVar[str] = contextvars.ContextVar("claim", default="")
"""UID of the claim that the current task works on; every line it writes carries it."""

FORMATS: Final = ("text", "json")


@contextmanager
def about_claim(uid: str) -> Iterator[None]:
    """Lines written inside carry the claim's UID."""
    token = CLAIM.set(uid)
    try:
        yield
    finally:
        CLAIM.reset(token)


class TextLines(logging.Formatter):
    """`12:30:01.250 WARNING nursery_apps.node.desk: text [claim 0a1b…]`"""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        claim = CLAIM.get()
        line = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z {record.levelname:<7} {_component(record)}: {_one_line(record)}"
        line += f" [claim {claim}]" if claim else ""
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": _component(record),
            "msg": _one_line(record),
        }
        if claim := CLAIM.get():
            line["claimUID"] = claim
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up(form: str, level: str, stream: TextIO | None = None) -> None:
    """Write everything of ours to standard error in `text` or `json`; may be called again."""
    writer = logging.StreamHandler(stream or sys.stderr)
    writer.setFormatter(JsonLines() if form == "json" else TextLines())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(writer)
    set_level(level)


def set_level(level: str) -> None:
    """Live. Libraries speak from warning on, whatever our level: their debug lines hold headers and frames."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    for name in ("nursery_apps", "dra"):
        logging.getLogger(name).setLevel(level.upper())


def _component(record: logging.LogRecord) -> str:
    return record.name.rpartition(".")[2]


def _one_line(record: logging.LogRecord) -> str:
    # Text from outside (an API server's message, a kubelet's error) must not forge a line of its own.
    return record.getMessage().replace("\r", "\\r").replace("\n", "\\n")

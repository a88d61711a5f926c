"""Lengths of time as Kubernetes writes them: `500ms`, `10s`, `1m30s`, `2h`."""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec

Duration = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": r"^(\d{1,6}h)?(\d{1,6}m)?(\d{1,6}s)?(\d{1,6}ms)?$", "minLength": 2})]

_DURATION: Final = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,6})s)?(?:(\d{1,6})ms)?", re.ASCII)


def seconds(text: str) -> float:
    """`1m30s` -> 90.

    Raises:
        ValueError: it is not a duration.
    """
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise ValueError(f"{text!r} is not a duration such as 500ms, 10s or 1m30s")
    hours, minutes, whole, milli = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + whole + milli / 1000

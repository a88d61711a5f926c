"""Versions of the driver: semantic versions, of whose pre-releases only `-rc.N` is used."""

from __future__ import annotations

import re
from typing import Final

_NUMBER: Final = r"(0|[1-9]\d*)"
_FORM: Final = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-rc\.([1-9]\d*))?", re.ASCII)


class Malformed(ValueError):
    """Not a version of ours; the text says what one looks like."""


def order(version: str) -> tuple[int, int, int, float]:
    """Sorts versions: a candidate comes before its release.

    Raises:
        Malformed: `v1.0.0`, `1.0`, `1.0.0-beta` and the like.
    """
    match = _FORM.fullmatch(version)
    if match is None:
        raise Malformed(
            f"{version!r} is no version: write MAJOR.MINOR.PATCH or MAJOR.MINOR.PATCH-rc.N, 1.2.0 or 1.2.0-rc.1, without a v before it"
        )
    major, minor, patch, candidate = match.groups()
    return int(major), int(minor), int(patch), float(candidate or "inf")


def branch(version: str) -> str:
    """The support branch it belongs to: `release-1.2`."""
    major, minor, *_ = order(version)
    return f"release-{major}.{minor}"


def is_first_of_branch(version: str) -> bool:
    """Whether the support branch begins with it."""
    _, _, patch, candidate = order(version)
    return patch == 0 and candidate in (1, float("inf"))

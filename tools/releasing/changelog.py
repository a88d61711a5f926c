"""CHANGELOG.md, in the form of keepachangelog.com: a heading `## [Unreleased]`, then one for each release, the newest first."""

from __future__ import annotations

import re
from typing import Final

UNRELEASED: Final = "## [Unreleased]"


class NothingToRelease(ValueError):
    """Unreleased is missing or empty, or the release is there already."""


def released(text: str) -> tuple[str, ...]:
    """Versions with a section, as they stand."""
    return tuple(name for name in re.findall(r"^## \[([^\]]+)\]", text, re.MULTILINE) if name != "Unreleased")


def notes(text: str, version: str) -> str:
    """The section of a version, or of `Unreleased`, without its heading; empty if there is none."""
    found = re.search(rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## \[|\Z)", text, re.MULTILINE | re.DOTALL)
    return found[1].strip() if found is not None else ""


def release(text: str, version: str, day: str) -> str:
    """The changelog with what was unreleased under the version's heading.

    Args:
        day: `2026-11-26`.

    Raises:
        NothingToRelease: see there.
    """
    if version in released(text):
        raise NothingToRelease(f"CHANGELOG.md has a section of {version} already: it was released")
    if not notes(text, "Unreleased"):
        raise NothingToRelease(f"CHANGELOG.md has nothing below `{UNRELEASED}`: write there what changed for those who run it")
    return text.replace(UNRELEASED, f"{UNRELEASED}\n\n## [{version}] - {day}", 1)

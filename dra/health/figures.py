"""Figures in sysfs files: a number in the unit of the kernel becomes one in the unit of people, and nonsense becomes None."""

from __future__ import annotations

import re
from typing import Final

from dra.sysfs import Directory

COUNT_MAX: Final = 2**64 - 1
"""What the kernel's u64 counters hold; all ones is what a card that is gone answers."""
_LABEL: Final = re.compile(r"[a-z0-9_]{1,32}")


def count(directory: Directory, name: str) -> int | None:
    """A counter, or any other figure that cannot be negative."""
    value = directory.number(name)
    return value if value is not None and 0 <= value < COUNT_MAX else None


def scaled(directory: Directory, name: str, unit: float, *, most: float) -> float | None:
    """A figure of which `unit` make one, above 0 and at most `most`: a limit of 0 is one that is not set."""
    value = directory.number(name)
    return value / unit if value is not None and 0 < value <= most * unit else None


def label(directory: Directory, name: str, otherwise: str) -> str:
    """The name that the driver gives to a channel, fit for a metric's label."""
    text = directory.text(name)
    return text if text is not None and _LABEL.fullmatch(text) else otherwise


def numbered(names: list[str], pattern: re.Pattern[str]) -> list[int]:
    """The numbers in the names that the pattern fits, ascending."""
    return sorted(int(match[1]) for name in names if (match := pattern.fullmatch(name)) is not None)

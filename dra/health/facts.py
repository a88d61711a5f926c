"""What a source says of a GPU: facts, each about one condition, the good ones too.

A source tells all it holds of a GPU at a time; what it does not mention any more does not hold. Which conditions there are, and what they
mean, is the table in `dra.health.conditions`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Protocol

import msgspec

from dra.names import Bdf


class Severity(enum.IntEnum):
    FINE = 0
    DEGRADED = 1
    """It works, but worse than it should, or not for long any more."""
    FAILED = 2
    """Work on it is lost, or wrong."""


class Fact(msgspec.Struct, frozen=True):
    condition: str
    """A key of `dra.health.conditions.CONDITIONS`."""
    severity: Severity
    text: str = ""
    """For people: figures and limits; empty when it is fine."""


Facts = Mapping[str, Fact]
"""By condition."""


class Tell(Protocol):
    def __call__(self, source: str, bdf: Bdf, facts: Facts | None, /) -> None:
        """All that a source says of a GPU now. None: it cannot say anything (absence of a source is not illness)."""

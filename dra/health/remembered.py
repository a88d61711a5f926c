"""What the plugin remembers of GPUs' health from one life to the next: quiet periods that run, how often something flapped, and attempts to
get cards back. Losing it costs no more than a shorter quiet period, or one attempt too many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from dra.health.recovery import Attempt
from dra.health.verdict import Case
from dra.names import Bdf

VERSION: Final = 1


class Remembered(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    version: int = VERSION
    pci_ids: Mapping[Bdf, str] = {}
    """Which card it was: another one in the same slot has another history."""
    cases: Mapping[Bdf, Mapping[str, Case]] = {}
    attempts: tuple[Attempt, ...] = ()


def to_json(remembered: Remembered) -> bytes:
    return msgspec.json.encode(remembered, order="deterministic")


def from_json(data: bytes) -> Remembered:
    """The inverse of `to_json`.

    Raises:
        ValueError: it is garbage, or of a version that means something else.
    """
    remembered = msgspec.json.decode(data, type=Remembered)
    if remembered.version != VERSION:
        raise ValueError(f"of version {remembered.version}, this driver knows {VERSION}")
    return remembered

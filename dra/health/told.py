"""How a device is, as the cluster is told of it: one word, a sentence for people, and since when."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from dra.names import DeviceName


class Level(enum.StrEnum):
    OK = "ok"
    DEGRADED = "degraded"
    """It works, but worse than it should, or not for long any more."""
    FAILED = "failed"
    """Work on it is lost, or wrong."""
    UNKNOWN = "unknown"
    """Nobody can tell: what would tell it does not answer."""


class DeviceHealth(msgspec.Struct, frozen=True):
    level: Level
    text: str = ""
    """What is wrong, for people; empty when nothing is. Whatever changes in it is written to the API server for every claim on the device:
    figures that move belong into metrics."""
    since: float = 0.0
    """Seconds since the epoch: when `level` became what it is."""


Told = Mapping[DeviceName, DeviceHealth]
"""All published devices that are watched. A device that is not in it is not watched, which is not to say that it is ill."""

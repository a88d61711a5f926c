"""On which terms a device is offered, beyond what its hardware says."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from dra.pool import SharePolicy


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Of one device. None leaves what the hardware says."""

    profile: str | None = None
    """Name of the profile a VF was or will be cut by; None for a whole GPU."""
    memory_bytes: int | None = None
    """Local memory, as published."""
    millicores: int | None = None
    """Thousandths of a card, as published."""
    consumes: Mapping[str, Mapping[str, int]] = {}
    """Counter set -> counter -> what it takes of the card: see `dra.pool.Device`."""
    alone: bool = True
    """Whether it stays where the server keeps no counters."""
    shares: Mapping[str, SharePolicy] = {}
    """By capacity; any makes it a device for several claims at once."""

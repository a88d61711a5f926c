"""What a Virtual Function of a named profile gets of its card; the table is `vf_profiles.json`, its sources are named in it.

A card of several tiles is cut across all of them: memory is counted over the tiles and divided among them; GGTT, contexts and doorbells
belong to each GT and are the same on every one; times hold on every GT and are not divided.
"""

from __future__ import annotations

import functools
import pkgutil
from typing import Final

import msgspec


class VfProfile(msgspec.Struct, frozen=True, kw_only=True):
    """One size of VF. Of the pseudo profiles all numbers are 0: nothing is written for them."""

    name: str
    per_card: int = 0
    """How many fill a card."""
    memory_bytes: int = 0
    """Of one VF over all tiles, where the card's memory is not checked for errors."""
    memory_ecc_bytes: int = 0
    """The same where it is: the codes take their part."""
    ggtt_bytes_per_gt: int = 0
    contexts_per_gt: int = 0
    doorbells_per_gt: int = 0
    exec_quantum_ms: int = 0
    """0 is no limit."""
    preempt_timeout_us: int = 0
    """0 is no limit."""
    millicores: int = 0
    """Thousandths of a card, published; 0 here and `per_card` set: 1000 divided by it."""
    source: str = ""
    """Which of the table's sources it is from; empty for profiles of the settings and pseudo profiles."""

    @property
    def has_quotas(self) -> bool:
        return self.memory_bytes > 0

    @property
    def share(self) -> int:
        """Thousandths of a card; 0 for pseudo profiles, whose share is known only with their number."""
        return self.millicores or (1000 // self.per_card if self.per_card else 0)


class Totals(msgspec.Struct, frozen=True):
    """What a source counts as the whole card: the most that all VFs together may get."""

    memory_bytes: int
    memory_ecc_bytes: int
    ggtt_bytes_per_gt: int
    doorbells_per_gt: int


class Family(msgspec.Struct, frozen=True):
    """Cards that are cut alike."""

    family: str
    """`flex170`: what the names of its profiles begin with."""
    devices: tuple[str, ...]
    """PCI ids as sysfs spells them, `0x56c0`."""
    tiles: int
    totals: Totals
    profiles: tuple[VfProfile, ...]
    """From the largest VF to the smallest."""


class Families(msgspec.Struct, frozen=True):
    families: tuple[Family, ...]


FAIR_SHARE: Final = VfProfile(name="fair-share")
"""Pseudo profile: no quota is written, the kernel splits the card evenly when the VFs are made."""
UNKNOWN: Final = VfProfile(name="unknown")
"""Pseudo profile of a VF that somebody else made."""
PSEUDO: Final = frozenset({FAIR_SHARE.name, UNKNOWN.name})


@functools.cache
def table() -> tuple[Family, ...]:
    """The whole table, read once."""
    data = pkgutil.get_data("dra", "vf_profiles.json")
    assert data is not None
    return msgspec.json.decode(data, type=Families).families


def family_of(device: str) -> Family | None:
    """How cards with this PCI id (`0x56c0`) are cut, None if nobody has published it."""
    return next((family for family in table() if device in family.devices), None)


def for_device(device: str) -> tuple[VfProfile, ...]:
    """Named profiles of a PCI id, from the largest VF to the smallest; empty if nobody has published any."""
    family = family_of(device)
    return family.profiles if family is not None else ()


def find(name: str) -> VfProfile | None:
    """A profile by its name, fair share too; None if no table has it."""
    return FAIR_SHARE if name == FAIR_SHARE.name else _by_name().get(name, (None, None))[0]


def devices_of(name: str) -> tuple[str, ...]:
    """The PCI ids a named profile is for; empty for names no table has: pseudo profiles and those of the settings fit any card."""
    family = _by_name().get(name, (None, None))[1]
    return family.devices if family is not None else ()


def names() -> tuple[str, ...]:
    """Names a settings file may use, fair share first."""
    return (FAIR_SHARE.name, *_by_name())


@functools.cache
def _by_name() -> dict[str, tuple[VfProfile, Family]]:
    return {profile.name: (profile, family) for family in table() for profile in family.profiles}

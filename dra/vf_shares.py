"""What a VF is published with, and what it takes of its card in the scheduler's books.

With partitionable devices a card and its VFs are offered side by side: all draw on one counter set, the card takes all of it, each VF its
part, so the scheduler gives away the card or its VFs, never both. Counters are few: 1.33 and 1.34 allow 32 in a slice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from dra import vf_cards
from dra.layouts import Layout
from dra.vf_cards import Card
from dra.vf_profiles import VfProfile

VFS: Final = "vfs"
"""Counter of VFs: a VF takes one, the card all."""
MEMORY: Final = "memory"
"""Counter of bytes of local memory over all tiles."""
DOORBELLS: Final = "doorbells"
"""Counter of doorbells of a GT; only where the driver takes quotas of them."""


class Capacity(msgspec.Struct, frozen=True):
    """As published; None is left out."""

    memory_bytes: int | None
    millicores: int


class Counters(msgspec.Struct, frozen=True):
    """A counter set and who takes how much of it, by counter."""

    total: Mapping[str, int]
    card: Mapping[str, int]
    vfs: tuple[Mapping[str, int], ...]
    """Of VF 1, 2, ..."""


def capacity(profile: VfProfile, card: Card, count: int) -> Capacity:
    """Of one VF. Memory is what its quota will be; the VF's own driver shows a little less.

    Args:
        count: VFs of the whole layout: it decides what a fair share is.
    """
    memory = vf_cards.memory_of(profile, card) if profile.has_quotas else vf_cards.fair_memory_bytes(card, count)
    return Capacity(memory or None, profile.share or 1000 // count)


def counters(layout: Layout, card: Card) -> Counters | None:
    """The counter set of a card with this layout; None if it is not cut: a card alone needs no counters.

    The totals are what the VFs take together, not what the card has: so all VFs fit exactly, and beside the card, which takes it all,
    not one does.
    """
    if not layout:
        return None
    vfs = tuple(_taken(profile, card, len(layout)) for profile in layout)
    total = {name: sum(one[name] for one in vfs) for name in vfs[0] if all(name in one for one in vfs)}
    return Counters(total=total, card=dict(total), vfs=tuple({name: one[name] for name in total} for one in vfs))


def _taken(profile: VfProfile, card: Card, count: int) -> dict[str, int]:
    taken = {VFS: 1}
    if memory := capacity(profile, card, count).memory_bytes:
        taken[MEMORY] = memory
    if profile.has_quotas and (doorbells := vf_cards.quota_of(profile, card).doorbells_per_gt):
        taken[DOORBELLS] = doorbells
    return taken

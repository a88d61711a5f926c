"""Cards that can be cut into VFs: one of each kind by name, and any as a hypothesis strategy."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from dra import layouts, vf_profiles
from dra.layouts import Layout
from dra.names import Bdf
from dra.vf_cards import Card, Interface
from dra.vf_profiles import FAIR_SHARE, VfProfile

TIMES = frozenset({"exec_quantum_ms", "preempt_timeout_us"})
FLEX_170 = Card(
    bdf=Bdf("0000:2c:00.0"), device="0x56c0", interface=Interface.PRELIM, max_vfs=31, total_vfs=31, memory_bytes=17_045_651_456, ecc=False
)
FLEX_170_ECC = msgspec.structs.replace(FLEX_170, memory_bytes=14_940_110_848, ecc=None)
MAX_1550 = Card(
    bdf=Bdf("0001:2a:00.0"),
    device="0x0bd5",
    interface=Interface.PRELIM,
    max_vfs=62,
    total_vfs=63,
    memory_bytes=137_438_953_472,
    tiles=2,
    gts=("gt0", "gt1"),
)
B60 = Card(
    bdf=Bdf("0000:18:00.0"),
    device="0xe211",
    interface=Interface.ADMIN,
    max_vfs=24,
    total_vfs=24,
    memory_bytes=25_669_140_480,
    attributes=TIMES | {"vram_quota"},
    bulk_attributes=TIMES | {"vram_quota", "sched_priority"},
)
B60_619 = msgspec.structs.replace(B60, attributes=TIMES, bulk_attributes=TIMES | {"sched_priority"})
B60_BULK = msgspec.structs.replace(B60, attributes=TIMES)
B60_DEBUGFS = msgspec.structs.replace(B60, interface=Interface.NONE, attributes=frozenset(), bulk_attributes=frozenset())
PANTHER_LAKE = Card(
    bdf=Bdf("0000:00:02.0"), device="0xb080", interface=Interface.ADMIN, max_vfs=7, total_vfs=7, memory_bytes=None, attributes=TIMES
)
CARDS = (FLEX_170, FLEX_170_ECC, MAX_1550, B60, B60_619, B60_BULK, B60_DEBUGFS, PANTHER_LAKE)


def like(card: Card, **changes: Any) -> Card:
    return msgspec.structs.replace(card, **changes)


def named(name: str) -> VfProfile:
    profile = vf_profiles.find(name)
    assert profile is not None, name
    return profile


cards = st.sampled_from(CARDS)


@st.composite
def cut_cards(draw: st.DrawFn) -> tuple[Card, Layout]:
    """A card and a layout for it that need not be feasible: a few profiles of any card, repeated, beside fair share or not."""
    card = draw(cards)
    own = vf_profiles.for_device(card.device)
    profile = st.sampled_from([*own, FAIR_SHARE, named("flex140_m3")]) if draw(st.booleans()) else st.sampled_from([*own, FAIR_SHARE])
    groups = draw(st.lists(st.tuples(profile, st.integers(1, 24)), max_size=3))
    return card, tuple(one for one, count in groups for _ in range(count))


@st.composite
def feasible_cuts(draw: st.DrawFn) -> tuple[Card, Layout]:
    """A card and a feasible layout of at least one VF: profiles are added as long as they fit."""
    card = draw(cards)
    if draw(st.booleans()):
        return card, (FAIR_SHARE,) * draw(st.integers(1, card.max_vfs))
    layout: Layout = ()
    choices = [one for one in vf_profiles.for_device(card.device) if layouts.feasible((one,), card) == ()]
    if not choices:
        return card, (FAIR_SHARE,)
    for profile in draw(st.lists(st.sampled_from(choices), min_size=1, max_size=40)):
        if layouts.feasible((*layout, profile), card) == ():
            layout = (*layout, profile)
    return card, layout

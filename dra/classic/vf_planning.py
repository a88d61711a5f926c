"""Into which VFs a card is to be cut that claims ask VFs of: decided with the first claim, spare VFs included.

VFs of a card are made all at once and go all at once (drivers/pci/iov.c), so whoever comes first decides for everybody until the card is
free again. Claims that ask for nothing in particular get VFs of the model's default size.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from dra import layouts, vf_cards, vf_profiles
from dra.classic.inventory import AllocatableGpu
from dra.names import Bdf
from dra.vf_cards import Card, Interface
from dra.vf_profiles import FAIR_SHARE, VfProfile

MIB: Final = 1 << 20
DEFAULT_MEMORY_MIB: Final[Mapping[str, int]] = {"flex170": 2000, "flex140": 960, "max_128g": 8192, "max_48g": 5632}
"""By family: about what the original's default profiles have: flex170_m8, flex140_m6, max_128g_c16 (over both tiles), max_48g_c8."""


class VfWish(msgspec.Struct, frozen=True, order=True):
    """What one VF must have at least."""

    memory: int = 0
    """MiB."""
    millicores: int = 0


class VfSize(msgspec.Struct, frozen=True):
    """What a VF of a layout has."""

    profile: str
    memory: int
    """MiB; 0 where nobody knows before it is made."""
    millicores: int

    def meets(self, wish: VfWish) -> bool:
        return self.memory >= wish.memory and self.millicores >= wish.millicores


class VfPlan(msgspec.Struct, frozen=True):
    """How a card is to be cut."""

    sizes: tuple[VfSize, ...]
    """Of VF 1, 2, ..."""
    given: tuple[int, ...]
    """The VF, from 1, for each wish that was met: the first wishes, in their order."""


class CardShape(msgspec.Struct, frozen=True):
    """Everything about a card that its VFs depend on; cards of one shape are cut alike."""

    model: str
    memory: int
    maxvfs: int
    ecc: bool
    tiles: int
    quotas: str
    bulk_quota: bool


def shape_of(gpu: AllocatableGpu) -> CardShape:
    return CardShape(gpu.model, gpu.memory, gpu.maxvfs, gpu.ecc, gpu.tiles, gpu.quotas, gpu.bulk_quota)


def sizes(shape: CardShape, profiles: Sequence[str]) -> tuple[VfSize, ...]:
    """What the VFs of a layout have, by the names of its profiles."""
    card = _card(shape)
    return tuple(_size(name, card, len(profiles)) for name in profiles)


def plan(shape: CardShape, wishes: tuple[VfWish, ...], default_memory: int = 0) -> VfPlan | None:
    """A layout for a whole card that meets as many of the wishes as it can, in their order; None if it meets not even the first.

    Args:
        wishes: largest first.
        default_memory: MiB of VFs that nobody asked a size for; 0: the model's default.
    """
    return _plan(shape, wishes, default_memory)


@functools.lru_cache(maxsize=4096)  # a cluster has few shapes and few kinds of wishes, and asks for each node
def _plan(shape: CardShape, wishes: tuple[VfWish, ...], default_memory: int) -> VfPlan | None:
    card = _card(shape)
    if card.max_vfs <= 0 or not wishes:
        return None
    named = vf_profiles.for_device(card.device)
    if card.interface is Interface.NONE or not named:
        return _plan_even(card, wishes)
    default = _default(card, default_memory, named)
    chosen: list[VfProfile] = []
    for wish in wishes:
        profile = _fitting(card, wish, named, default)
        if profile is None or layouts.feasible((*chosen, profile), card):
            break
        chosen.append(profile)
    if not chosen:
        return None
    layout = _filled(chosen, card, named, default)
    return VfPlan(tuple(_size(profile.name, card, len(layout)) for profile in layout), tuple(range(1, len(chosen) + 1)))


def _plan_even(card: Card, wishes: tuple[VfWish, ...]) -> VfPlan | None:
    """The kernel splits the card: as many VFs as still meet the largest wish, and no fewer than there are wishes if that can be."""
    for count in range(card.max_vfs, 0, -1):
        size = _size(FAIR_SHARE.name, card, count)
        if size.meets(wishes[0]):
            return VfPlan((size,) * count, tuple(range(1, min(count, len(wishes)) + 1)))
    return None


def _default(card: Card, default_memory: int, named: tuple[VfProfile, ...]) -> VfProfile:
    family = vf_profiles.family_of(card.device)
    wanted = default_memory or (DEFAULT_MEMORY_MIB.get(family.family, 0) if family is not None else 0)
    possible = [profile for profile in named if not layouts.feasible((profile,), card)] or list(named)
    if not wanted:
        return possible[len(possible) // 2]
    return min(possible, key=lambda profile: abs(vf_cards.memory_of(profile, card) // MIB - wanted))


def _fitting(card: Card, wish: VfWish, named: tuple[VfProfile, ...], default: VfProfile) -> VfProfile | None:
    """The smallest profile that meets a wish; who wishes nothing gets the default."""
    if wish == VfWish():
        return default
    return next((profile for profile in reversed(named) if _size(profile.name, card, profile.per_card).meets(wish)), None)


def _filled(chosen: list[VfProfile], card: Card, named: tuple[VfProfile, ...], default: VfProfile) -> tuple[VfProfile, ...]:
    """The rest of the card in spare VFs: more of the same, or of the default size and then of the smaller ones."""
    layout = tuple(chosen)
    if len(set(layout)) == 1:
        whole = layouts.fill(layout[0], card)
        if len(whole) >= len(layout) and not layouts.feasible(whole, card):
            return whole
    spare = [default, *named[named.index(default) + 1 :]] if default in named else [default]
    for profile in spare:
        while len(layout) < card.max_vfs and not layouts.feasible((*layout, profile), card):
            layout = (*layout, profile)
    return layout


def _size(name: str, card: Card, count: int) -> VfSize:
    """What a VF of a profile has on a card with `count` VFs."""
    profile = vf_profiles.find(name)
    if profile is None:
        return VfSize(name, 0, 0)
    if not profile.has_quotas:
        return VfSize(name, vf_cards.fair_memory_bytes(card, count) // MIB, 1000 // max(1, count))
    return VfSize(name, vf_cards.memory_of(profile, card) // MIB, profile.share)


@functools.lru_cache(maxsize=1024)
def _card(shape: CardShape) -> Card:
    interface = Interface(shape.quotas) if shape.quotas in frozenset(map(str, Interface)) else Interface.NONE
    per_vf, bulk = frozenset({"vram_quota", "exec_quantum_ms", "preempt_timeout_us"}), frozenset[str]()
    if shape.bulk_quota:
        per_vf, bulk = per_vf - {"vram_quota"}, per_vf
    return Card(
        bdf=Bdf("card"),
        device=shape.model,
        interface=interface,
        max_vfs=shape.maxvfs,
        total_vfs=shape.maxvfs,
        memory_bytes=shape.memory * MIB if shape.memory else None,
        tiles=max(1, shape.tiles),
        gts=tuple(f"gt{tile}" for tile in range(shape.tiles)),
        attributes=per_vf,
        bulk_attributes=bulk,
        ecc=shape.ecc or None,
    )

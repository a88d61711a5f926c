"""What a node tells the controller it has: the offer that structured DRA makes, in the words of GpuAllocationState."""

from __future__ import annotations

from typing import Final

from dra import vf_profiles, vf_shares
from dra.classic.inventory import AllocatableGpu, DeviceType
from dra.classic.names import DeviceUid, device_uid
from dra.devices import Gpu, Kind
from dra.offer import CutCard, Offer, Sight
from dra.vf_cards import Card, Interface

WHOLE: Final = 1000
"""Millicores of a card."""
_MIB: Final = 1 << 20


def allocatable(made: Offer, sight: Sight, *, on_demand: bool) -> dict[DeviceUid, AllocatableGpu]:
    """By uid.

    VFs that are only planned are left out: a claim is given those that are there, or the controller plans some of its own. So is what is
    broken, held or not, and a card that the settings have cut: its VFs stand for it.

    Args:
        on_demand: the controller may have cards cut.
    """
    cards, there = sight.inventory.by_bdf(), sight.inventory.by_name
    found: dict[DeviceUid, AllocatableGpu] = {}
    for gpu in made.gpus:
        if gpu.name in made.taints or gpu.name not in there:
            continue
        if gpu.kind is Kind.VF:
            parent = cards.get(gpu.parent) if gpu.parent is not None else None
            if parent is None or gpu.vf_index is None:
                continue  # whose VF it is cannot be read: nobody could say what else is held with it
            one = _vf(there[gpu.name], parent, sight, made, on_demand=on_demand)
        elif not on_demand and gpu.bdf in sight.cards and _has_vfs(cards[gpu.bdf], sight):
            continue
        else:
            one = _card(gpu, sight.cards.get(gpu.bdf), on_demand=on_demand)
        found[DeviceUid(one.uid)] = one
    return found


def _has_vfs(pf: Gpu, sight: Sight) -> bool:
    """Or is to have some by the settings, and they can be made."""
    at = sight.cards[pf.bdf]
    return pf.vfs_now > 0 or (bool(at.wanted) and at.fault is None)


def _card(gpu: Gpu, at: CutCard | None, *, on_demand: bool) -> AllocatableGpu:
    card = at.card if at is not None else None
    may_be_cut = on_demand and at is not None and at.fault is None and gpu.vf_places is not None
    return AllocatableGpu(
        uid=device_uid(gpu.bdf, gpu.device),
        memory=(gpu.memory_bytes or 0) // _MIB,
        millicores=WHOLE,
        model=gpu.device,
        type=DeviceType.GPU,
        parentuid="",
        maxvfs=gpu.max_vfs_usable if may_be_cut else 0,
        vfindex=0,
        ecc=card is not None and _is_checked(card),
        name=gpu.model or "",
        tiles=gpu.tiles,
        quotas=str(card.interface if card is not None else Interface.NONE),
        bulk_quota=card is not None and _takes_one_quota(card),
    )


def _vf(gpu: Gpu, parent: Gpu, sight: Sight, made: Offer, *, on_demand: bool) -> AllocatableGpu:
    assert gpu.vf_index is not None
    at = sight.cards.get(parent.bdf)
    carving = at.carving if at is not None else None
    memory_bytes, millicores, profile = gpu.memory_bytes or 0, WHOLE // max(1, parent.vfs_now), ""
    if at is not None and carving is not None and made.profiles.get(gpu.name) and gpu.vf_index <= len(carving.layout):
        of_vf = carving.layout[gpu.vf_index - 1]
        has = vf_shares.capacity(of_vf, at.card, len(carving.layout))
        memory_bytes, millicores = has.memory_bytes or memory_bytes, has.millicores
        profile = of_vf.name if on_demand else ""
    return AllocatableGpu(
        uid=device_uid(gpu.bdf, gpu.device),
        memory=memory_bytes // _MIB,
        millicores=millicores,
        model=gpu.device,
        type=DeviceType.VF,
        parentuid=device_uid(parent.bdf, parent.device),
        maxvfs=0,
        vfindex=gpu.vf_index - 1,
        ecc=False,
        name=gpu.model or parent.model or "",
        profile=profile,
        tiles=parent.tiles,
    )


def _is_checked(card: Card) -> bool:
    """Whether memory is checked for errors; where nobody says, as the sizes of VFs take it (`vf_cards.memory_of`)."""
    if card.ecc is not None:
        return card.ecc
    return any(one.per_card * one.memory_bytes > card.budget.memory_bytes for one in vf_profiles.for_device(card.device)[:1])


def _takes_one_quota(card: Card) -> bool:
    return card.interface is Interface.ADMIN and "vram_quota" not in card.attributes and "vram_quota" in card.bulk_attributes

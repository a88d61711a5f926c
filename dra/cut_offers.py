"""A card that is cut, or may be: its VFs and itself, offered side by side, whether the VFs are made already or only will be.

All draw on one counter set, so the scheduler gives away the card or VFs of it, never both. A VF is published as it is planned, not as its
driver shows it once it is there: making VFs then changes no slice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from dra import layouts, vf_shares
from dra.carvings import Carving
from dra.devices import Gpu, Kind, State
from dra.layouts import Layout, Verdict
from dra.names import BootId, DeviceName, device_name
from dra.terms import Terms
from dra.vf_cards import Card


class CutOffer(msgspec.Struct, frozen=True):
    """What is offered of one card."""

    gpus: tuple[Gpu, ...]
    """The card, then its VFs."""
    terms: Mapping[DeviceName, Terms]
    counters: Mapping[str, Mapping[str, int]]
    planned: tuple[Gpu, ...] = ()
    """Its VFs, offered or not: claims may hold them already."""
    profiles: Mapping[DeviceName, str] = {}
    """Of those."""


def in_force(wanted: Layout, carving: Carving | None, pf: Gpu, boot_id: BootId, vfs_in_use: Collection[int]) -> Layout | None:
    """The layout that what is offered of a card follows: the one it has while it has it, then the one that is wanted.

    None: the VFs that are there are somebody else's, and are offered as they are.
    """
    if pf.vfs_now and not are_ours(pf, carving, boot_id):
        return None
    if carving is None or not (vfs_in_use or layouts.change(carving.layout, wanted, {}).verdict is Verdict.NOTHING):
        return wanted
    return carving.layout


def are_ours(pf: Gpu, carving: Carving | None, boot_id: BootId) -> bool:
    """Whether the VFs that a card has are those that the journal speaks of, all of them or some of them yet."""
    return carving is not None and carving.tells_of(pf.device, boot_id) and 0 < pf.vfs_now <= len(carving.layout)


def offer(pf: Gpu, card: Card, layout: Layout, *, fault: str | None, without_counters: str) -> CutOffer:
    """Offer a card with its VFs.

    Args:
        fault: why the VFs cannot be made at the moment: then the card alone is offered.
        without_counters: `vfs` or `card`, what is left of the offer where the API server keeps no counters.
    """
    whole = msgspec.structs.replace(pf, vfs_now=0, publishable=True, why=None, state=State.HEALTHY)
    counters = vf_shares.counters(layout, card)
    if counters is None:
        return CutOffer((whole,), {}, {})
    group = pf.bdf.replace(":", "-").replace(".", "-")
    terms = {pf.name: Terms(consumes={group: counters.card}, alone=without_counters == "card")}
    vfs = []
    for index, profile in enumerate(layout, start=1):
        has = vf_shares.capacity(profile, card, len(layout))
        vf = planned(pf, index, has.memory_bytes)
        terms[vf.name] = Terms(
            profile=profile.name,
            memory_bytes=has.memory_bytes,
            millicores=has.millicores,
            consumes={group: counters.vfs[index - 1]},
            alone=without_counters == "vfs",
        )
        vfs.append(vf)
    profiles = {vf.name: profile.name for vf, profile in zip(vfs, layout, strict=True)}
    if fault is not None and not pf.vfs_now:
        return CutOffer((whole,), {}, {}, tuple(vfs), profiles)
    return CutOffer((whole, *vfs), terms, {group: counters.total}, tuple(vfs), profiles)


def planned(pf: Gpu, index: int, memory_bytes: int | None) -> Gpu:
    """A VF as it is, or will be."""
    assert pf.vf_places is not None, pf.bdf
    return Gpu(
        bdf=pf.vf_places.bdf(pf.bdf, index),
        device=pf.vf_places.device,
        driver=pf.driver,
        model=pf.model,
        family=pf.family,
        kind=Kind.VF,
        integrated=pf.integrated,
        memory_bytes=memory_bytes,
        tiles=pf.tiles,
        numa=pf.numa,
        pcie_root=pf.pcie_root,
        parent=pf.bdf,
        vf_index=index,
        driver_version=pf.driver_version,
    )


def vf_name(pf: Gpu, index: int) -> DeviceName:
    """Name of a VF of this card."""
    assert pf.vf_places is not None, pf.bdf
    return device_name(pf.vf_places.bdf(pf.bdf, index), pf.vf_places.device)

"""How one card is cut: a layout is a profile for each VF, VF 1 first. Whether a card can be cut so, and what it takes to get there.

VFs are made and taken away all at once (a change of `sriov_numvfs` from one number to another is EBUSY, drivers/pci/pci-sysfs.c), so a
layout is never changed piece by piece.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import msgspec

from dra import vf_cards, vf_profiles
from dra.names import ClaimUid
from dra.vf_cards import Card, Interface
from dra.vf_profiles import FAIR_SHARE, UNKNOWN, VfProfile

Layout = tuple[VfProfile, ...]
"""The profiles of VF 1, 2, ... of one card; empty is a card that is not cut."""

_SAID: Final = 6
"""Things named one by one in a sentence: a card can have 63 VFs, and an Event holds 1024 characters."""


class Verdict(enum.StrEnum):
    NOTHING = "nothing"
    CARVE = "carve"
    """Make VFs on a card that has none."""
    UNCARVE = "uncarve"
    """Take all VFs away."""
    RECARVE = "recarve"
    """Take all VFs away, then make the wanted ones."""
    BLOCKED = "blocked"
    """Something in use would have to go."""


class Change(msgspec.Struct, frozen=True):
    verdict: Verdict
    why: str
    """For people: one sentence."""
    blockers: tuple[int, ...] = ()
    """VFs in use that would have to go, 0 for the card itself; only of `blocked`."""


def feasible(layout: Layout, card: Card) -> tuple[str, ...]:
    """Why a card cannot be cut so, a sentence each; empty if it can. What only the kernel knows (fragmentation) comes out when writing."""
    if not layout:
        return ()
    if card.max_vfs <= 0:
        return (f"{card.bdf} can have no VFs with the driver it has",)
    why: list[str] = []
    if len(layout) > card.max_vfs:
        why.append(f"{len(layout)} VFs are more than the {card.max_vfs} that {card.bdf} can have")
    if unknown := _indexes(layout, UNKNOWN):
        why.append(f"nobody knows the profile of {_vfs(unknown)}")
    for profile in dict.fromkeys(layout):
        devices = vf_profiles.devices_of(profile.name)
        if devices and card.device not in devices:
            why.append(f"profile {profile.name} is for {', '.join(devices)}, and {card.bdf} is {card.device}")
    if not any(profile.has_quotas for profile in layout):
        return tuple(why)
    if fair := _indexes(layout, FAIR_SHARE):
        why.append(f"{_vfs(fair)} cannot be {FAIR_SHARE.name} beside VFs with quotas: the kernel splits the whole card or nothing")
    return (*why, *_without_files(layout, card), *_too_much(layout, card))


def fill(profile: VfProfile, card: Card) -> Layout:
    """As many VFs of one profile as the card can have; of fair share all that it can have at all."""
    return (profile,) * (min(profile.per_card, card.max_vfs) if profile.per_card else card.max_vfs)


def describe(layout: Layout) -> str:
    """`2 × flex170_m4 + flex170_m2`, for people; `no VFs`."""
    counts: dict[str, int] = {}
    for profile in layout:
        counts[profile.name] = counts.get(profile.name, 0) + 1
    return " + ".join(name if count == 1 else f"{count} × {name}" for name, count in counts.items()) or "no VFs"


def change(now: Layout, wanted: Layout, in_use: Mapping[int, Collection[ClaimUid]]) -> Change:
    """What has to happen to get from one layout to another.

    The same profiles in another order are the same layout: `now` stays in force, and the caller keeps it.

    Args:
        now: what is there, with `UNKNOWN` for VFs whose profile nobody recorded.
        in_use: claims by the VF they hold, 0 for the card itself.
    """
    if now == wanted or _sizes(now) == _sizes(wanted):
        return Change(Verdict.NOTHING, f"it has {describe(now)}, as wanted")
    step = f"from {describe(now)} to {describe(wanted)}"
    if blockers := tuple(sorted(index for index, claims in in_use.items() if claims)):
        needs = "takes all VFs away" if now else "needs the whole card"
        return Change(Verdict.BLOCKED, f"{step} {needs}, and in use are {_held(blockers, in_use)}", blockers)
    if not now:
        return Change(Verdict.CARVE, f"{step}: nothing is in use")
    return Change(Verdict.RECARVE if wanted else Verdict.UNCARVE, f"{step}: no VF is in use")


def _without_files(layout: Layout, card: Card) -> Iterable[str]:
    """Reasons that lie in the driver: quotas it has no files for."""
    if card.interface is Interface.NONE:
        yield f"the driver of {card.bdf} has no files for quotas of VFs: only {FAIR_SHARE.name} is possible (xe before Linux 6.19)"
    elif card.memory_bytes is None:
        yield f"the memory of {card.bdf} is not known: only {FAIR_SHARE.name} is possible"
    elif card.interface is Interface.PRELIM and len(card.gts) != card.tiles:
        yield f"{card.bdf} has {card.tiles} tiles, and its VFs show {len(card.gts)} GTs"
    elif card.interface is Interface.ADMIN and "vram_quota" not in card.attributes:
        if "vram_quota" not in card.bulk_attributes:
            yield f"the driver of {card.bdf} takes no quota of memory (vram_quota): only {FAIR_SHARE.name} is possible"
        elif len({profile.name for profile in layout}) > 1:
            yield f"the driver of {card.bdf} takes one quota of memory for all VFs: {describe(layout)} are mixed"


def _too_much(layout: Layout, card: Card) -> Iterable[str]:
    """What the VFs ask for together beyond what there is."""
    if card.interface is Interface.NONE or card.memory_bytes is None:
        return
    quotas = [vf_cards.quota_of(profile, card) for profile in layout]
    if card.interface is Interface.ADMIN and "vram_quota" not in card.attributes:
        quotas = quotas[:1] * card.total_vfs  # what is written for all VFs is kept for all that could be (xe_sriov_pf_provision.c)
    where = "" if card.tiles == 1 else " on each tile"
    budget = card.budget
    for asked, there, what in (
        (sum(q.memory_bytes for q in quotas), budget.memory_bytes, "bytes of memory"),
        (sum(q.ggtt_bytes_per_gt for q in quotas), budget.ggtt_bytes_per_gt, f"bytes of GGTT{where}"),
        (sum(q.contexts_per_gt for q in quotas), budget.contexts_per_gt, f"contexts{where}"),
        (sum(q.doorbells_per_gt for q in quotas), budget.doorbells_per_gt, f"doorbells{where}"),
    ):
        if asked > there:
            yield f"{describe(layout)} need {asked} {what}, {card.bdf} has {there} for VFs"


def _sizes(layout: Layout) -> list[VfProfile]:
    return sorted(layout, key=lambda profile: (profile.name, msgspec.json.encode(profile)))


def _indexes(layout: Layout, profile: VfProfile) -> list[int]:
    return [index for index, one in enumerate(layout, start=1) if one == profile]


def _vfs(indexes: list[int]) -> str:
    """`VFs 1, 3 to 9`."""
    runs: list[list[int]] = []
    for index in indexes:
        if runs and index == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], index]
        else:
            runs.append([index])
    said = ", ".join(" to ".join(map(str, run)) for run in runs[:_SAID]) + (", ..." if len(runs) > _SAID else "")
    return f"VF {said}" if len(indexes) == 1 else f"VFs {said}"


def _held(blockers: tuple[int, ...], in_use: Mapping[int, Collection[ClaimUid]]) -> str:
    """`VF 1 by claim a; VF 3 by claims b, c`."""
    said = [
        f"{'the card itself' if index == 0 else f'VF {index}'} by {'claim' if len(in_use[index]) == 1 else 'claims'} "
        + ", ".join(sorted(in_use[index]))
        for index in blockers[:_SAID]
    ]
    return "; ".join(said) + (f"; and {len(blockers) - _SAID} more" if len(blockers) > _SAID else "")

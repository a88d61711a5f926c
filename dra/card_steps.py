"""What to do next with a card that can be cut into VFs, computed from facts alone: carving, uncarving, adopting and recovery are one path.

The rules, in order of weight: VFs of somebody else are never touched; VFs in use stay, and so does a card in use as a whole; then the
settings have their way. The journal knows of a card before its first quota is written and until the last one is cleared, so whatever
dies in between, the next life finishes it or takes it back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from dra import layouts, vf_quotas
from dra.card_facts import CardFacts
from dra.carvings import Carving, Uncarve
from dra.discovery import DRM_DRIVERS
from dra.layouts import Layout, Verdict
from dra.names import BootId, ClaimUid
from dra.vf_quotas import Write


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """All that the next step of one card depends on."""

    facts: CardFacts
    carving: Carving | None
    """What the journal says of the card."""
    wanted: Layout
    """What the settings want of it, or the claims that hold VFs, feasible or empty."""
    promised: bool = False
    """Claims were given VFs of exactly this layout, and of no other."""
    eager: bool
    """VFs are made before anybody asks."""
    keep: bool
    """VFs stay when nobody uses them any more."""
    users: Mapping[int, Collection[ClaimUid]]
    """Claims by the VF they hold, 0 for the card itself; nobody without a claim is in it."""
    needed: Collection[int]
    """VFs of them that a claim is to have. Those of claims that are going stay while they are there, and are not made again."""
    boot_id: BootId
    provisioned: bool = False
    """The quotas were written already, in this attempt: what reads back is the kernel's rounding."""
    awaited: bool = False
    """The kernel was waited for already, in this attempt."""
    given_up: bool = False
    """Making VFs failed, in this attempt: nothing of it is to stay."""


class Remember(msgspec.Struct, frozen=True):
    """Tell the journal, durably, before anything else."""

    change: Carving | Uncarve


class LookAtQuotas(msgspec.Struct, frozen=True):
    """Read the facts again, with the quotas: there are many of them, and few steps need them."""


class Provision(msgspec.Struct, frozen=True):
    """Write quotas, in this order."""

    writes: tuple[Write, ...]


class Autoprobe(msgspec.Struct, frozen=True):
    """Let the kernel give new VFs a driver."""


class MakeVfs(msgspec.Struct, frozen=True):
    count: int


class RemoveVfs(msgspec.Struct, frozen=True):
    """Take all VFs away."""


class AwaitKernel(msgspec.Struct, frozen=True):
    """Somebody's change of the number of VFs, ours of an earlier life perhaps, may be under way: wait until it is over."""


class AwaitVfs(msgspec.Struct, frozen=True):
    """Wait until these VFs have their driver and nodes."""

    indexes: tuple[int, ...]


class Impossible(msgspec.Struct, frozen=True):
    """Nothing can be done until something else changes."""

    why: str


Step = Remember | LookAtQuotas | Provision | Autoprobe | MakeVfs | RemoveVfs | AwaitKernel | AwaitVfs | Impossible


def is_ours(facts: CardFacts, carving: Carving | None, boot_id: BootId) -> bool:
    """Whether the VFs that are there are the ones the journal speaks of. Those of another boot, or in another number, are not."""
    return (
        carving is not None and carving.tells_of(facts.card.device, boot_id) and len(facts.vfs) == len(carving.layout) and bool(facts.vfs)
    )


def target(at: Situation) -> Layout:
    """The layout the card is to have now; empty for a whole card. Of VFs that are not ours it says nothing."""
    ours = is_ours(at.facts, at.carving, at.boot_id)
    if at.given_up:
        return ()
    if at.needed:
        return at.wanted if at.carving is None or _is_broken_promise(at) else at.carving.layout
    if any(index > 0 for index in at.users):
        return at.carving.layout if ours and at.carving is not None else ()
    if 0 in at.users:
        return ()
    if ours and at.carving is not None and (at.keep or at.eager) and _same(at.carving.layout, at.wanted):
        return at.carving.layout
    return at.wanted if at.eager else ()


def next_step(at: Situation) -> Step | None:
    """The next step, None when the card is as it is to be."""
    facts, carving = at.facts, at.carving
    if carving is not None and carving.pci_id != facts.card.device:
        return Remember(Uncarve(facts.bdf))
    if facts.driver not in DRM_DRIVERS:
        return _without_driver(at)
    if facts.vfs and not is_ours(facts, carving, at.boot_id):
        return _foreign(at)
    wanted = target(at)
    if facts.vfs:
        assert carving is not None
        if _is_broken_promise(at) or not _same(carving.layout, wanted):
            return RemoveVfs()
        awaited = facts.vfs if at.eager else {index: facts.vfs[index] for index in at.needed if index in facts.vfs}
        missing = tuple(index for index, vf in sorted(awaited.items()) if not vf.is_up)
        return AwaitVfs(missing) if missing else _lacking(at)
    if wanted:
        return _carve(at, wanted)
    if at.needed and not at.given_up:
        return Impossible(f"{facts.bdf} has no VFs, and the settings do not say how to make them")
    return _clean(at)


def _without_driver(at: Situation) -> Step | None:
    """The VFs went with the driver; what was written is forgotten by the kernel too, but a driver that comes back is looked at first."""
    if at.needed:
        return Impossible(f"{at.facts.bdf} is bound to {at.facts.driver or 'no driver'}: its DRM driver is needed for VFs")
    return None


def _foreign(at: Situation) -> Step | None:
    """VFs that somebody else made, or some of ours in the making."""
    carving, there = at.carving, len(at.facts.vfs)
    if carving is None:
        if at.promised and at.needed:
            return Impossible(
                f"{at.facts.bdf} has {there} VFs that somebody else made: take them away (0 into sriov_numvfs), then it can be cut into "
                + layouts.describe(at.wanted)
            )
        return _lacking(at)
    if carving.boot_id == at.boot_id and there < len(carving.layout) and not at.awaited:
        return AwaitKernel()
    return Remember(Uncarve(at.facts.bdf))


def _lacking(at: Situation) -> Step | None:
    absent = [index for index in sorted(at.needed) if index not in at.facts.vfs]
    if absent:
        there = f"{at.facts.bdf} has {len(at.facts.vfs)} VFs"
        return Impossible(f"{there}: VF {absent[0]} is not there, and while others are it cannot be made")
    return None


def _carve(at: Situation, wanted: Layout) -> Step:
    card = at.facts.card
    if reasons := layouts.feasible(wanted, card):
        return Impossible("; ".join(reasons))
    carving = Carving(bdf=card.bdf, pci_id=card.device, profiles=wanted, boot_id=at.boot_id)
    if at.carving != carving:
        return Remember(carving)
    if absent := [index for index in sorted(at.needed) if index > len(wanted)]:
        return Impossible(f"{card.bdf} is cut into {layouts.describe(wanted)}: there is no VF {absent[0]}")
    if not at.provisioned:
        if at.facts.quotas is None:
            return LookAtQuotas()
        if writes := (*_leftovers(at.facts.quotas, at.facts), *vf_quotas.quotas(wanted, card)):
            return Provision(writes)
    return MakeVfs(len(wanted)) if at.facts.autoprobe else Autoprobe()


def _clean(at: Situation) -> Step | None:
    """A card that is whole: nothing of ours stays. Leftovers of others wait until VFs are made."""
    if at.carving is None:
        return None
    if not at.provisioned:
        if at.facts.quotas is None:
            return LookAtQuotas()
        if writes := _leftovers(at.facts.quotas, at.facts):
            return Provision(writes)
    return Remember(Uncarve(at.facts.bdf))


def _leftovers(quotas: Mapping[str, str], facts: CardFacts) -> tuple[Write, ...]:
    """What has to be written so that no quota is left."""
    return tuple(write for write in vf_quotas.cleared(facts.card) if quotas.get(write.path, write.text) != write.text)


def _is_broken_promise(at: Situation) -> bool:
    """Whether the card is cut in another way than claims rely on. Names and places decide: what a name means may change in the settings,
    which is no reason to take VFs away."""
    if not (at.promised and at.needed and at.wanted and at.carving is not None):
        return False
    return [profile.name for profile in at.carving.layout] != [profile.name for profile in at.wanted]


def _same(one: Layout, other: Layout) -> bool:
    return layouts.change(one, other, {}).verdict is Verdict.NOTHING

"""Which GPUs are offered to the scheduler, on which terms, and which carry a taint: inventory × settings × claims, decided in one place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

import msgspec

from dra import cut_offers, taint_rules
from dra.carvings import Carving
from dra.cut_offers import CutOffer
from dra.devices import Gpu, Inventory, State
from dra.health.telling import NO_OPINION, Opinion
from dra.layouts import Layout
from dra.ledger import Ledger
from dra.names import DRIVER_NAME, Bdf, BootId, DeviceName
from dra.pool import Effect, SharePolicy, Taint
from dra.terms import Terms
from dra.vf_cards import Card

TAINTS: Final = {
    State.WEDGED: "wedged",
    State.SURVIVABILITY: "survivability",
    State.PASSTHROUGH: "passthrough",
    State.NO_DRIVER: "no-driver",
    State.NO_NODES: "no-nodes",
}
"""Name part of the taint key for each state that breaks the pods of a GPU in use. Stable and short, so that tolerations can be written."""
ABSENT: Final = "absent"
ALERTED: Final = Taint(taint_rules.KEY, Effect.NO_SCHEDULE, taint_rules.VALUE)
"""The same taint as by a DeviceTaintRule."""


class CutCard(msgspec.Struct, frozen=True):
    """A card that the settings want cut, or that is cut."""

    card: Card
    wanted: Layout
    carving: Carving | None
    fault: str | None
    """Why its VFs could not be made the last time."""


class Sight(msgspec.Struct, frozen=True):
    """One look at the machine: its GPUs, and what belongs to it about cards that are cut. Never one without the other, or a card would be
    offered whole while its VFs are in use."""

    inventory: Inventory
    cards: Mapping[Bdf, CutCard] = {}
    """By the PF's address."""
    without_counters: str = "vfs"
    """`vfs` or `card`, what is offered of a card where the API server keeps no counters."""
    boot_id: BootId = BootId("")


class Offer(msgspec.Struct, frozen=True):
    gpus: tuple[Gpu, ...]
    """In order of address."""
    taints: Mapping[DeviceName, tuple[Taint, ...]]
    withheld: Mapping[DeviceName, str]
    """Why a GPU that is there is not offered, for people."""
    terms: Mapping[DeviceName, Terms] = {}
    counters: Mapping[str, Mapping[str, int]] = {}
    planned: Mapping[DeviceName, Gpu] = {}
    """VFs of all layouts in force, made or not, offered or not."""
    profiles: Mapping[DeviceName, str] = {}
    """Of those."""
    healthy: Mapping[DeviceName, bool] = {}
    """What monitoring says of those that are offered; absent means that nothing is known."""


def offer(
    sight: Sight,
    *,
    remembered: Mapping[DeviceName, Gpu],
    in_use: Collection[DeviceName],
    lent: Collection[DeviceName] = (),
    alerted: Collection[DeviceName] = (),
    opinion: Opinion = NO_OPINION,
    selected: Callable[[Gpu], bool],
    shares: Callable[[Gpu], Mapping[str, SharePolicy]] = lambda _gpu: {},
) -> Offer:
    """Decide.

    A GPU that is fit and selected is offered. One that broke or vanished while a claim holds it stays with a NoExecute taint, which
    evicts the pods that cannot work any more (API servers that drop taints get it withdrawn); unused it is simply withdrawn. A PF whose
    VFs somebody else made is withdrawn without a taint: the pods on it still work.

    Args:
        remembered: what was last known of GPUs that may be gone by now.
        in_use: devices held by claims.
        lent: those of them that a claim has bound to another driver: they are as they should be.
        alerted: devices that an alert is about; with a card its VFs are meant. They get no new claims, pods on them stay.
        opinion: what is held against GPUs, and what the settings make of it.
        selected: the settings' opinion.
        shares: how a whole GPU is shared between claims, empty if it is not.
    """
    gpus: dict[DeviceName, Gpu] = {}
    taints: dict[DeviceName, tuple[Taint, ...]] = {}
    withheld: dict[DeviceName, str] = {}
    terms: dict[DeviceName, Terms] = {}
    counters: dict[str, Mapping[str, int]] = {}
    planned: dict[DeviceName, Gpu] = {}
    profiles: dict[DeviceName, str] = {}
    for cards in _cards(sight, in_use, selected):
        terms |= cards.terms
        counters |= cards.counters
        planned |= {gpu.name: gpu for gpu in cards.planned}
        profiles |= cards.profiles
        gpus |= {gpu.name: gpu for gpu in cards.gpus}
    pfs = sight.inventory.by_bdf()
    for gpu in sight.inventory.gpus:
        if not selected(gpu):
            withheld[gpu.name] = "not selected by the settings"
        elif gpu.name in lent:
            gpus[gpu.name] = remembered.get(gpu.name, gpu)
        elif gpu.name in in_use and (reason := TAINTS.get(gpu.state)) is not None:
            gpus[gpu.name] = gpu
            taints[gpu.name] = _taint(reason, opinion)
        elif gpu.name in gpus:
            continue  # as part of its card
        elif gpu.name not in in_use and _is_going(gpu, sight, pfs):
            withheld[gpu.name] = "about to be taken away"
        elif gpu.publishable:
            gpus[gpu.name] = gpu
            if policies := shares(gpu):
                terms[gpu.name] = Terms(shares=policies)
        else:
            withheld[gpu.name] = gpu.why or str(gpu.state)
    present = sight.inventory.by_name
    for name in in_use:
        if name not in present and name not in gpus and (gone := remembered.get(name)) is not None and selected(gone):
            gpus[name] = gone
            taints[name] = _taint(ABSENT, opinion)
    alerted_cards = {gpu.bdf for gpu in sight.inventory.gpus if gpu.name in alerted}
    for name, gpu in gpus.items():
        if held := opinion.taints(gpu):
            said = {taint.key for taint in held}
            taints[name] = (*held, *(taint for taint in taints.get(name, ()) if taint.key not in said))
        if name in alerted or gpu.parent in alerted_cards:
            taints[name] = (*taints.get(name, ()), ALERTED)
    ordered = tuple(sorted(gpus.values(), key=lambda gpu: (len(gpu.bdf), gpu.bdf)))
    healthy = {gpu.name: is_so for gpu in ordered if (is_so := opinion.healthy(gpu)) is not None}
    return Offer(ordered, taints, withheld, terms, counters, planned, profiles, healthy)


def _cards(sight: Sight, in_use: Collection[DeviceName], selected: Callable[[Gpu], bool]) -> Iterable[CutOffer]:
    """Cards that are offered with their VFs: fit ones, and those of which VFs are in use."""
    for pf in sight.inventory.gpus:
        at = sight.cards.get(pf.bdf)
        if at is None or pf.vf_places is None or pf.state not in (State.HEALTHY, State.DIRTY) or not selected(pf):
            continue
        longest = max(len(at.wanted), len(at.carving.layout) if at.carving is not None else 0)
        used = [index for index in range(1, longest + 1) if cut_offers.vf_name(pf, index) in in_use]
        layout = cut_offers.in_force(at.wanted, at.carving, pf, sight.boot_id, used)
        if layout:
            yield cut_offers.offer(pf, at.card, layout, fault=at.fault, without_counters=sight.without_counters)


def _is_going(gpu: Gpu, sight: Sight, pfs: Mapping[Bdf, Gpu]) -> bool:
    """Whether this is a VF that we made and that no layout in force has: it is there until its owner comes to it. An administrator's would
    be offered as it is."""
    pf = pfs.get(gpu.parent) if gpu.parent is not None else None
    at = sight.cards.get(pf.bdf) if pf is not None else None
    return pf is not None and at is not None and cut_offers.are_ours(pf, at.carving, sight.boot_id)


def lent(ledger: Ledger) -> list[DeviceName]:
    """Devices that claims have, or had until a moment ago, bound to another driver."""
    return [grant.device for record in ledger.records() for grant in record.grants if grant.driver and not grant.admin]


def _taint(reason: str, opinion: Opinion) -> tuple[Taint, ...]:
    word = opinion.effects.failed
    return (Taint(f"{DRIVER_NAME}/{reason}", Effect(word), "failed"),) if word != "none" else ()

"""What is seen of the machine, settings and claims -> what to publish of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import trio

from dra import decommissioning, offer, settings, sharing_settings
from dra.decommissioning import Stage
from dra.devices import Gpu
from dra.health.telling import NO_OPINION, Opinion
from dra.ledger import Ledger
from dra.names import DeviceName
from dra.offer import Sight
from dra.pool import Effect
from dra.settings import Publish
from dra.sharing_settings import Sharing
from nursery_apps.latest import Latest

log = logging.getLogger(__name__)

D = TypeVar("D")
D_co = TypeVar("D_co", covariant=True)


class Planned(msgspec.Struct, frozen=True):
    """What a claim may have been given before it is there, by device."""

    gpus: Mapping[DeviceName, Gpu]
    profiles: Mapping[DeviceName, str]
    """Of VFs."""


class Desire(Protocol[D_co]):
    def __call__(self, made: offer.Offer, sight: Sight, /) -> D_co:
        """An offer in the words of whoever reads it."""


class Offering(Generic[D]):
    """Owns `desired`. Recomputed whenever one of its sources changes; equal results wake nobody."""

    def __init__(
        self,
        desire: Desire[D],
        sight: Latest[Sight | None],
        ledger: Latest[Ledger],
        publish: Latest[Publish],
        sharing: Latest[tuple[Sharing, ...]],
        *,
        alerted: Latest[frozenset[DeviceName]] | None = None,
        opinion: Latest[Opinion] | None = None,
        on_tainted: Callable[[str], None],
        stage: Latest[Stage] | None = None,
    ) -> None:
        """
        Args:
            stage: of the driver's removal. Until it is known there is nothing to publish; then nothing is offered but in service.
            alerted: devices that alerts are about.
            opinion: of the GPUs' health.
            on_tainted: told a sentence when a GPU breaks or vanishes under a claim.
        """
        self._desire = desire
        self._sight = sight
        self._ledger = ledger
        self._publish = publish
        self._sharing = sharing
        self._alerted = alerted if alerted is not None else Latest(frozenset())
        self._opinion = opinion if opinion is not None else Latest(NO_OPINION)
        self._on_tainted = on_tainted
        self._stage = stage if stage is not None else Latest(Stage.IN_SERVICE)
        self._remembered: dict[DeviceName, Gpu] = {}
        self._made: tuple[offer.Offer, Sight, Stage] | None = None
        self._planned = Planned({}, {})
        self.withheld: dict[DeviceName, str] = {}
        self.desired: Latest[D | None] = Latest(None)
        """None until the first scan: an empty offer would take the GPUs of a restarted plugin away."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the sources until cancelled; ready with the first pool."""
        self._decide()
        task_status.started()
        async with trio.open_nursery() as nursery:
            for source in (self._sight, self._ledger, self._publish, self._sharing, self._alerted, self._opinion, self._stage):
                nursery.start_soon(self._follow, source)

    async def _follow(self, source: Latest[Any]) -> None:
        seen = -1  # what changed before this task first ran counts too
        while True:
            await source.wait_newer(seen)
            seen = source.version
            self._decide()

    def known(self) -> list[Gpu]:
        """Every GPU of the machine, and those that are gone but held."""
        seen = self._sight.value
        return list((self._remembered | (dict(seen.inventory.by_name) if seen is not None else {})).values())

    def planned(self) -> Planned:
        """VFs of all layouts in force."""
        return self._planned

    def _decide(self) -> None:
        sight, ledger = self._sight.value, self._ledger.value
        if sight is None:
            return
        in_use, lent = ledger.in_use(), offer.lent(ledger)
        made = offer.offer(
            sight,
            remembered=self._remembered,
            in_use=in_use,
            lent=lent,
            alerted=self._alerted.value,
            opinion=self._opinion.value,
            selected=partial(settings.selects, self._publish.value),
            shares=partial(sharing_settings.terms_of, self._sharing.value),
        )
        kept = {name: gpu for name, gpu in self._remembered.items() if name in in_use}
        # What a claim has bound to another driver is remembered as it was before: that is what it will be again.
        self._remembered = kept | {name: gpu for name, gpu in sight.inventory.by_name.items() if not (name in lent and name in kept)}
        stage = self._stage.value
        if (made, sight, stage) == self._made:
            return  # the ledger changes with every prepare; rendering 64 GPUs each time would cost more than the prepare
        before = self._made[0].taints if self._made is not None else {}
        self._made = made, sight, stage
        self._planned = Planned(made.planned, made.profiles)
        if stage is not Stage.IN_SERVICE:
            if stage is not Stage.UNDECIDED:
                self.desired.set(self._desire(decommissioning.NOTHING, sight))
            return
        self._report(dict(made.withheld))
        for name, taints in made.taints.items():
            unfit = [taint.key for taint in taints if taint.effect is Effect.NO_EXECUTE]
            if unfit and name in in_use and before.get(name) != taints:
                keys, claims = ", ".join(unfit), ", ".join(in_use[name])
                self._on_tainted(
                    f"{name}, held by claim {claims}, is unfit ({keys}): its pods are evicted where the API server keeps taints"
                )
        self.desired.set(self._desire(made, sight))

    def _report(self, withheld: dict[DeviceName, str]) -> None:
        for name, why in withheld.items():
            if self.withheld.get(name) != why:
                log.info("not offered: %s (%s)", name, why)
        self.withheld = withheld

"""Has wedged cards bound anew by their owners, as settings allow: an attempt is written down before its first step and after its last."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import trio

from dra.devices import Gpu, Inventory
from dra.errors import DriverError
from dra.health import recovery
from dra.health.health_settings import Health
from dra.health.recovery import Attempt, Method
from dra.kube.event_reasons import Reason
from dra.kube.events import Weight
from dra.ledger import Ledger
from dra.names import Bdf, ClaimUid
from nursery_apps.latest import Latest
from nursery_apps.node.health.monitor import HealthMonitor
from nursery_apps.seams import Clock

log = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 600.0
"""When it is looked without need: a day ends, and no event says so."""


class Recoverer:
    """Owns `wanted`, which cards' owners follow. `run` is the task."""

    def __init__(
        self,
        monitor: HealthMonitor,
        settings: Latest[Health],
        inventory: Latest[Inventory],
        ledger: Latest[Ledger],
        *,
        clock: Clock,
        say: Callable[[Weight, Reason, str], None],
    ) -> None:
        """`say` takes an Event about the node: weight, reason, sentence."""
        self._monitor, self._settings, self._inventory, self._ledger = monitor, settings, inventory, ledger
        self._clock, self._say = clock, say
        self._said: dict[Bdf, str] = {}
        self._ended: list[tuple[Bdf, Method, DriverError | None]] = []
        """What is still to be said and written down."""
        self._wake = trio.Event()
        self.wanted: Latest[Mapping[Bdf, Method]] = Latest({})

    async def run(self) -> None:
        """Look after wedged cards until cancelled."""
        async with trio.open_nursery() as nursery:
            for source in (self._settings, self._inventory, self._ledger):
                nursery.start_soon(self._follow, source)
            while True:
                self._wake = trio.Event()
                await self._take_note()
                await self._look()
                with trio.move_on_after(AGAIN_SECONDS):
                    await self._wake.wait()

    def ended(self, bdf: Bdf, fault: DriverError | None) -> None:
        """A card's owner is done with what was wanted, and when this returns it is not wanted any more: or it would be done once more, with
        a card that is well and given away by then."""
        if (method := self.wanted.value.get(bdf)) is not None:
            self._ended.append((bdf, method, fault))
            self._want_no_more(bdf)
            self._wake.set()

    async def _follow(self, source: Latest[Any]) -> None:
        seen = source.version
        while True:
            await source.wait_newer(seen)
            seen = source.version
            self._wake.set()

    async def _take_note(self) -> None:
        ended, self._ended = self._ended, []
        for bdf, method, fault in ended:
            if fault is None:
                self._say(Weight.NORMAL, "GPURecovered", f"GPU {bdf} was wedged, and was bound anew ({method})")
            else:
                self._say(Weight.WARNING, "GPUNotRecovered", f"GPU {bdf} is wedged, and to bind it anew ({method}) failed: {fault}")
            await self._close(bdf)

    async def _look(self) -> None:
        if self._monitor.is_forgetful:
            return  # an attempt could not be gone on with by another life
        health = self._settings.value
        users = self._users()
        for bdf in self.wanted.value.keys() - self._inventory.value.by_bdf().keys():
            self._want_no_more(bdf)  # nobody can do it, and the next card in the slot is another
            await self._close(bdf)
        for gpu in self._inventory.value.gpus:
            if gpu.bdf in self.wanted.value or any(bdf == gpu.bdf for bdf, _, _ in self._ended):
                continue
            mode, attempts = health.recovery.mode if health.enabled else "off", self._monitor.attempts
            method, why_not = recovery.due(gpu, mode, health.recovery.per_day, attempts, users.get(gpu.bdf, ()), self._clock())
            self._explain(gpu, why_not)
            if method is not None:
                await self._begin(gpu, method)
            elif any(each.bdf == gpu.bdf and not each.over for each in self._monitor.attempts):
                await self._close(gpu.bdf)  # of a life that ended before it could say so: the card is well

    async def _begin(self, gpu: Gpu, method: Method) -> None:
        if not self._is_open(gpu):
            before = self._monitor.attempts
            attempt = Attempt(bdf=gpu.bdf, pci_id=gpu.device, method=method, at=self._clock())
            if not await self._remember([*before, attempt]):
                self._monitor.attempts = before  # or it would pass for one that was cut short, and be gone on with
                return
        log.warning("%s is wedged and idle: binding it anew (%s)", gpu.bdf, method)
        self.wanted.set({**self.wanted.value, gpu.bdf: method})

    def _want_no_more(self, bdf: Bdf) -> None:
        self.wanted.set({each: way for each, way in self.wanted.value.items() if each != bdf})

    def _is_open(self, gpu: Gpu) -> bool:
        return any((each.bdf, each.pci_id) == (gpu.bdf, gpu.device) and not each.over for each in self._monitor.attempts)

    async def _close(self, bdf: Bdf) -> None:
        await self._remember([msgspec.structs.replace(each, over=each.over or each.bdf == bdf) for each in self._monitor.attempts])

    async def _remember(self, attempts: list[Attempt]) -> bool:
        try:
            await self._monitor.remember(recovery.kept(attempts, self._clock()))
        except OSError as error:
            log.error("cannot write down an attempt to recover a GPU, so none is made: %s", error)
            return False
        return True

    def _explain(self, gpu: Gpu, why_not: str) -> None:
        if why_not and self._said.get(gpu.bdf) != why_not:
            log.info("%s is wedged and not recovered: %s", gpu.bdf, why_not)
        self._said[gpu.bdf] = why_not

    def _users(self) -> dict[Bdf, list[ClaimUid]]:
        """Claims by the card that they hold or hold VFs of."""
        found: dict[Bdf, list[ClaimUid]] = {}
        for record in self._ledger.value.records():
            for grant in record.grants:
                if not grant.admin:
                    found.setdefault(grant.card, []).append(record.uid)
        return found

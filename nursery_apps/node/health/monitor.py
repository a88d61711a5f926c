"""Keeps the verdicts: sources tell, the inventory is followed, and whoever wants to know waits for `verdicts` to change.

Everything it knows it is told again soon by the sources, except for what has been and may come back: that is in a file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Final, Protocol

import trio

from dra.devices import Inventory
from dra.health import health_settings, inventory_facts, remembered
from dra.health.facts import Facts
from dra.health.health_settings import Health
from dra.health.recovery import Attempt
from dra.health.remembered import Remembered
from dra.health.verdict import Book, Verdict
from dra.ledger import Ledger
from dra.names import Bdf
from nursery_apps.latest import Latest
from nursery_apps.seams import Clock, RunBlocking, StateDir

log = logging.getLogger(__name__)

FILE: Final = "health"
PARKED: Final = "health.illegible"
INVENTORY: Final = "inventory"
LOOK_SECONDS: Final = 60.0
"""A look without need: what is due is told by a clock that people set, and waited for by one that they cannot."""


class OnVerdict(Protocol):
    def __call__(self, bdf: Bdf, before: Verdict | None, now: Verdict, /) -> None:
        """The verdict on a GPU is another than before; None: there was none."""


class HealthMonitor:
    """Owns `verdicts`. `run` is the task, `tell` a `dra.health.facts.Tell` for sources."""

    def __init__(
        self,
        settings: Latest[Health],
        inventory: Latest[Inventory],
        ledger: Latest[Ledger],
        planned: Callable[[], Collection[Bdf]],
        *,
        state: StateDir,
        run_blocking: RunBlocking,
        clock: Clock,
        on_verdict: OnVerdict,
    ) -> None:
        """`planned` are VFs that are made when they are needed."""
        self._settings, self._inventory, self._ledger, self._planned = settings, inventory, ledger, planned
        self._state, self._run_blocking, self._clock = state, run_blocking, clock
        self._on_verdict = on_verdict
        self._book = Book()
        self._pci_ids: dict[Bdf, str] = {}
        self._said: dict[tuple[str, Bdf], Facts] = {}
        """By source and GPU: sources say the same again and again."""
        self._stored = b""
        self._forgetful = False
        self._writing = trio.Lock()
        self._wake = trio.Event()
        self.attempts: tuple[Attempt, ...] = ()
        """To get wedged cards back; `remember` replaces them."""
        self.verdicts: Latest[Mapping[Bdf, Verdict]] = Latest({})
        """Of every GPU that is there, and of those that are gone and held; empty while watching is switched off."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Judge until cancelled; ready with the first verdicts."""
        await self._load()
        async with trio.open_nursery() as nursery:
            for source in (self._settings, self._inventory, self._ledger):
                nursery.start_soon(self._follow, source)
            while True:
                self._wake = trio.Event()
                self._look()
                await self._store()
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                wait = self._book.due(health_settings.terms(self._settings.value)) - self._clock()
                with trio.move_on_after(min(max(wait, 0.0), LOOK_SECONDS)):
                    await self._wake.wait()

    @property
    def is_forgetful(self) -> bool:
        """What is to be remembered is not written down now."""
        return self._forgetful

    def tell(self, source: str, bdf: Bdf, facts: Facts | None) -> None:
        if self._said.get((source, bdf)) == facts:
            return
        if facts is None:
            self._said.pop((source, bdf), None)
        else:
            self._said[source, bdf] = facts
        self._book.tell(self._clock(), source, bdf, facts, health_settings.terms(self._settings.value))
        self._wake.set()

    async def remember(self, attempts: tuple[Attempt, ...]) -> None:
        """Replace `attempts`; returns when they would survive our end.

        Raises:
            OSError: they would not.
        """
        self.attempts = attempts
        await self._write()

    async def forget(self) -> None:
        """Remove what was written, and write nothing more until `keep`.

        Raises:
            OSError: it cannot be removed.
        """
        async with self._writing:
            self._forgetful, self._stored = True, b""
            for name in (FILE, PARKED):
                await self._run_blocking(partial(self._state.remove, name))

    def keep(self) -> None:
        """Write down again what is to be remembered."""
        self._forgetful = False
        self._wake.set()

    async def _follow(self, source: Latest[Any]) -> None:
        seen = source.version
        while True:
            await source.wait_newer(seen)
            seen = source.version
            self._wake.set()

    def _look(self) -> None:
        terms, now = health_settings.terms(self._settings.value), self._clock()
        inventory = self._inventory.value
        told = inventory_facts.facts(inventory, self._ledger.value, self._planned())
        for gpu in inventory.gpus:
            if self._pci_ids.setdefault(gpu.bdf, gpu.device) != gpu.device:
                self._book.forget(gpu.bdf)
                self._said = {key: facts for key, facts in self._said.items() if key[1] != gpu.bdf}
                self._pci_ids[gpu.bdf] = gpu.device
        for bdf, facts in told.items():
            self.tell(INVENTORY, bdf, facts)
        for bdf in [bdf for source, bdf in self._said if source == INVENTORY and bdf not in told]:
            self.tell(INVENTORY, bdf, None)
        parents = {gpu.bdf: gpu.parent for gpu in inventory.gpus}
        found = self._book.look(now, {bdf: parents.get(bdf) for bdf in told}, terms)
        if not self._settings.value.enabled:
            found = {}  # looked at all the same: what is pending comes to pass, or it would be due again and again
        before = self.verdicts.value
        if self.verdicts.set(found):
            for bdf, verdict in found.items():
                if before.get(bdf) != verdict:
                    self._on_verdict(bdf, before.get(bdf), verdict)

    # --- the file

    async def _load(self) -> None:
        try:
            data = await self._run_blocking(lambda: self._state.read(FILE))
            known = remembered.from_json(data) if data is not None else Remembered()
        except (ValueError, OSError) as error:
            # Without it a quiet period is shorter. No GPU is withheld for that, least of all on a disk that is full.
            log.error("what was remembered of GPUs' health is done without: %s", error)
            known = Remembered()
            if isinstance(error, ValueError):
                await self._set_aside()
        self._book.load(known.cases, self._clock())
        self._pci_ids = dict(known.pci_ids)
        self.attempts = known.attempts

    async def _set_aside(self) -> None:
        try:
            await self._run_blocking(lambda: self._state.replace(FILE, remembered.to_json(Remembered()), keep=PARKED))
        except OSError as error:
            log.error("the illegible file %s of the state directory cannot be set aside as %s: %s", FILE, PARKED, error)
        else:
            log.error("the illegible file %s of the state directory is set aside as %s", FILE, PARKED)

    async def _store(self) -> None:
        try:
            await self._write()
        except OSError as error:
            log.error("cannot write down what is to be remembered of GPUs' health: %s", error)

    async def _write(self) -> None:
        async with self._writing:  # or an older state, on its way to the disk already, would replace a newer one
            if not self._forgetful:
                await self._write_now()

    async def _write_now(self) -> None:
        data = remembered.to_json(Remembered(pci_ids=self._pci_ids, cases=self._book.dump(), attempts=self.attempts))
        if data != self._stored:
            await self._run_blocking(lambda: self._state.replace(FILE, data))
            self._stored = data

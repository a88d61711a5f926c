"""Gets the node ready for the driver's removal, as the setting says, and back: says how far that is, and removes the files at the end.

Claims end and cards become whole by the usual tasks; this one waits for them. Whatever it dies over, the next life finds in the journal
and in the directories what is left to do, and does it before it says anything to the API server.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Protocol

import trio

from dra import cdi, decommissioning, takeover
from dra.decommissioning import Stage
from dra.devices import Inventory
from dra.errors import DriverError
from dra.kube.event_reasons import Reason
from dra.kube.events import Weight
from dra.ledger import Change, Ledger
from dra.names import Bdf
from nursery_apps.latest import Latest
from nursery_apps.node import dra_kind
from nursery_apps.node.journal_writer import Journal
from nursery_apps.seams import StateDir

log = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 30.0
"""After a file could not be removed."""


class Say(Protocol):
    def __call__(self, weight: Weight, reason: Reason, text: str, /) -> None:
        """An Event about the Node."""


class Decommissioner:
    """Sets `stage`. `run` is the task."""

    def __init__(
        self,
        *,
        wanted: Latest[bool],
        stage: Latest[Stage],
        journal: Journal,
        inventory: Latest[Inventory],
        state: StateDir,
        checkpoint: StateDir,
        cdi_dir: StateDir,
        metadata_dir: StateDir,
        forget: Callable[[], Awaitable[None]],
        keep: Callable[[], Awaitable[None]],
        say: Say,
        gone: Callable[[Bdf], bool],
    ) -> None:
        """
        Args:
            wanted: the setting.
            stage: UNDECIDED at a start with the setting, else IN_SERVICE.
            checkpoint: the directory where another driver may have left its claims.
            forget: has everybody who writes small files of their own remove them and write none, until `keep` is called; raises OSError.
            keep: has them write again; raises OSError.
            gone: whether there is nothing on the bus at an address.
        """
        self._wanted, self._stage, self._journal, self._inventory = wanted, stage, journal, inventory
        self._state, self._checkpoint, self._cdi_dir, self._metadata_dir = state, checkpoint, cdi_dir, metadata_dir
        self._forget, self._keep, self._say, self._gone = forget, keep, say, gone
        self._said = ""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow setting, journal and hardware until cancelled; ready when it is known what the node may say of itself."""
        while True:
            cells: tuple[Latest[Any], ...] = (self._wanted, self._journal.ledger, self._inventory)
            seen = [(cell, cell.version) for cell in cells]
            done = await self._look()
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await _any_newer(seen, seconds=float("inf") if done else AGAIN_SECONDS)

    async def _look(self) -> bool:
        """Whether nothing more can be done until something changes."""
        if not self._wanted.value:
            return await self._return()
        if self._stage.value is Stage.IN_SERVICE:
            self._stage.set(Stage.DRAINING)
        left = decommissioning.awaited(self._journal.ledger.value, self._inventory.value.by_bdf(), self._gone)
        if left:
            self._stage.set(Stage.DRAINING)
            self._tell(Weight.NORMAL, decommissioning.DECOMMISSIONING, decommissioning.sentence(left))
            return True
        if self._stage.value is Stage.CLEAN:
            return True
        try:
            await self._forget()
            await self._journal.erase(self._last_changes, self._sweep)
        except (DriverError, OSError) as error:
            self._stage.set(Stage.DRAINING)
            what = f"{error.filename}: {error.strerror}; make it writable" if isinstance(error, OSError) else str(error)
            self._tell(Weight.WARNING, decommissioning.DECOMMISSION_FAILED, f"files of the driver cannot be removed yet: {what}")
            return False
        self._stage.set(Stage.CLEAN)
        text = "nothing of the driver's is left on the node; what it says of it in the API server is withdrawn now"
        self._tell(Weight.NORMAL, decommissioning.DECOMMISSIONED, text)
        return True

    async def _return(self) -> bool:
        """Whether the node is in service: not before what was removed can be written again, as a journal could not be either."""
        if self._stage.value is Stage.IN_SERVICE:
            return True
        try:
            await self._keep()
        except OSError as error:
            what = f"the node cannot go back into service yet: {error.filename}: {error.strerror}; make it writable"
            self._tell(Weight.WARNING, decommissioning.DECOMMISSION_FAILED, what)
            return False
        self._stage.set(Stage.IN_SERVICE)
        self._tell(Weight.NORMAL, decommissioning.BACK_IN_SERVICE, "the driver is not to be removed any more: its GPUs are offered again")
        return True

    def _last_changes(self, ledger: Ledger) -> list[Change]:
        return decommissioning.last_changes(ledger, self._inventory.value.by_bdf(), self._gone)

    def _sweep(self) -> None:
        """In a worker thread, when nobody can begin to hold anything."""
        for name in self._cdi_dir.list():
            if cdi.uid_of_file(name) is not None or name == cdi.TAKEN_OVER_FILE:
                self._cdi_dir.remove(name)
        for name in self._metadata_dir.list():
            self._metadata_dir.remove(name)
        self._checkpoint.remove(takeover.IMPORTED)
        self._state.remove(dra_kind.FILE)

    def _tell(self, weight: Weight, reason: Reason, text: str) -> None:
        if text != self._said:
            self._said = text
            log.log(logging.WARNING if weight is Weight.WARNING else logging.INFO, "decommission: %s", text)
            self._say(weight, reason, text)


async def _any_newer(seen: list[tuple[Latest[Any], int]], *, seconds: float) -> None:
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as either:

            async def newer(cell: Latest[Any], version: int) -> None:
                await cell.wait_newer(version)
                either.cancel_scope.cancel()

            for cell, version in seen:
                either.start_soon(partial(newer, cell, version))

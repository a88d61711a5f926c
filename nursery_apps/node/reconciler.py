"""Journal, CDI directory, hardware and API server, compared: at start, when hardware changed, and on a slow timer.

What differs is repaired by the same steps as ordinary work, in the claim's own chain of operations, and reported. A claim that the API
server no longer knows is not released at once: the kubelet works from a checkpoint of its own and unprepares it when its containers are
really gone.
"""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import Final, Protocol

import msgspec
import trio

from dra import cdi, takeover
from dra.claims import Stage
from dra.devices import Inventory
from dra.errors import DriverError, StateCorrupt
from dra.kube.event_reasons import Reason
from dra.names import BootId, ClaimUid, PoolName
from dra.records import Record
from nursery_apps.latest import Latest
from nursery_apps.node.claim_desk import ClaimRef
from nursery_apps.node.desk import Desk
from nursery_apps.node.journal_writer import Journal
from nursery_apps.seams import ApiError, RunBlocking, StateDir

log = logging.getLogger(__name__)

LOOKS_PER_SECOND: Final = 1.0
"""GETs of journalled claims against the API server: 100 claims take 100 s, and 5 000 nodes with 8 claims each, looking every 10 minutes,
ask it 67 times a second all together."""
ORPHAN_AFTER_SECONDS: Final = 600.0
"""A claim gone from the API server for so long is released without the kubelet asking: its own reconcile loop runs every 60 s from 1.31
on, so it has had ten tries; kubelets up to 1.30 may never ask (they keep no trace of a failed prepare)."""


class OnFinding(Protocol):
    def __call__(self, reason: Reason, claim: ClaimUid | None, text: str, /) -> None:
        """Something was not as it should be and was repaired, or cannot be."""


class ClaimLookup(Protocol):
    """Where claims are, and who may have one."""

    driver: str
    """Its name in their allocations."""

    async def why_gone(self, record: Record) -> str | None:
        """Why the claim is no longer the one recorded; None if it is, or if that cannot be said.

        Raises:
            ApiError: the API server does not answer.
        """


class Recovered(msgspec.Struct, frozen=True):
    """What `recover` found at start."""

    claims: int
    settled: int
    orphan_files: int
    taken_over: int


class Reconciler:
    def __init__(
        self,
        *,
        journal: Journal,
        desk: Desk,
        checkpoint: StateDir,
        cdi_dir: StateDir,
        lookup: ClaimLookup,
        inventory: Latest[Inventory],
        pool: PoolName,
        boot_id: BootId,
        period_seconds: Latest[float],
        run_blocking: RunBlocking,
        on_finding: OnFinding,
    ) -> None:
        """`checkpoint`: the directory where another driver may have left its claims."""
        self._journal = journal
        self._desk = desk
        self._checkpoint = checkpoint
        self._cdi_dir = cdi_dir
        self._lookup = lookup
        self._inventory = inventory
        self._pool = pool
        self._boot_id = boot_id
        self._period_seconds = period_seconds
        self._run_blocking = run_blocking
        self._on_finding = on_finding
        self._compared = -1
        """Version of the inventory that the last comparison saw: a change during recovery is not missed."""
        self._gone_since: dict[ClaimUid, float] = {}
        self._suspects: set[ClaimUid] = set()
        self._suspected = trio.Event()

    async def recover(self) -> Recovered:
        """Before the first call is taken: take over another driver's claims, finish what a crash cut short, collect what nobody owns."""
        taken_over = await self._take_over()
        settled, orphan_files = await self.compare()
        return Recovered(len(self._journal.ledger.value.claims), settled, orphan_files, taken_over)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Compare when the inventory changes and on the timer; look claims up, one a second, without end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_hardware)
            nursery.start_soon(self._look_up_claims)
            nursery.start_soon(self._shrink_taken_over_file)
            task_status.started()

    def suspect(self, uid: ClaimUid) -> None:
        """Somebody waits for this claim to go: look it up next."""
        self._suspects.add(uid)
        self._suspected.set()

    async def compare(self) -> tuple[int, int]:
        """One round of journal × CDI directory × hardware. Returns (claims looked at, orphaned files removed)."""
        self._compared = self._inventory.version
        # Files first, and then a journal that is not older: in a rolling update another instance grants claims, and a grant is written
        # before its file.
        names = await self._run_blocking(self._cdi_dir.list)
        try:
            await self._journal.refresh()
        except DriverError as error:
            log.warning("files of claims that another instance may hold are left alone: %s", error)
            names = []
        ledger = self._journal.ledger.value
        refs = [ClaimRef(record.uid, record.namespace, record.name) for record in ledger.records()]
        orphans = [uid for name in names if (uid := cdi.uid_of_file(name)) is not None and ledger.stage(uid) is Stage.ABSENT]
        for uid in orphans:
            log.info("CDI file of claim %s, which nothing here holds: removing it", uid)
            self._on_finding("OrphanedFile", uid, f"removed the CDI file of claim {uid}: no record of it")
        await self._desk.settle(refs + [ClaimRef(uid, "", "") for uid in orphans])
        await self._run_blocking(self._write_taken_over_file)
        return len(refs), len(orphans)

    async def _follow_hardware(self) -> None:
        while True:
            async with trio.open_nursery() as either:

                async def newer(cell: Latest[Inventory] | Latest[float], seen: int) -> None:
                    await cell.wait_newer(seen)
                    either.cancel_scope.cancel()

                either.cancel_scope.deadline = trio.current_time() + self._period_seconds.value
                either.start_soon(newer, self._inventory, self._compared)
                either.start_soon(newer, self._period_seconds, self._period_seconds.version)
            await self.compare()

    async def _shrink_taken_over_file(self) -> None:
        """Names that another driver gave go with the last claim that has them. What it kept in the cluster comes somewhat later."""
        before = True  # a file may be left from an earlier life
        while True:
            seen, ledger = self._journal.ledger.version, self._journal.ledger.value
            if (now := any(record.origin is not None for record in ledger.records())) or before:
                await self._run_blocking(self._write_taken_over_file)
            before = now
            await self._journal.ledger.wait_newer(seen)

    async def _look_up_claims(self) -> None:
        """Round and round the journal: suspects first, then one claim a second, then a rest of one period."""
        while True:
            for uid in list(self._journal.ledger.value.claims):
                await self._rest(1 / LOOKS_PER_SECOND)
                if (record := self._journal.ledger.value.get(uid)) is not None:
                    await self._look_up(record)
            await self._rest(self._period_seconds.value)

    async def _rest(self, seconds: float) -> None:
        """Let time pass, attending to suspects meanwhile."""
        until = trio.current_time() + seconds
        while trio.current_time() < until:
            with trio.move_on_at(until):
                await self._suspected.wait()
            self._suspected = trio.Event()
            while self._suspects:
                record = self._journal.ledger.value.get(self._suspects.pop())
                if record is not None:
                    await self._look_up(record)

    async def _look_up(self, record: Record) -> None:
        try:
            why = await self._lookup.why_gone(record)
        except ApiError as error:
            log.debug("cannot look up claim %s: %s", record.uid, error)
            return
        if why is None:
            self._gone_since.pop(record.uid, None)
            return
        now = trio.current_time()
        since = self._gone_since.setdefault(record.uid, now)
        text = f"claim {record.namespace}/{record.name} ({record.uid}) {why} but was never unprepared"
        # Of the other DRA's claims the kubelet asks nobody any more: it was upgraded, or downgraded.
        if now - since < ORPHAN_AFTER_SECONDS and record.driver == self._lookup.driver:
            log.info("%s; released here if that lasts %.0f s", text, ORPHAN_AFTER_SECONDS)
            return
        del self._gone_since[record.uid]
        log.warning("%s: releasing it", text)
        self._on_finding("OrphanedClaim", record.uid, f"{text}: released")
        await self._desk.unprepare([ClaimRef(record.uid, record.namespace, record.name)], math.inf)

    async def _take_over(self) -> int:
        """Import the checkpoint of Intel's driver, once."""
        data = await self._run_blocking(partial(self._checkpoint.read, takeover.FILE))
        if data is None:
            return 0
        try:
            imported = takeover.read(data, pool=self._pool, boot_id=self._boot_id, driver=self._lookup.driver)
        except StateCorrupt as error:
            log.error("%s", error)
            self._on_finding("TakeoverUnreadable", None, str(error))
            return 0
        for sentence in imported.refused:
            log.error("%s", sentence)
            self._on_finding("TakeoverIncomplete", None, sentence)
        await self._journal.commit(imported.adopt)
        # Only now: a crash before it imports again, which changes nothing.
        await self._run_blocking(partial(self._checkpoint.replace, takeover.IMPORTED, data))
        await self._run_blocking(partial(self._checkpoint.remove, takeover.FILE))
        log.info("took over %d claims of Intel's driver", len(imported.records))
        return len(imported.records)

    def _write_taken_over_file(self) -> None:
        records = [record for record in self._journal.ledger.value.records() if record.origin is not None]
        wanted = cdi.render_taken_over(records, self._inventory.value.by_name)
        try:
            # While Intel's own file stands in this directory its names resolve; the same name in two files of one directory would not.
            if self._cdi_dir.stamp(takeover.FOREIGN_CDI_FILE) is not None:
                wanted = None
            now = self._cdi_dir.read(cdi.TAKEN_OVER_FILE)
            if wanted is None and now is not None:
                self._cdi_dir.remove(cdi.TAKEN_OVER_FILE)
            elif wanted is not None and wanted != now:
                self._cdi_dir.replace(cdi.TAKEN_OVER_FILE, wanted, mode=0o644)
        except OSError as error:
            log.error("CDI file %s: %s; free space or make the directory writable", cdi.TAKEN_OVER_FILE, error.strerror)

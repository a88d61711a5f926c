"""The one task that writes the journal: any number of claims that wait share one fsync.

A change is a *decision* taken over the freshest ledger while the directory's lock is held, so the overlap guard and the write are one
indivisible act, between the claims of this process and, in a rolling update, between two processes on one directory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec
import trio

from dra import journal
from dra.errors import DriverError, NotYet
from dra.ledger import Change, Ledger, Parked
from dra.names import BootId
from nursery_apps.latest import Latest
from nursery_apps.seams import RunBlocking, StateDir

log = logging.getLogger(__name__)

Decision = Callable[[Ledger], Sequence[Change]]
"""Looks at the ledger, returns the changes to make durable (none is fine), or raises a DriverError to refuse. Called in a worker thread
with the directory's lock held: what it does besides, no grant of another instance comes in between."""


class JournalUnwritable(DriverError):
    """The administrator's move: the state directory cannot be written (disk full, read-only)."""

    reason = "JournalUnwritable"


class Opened(msgspec.Struct, frozen=True):
    """What `Journal.open` found."""

    claims: int
    parked: tuple[Parked, ...]
    """Lines that tell a claim or a device, which is kept back."""
    illegible: int
    """Lines that tell nothing; they are in `dra.journal.PARKED` for people."""
    torn_bytes: int


class _Request:
    __slots__ = ("decide", "done", "error", "sweep", "withdrawn")

    def __init__(self, decide: Decision, sweep: Callable[[], None] | None = None) -> None:
        """With `sweep` the journal itself is to go."""
        self.decide = decide
        self.sweep = sweep
        self.done = trio.Event()
        self.error: DriverError | None = None
        self.withdrawn = False


class Journal:
    """`open` reads and, where damaged, mends; `run` writes; `commit` asks for a write."""

    def __init__(
        self,
        state: StateDir,
        boot_id: BootId,
        *,
        run_blocking: RunBlocking,
        on_commit: Callable[[int, int, float], None],
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            on_commit: (decisions, bytes, seconds) of every group, for metrics.
            on_failure: a group could not be written.
        """
        self._state = state
        self._run_blocking = run_blocking
        self._boot_id = boot_id
        self._on_commit = on_commit
        self._on_failure = on_failure
        self._stamp: tuple[int, int] | None = None
        self._lines = 0
        self._torn = False
        self._waiting: list[_Request] = []
        self._wake = trio.Event()
        self.ledger: Latest[Ledger] = Latest(Ledger())

    def open(self) -> Opened:
        """Read the journal; blocking. A damaged one is compacted, with the bad lines set aside; a good one is left as it is.

        Raises:
            OSError: the directory cannot be read or written.
        """
        with self._state.locked():
            data, previous = self._state.read(journal.FILE), self._state.read(journal.PREVIOUS)
            doubtful = journal.read_parked(self._state.read(journal.PARKED) or b"", self._boot_id)
            reading = journal.recover(data, previous)
            self._lines, self._torn = reading.lines, bool(reading.torn_bytes)
            parked = tuple(dict.fromkeys((*doubtful, *reading.ledger.parked)))
            ledger = msgspec.structs.replace(reading.ledger, parked=tuple(p for p in parked if p.uid is not None or p.devices))
            self.ledger.set(ledger)
            if reading.ledger.parked or reading.torn_bytes:
                self._save_parked(parked)
                self._compact(ledger)
            self._stamp = self._state.stamp(journal.FILE)
        return Opened(len(ledger.claims), ledger.parked, len(parked) - len(ledger.parked), reading.torn_bytes)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write groups until cancelled. Cancellation lands between groups: a started write is always finished and answered."""
        task_status.started()
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            group, self._waiting = [r for r in self._waiting if not r.withdrawn], []
            if not group:
                continue
            started = trio.current_time()
            # Not abandoned on cancel: half a write must not outlive the task that answers for it.
            ledger, written = await self._run_blocking(partial(self._write_group, group, self.ledger.value))
            self.ledger.set(ledger)
            for request in group:
                request.done.set()
            if any(isinstance(request.error, JournalUnwritable) for request in group):
                self._on_failure()
            self._on_commit(len(group), written, trio.current_time() - started)

    async def commit(self, decide: Decision) -> None:
        """Take a decision and make its changes durable.

        If the caller is cancelled before the group is picked up nothing is written; after that the change is durable all the same,
        which the next call for the claim finds in the ledger.

        Raises:
            DriverError: `decide` refused, or JournalUnwritable: nothing was changed.
        """
        await self._ask(_Request(decide))

    async def refresh(self) -> None:
        """Have `ledger` say what the directory says: in a rolling update another instance grants and releases, too.

        Raises:
            JournalUnwritable: the directory cannot be locked or read.
        """
        await self.commit(lambda _ledger: ())

    async def erase(self, decide: Decision, sweep: Callable[[], None]) -> None:
        """Remove the journal, once nothing is in it: a plugin that is to be removed leaves none. A later commit begins a new one.

        Args:
            decide: as for `commit`, to refuse or to drop what is left.
            sweep: removes what else nobody may begin to use meanwhile. Called in a worker thread, with the directory's lock held.

        Raises:
            DriverError: `decide` refused, something is held, or JournalUnwritable: the journal is still there.
        """
        await self._ask(_Request(decide, sweep))

    async def _ask(self, request: _Request) -> None:
        self._waiting.append(request)
        self._wake.set()
        try:
            await request.done.wait()
        except BaseException:
            request.withdrawn = True
            raise
        if request.error is not None:
            raise request.error

    def _write_group(self, group: list[_Request], ledger: Ledger) -> tuple[Ledger, int]:
        """In a worker thread: lock, look again, decide, append, sync. Returns the ledger after it and the bytes written."""
        try:
            with self._state.locked():
                ledger = self._refreshed(ledger)
                lines: list[bytes] = []
                after = ledger
                for request in group:
                    try:
                        changes = request.decide(after)
                    except DriverError as refusal:
                        request.error = refusal
                        continue
                    after = after.apply(changes)
                    lines += map(journal.line, changes)
                data = b"".join(lines)
                if data:
                    self._append(data)
                    self._lines += len(lines)
                    if after.parked != ledger.parked:
                        self._save_parked(after.parked)
                    if self._worth_compacting(after):
                        self._compact(after)
                    self._stamp = self._state.stamp(journal.FILE)
                for request in group:
                    if request.sweep is not None and request.error is None:
                        self._erase(request, request.sweep, after)
        except OSError as error:
            failure = _unwritable(error)
            for request in group:
                request.error = request.error or failure
            return ledger, 0
        return after, len(data)

    def _erase(self, request: _Request, sweep: Callable[[], None], ledger: Ledger) -> None:
        if ledger.claims or ledger.carvings or ledger.parked:
            request.error = NotYet("something is held again", reason="JournalInUse")
            return
        if any(one.uid is None and not one.devices for one in journal.read_parked(self._state.read(journal.PARKED) or b"", self._boot_id)):
            request.error = NotYet(
                f"{journal.PARKED} in the state directory has lines that say nothing of claim or device, so VFs of ours may be left: "
                "look, and remove the file",
                reason="JournalInUse",
            )
            return
        try:
            sweep()
            # The journal itself last: where its predecessor alone is left, that is what the next life believes.
            for name in (journal.PREVIOUS, journal.PARKED, journal.FILE):
                self._state.remove(name)
        except OSError as error:  # of this request alone: what others of its group decided is written
            request.error = _unwritable(error)
            return
        self._stamp, self._lines, self._torn = None, 0, False

    def _append(self, data: bytes) -> None:
        # A line that an earlier failure cut short must not swallow this one.
        prefix = b"\n" if self._torn else b""
        self._torn = True
        self._state.append(journal.FILE, prefix + data)
        self._torn = False

    def _refreshed(self, ledger: Ledger) -> Ledger:
        """The ledger as the directory has it: ours, unless another instance (or an administrator) wrote in between."""
        if not self._torn and self._state.stamp(journal.FILE) == self._stamp:
            return ledger
        reading = journal.read(self._state.read(journal.FILE) or b"")
        self._lines, self._torn = reading.lines, self._torn or bool(reading.torn_bytes)
        return msgspec.structs.replace(reading.ledger, parked=tuple(dict.fromkeys((*ledger.parked, *reading.ledger.parked))))

    def _worth_compacting(self, ledger: Ledger) -> bool:
        size, alive = self._state.stamp(journal.FILE), len(ledger.claims) + len(ledger.carvings)
        return size is not None and size[1] > journal.COMPACT_ABOVE_BYTES and self._lines > _DEAD_WEIGHT * (alive + 1)

    def _compact(self, ledger: Ledger) -> None:
        self._state.replace(journal.FILE, journal.snapshot(ledger), keep=journal.PREVIOUS)
        self._lines, self._torn = len(ledger.claims) + len(ledger.carvings), False

    def _save_parked(self, parked: Sequence[Parked]) -> None:
        if parked:
            self._state.replace(journal.PARKED, journal.parked_lines(parked, self._boot_id))
        else:
            self._state.remove(journal.PARKED)


def _unwritable(error: OSError) -> JournalUnwritable:
    failure = JournalUnwritable(f"cannot write the journal ({error.filename}): {error.strerror}; free space or make it writable")
    log.error("%s", failure)
    return failure


_DEAD_WEIGHT: Final = 4
"""Compact when fewer than a quarter of the lines are alive: rewriting costs two syncs, so not for less."""

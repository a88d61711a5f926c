"""Work by key: a key that is added twice is worked on once, one that is added while it is worked on once more, and never two tasks on one.

As client-go's workqueue, whose rules controllers rely on: level-triggered, with a backoff of its own for each key that fails.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterator
from typing import Final, Generic, TypeVar

import trio

from dra import backoff

K = TypeVar("K", bound=Hashable)

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS: Final = 0.1
RETRY_AT_MOST_SECONDS: Final = 60.0


class Again(Exception):
    """The work could not be done and is to be tried again after the key's next delay; the text is for the log."""

    def __init__(self, why: str, *, not_before_seconds: float = 0.0) -> None:
        super().__init__(why)
        self.not_before_seconds = not_before_seconds


class WorkQueue(Generic[K]):
    """`add` from anywhere, `run` works."""

    def __init__(self, work: Callable[[K], Awaitable[float | None]], *, workers: int, random: Callable[[], float]) -> None:
        """
        Args:
            work: returns when the key is to be looked at again, in seconds, None for never; raises `Again` when it failed.
        """
        self._work = work
        self._workers = workers
        self._random = random
        self._ready: dict[K, None] = {}
        self._active: set[K] = set()
        self._dirty: set[K] = set()
        """Added while they were worked on."""
        self._delays: dict[K, Iterator[float]] = {}
        self._later: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        """The one time of `_later` that counts for a key."""
        self._ticket = itertools.count()
        self._lot = trio.lowlevel.ParkingLot()
        self._alarm = trio.Event()

    def __len__(self) -> int:
        """Keys that are waiting or worked on."""
        return len(self._ready) + len(self._active)

    @property
    def failing(self) -> int:
        """Keys whose last try failed."""
        return len(self._delays)

    def add(self, key: K) -> None:
        self._due.pop(key, None)
        if key in self._active:
            self._dirty.add(key)
        elif key not in self._ready:
            self._ready[key] = None
            self._lot.unpark()

    def add_after(self, key: K, seconds: float) -> None:
        """Unless it is added before. Of several times the earliest counts."""
        at = trio.current_time() + seconds
        if key in self._ready or key in self._dirty or self._due.get(key, float("inf")) <= at:
            return
        self._due[key] = at
        heapq.heappush(self._later, (at, next(self._ticket), key))
        self._alarm.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(self._workers):
                nursery.start_soon(self._worker)
            nursery.start_soon(self._wake)
            task_status.started()

    async def _worker(self) -> None:
        while True:
            while not self._ready:
                await self._lot.park()
            key = next(iter(self._ready))
            del self._ready[key]
            self._active.add(key)
            try:
                await self._attempt(key)
            finally:
                self._active.discard(key)
                if key in self._dirty:
                    self._dirty.discard(key)
                    self.add(key)

    async def _attempt(self, key: K) -> None:
        try:
            again_seconds = await self._work(key)
        except Again as failure:
            delays = self._delays.setdefault(
                key, backoff.delays(self._random, first_seconds=FIRST_RETRY_SECONDS, cap_seconds=RETRY_AT_MOST_SECONDS)
            )
            seconds = max(next(delays), failure.not_before_seconds)
            log.debug("%s: %s; again in %.1f s", key, failure, seconds)
            self.add_after(key, seconds)
            return
        self._delays.pop(key, None)
        if again_seconds is not None:
            self.add_after(key, again_seconds)

    async def _wake(self) -> None:
        while True:
            self._alarm = trio.Event()
            now = trio.current_time()
            while self._later and self._later[0][0] <= now:
                at, _, key = heapq.heappop(self._later)
                if self._due.get(key) == at:
                    self.add(key)
            with trio.move_on_at(self._later[0][0] if self._later else float("inf")):
                await self._alarm.wait()

"""The scheduler's queue: pods that are to be tried, those that back off, and those that wait for something to happen.

As kube-scheduler has it: a second of back-off after the first attempt, doubled up to ten; who waits for nothing that happens is tried
again after five minutes. Order is that of arrival: priorities are not known here.
"""

from __future__ import annotations

import heapq
import math
from typing import Final

import trio

from tools.simcluster.store import Key

FIRST_BACKOFF_SECONDS: Final = 1.0
BACKOFF_AT_MOST_SECONDS: Final = 10.0
FLUSH_SECONDS: Final = 300.0


class PodQueue:
    def __init__(self) -> None:
        self._ready: dict[Key, None] = {}
        self._attempts: dict[Key, tuple[int, float]] = {}
        """How many, and when the last was."""
        self._due: dict[Key, float] = {}
        """Of those that are not ready: when they are at the latest."""
        self._waiting: set[Key] = set()
        self._timers: list[tuple[float, Key]] = []
        """A heap; one that `_due` does not confirm is void."""

    def add(self, pod: Key) -> None:
        """To be tried; once."""
        self._due.pop(pod, None)
        self._waiting.discard(pod)
        self._ready[pod] = None

    def remove(self, pod: Key) -> None:
        """It is bound, ended or gone."""
        for table in (self._ready, self._attempts, self._due):
            table.pop(pod, None)  # type: ignore[attr-defined]
        self._waiting.discard(pod)

    def next(self) -> Key | None:
        """Takes the pod that is to be tried now. Say afterwards with `wait`, `back_off` or `remove` what came of it."""
        now = trio.current_time()
        while self._timers and self._timers[0][0] <= now:
            due, pod = heapq.heappop(self._timers)
            if self._due.get(pod) == due:
                self.add(pod)
        pod_or_none = next(iter(self._ready), None)
        if pod_or_none is not None:
            del self._ready[pod_or_none]
            self._attempts[pod_or_none] = (self._attempts.get(pod_or_none, (0, 0.0))[0] + 1, now)
        return pod_or_none

    def wait(self, pod: Key, *, is_gated: bool = False) -> None:
        """Until it is woken. What is gated was not tried: it has nothing to back off for."""
        if is_gated:
            self._attempts.pop(pod, None)
        self._waiting.add(pod)
        self._at(pod, trio.current_time() + FLUSH_SECONDS)

    def back_off(self, pod: Key) -> None:
        """Something went wrong that may go right the next time."""
        self._at(pod, self._backed_off(pod))

    def wake(self, pod: Key, *, at_once: bool) -> None:
        """Something happened that the pod may be waiting for. One that backs off does so to the end, whatever happens."""
        if pod not in self._waiting:
            return
        self._waiting.discard(pod)
        if at_once or self._backed_off(pod) <= trio.current_time():
            self.add(pod)
        else:
            self._at(pod, self._backed_off(pod))

    def waiting(self) -> list[Key]:
        return sorted(self._waiting)

    def quiet_until(self) -> float:
        """When something becomes ready by itself (Trio's clock)."""
        if self._ready:
            return trio.current_time()
        return self._timers[0][0] if self._timers else math.inf

    def _backed_off(self, pod: Key) -> float:
        attempts, last = self._attempts.get(pod, (0, -math.inf))
        return last + min(FIRST_BACKOFF_SECONDS * 2.0 ** max(0, attempts - 1), BACKOFF_AT_MOST_SECONDS)

    def _at(self, pod: Key, due: float) -> None:
        self._due[pod] = due
        heapq.heappush(self._timers, (due, pod))

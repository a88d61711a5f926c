"""Tells people what happened where they look: Kubernetes Events on the node, the pod or the claim.

Events are a courtesy. Whoever announces is never held up, and an API server that refuses them changes nothing.
"""

from __future__ import annotations

import datetime
import logging
import math
from collections import OrderedDict, deque
from typing import Any, Final

import msgspec
import trio

from dra.kube import events
from dra.kube.event_reasons import Reason
from dra.kube.events import Regarding, Weight
from dra.names import NodeName
from nursery_apps.seams import ApiError, Clock, KubeApi, NotFound, Resource

log = logging.getLogger(__name__)

WAITING: Final = 256
"""Beyond so many the oldest are dropped: a storm says the same thing many times."""
APART_SECONDS: Final = 60.0
"""The same reason on the same object is written at most once in this time; what comes meanwhile is counted into the next write."""
REMEMBERED: Final = 256
"""Events whose repetitions are counted; about a hundred claims with two reasons each."""
SPACING_SECONDS: Final = 0.2
BURST: Final = 25
"""So many at once, then one each 0.2 s: a thousand pods that wait for the same GPU do not become a thousand requests. What waits for its
turn is counted together."""
REST_SECONDS: Final = 10.0
"""After the API server refused one, the others wait so long."""

EVENTS: Final[Resource[dict[str, Any]]] = Resource("v1", "events", dict, namespaced=True)


class _Sentence(msgspec.Struct, frozen=True):
    about: Regarding
    weight: Weight
    reason: Reason
    message: str


class _Series(msgspec.Struct):
    """One Event object and how often it happened."""

    last: _Sentence
    name: str = ""
    count: int = 0
    unwritten: int = 0
    due: float = -math.inf


class Announcer:
    """`announce` from anywhere, `run` writes."""

    def __init__(self, kube: KubeApi, *, component: str, node: NodeName, clock: Clock) -> None:
        self._kube = kube
        self._component = component
        self._node = node
        self._clock = clock
        self._waiting: deque[_Sentence] = deque()
        self._wake = trio.Event()
        self._series: OrderedDict[tuple[str, str, str, str, str], _Series] = OrderedDict()
        self._all_used = -math.inf
        """When the writes so far would have been made, had each waited its turn; `BURST` turns may be taken ahead."""
        self.dropped = 0
        """Sentences nobody will read, since the start."""
        self.written = 0

    def announce(self, about: Regarding, weight: Weight, reason: Reason, message: str) -> None:
        """Say it; returns at once."""
        if len(self._waiting) >= WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(_Sentence(about, weight, reason, message))
        self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write Events until cancelled."""
        task_status.started()
        while True:
            due = min((series.due for series in self._series.values() if series.unwritten), default=math.inf)
            with trio.move_on_at(max(due, self._next_turn)):
                await self._wake.wait()
            self._wake = trio.Event()
            while self._waiting:
                self._take_in(self._waiting.popleft())
            for key, series in list(self._series.items()):
                now = trio.current_time()
                if series.unwritten and series.due <= now and self._next_turn <= now:
                    self._all_used = max(self._all_used, now) + SPACING_SECONDS
                    await self._write(key, series)

    @property
    def _next_turn(self) -> float:
        return self._all_used - (BURST - 1) * SPACING_SECONDS

    def _take_in(self, sentence: _Sentence) -> None:
        about = sentence.about
        key = (about.kind, about.namespace, about.name, about.uid, sentence.reason)
        series = self._series.setdefault(key, _Series(sentence))
        series.last = sentence
        series.unwritten += 1
        self._series.move_to_end(key)
        while len(self._series) > REMEMBERED:
            _, forgotten = self._series.popitem(last=False)
            self.dropped += forgotten.unwritten

    async def _write(self, key: tuple[str, str, str, str, str], series: _Series) -> None:
        about, now = series.last.about, self._now()
        namespace = events.namespace_of(about)
        told, series.due = series.unwritten, trio.current_time() + APART_SECONDS
        try:
            if series.name:
                change = {"count": series.count + told, "lastTimestamp": now, "message": events.fitting(series.last.message)}
                try:
                    await self._kube.patch(EVENTS, series.name, change, content_type="application/merge-patch+json", namespace=namespace)
                except NotFound:
                    series.name, series.count = "", 0  # API servers forget Events after an hour
            if not series.name:
                last = series.last
                # Events of one object sort by this name; the length leaves room for the server's suffix.
                prefix = f"{about.name[:40].rstrip('.-')}-{key[4].lower()[:15]}-"
                body = events.body(
                    about, last.weight, last.reason, last.message, component=self._component, node=self._node, at=now, generate_name=prefix
                )
                stored = await self._kube.create(EVENTS, {**body, "count": told}, namespace=namespace)
                series.name = stored["metadata"]["name"]
        except ApiError as error:
            log.debug("cannot write an Event (%s on %s %s): %s", series.last.reason, about.kind, about.name, error)
            self.dropped += told
            series.unwritten -= told
            await trio.sleep(max(REST_SECONDS, error.retry_after_seconds or 0))
            return
        series.count += told
        series.unwritten -= told
        self.written += 1

    def _now(self) -> str:
        return datetime.datetime.fromtimestamp(self._clock(), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

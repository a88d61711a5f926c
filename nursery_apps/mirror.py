"""A copy of some of the API server's objects: one LIST, then a WATCH that is taken up again wherever it breaks."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar

import trio

from dra import backoff
from nursery_apps.latest import Latest
from nursery_apps.seams import ApiError, Gone, KubeApi, NotFound, Resource

T = TypeVar("T")

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS: Final = 0.5
RETRY_AT_MOST_SECONDS: Final = 30.0
"""As client-go's reflector: after an outage everything is back within half a minute, and a thousand nodes do not come at once."""
HEALTHY_AFTER_SECONDS: Final = 10.0
"""A watch that lasted so long was sound, and the next retry is quick again."""


class Mirror(Generic[T]):
    """`run` is the task; `objects` is what was last seen, by (namespace, name)."""

    def __init__(
        self,
        kube: KubeApi,
        what: Resource[T],
        *,
        field_selector: str = "",
        namespace: str = "",
        random: Callable[[], float],
        on_not_served: Callable[[], None] = lambda: None,
        on_change: Callable[[T | None, T | None], None] = lambda _before, _after: None,
    ) -> None:
        """
        Args:
            on_not_served: called when the server answers 404: the version may have gone.
            on_change: (before, after) of every object that changed, None for one that was not or is no longer there. Must not wait.
        """
        self._kube = kube
        self._what = what
        self._field_selector = field_selector
        self._namespace = namespace
        self._random = random
        self._on_not_served = on_not_served
        self._on_change = on_change
        self._version: str | None = None
        self._objects: dict[tuple[str, str], tuple[str, T]] = {}
        self.changes: Latest[int] = Latest(0)
        """Counts them: wait on it, then look at `objects`."""
        self.error: Latest[str | None] = Latest("not read yet")
        """Why the copy may be behind; None while it is not."""

    @property
    def objects(self) -> Mapping[tuple[str, str], T]:
        return {key: found for key, (_, found) in self._objects.items()}

    def find(self, name: str, *, namespace: str = "") -> T | None:
        found = self._objects.get((namespace, name))
        return found[1] if found is not None else None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow until cancelled; ready after the first LIST that worked. Trouble with the API server never ends it."""
        started = False
        delays = self._delays()
        while True:
            since = trio.current_time()
            wait = 0.0
            try:
                if self._version is None:
                    await self.refresh()
                    if not started:
                        started = True
                        task_status.started()
                await self._follow(self._version or "")
            except Gone as error:
                log.debug("watch of %s: %s; listing again", self._what.plural, error)
                self._version = None
            except ApiError as error:
                if isinstance(error, NotFound):
                    self._on_not_served()
                # A LIST next, after a lost connection too: the server may have come back with older data, from a backup, and would
                # follow a version from its future without a word until it gets there.
                self._version = None
                wait = error.retry_after_seconds or 0.0
                self.error.set(str(error))
                log.warning("cannot follow %s: %s", self._what.plural, error)
            if trio.current_time() - since >= HEALTHY_AFTER_SECONDS:
                delays = self._delays()
            await trio.sleep(max(next(delays), wait))

    async def refresh(self) -> None:
        """Read everything now: what a write that got no answer did, the watch tells only some time later.

        Raises:
            ApiError: as LIST does.
        """
        listing = await self._kube.list(self._what, namespace=self._namespace, field_selector=self._field_selector)
        fresh = {}
        for found in listing.items:
            key, version = _identity(found)
            fresh[key] = (version, found)
        before, self._objects = self._objects, fresh
        # A running watch goes on from where it is: what it tells again is recognized by its version.
        self._version = self._version or listing.resource_version
        self.error.set(None)
        differs = False
        for key in before.keys() | fresh.keys():
            if before.get(key) != fresh.get(key):
                differs = True
                self._on_change(_object(before.get(key)), _object(fresh.get(key)))
        if differs or not self.changes.value:
            self._changed()

    def adopt(self, found: T) -> None:
        """What the server answered to a write of ours; the watch will tell it too, later or, on a busy machine, already: what somebody
        deleted in between must not come back."""
        key, version = _identity(found)
        if not _is_older(version, self._version) and not _is_older(version, self._kept_version(key)):
            self._put(key, version, found)

    def forget(self, name: str, *, namespace: str = "") -> None:
        """The same for a deletion."""
        if (gone := self._objects.pop((namespace, name), None)) is not None:
            self._on_change(gone[1], None)
            self._changed()

    async def _follow(self, version: str) -> None:
        events = self._kube.watch(self._what, namespace=self._namespace, field_selector=self._field_selector, resource_version=version)
        async with contextlib.aclosing(events):
            async for event in events:
                self.error.set(None)
                self._version = event.resource_version
                if event.object is None:
                    continue
                key, _ = _identity(event.object)
                if _is_older(event.resource_version, self._kept_version(key)):
                    continue
                if event.type == "DELETED":
                    self.forget(key[1], namespace=key[0])
                else:
                    self._put(key, event.resource_version, event.object)

    def _put(self, key: tuple[str, str], version: str, found: T) -> None:
        before = self._objects.get(key)
        if before != (version, found):
            self._objects[key] = (version, found)
            self._on_change(_object(before), found)
            self._changed()

    def _kept_version(self, key: tuple[str, str]) -> str | None:
        kept = self._objects.get(key)
        return kept and kept[0]

    def _changed(self) -> None:
        self.changes.set(self.changes.value + 1)

    def _delays(self) -> Iterator[float]:
        return backoff.delays(self._random, first_seconds=FIRST_RETRY_SECONDS, cap_seconds=RETRY_AT_MOST_SECONDS)


def _object(kept: tuple[str, T] | None) -> T | None:
    return kept[1] if kept is not None else None


def _identity(found: Any) -> tuple[tuple[str, str], str]:
    """((namespace, name), resourceVersion) of plain JSON or of a struct with ObjectMeta."""
    if isinstance(found, dict):
        metadata = found["metadata"]
        return (metadata.get("namespace", ""), metadata["name"]), metadata.get("resourceVersion", "")
    return (found.metadata.namespace, found.metadata.name), found.metadata.resource_version


def _is_older(version: str, than: str | None) -> bool:
    """Whether something is old news. Versions of one resource are comparable numbers (KEP-5504, and in practice always); where they are
    not, nothing is."""
    return than is not None and version.isdecimal() and than.isdecimal() and int(version) < int(than)

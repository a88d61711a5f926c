"""Objects by kind, revisions and a history to watch, all in memory and only touched by the event loop's thread.

An object that is stored is never changed in place: whoever wants another one stores another one. So a list of references is a snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
import trio

from tools.simcluster import refusals
from tools.simcluster.kinds import Json, Kind

HISTORY: Final = 20_000
"""Changes of a kind that can still be watched. etcd keeps five minutes' worth."""
SNAPSHOTS: Final = 64
"""Lists that are being paged through at the same time."""

Key = tuple[str, str]
"""Namespace (empty for cluster-wide kinds) and name."""


class Change(msgspec.Struct):
    revision: int
    type: str
    """ADDED, MODIFIED or DELETED."""
    object: Json
    """DELETED: the last state, with the revision of the deletion."""
    before: Json | None
    encoded: dict[str, bytes]
    """The object as JSON by API version, kept because many watch the same."""


class Store:
    def __init__(self) -> None:
        self.revision = 1000
        """Of the last write. Begins so that no number fits by accident."""
        self._tables: dict[Kind, dict[Key, Json]] = {}
        self._history: dict[Kind, list[Change]] = {}
        self._floors: dict[Kind, int] = {}
        self._compacted = 0
        self._waiting: dict[Kind | None, trio.Event] = {}
        self._snapshots: dict[str, tuple[int, list[Json]]] = {}
        self._snapshots_taken = 0
        self._listeners: list[Callable[[Kind, Change], None]] = []

    # --- objects -----------------------------------------------------------------------------------------------------------------

    def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        return self._tables.get(kind, {}).get((namespace, name))

    def all(self, kind: Kind, namespace: str = "") -> list[Json]:
        """Those of a namespace, or all, in order of namespace and name as etcd has them."""
        table = self._tables.get(kind, {})
        return [table[key] for key in sorted(table) if not namespace or key[0] == namespace]

    def each(self, kind: Kind) -> Iterator[Json]:
        """All, in order of creation; not while writing."""
        return iter(self._tables.get(kind, {}).values())

    def put(self, kind: Kind, body: Json) -> Json:
        """Store `body` under the name in its metadata; the stored object carries the new revision."""
        metadata = body["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        table = self._tables.setdefault(kind, {})
        before = table.get(key)
        stored = self._revised(body)
        table[key] = stored
        self._record(kind, "MODIFIED" if before is not None else "ADDED", stored, before)
        return stored

    def remove(self, kind: Kind, namespace: str, name: str) -> Json:
        before = self._tables[kind].pop((namespace, name))
        gone = self._revised(before)
        self._record(kind, "DELETED", gone, before)
        return gone

    def _revised(self, body: Json) -> Json:
        self.revision += 1
        return {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.revision)}}

    # --- history -----------------------------------------------------------------------------------------------------------------

    def _record(self, kind: Kind, type_: str, body: Json, before: Json | None) -> None:
        history = self._history.setdefault(kind, [])
        change = Change(self.revision, type_, body, before, {})
        history.append(change)
        if len(history) > 2 * HISTORY:
            self._floors[kind] = history[-HISTORY - 1].revision
            del history[:-HISTORY]
        for listener in self._listeners:
            listener(kind, change)
        self.wake(kind)

    def wake(self, kind: Kind | None = None) -> None:
        """Who waits for a change looks again."""
        for key in (kind, None):
            if (waiting := self._waiting.pop(key, None)) is not None:
                waiting.set()

    @contextmanager
    def listening(self, listener: Callable[[Kind, Change], None]) -> Iterator[None]:
        """`listener` is called within every write, in order. It only notes what to look at: it must not write."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def changes(self, kind: Kind, after: int) -> list[Change]:
        """Changes later than revision `after`.

        Raises:
            Refused: 410, the history does not go back so far.
        """
        floor = max(self._floors.get(kind, 0), self._compacted)
        if after < floor:
            raise refusals.expired(after, floor)
        history = self._history.get(kind, [])
        first = len(history)
        while first and history[first - 1].revision > after:
            first -= 1
        return history[first:]

    async def changed(self, kind: Kind | None = None) -> None:
        """Wait for the next write to this kind, or to any. Look first, then wait: there is no await in between."""
        await self.next_change(kind).wait()

    def next_change(self, kind: Kind | None = None) -> trio.Event:
        """What the next write to this kind, or to any, sets: for who waits for something else as well."""
        return self._waiting.setdefault(kind, trio.Event())

    def compact(self) -> None:
        """Forget all history: watches from the past and half-read lists are answered 410."""
        self._compacted = self.revision
        self._snapshots.clear()
        for history in self._history.values():
            history.clear()

    async def until(self, predicate: Callable[[], bool], kind: Kind | None = None) -> None:
        """Wait until the predicate holds; it is asked after every write."""
        while not predicate():
            await self.changed(kind)

    # --- paged lists -------------------------------------------------------------------------------------------------------------

    def keep_snapshot(self, rest: list[Json], revision: int) -> str:
        self._snapshots_taken += 1
        token = f"{revision}.{self._snapshots_taken}"
        while len(self._snapshots) >= SNAPSHOTS:
            del self._snapshots[next(iter(self._snapshots))]
        self._snapshots[token] = (revision, rest)
        return token

    def snapshot(self, token: str) -> tuple[int, list[Json]]:
        """The revision and the rest of a list. A page may be asked for again.

        Raises:
            Refused: 410, it is not kept any more.
        """
        if (kept := self._snapshots.get(token)) is None:
            raise refusals.Refused(410, "Expired", "The provided continue parameter is too old to display a consistent list result.")
        return kept

"""A watch: the history of a kind from a revision on, as lines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import msgspec
import trio

from tools.simcluster import shapes
from tools.simcluster.kinds import Json
from tools.simcluster.refusals import Refused
from tools.simcluster.store import Change, Store
from tools.simcluster.target import Target

BOOKMARK_SECONDS: Final = 60.0
"""The real server sends one about every minute, and one shortly before it ends a watch."""
WATCH_SECONDS: Final = (1800.0, 3600.0)
"""How long a watch lasts if the client does not say."""


class Watch:
    """Made when the request comes, so that what it is to see is settled before the first byte.

    Raises (the constructor):
        Refused: 410, history does not go back to `after`.
    """

    def __init__(
        self,
        store: Store,
        target: Target,
        selects: Callable[[Json], bool],
        *,
        after: int | None,
        seconds: float,
        bookmark_seconds: float | None,
        tells_end_of_initial: bool,
        cut: trio.Event,
    ) -> None:
        """
        Args:
            after: revision; None to begin with what there is.
            bookmark_seconds: None for a client that wants none.
            tells_end_of_initial: a bookmark with an annotation follows what there was at the beginning.
            cut: when set, the connection breaks.
        """
        self._store, self._target, self._selects, self._cut = store, target, selects, cut
        self._seconds, self._bookmark_seconds = seconds, bookmark_seconds
        self._initial = [held for held in store.all(target.kind) if selects(held)] if after is None else []
        self._tells_end_of_initial = tells_end_of_initial
        self._after = store.revision if after is None else after
        store.changes(target.kind, self._after)

    async def lines(self) -> AsyncIterator[bytes]:
        """
        Raises:
            ConnectionError: the watch is cut.
        """
        store, target, bookmarks = self._store, self._target, self._bookmark_seconds
        end = trio.current_time() + self._seconds
        next_bookmark = trio.current_time() + bookmarks if bookmarks is not None else end
        # Also when it is empty: the head of the answer goes out with the first piece.
        yield b"".join(_line(b"ADDED", msgspec.json.encode(target.wire(held))) for held in self._initial)
        self._initial = []
        if self._tells_end_of_initial and bookmarks is not None:
            yield _bookmark(target, self._after, {"k8s.io/initial-events-end": "true"})
        while True:
            try:
                changes = store.changes(target.kind, self._after)
            except Refused as refused:
                yield _line(b"ERROR", msgspec.json.encode(refused.status()))
                return
            if changes:
                self._after = changes[-1].revision
                if lines := b"".join(_event(target, change, self._selects) for change in changes):
                    yield lines
                continue
            self._after = max(self._after, store.revision)
            changed = store.next_change(target.kind)  # now: a write while the waiting tasks start must not be missed
            with trio.move_on_at(min(end, next_bookmark)):
                await _first_of(changed.wait, self._cut.wait)
            if self._cut.is_set():
                raise ConnectionError("the watch is cut")
            if changed.is_set():
                continue
            if bookmarks is not None:
                self._after = max(self._after, store.revision)
                yield _bookmark(target, self._after)
                next_bookmark = trio.current_time() + bookmarks
            if trio.current_time() >= end:
                return


async def _first_of(*waits: Callable[[], Awaitable[object]]) -> None:
    async with trio.open_nursery() as nursery:

        async def one(wait: Callable[[], Awaitable[object]]) -> None:
            await wait()
            nursery.cancel_scope.cancel()

        for wait in waits:
            nursery.start_soon(one, wait)


def _event(target: Target, change: Change, selects: Callable[[Json], bool]) -> bytes:
    """The line for a change: what enters a selection is ADDED, what leaves it DELETED."""
    is_in = change.type != "DELETED" and selects(change.object)
    was_in = change.before is not None and selects(change.before)
    if not is_in and not was_in:
        return b""
    kind = b"MODIFIED" if is_in and was_in else b"ADDED" if is_in else b"DELETED"
    body = change.encoded.get(target.version)
    if body is None:
        body = change.encoded[target.version] = msgspec.json.encode(target.wire(change.object))
    return _line(kind, body)


def _line(kind: bytes, body: bytes) -> bytes:
    return b'{"type":"' + kind + b'","object":' + body + b"}\n"


def _bookmark(target: Target, revision: int, annotations: dict[str, str] | None = None) -> bytes:
    metadata: Json = {"resourceVersion": str(revision), "creationTimestamp": None}
    if annotations:
        metadata["annotations"] = annotations
    about = {"kind": target.kind.kind, "apiVersion": shapes.api_version(target.kind, target.version), "metadata": metadata}
    return _line(b"BOOKMARK", msgspec.json.encode(about))

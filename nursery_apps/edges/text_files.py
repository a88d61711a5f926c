"""Small files of a mounted Secret, read together and watched."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import trio

LONGEST_BYTES: Final = 1 << 20
"""A Secret holds 1 MiB at most; what is longer is a mistake in a path."""


class Watch(Protocol):
    """As `nursery_apps.edges.file_watch.InotifyWatch.file`."""

    async def __call__(
        self, path: str, wake: Callable[[], object], /, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None: ...


class TextFiles:
    """Keeps the promise of `nursery_apps.fresh.Files`."""

    def __init__(self, *paths: str, watch: Watch) -> None:
        self._paths = paths
        self._watch = watch

    def read(self) -> tuple[str, ...]:
        texts = []
        for path in self._paths:
            with Path(path).open("rb") as file:
                data = file.read(LONGEST_BYTES + 1)
            if len(data) > LONGEST_BYTES:
                raise ValueError(f"{path}: more than {LONGEST_BYTES} bytes")
            texts.append(data.decode())
        return tuple(texts)

    async def watch(self, wake: Callable[[], object], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        one_a_directory = {posixpath.dirname(posixpath.abspath(path)): path for path in self._paths}
        async with trio.open_nursery() as nursery:
            for path in one_a_directory.values():
                await nursery.start(partial(self._watch, path, wake))
            task_status.started()

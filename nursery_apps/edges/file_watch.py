"""Hears of names that come and go in a directory: inotify, waited for by Trio.

Never polls where inotify works. Where it does not (no descriptors left, an odd file system) it says so and wakes its listener at a slow
beat instead.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import posixpath
from collections.abc import Callable
from typing import Final, NoReturn

import trio
from inotify_simple import INotify, flags

log = logging.getLogger(__name__)

BEAT_SECONDS: Final = 30.0
"""Without inotify: a settings file or a socket directory that changed is noticed this late."""

_NAMES: Final = flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO | flags.CLOSE_WRITE
_SELF: Final = flags.DELETE_SELF | flags.MOVE_SELF


class InotifyWatch:
    """Keeps the promise of `nursery_apps.node.registration.DirectoryWatch`; `file` and `appended` do the like for one file."""

    async def watch(
        self, directory: str, wake: Callable[[], object], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Wake after a name in `directory` came, went, was replaced or written, after the directory itself came or went, and when
        changes may have been missed. Runs until cancelled; `started` when subscribed."""
        try:
            inotify = INotify(nonblocking=True)
        except OSError as error:
            log.warning("inotify is not to be had (%s): looking at %s every %.0f s instead", error.strerror, directory, BEAT_SECONDS)
            task_status.started()
            await _beat(wake)
        with inotify:
            subscribed = _subscribe(inotify, directory)
            task_status.started()
            while True:
                with trio.move_on_after(math.inf if subscribed else BEAT_SECONDS) as beat:
                    await trio.lowlevel.wait_readable(inotify.fileno())
                seen = inotify.read(timeout=0)
                missed = flags.IGNORED | flags.Q_OVERFLOW | flags.UNMOUNT
                if beat.cancelled_caught or any(event.mask & (_SELF | missed) or event.name for event in seen):
                    subscribed = _subscribe(inotify, directory)
                    wake()

    async def appended(
        self, path: str, wake: Callable[[], object], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> NoReturn:
        """Wake after the file at `path`, which is there, was written to, also by who keeps it open. Runs until cancelled."""
        with contextlib.ExitStack() as opened:
            try:
                inotify = opened.enter_context(INotify(nonblocking=True))
                inotify.add_watch(path, flags.MODIFY)
            except OSError as error:
                log.warning("cannot watch %s (%s): looking every %.0f s instead", path, error.strerror, BEAT_SECONDS)
                task_status.started()
                await _beat(wake)
            task_status.started()
            while True:
                await trio.lowlevel.wait_readable(inotify.fileno())
                inotify.read(timeout=0)
                wake()

    async def file(self, path: str, wake: Callable[[], object], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Wake when the file at `path` may have changed; a ConfigMap volume swaps a link beside it, so its whole directory counts."""
        await self.watch(posixpath.dirname(posixpath.abspath(path)), wake, task_status=task_status)


def _subscribe(inotify: INotify, directory: str) -> bool:
    """Watch the directory, and what is above it for as long as it is missing. Watching twice is once (inotify(7)).

    False if the kernel refuses (no watches left, no permission): then only a beat can tell.
    """
    path = directory
    while True:
        try:
            inotify.add_watch(path, _NAMES | _SELF)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR) or path == posixpath.dirname(path):
                log.warning("cannot watch %s (%s): looking every %.0f s instead", path, error.strerror, BEAT_SECONDS)
                return False
            path = posixpath.dirname(path)
            continue
        if path == directory:
            return True
        # What is missing may have come between the two looks.
        if not os.path.isdir(posixpath.join(path, posixpath.relpath(directory, path).split("/", 1)[0])):
            return True
        path = directory


async def _beat(wake: Callable[[], object]) -> NoReturn:
    while True:
        await trio.sleep(BEAT_SECONDS)
        wake()

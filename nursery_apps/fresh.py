"""Something made of files that others replace while the program runs: certificates that are renewed, tokens that are exchanged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Final, Generic, Protocol, TypeVar

import trio

from dra import backoff
from nursery_apps.seams import RunBlocking

T = TypeVar("T")

log = logging.getLogger(__name__)

SETTLE_SECONDS: Final = 0.1
"""A Secret's swap makes several events; the files are read when they are over."""
FIRST_RETRY_SECONDS: Final = 1.0
RETRY_AT_MOST_SECONDS: Final = 60.0
"""Between two looks at files that cannot be used: a certificate and its key that are replaced one after the other fit a moment later."""
LOOK_AGAIN_SECONDS: Final = 3600.0
"""Even without an event: a certificate lives for days at least, and is renewed long before its end."""


class Files(Protocol):
    """One or more small files."""

    def read(self) -> tuple[str, ...]:
        """Their texts; blocking.

        Raises:
            OSError, ValueError: one cannot be read, or is not text.
        """

    async def watch(self, wake: Callable[[], object], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Wake when one may have changed, until cancelled."""


class Fresh(Generic[T]):
    """Keeps `value` as the files say. What cannot be used changes nothing: the old value stays until the files are good again."""

    def __init__(
        self, files: Files, make: Callable[[tuple[str, ...]], T], *, name: str, run_blocking: RunBlocking, random: Callable[[], float]
    ) -> None:
        """
        Args:
            make: what the texts stand for; an OSError (ssl.SSLError is one) or ValueError from it means that they are of no use.
            name: what it is, for log lines: `the webhook's certificate`.
        """
        self._files = files
        self._make = make
        self._name = name
        self._run_blocking = run_blocking
        self._random = random
        self._changed = trio.Event()
        self._texts: tuple[str, ...] | None = None
        self.value: T | None = None
        """None until the files could be used for the first time."""
        self.why: str | None = f"{name} was not read yet"
        """Why the files as they are now cannot be used; None while they can."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read again whenever they change, until cancelled; ready after the first reading, whatever it came to."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._files.watch, self._wake)
            started, delays = False, self._delays()
            while True:
                usable = await self._read()
                if not started:
                    started = True
                    task_status.started()
                if usable:
                    delays = self._delays()
                with trio.move_on_after(LOOK_AGAIN_SECONDS if usable else next(delays)):
                    await self._changed.wait()
                    await trio.sleep(SETTLE_SECONDS)
                self._changed = trio.Event()

    def _wake(self) -> None:
        self._changed.set()

    async def _read(self) -> bool:
        try:
            texts = await self._run_blocking(self._files.read)
            if texts != self._texts:
                self.value = self._make(texts)
                if self._texts is not None:
                    log.info("%s has changed: the new one is used from now on", self._name)
                self._texts = texts
        except (OSError, ValueError) as error:
            why = f"{self._name} cannot be used: {error}"
            if why != self.why:
                log.error("%s%s", why, "; the old one is used on" if self.value is not None else "")
            self.why = why
            return False
        self.why = None
        return True

    def _delays(self) -> Iterator[float]:
        return backoff.delays(self._random, first_seconds=FIRST_RETRY_SECONDS, cap_seconds=RETRY_AT_MOST_SECONDS)

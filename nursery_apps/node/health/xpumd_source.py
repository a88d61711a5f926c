"""Hears what Intel's XPU Manager daemon says of this node's GPUs, for as long as the daemon is there.

It may be absent, restarted or broken at any time: then nothing is known from it, which is no illness, and it is tried again for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
import trio

from dra import backoff
from dra.devices import Inventory
from dra.health import xpumd
from dra.health.facts import Tell
from dra.health.health_settings import Health
from dra.names import Bdf
from nursery_apps import rpc
from nursery_apps.latest import Latest

log = logging.getLogger(__name__)

SOURCE: Final = "xpumd"
SILENCE_SECONDS: Final = 30.0
"""The daemon repeats everything every 5 s: five repetitions may be late or lost. One that says nothing for so long hangs, or its end got
lost, and the connection is made anew. It bounds connecting, too."""
FIRST_RETRY_SECONDS: Final = 1.0
"""A daemon that is restarted is back within a few."""
RETRY_AT_MOST_SECONDS: Final = 60.0
"""A connect to a socket that is not there costs next to nothing; a minute is how late a daemon that was installed just now is heard."""
UNIMPLEMENTED_SECONDS: Final = 600.0
"""Whoever answers does not know the method: only another release will."""
STEADY_SECONDS: Final = 300.0
"""After being heard for so long, what happens next is news again. What breaks more often is said once, not each time."""
MOST_NAMES: Final = 200
"""Devices passed over of which a word is said: more than a node has PCI functions of GPUs to be confused about, and a bound for garbage."""


class _Trouble(msgspec.Struct, frozen=True):
    """Why nothing is heard any more."""

    kind: str
    """Each is said once."""
    text: str
    lasting: bool = False


class _Link:
    """One socket's connections, one after another: what was said of them, and when to make the next."""

    def __init__(self, socket: str, random: Callable[[], float]) -> None:
        self.socket, self._random = socket, random
        self._delays = self._fresh()
        self._heard_since: float | None = None
        self._said: set[str] = set()
        """Kinds of news, each said once until all was steady for a while."""

    def heard(self, gpus: int) -> None:
        """A message came."""
        if self._heard_since is None:
            self._heard_since, self._delays = trio.current_time(), self._fresh()
            if self._is_news("heard"):
                log.info("xpumd at %s speaks of %d of this node's GPUs", self.socket, gpus)

    def lost(self, trouble: _Trouble) -> float:
        """The connection has ended; how many seconds to wait for the next."""
        if self._heard_since is not None and trio.current_time() - self._heard_since >= STEADY_SECONDS:
            self._said.clear()
        self._heard_since = None
        if self._is_news(trouble.kind):
            log.warning("nothing is heard from xpumd at %s, which is tried again: %s", self.socket, trouble.text)
        return next(self._fresh(UNIMPLEMENTED_SECONDS) if trouble.lasting else self._delays)

    def _is_news(self, kind: str) -> bool:
        if kind in self._said:
            return False
        self._said.add(kind)
        return True

    def _fresh(self, seconds: float = FIRST_RETRY_SECONDS) -> Iterator[float]:
        return backoff.delays(self._random, first_seconds=seconds, cap_seconds=max(seconds, RETRY_AT_MOST_SECONDS))


class XpumdSource:
    """`run` is the task."""

    def __init__(
        self, caller: rpc.RpcCaller, settings: Latest[Health], inventory: Latest[Inventory], *, tell: Tell, random: Callable[[], float]
    ) -> None:
        """`settings`: another socket, or none, counts at once; another least severity with the daemon's next repetition."""
        self._caller, self._settings, self._inventory, self._tell, self._random = caller, settings, inventory, tell, random
        self._told: set[Bdf] = set()
        """GPUs of which something was said that still stands."""
        self._passed_over: set[str] = set()
        """Sentences that were said."""

    async def run(self) -> None:
        """Listen until cancelled; nothing that the daemon does, or does not, ends it."""
        while True:
            socket = self._socket()
            async with trio.open_nursery() as nursery:
                if socket:
                    nursery.start_soon(self._stay, socket)
                await self._until_another(socket)
                nursery.cancel_scope.cancel()
            self._fall_silent()

    def _socket(self) -> str:
        """Empty: the daemon is not asked."""
        health = self._settings.value
        return health.xpumd.socket if health.enabled else ""

    async def _until_another(self, socket: str) -> None:
        while True:
            seen = self._settings.version
            if self._socket() != socket:
                return
            await self._settings.wait_newer(seen)

    async def _stay(self, socket: str) -> None:
        link = _Link(socket, self._random)
        while True:
            trouble = await self._listen(link)
            self._fall_silent()
            await trio.sleep(link.lost(trouble))

    async def _listen(self, link: _Link) -> _Trouble:
        """Tell what comes until nothing comes any more."""
        try:
            with trio.fail_after(SILENCE_SECONDS) as silence:
                async with self._caller.stream_unix(link.socket, xpumd.METHOD, xpumd.REQUEST) as answers:
                    while (data := await answers.receive()) is not None:
                        self._take(data)
                        link.heard(len(self._told))
                        silence.deadline = trio.current_time() + SILENCE_SECONDS
        except OSError as error:
            return _Trouble(f"errno {error.errno}", error.strerror or str(error))
        except rpc.RpcError as error:
            return _Trouble(error.status.name, str(error), lasting=error.status is rpc.Status.UNIMPLEMENTED)
        except trio.TooSlowError:
            return _Trouble("silence", f"no word for {SILENCE_SECONDS:g} s")
        except ValueError as error:
            return _Trouble("illegible", str(error))
        return _Trouble("end", "it ended the stream")

    def _take(self, data: bytes) -> None:
        """
        Raises:
            ValueError: the bytes are no message of the daemon.
        """
        heard = xpumd.heard(xpumd.decode(data), known=self._inventory.value.by_bdf(), least=self._settings.value.xpumd.min_severity)
        for sentence in heard.passed_over:
            if sentence not in self._passed_over and len(self._passed_over) < MOST_NAMES:
                self._passed_over.add(sentence)
                log.warning("xpumd speaks of a device that is passed over: %s", sentence)
        for bdf in self._told - heard.facts.keys():
            self._tell(SOURCE, bdf, None)
        self._told = set(heard.facts)
        for bdf, facts in heard.facts.items():
            self._tell(SOURCE, bdf, facts)

    def _fall_silent(self) -> None:
        for bdf in self._told:
            self._tell(SOURCE, bdf, None)
        self._told = set()

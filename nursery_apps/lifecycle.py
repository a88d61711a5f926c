"""A program's life between exec and exit: signals become events, failures become one readable line and an exit code."""

from __future__ import annotations

import logging
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import trio

from dra.errors import DriverError
from dra.kubernetes_releases import UnsupportedRelease
from dra.settings import SettingsInvalid

log = logging.getLogger(__name__)

OK: Final = 0
CRASHED: Final = 1
MISUSED: Final = 2
"""Exit code for wrong flags or settings, and for a Kubernetes that is too old: restarting does not help."""

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

App = Callable[[trio.Event, Callable[[Callable[[], None]], None]], Awaitable[None]]
"""Runs until the event is set; the second argument takes what SIGHUP is to call."""


def run(app: App) -> int:
    """Run `app` under Trio; SIGTERM and SIGINT ask it to stop, SIGHUP calls what it registered. Returns the exit code."""
    early: list[int] = []
    # Trio gives back to the old handlers what nobody took: a second SIGTERM at the very end must not make a clean stop a death by signal.
    before = {number: signal.signal(number, lambda number, _: early.append(number)) for number in SIGNALS}
    try:
        trio.run(_main, app, early)
    except BaseException as failure:  # noqa: ASYNC103  nothing is above that could want it
        leaves = list(_leaves(failure))
        if all(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
            return OK  # noqa: ASYNC104
        for leaf in leaves:
            log.critical("stopped by %s: %s", type(leaf).__name__, leaf, exc_info=leaf if _is_a_bug(leaf) else None)
        return MISUSED if all(isinstance(leaf, SettingsInvalid | UnsupportedRelease) for leaf in leaves) else CRASHED  # noqa: ASYNC104
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return OK


async def _main(app: App, early: list[int]) -> None:
    stop = trio.Event()
    hang_up: list[Callable[[], None]] = []
    with trio.open_signal_receiver(*SIGNALS) as signals:
        if any(number != signal.SIGHUP for number in early):
            stop.set()
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                async for number in signals:
                    if number == signal.SIGHUP:
                        for call in hang_up:
                            call()
                    elif not stop.is_set():
                        log.info("%s: stopping", signal.Signals(number).name)
                        stop.set()

            nursery.start_soon(listen)
            await app(stop, hang_up.append)
            nursery.cancel_scope.cancel()


def _leaves(failure: BaseException) -> Iterator[BaseException]:
    if isinstance(failure, BaseExceptionGroup):
        for inner in failure.exceptions:
            yield from _leaves(inner)
    else:
        yield failure


def _is_a_bug(failure: BaseException) -> bool:
    """A programming error deserves its traceback; what the world or the driver refused is said in its own words."""
    return not isinstance(failure, OSError | DriverError | KeyboardInterrupt)

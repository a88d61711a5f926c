"""A call into the kernel that may never come back: made in a thread, waited for with a deadline, left behind if it must be.

A write to `unbind` or `sriov_numvfs` blocks for as long as a virtual machine holds the function (vfio_unregister_group_dev), and no signal
reaches it. So there is one such thread for each card at most, it is counted, and its return is heard.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import trio

T = TypeVar("T")


class Hung(Exception):
    """The kernel had not come back when the deadline passed. `back` is set when it has."""

    def __init__(self, seconds: float, back: trio.Event) -> None:
        super().__init__(f"no answer from the kernel for {seconds:g} s")
        self.seconds, self.back = seconds, back


class KernelCall(Protocol):
    def __call__(self, work: Callable[[], T], /, *, seconds: float) -> Awaitable[T]:
        """Do blocking work in the kernel.

        Raises:
            Hung: it takes longer than `seconds`; it goes on in its thread.
        """


def caller(threads: int) -> KernelCall:
    """Calls in threads, so many at once, those left behind included: beyond that a call waits, and its deadline runs."""
    limit = trio.CapacityLimiter(threads)

    async def call(work: Callable[[], T], /, *, seconds: float) -> T:
        token, back = trio.lowlevel.current_trio_token(), trio.Event()
        begun = False

        def run() -> T:
            nonlocal begun
            begun = True
            try:
                return work()
            finally:
                with contextlib.suppress(trio.RunFinishedError):  # the program may have ended meanwhile: nobody is left to tell
                    token.run_sync_soon(back.set)

        with trio.move_on_after(seconds):
            return await trio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=limit)
        if not begun:  # it waited for a thread in vain: there is nothing to come back
            back.set()
        raise Hung(seconds, back)

    return call

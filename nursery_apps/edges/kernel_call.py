"""A call into the kernel that may never come back: made in a thread, waited for with a deadline, left behind if it must be.

A write to `unbind` or `sriov_numvfs` blocks for as long as a virtual machine holds the function (vfio_unregister_group_dev), and no signal
reaches it. So there is one such thread for each card at most, it is counted, and its return is heard.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

import trio

from nursery_apps.seams import Hung, KernelCall

T = TypeVar("T")


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

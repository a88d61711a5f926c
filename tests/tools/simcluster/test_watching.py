"""The stream of a watch, without HTTP."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tools.simcluster.kinds import NODE
from tools.simcluster.store import Store
from tools.simcluster.target import Target
from tools.simcluster.watching import Watch


@pytest.mark.parametrize("steps", range(8))
@pytest.mark.parametrize("bookmark_seconds", [60.0, 0.001])
async def test_a_write_at_whatever_step_of_the_waiting_is_told(steps: int, bookmark_seconds: float, autojump_clock: MockClock) -> None:
    store, told = Store(), trio.Event()
    target = Target(NODE, "v1", "", "", "")
    watch = Watch(
        store, target, lambda _body: True, after=store.revision, seconds=600, bookmark_seconds=bookmark_seconds, tells_end_of_initial=False,
        cut=trio.Event(),
    )  # fmt: skip

    async def follow() -> None:
        async for lines in watch.lines():
            if b"written" in lines:
                told.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        store.put(NODE, {"metadata": {"name": "written"}})
        with trio.fail_after(300):
            await told.wait()
        nursery.cancel_scope.cancel()

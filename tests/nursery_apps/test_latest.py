"""A cell wakes its waiters for what is new, and only for that."""

from __future__ import annotations

import trio
import trio.testing

from nursery_apps.latest import Latest


async def test_an_equal_value_wakes_nobody(autojump_clock: trio.testing.MockClock) -> None:
    cell = Latest(1)
    assert not cell.set(1)
    with trio.move_on_after(1) as waited:
        await cell.wait_newer(cell.version)
    assert waited.cancelled_caught


async def test_a_slow_waiter_sees_the_newest_value_once() -> None:
    cell = Latest(1)
    seen = cell.version
    cell.set(2)
    cell.set(3)
    assert await cell.wait_newer(seen) == 3


async def test_every_waiter_wakes() -> None:
    cell, got = Latest(1), list[int]()

    async def wait() -> None:
        got.append(await cell.wait_newer(0))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        cell.set(2)
    assert got == [2, 2, 2]


async def test_a_waiter_that_need_not_wait_can_still_be_cancelled() -> None:
    cell = Latest(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await cell.wait_newer(-1)
    assert scope.cancelled_caught

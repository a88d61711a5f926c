from __future__ import annotations

import itertools
from collections.abc import Callable

import trio
from trio.testing import MockClock

from nursery_apps.controller.work_queue import RETRY_AT_MOST_SECONDS, Again, WorkQueue


class Work:
    """Notes what is worked on, and when."""

    def __init__(self, *, workers: int = 4, seconds: float = 1.0) -> None:
        self.log: list[tuple[float, str]] = []
        self.active: list[str] = []
        self.most = 0
        self.seconds = seconds
        self.fails: Callable[[str], bool] = lambda _key: False
        self.again: float | None = None
        self.queue: WorkQueue[str] = WorkQueue(self._work, workers=workers, random=lambda: 1.0)

    async def _work(self, key: str) -> float | None:
        assert key not in self.active, "two at once on one key"
        self.active.append(key)
        self.most = max(self.most, len(self.active))
        self.log.append((trio.current_time(), key))
        await trio.sleep(self.seconds)
        self.active.remove(key)
        if self.fails(key):
            raise Again("not this time")
        return self.again

    @property
    def keys(self) -> list[str]:
        return [key for _, key in self.log]


async def test_a_key_that_is_added_twice_is_worked_on_once(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    work = Work()
    for _ in range(3):
        work.queue.add("a")
    await nursery.start(work.queue.run)
    await trio.sleep(10)
    assert work.keys == ["a"] and len(work.queue) == 0


async def test_a_key_that_is_added_while_it_is_worked_on_is_worked_on_once_more(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    work = Work()
    await nursery.start(work.queue.run)
    work.queue.add("a")
    await trio.sleep(0.5)
    work.queue.add("a")
    work.queue.add("a")
    await trio.sleep(10)
    assert work.keys == ["a", "a"]


async def test_keys_are_worked_on_together_but_no_more_than_there_are_workers(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    work = Work(workers=3)
    for key in "abcdefg":
        work.queue.add(key)
    await nursery.start(work.queue.run)
    await trio.sleep(10)
    assert work.most == 3 and sorted(work.keys) == list("abcdefg")


async def test_a_key_that_fails_is_tried_again_later_and_later_and_the_others_are_not_held_up(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    work = Work(seconds=0.0)
    work.fails = lambda key: key == "bad"
    await nursery.start(work.queue.run)
    work.queue.add("bad")
    work.queue.add("good")
    await trio.sleep(600)
    times = [at for at, key in work.log if key == "bad"]
    gaps = [round(after - before, 3) for before, after in itertools.pairwise(times)]
    assert gaps == sorted(gaps) and abs(gaps[-1] - RETRY_AT_MOST_SECONDS) < 0.01 and work.queue.failing == 1
    work.fails = lambda _key: False
    work.queue.add("bad")
    await trio.sleep(1)
    assert work.queue.failing == 0 and work.keys.count("good") == 1


async def test_news_of_a_key_do_not_wait_for_its_next_try(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    work = Work(seconds=0.0)
    work.again = 100.0
    await nursery.start(work.queue.run)
    work.queue.add("a")
    await trio.sleep(10)
    work.queue.add("a")
    await trio.sleep(95)
    assert [at - work.log[0][0] for at, _ in work.log] == [0, 10]
    await trio.sleep(10)
    assert len(work.log) == 3, "the time of the first look counts no longer, that of the second does"


async def test_of_several_times_the_earliest_counts(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    work = Work(seconds=0.0)
    await nursery.start(work.queue.run)
    began = trio.current_time()
    for seconds in (30, 10, 20):
        work.queue.add_after("a", seconds)
    await trio.sleep(60)
    assert [at - began for at, _ in work.log] == [10]

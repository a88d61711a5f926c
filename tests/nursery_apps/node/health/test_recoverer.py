"""Wedged cards are bound anew as the settings allow: once, when idle, and said; an end in the middle is gone on from."""

from __future__ import annotations

import errno

import trio
from trio.testing import MockClock

from dra import discovery
from dra.claims import Stage
from dra.errors import HardwareFault
from dra.health.told import Level
from dra.names import Bdf, ClaimUid, PoolName
from dra.records import Grant, Record
from tests.fakes.health_bench import HealthBench

CARD = Bdf("0000:18:00.0")
DAY = 86400.0


async def wanted(bench: HealthBench) -> None:
    while not bench.watch.recoveries.value:
        await bench.watch.recoveries.wait_newer(bench.watch.recoveries.version)


async def test_nothing_is_tried_unless_it_is_set(autojump_clock: MockClock) -> None:
    async with HealthBench(period="5m").running() as bench:
        bench.kernel.wedge(CARD)
        await trio.sleep(DAY)
        assert bench.watch.recoveries.value == {} and bench.level(CARD) is Level.FAILED


async def test_an_idle_card_is_tried_once_a_day_and_the_outcome_is_said(autojump_clock: MockClock) -> None:
    async with HealthBench(recovery={"mode": "rebind"}, period="5m").running() as bench:
        bench.kernel.wedge(CARD)
        with trio.fail_after(1):
            await wanted(bench)
        assert bench.watch.recoveries.value == {CARD: "rebind"}
        bench.kernel.unwedge(CARD)
        bench.watch.recovered(CARD, None)
        assert bench.watch.recoveries.value == {}, "or the card's owner would do it once more, while that is written down"
        await bench.until(lambda: bench.level(CARD) is Level.OK)
        assert bench.watch.recoveries.value == {}
        assert bench.heard.reasons() == ["GPUFailed", "GPURecovered", "GPUHealthy"]
        began = trio.current_time()
        bench.kernel.wedge(CARD)
        await wanted(bench)
        assert trio.current_time() - began > DAY - 3600


async def test_a_failure_is_said_and_the_next_way_tried_if_there_is_another_try(autojump_clock: MockClock) -> None:
    async with HealthBench(recovery={"mode": "bus-reset", "perDay": 2}, period="5m").running() as bench:
        bench.kernel.wedge(CARD)
        await wanted(bench)
        bench.watch.recovered(CARD, HardwareFault("no driver took it", reason="BindFailed"))
        while bench.watch.recoveries.value != {CARD: "bus-reset"}:
            await bench.watch.recoveries.wait_newer(bench.watch.recoveries.version)
        bench.watch.recovered(CARD, HardwareFault("no driver took it", reason="BindFailed"))
        await trio.sleep(3600)
        assert bench.watch.recoveries.value == {}
        assert bench.heard.reasons() == ["GPUFailed", "GPUNotRecovered", "GPUNotRecovered"]


async def test_a_card_in_use_waits_until_it_is_idle(autojump_clock: MockClock) -> None:
    async with HealthBench(recovery={"mode": "rebind"}, period="5m").running() as bench:
        gpu = bench.inventory.value.by_bdf()[CARD]
        grant = Grant(requests=("gpu",), pool=PoolName("n"), device=gpu.name, bdf=CARD)
        record = Record(uid=ClaimUid("uid"), namespace="ns", name="claim", stage=Stage.GRANTED, grants=(grant,))
        bench.hold(record)
        bench.kernel.wedge(CARD)
        await trio.sleep(3600)
        assert bench.watch.recoveries.value == {}
        bench.ledger.set(type(bench.ledger.value)())
        with trio.fail_after(1):
            await wanted(bench)


async def test_what_cannot_be_written_down_is_not_tried(autojump_clock: MockClock) -> None:
    async with HealthBench(recovery={"mode": "rebind"}, period="5m").running() as bench:
        bench.state.fail = lambda operation, _name: errno.ENOSPC if operation == "replace" else None
        bench.kernel.wedge(CARD)
        await trio.sleep(3600)
        assert bench.watch.recoveries.value == {}
        bench.state.fail = lambda _operation, _name: None
        await wanted(bench)


async def test_a_driver_that_is_about_to_be_removed_recovers_nothing(autojump_clock: MockClock) -> None:
    async with HealthBench(recovery={"mode": "rebind"}, period="5m").running() as bench:
        await bench.watch.monitor.forget()
        bench.kernel.wedge(CARD)
        await trio.sleep(3600)
        assert bench.watch.recoveries.value == {}
        bench.watch.monitor.keep()
        await wanted(bench)


async def test_what_was_to_be_done_with_a_card_that_is_gone_is_not_done_with_the_next_one(autojump_clock: MockClock) -> None:
    async with HealthBench(recovery={"mode": "rebind"}, period="5m").running() as bench:
        bench.kernel.wedge(CARD)
        await wanted(bench)
        bench.kernel.unplug(CARD)
        await trio.sleep(1)
        assert bench.watch.recoveries.value == {}
        assert all(attempt.over for attempt in bench.watch.monitor.attempts)


async def test_a_life_that_ended_in_the_middle_is_gone_on_from(autojump_clock: MockClock) -> None:
    disk: dict[str, bytes] = {}
    bench = HealthBench(disk=disk, recovery={"mode": "rebind"}, period="5m")
    async with bench.running():
        bench.kernel.wedge(CARD)
        await wanted(bench)
    later = HealthBench(disk=disk, recovery={"mode": "rebind"}, period="5m")
    later.kernel.unbind(CARD)
    later.inventory.set(discovery.scan(later.kernel))
    async with later.running():
        with trio.fail_after(1):
            await wanted(later)
        assert later.watch.recoveries.value == {CARD: "rebind"}


async def test_a_life_that_ended_before_it_could_say_so_leaves_nothing_open(autojump_clock: MockClock) -> None:
    disk: dict[str, bytes] = {}
    async with HealthBench(disk=disk, recovery={"mode": "rebind"}, period="5m").running() as bench:
        bench.kernel.wedge(CARD)
        await wanted(bench)
    async with HealthBench(disk=disk, recovery={"mode": "rebind"}, period="5m").running() as later:
        await trio.sleep(1)
        assert later.watch.recoveries.value == {}
        assert all(attempt.over for attempt in later.watch.monitor.attempts) and later.watch.monitor.attempts

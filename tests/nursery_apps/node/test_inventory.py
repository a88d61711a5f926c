"""The inventory follows the machine: hotplug, rebind, wedged cards, lost events, and a kernel that does not answer."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from dra.devices import Inventory, State
from dra.names import Bdf
from dra.sim_kernel.kernel import SimKernel
from nursery_apps.edges import kernel_call
from nursery_apps.edges.simulator import SimDeviceEvents
from nursery_apps.latest import Latest
from nursery_apps.node import inventory as inventory_module
from nursery_apps.node.inventory import InventoryKeeper
from tests.fakes import machines

FIRST = Bdf("0000:18:00.0")


class Followed:
    def __init__(self, kernel: SimKernel, keeper: InventoryKeeper) -> None:
        self.kernel, self.keeper = kernel, keeper
        self.scans: list[tuple[float, int]] = []
        self.wedged: list[str] = []

    async def until(self, wanted: object) -> Inventory:
        """The first inventory that `wanted(inventory)` accepts."""
        with trio.fail_after(5):
            while not wanted(self.keeper.inventory.value):  # type: ignore[operator]
                await self.keeper.inventory.wait_newer(self.keeper.inventory.version)
        return self.keeper.inventory.value


@asynccontextmanager
async def following(name: str = "server-4x-b60", rescan_seconds: float = 60) -> AsyncIterator[Followed]:
    kernel = SimKernel.load(machines.document(name), lock=threading.RLock())
    keeper = InventoryKeeper(
        kernel,
        SimDeviceEvents(kernel),
        call=kernel_call.caller(4),
        rescan_seconds=Latest(rescan_seconds),
        on_scan=lambda seconds, hung: followed.scans.append((seconds, hung)),
        on_wedged=lambda bdf, how: followed.wedged.append(bdf),
    )
    followed = Followed(kernel, keeper)
    async with trio.open_nursery() as nursery:
        await nursery.start(keeper.run)
        yield followed
        nursery.cancel_scope.cancel()


async def test_the_first_inventory_is_complete_when_it_is_ready() -> None:
    async with following() as machine:
        assert len(machine.keeper.inventory.value.gpus) == 4


async def test_an_unplugged_card_goes_and_a_plugged_one_comes() -> None:
    async with following() as machine:
        machine.kernel.unplug(FIRST)
        await machine.until(lambda i: FIRST not in i.by_bdf())
        machine.kernel.plug(FIRST)
        back = await machine.until(lambda i: FIRST in i.by_bdf() and i.by_bdf()[FIRST].render is not None)
        assert back.by_bdf()[FIRST].state is State.HEALTHY


async def test_a_rebind_is_followed_with_memory_and_nodes() -> None:
    async with following() as machine:
        machine.kernel.unbind(FIRST)
        gone = await machine.until(lambda i: i.by_bdf()[FIRST].driver is None)
        assert (gone.by_bdf()[FIRST].state, gone.by_bdf()[FIRST].render_node) == (State.NO_DRIVER, None)
        machine.kernel.bind(FIRST, "xe")
        back = (await machine.until(lambda i: i.by_bdf()[FIRST].state is State.HEALTHY)).by_bdf()[FIRST]
        assert back.memory_bytes == 25669140480
        assert back.render_node is not None


async def test_a_wedged_card_is_withdrawn_until_it_is_bound_anew() -> None:
    async with following() as machine:
        machine.kernel.wedge(FIRST)
        await machine.until(lambda i: i.by_bdf()[FIRST].state is State.WEDGED)
        assert machine.wedged == [FIRST]
        machine.kernel.unwedge(FIRST)
        await machine.until(lambda i: i.by_bdf()[FIRST].state is State.HEALTHY)


async def test_a_card_that_recovered_by_itself_is_no_finding() -> None:
    async with following() as machine:
        machine.kernel.wedge(FIRST, "none")
        machine.kernel.unplug("0000:3a:00.0")
        await machine.until(lambda i: "0000:3a:00.0" not in i.by_bdf())
        assert machine.wedged == []


async def test_lost_events_make_it_read_everything_again() -> None:
    async with following() as machine:
        before = len(machine.scans)
        machine.kernel.overflow()
        with trio.fail_after(5):
            while len(machine.scans) == before:
                await trio.lowlevel.checkpoint()


class Deaf:
    async def listen(self, send: object, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await trio.sleep_forever()


async def test_a_shorter_period_counts_at_once_and_not_when_the_long_one_is_over() -> None:
    kernel = SimKernel.load(machines.document("server-4x-b60"), lock=threading.RLock())
    period = Latest(86400.0)
    keeper = InventoryKeeper(
        kernel,
        Deaf(),
        call=kernel_call.caller(4),
        rescan_seconds=period,
        on_scan=lambda seconds, hung: None,
        on_wedged=lambda bdf, how: None,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(keeper.run)
        await trio.testing.wait_all_tasks_blocked()
        kernel.unplug(FIRST)
        period.set(5.0)
        with trio.fail_after(4):
            await keeper.inventory.wait_newer(1)
        assert FIRST not in keeper.inventory.value.by_bdf()
        nursery.cancel_scope.cancel()


async def test_without_any_event_the_slow_rescan_finds_the_change() -> None:
    kernel = SimKernel.load(machines.document("server-4x-b60"), lock=threading.RLock())
    keeper = InventoryKeeper(
        kernel,
        Deaf(),
        call=kernel_call.caller(4),
        rescan_seconds=Latest(0.05),
        on_scan=lambda seconds, hung: None,
        on_wedged=lambda bdf, how: None,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(keeper.run)
        kernel.unplug(FIRST)
        with trio.fail_after(5):
            await keeper.inventory.wait_newer(1)
        assert FIRST not in keeper.inventory.value.by_bdf()
        nursery.cancel_scope.cancel()


async def test_a_kernel_that_does_not_answer_is_reported_bounded_and_recovered_from(monkeypatch: pytest.MonkeyPatch) -> None:
    async with following() as machine:
        monkeypatch.setattr(inventory_module, "SCAN_DEADLINE_SECONDS", 0.05)
        gate = threading.Event()
        machine.kernel.hang(f"*{FIRST}/vendor", "read", lambda: gate.wait(30))
        for _ in range(4):
            machine.keeper.rescan()
            with trio.fail_after(5):
                while machine.keeper.stale_because is None:
                    await trio.lowlevel.checkpoint()
        assert len(machine.keeper.inventory.value.gpus) == 4, "the last good scan still holds"
        assert max(hung for _, hung in machine.scans) <= inventory_module.HUNG_SCANS_MAX
        monkeypatch.undo()
        gate.set()
        machine.kernel.release(f"*{FIRST}/vendor", "read")
        with trio.fail_after(5):
            while machine.keeper.stale_because is not None:
                await trio.lowlevel.checkpoint()

"""Owners of cards: one at a time, all cards at once, through hangs, refusals, contests and the end of the program."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from dra import binding, discovery
from dra.carvings import Carving
from dra.devices import State
from dra.errors import HardwareFault
from dra.names import Bdf, ClaimUid
from dra.sim_kernel.kernel import SimKernel
from dra.sriov_settings import Sriov
from nursery_apps.node import card_owner, cards
from nursery_apps.node.rebinder import Rebinder
from tests.fakes import machines
from tests.fakes.claim_node import ClaimNode, blocked
from tests.fakes.claim_server import ClaimServer, claim
from tests.fakes.kube_api import until

FLEX, OTHER = Bdf("0000:4d:00.0"), Bdf("0000:5d:00.0")
NUMVFS = f"sys/bus/pci/devices/{FLEX}/sriov_numvfs"


def sriov(vfs: object = "flex170_m4", **fields: Any) -> Sriov:
    return msgspec.convert({"mode": "fixed", "layouts": [{"select": {"pciId": "0x56c0"}, "vfs": vfs}]} | fields, Sriov)


def vf(uid: str, pf: Bdf, index: int) -> dict[str, Any]:
    return claim(uid, f"{pf[:7].replace(':', '-')}-00-{index}-0x56c0")


def kernel() -> SimKernel:
    return machines.kernel("server-8x-flex170")


def vfs(machine: SimKernel, pf: Bdf) -> int:
    return discovery.scan(machine).by_bdf()[pf].vfs_now


async def test_a_write_that_hangs_holds_up_its_own_card_only_and_is_told(autojump_clock: MockClock) -> None:
    machine = kernel()
    free = blocked(machine, f"*/{FLEX}/sriov_numvfs", "sriov")
    server = ClaimServer(vf("a", FLEX, 1), vf("b", OTHER, 1), vf("again", FLEX, 2))
    async with ClaimNode(server, kernel=machine, sriov=sriov()).running() as node:
        stuck = await node.prepare("a", deadline_seconds=1000)
        assert "making VFs of 0000:4d:00.0 has hung in the kernel" in str(stuck)
        assert not isinstance(await node.prepare("b"), str)
        assert vfs(machine, OTHER) == 4
        assert isinstance(await node.prepare("again"), str), "nothing else is tried there"
        assert node.cards.faulty == 1, "the other card is well"
        assert node.cards.stuck == 1 and any("has hung in the kernel" in fault for fault in node.faults)
        free.set()
        machine.release(f"*/{FLEX}/sriov_numvfs", "sriov")
        while isinstance(await node.prepare("a"), str):
            pass
        assert (node.cards.stuck, node.cards.faulty) == (0, 0) and vfs(machine, FLEX) == 4


async def test_a_card_that_was_slow_to_be_read_is_seen_when_it_answers(autojump_clock: MockClock) -> None:
    machine = kernel()
    free = blocked(machine, f"*/{FLEX}/sriov_drivers_autoprobe", "read")
    async with ClaimNode(ClaimServer(vf("a", FLEX, 1)), kernel=machine, sriov=sriov()).running() as node:
        await until(lambda: node.cards.stuck == 1)
        free.set()
        machine.release(f"*/{FLEX}/sriov_drivers_autoprobe", "read")
        await until(lambda: node.cards.sight.value is not None and FLEX in node.cards.sight.value.cards)
        assert not isinstance(await node.prepare("a"), str)


class Contested:
    """The kernel below a Rebinder, where vfio-pci was given the card's id (`vfio-pci.ids`) and takes it whenever it is free."""

    def __init__(self, driver: str) -> None:
        self.driver: str | None = driver
        self.done: list[str] = []

    async def __call__(self, doing: str, _work: Callable[[], Any], _seconds: float) -> Any:
        await trio.lowlevel.checkpoint()
        if doing == "looking at a function":
            return binding.Facts(bdf=FLEX, driver=self.driver)
        self.done.append(doing)
        self.driver = None if doing == "unbind" else "vfio-pci"
        return None

    def rebinder(self) -> Rebinder:
        return Rebinder(kernel(), self, trio.lowlevel.checkpoint, lambda _bdf, _step, _seconds: None)


async def test_a_driver_that_takes_a_function_again_and_again_is_named() -> None:
    below = Contested("vfio-pci")
    with pytest.raises(HardwareFault, match="vfio-pci takes it each time"):
        await below.rebinder().bind(FLEX, None)
    assert below.done == ["unbind", "probe"] * 3


async def test_a_card_that_another_driver_takes_is_not_recovered() -> None:
    below = Contested("i915")
    with pytest.raises(HardwareFault, match="was bound anew, and vfio-pci has it now"):
        await below.rebinder().recover(FLEX, "rebind")
    assert below.done == ["unbind", "probe"]


async def test_a_vf_that_gets_no_nodes_fails_its_own_claim_only(autojump_clock: MockClock) -> None:
    machine = kernel()
    machine.fail("0000:4d:00.3", "probe", errno.EIO, times=None)
    server = ClaimServer(vf("good", FLEX, 1), vf("bad", FLEX, 3))
    async with ClaimNode(server, kernel=machine, sriov=sriov()).running() as node:
        assert not isinstance(await node.prepare("good"), str)
        assert isinstance(await node.prepare("bad"), str)
        assert any("VF 3 of 0000:4d:00.0 got no driver" in fault for fault in node.faults)
        assert not isinstance(await node.prepare("good"), str)
        assert await node.unprepare("bad") is None
        assert vfs(machine, FLEX) == 4
        assert await node.unprepare("good") is None
    assert vfs(machine, FLEX) == 0


async def test_what_the_kernel_refuses_is_tried_again_in_a_minute_and_not_before(autojump_clock: MockClock) -> None:
    machine = kernel()
    machine.fail(f"*/{FLEX}/sriov_numvfs", "sriov", errno.ENOSPC, times=3)
    only = msgspec.convert({"mode": "fixed", "make": "eager", "layouts": [{"select": {"bdf": FLEX}, "vfs": "flex170_m4"}]}, Sriov)
    async with ClaimNode(ClaimServer(), kernel=machine, sriov=only).running() as node:
        begun = trio.current_time()
        while vfs(machine, FLEX) == 0:
            await node.inventory.wait_newer(node.inventory.version)
        assert trio.current_time() - begun >= 3 * cards.AGAIN_SECONDS
        assert len([step for step in node.steps if step == (FLEX, "MakeVfs")]) == 1
        assert len(node.faults) == 1, "said once"


async def test_somebody_who_takes_our_vfs_away_again_and_again_does_not_keep_us_busy(autojump_clock: MockClock) -> None:
    machine = kernel()
    owned = machine.write

    def contested(path: str, text: str) -> None:
        owned(path, text)
        if path == NUMVFS and text != "0":
            owned(path, "0")

    machine.write = contested  # type: ignore[method-assign]
    async with ClaimNode(ClaimServer(vf("a", FLEX, 1)), kernel=machine, sriov=sriov()).running() as node:
        assert "its driver made 0 of 4 VFs" in str(await node.prepare("a"))
        assert len(node.steps) < 3 * card_owner.STEPS_MAX


async def test_vfs_that_vanish_underneath_are_made_again_for_their_claims(autojump_clock: MockClock) -> None:
    machine = kernel()
    async with ClaimNode(ClaimServer(vf("a", FLEX, 2)), kernel=machine, sriov=sriov()).running() as node:
        assert not isinstance(await node.prepare("a"), str)
        await trio.sleep(1)  # the inventory has seen them
        machine.write(NUMVFS, "0")
        while vfs(machine, FLEX) == 0:
            await node.inventory.wait_newer(node.inventory.version)
        assert not isinstance(await node.prepare("a"), str)
        assert await node.unprepare("a") is None
    assert vfs(machine, FLEX) == 0


async def test_a_card_unplugged_with_vfs_in_use_leaves_nothing_that_cannot_be_released(autojump_clock: MockClock) -> None:
    machine = kernel()
    async with ClaimNode(ClaimServer(vf("a", FLEX, 2)), kernel=machine, sriov=sriov()).running() as node:
        assert not isinstance(await node.prepare("a"), str)
        machine.unplug(FLEX)
        assert await node.unprepare("a") is None
        machine.plug(FLEX)
        while FLEX in node.journal.ledger.value.carvings:
            await node.journal.ledger.wait_newer(node.journal.ledger.version)
    assert vfs(machine, FLEX) == 0


async def test_a_card_is_never_cut_while_it_is_held_as_a_whole(autojump_clock: MockClock) -> None:
    machine = kernel()
    async with ClaimNode(ClaimServer(vf("whole", FLEX, 0)), kernel=machine, sriov=sriov()).running() as node:
        assert not isinstance(await node.prepare("whole"), str)
        node.sriov.set(sriov(make="eager"))
        while vfs(machine, OTHER) == 0:
            await node.inventory.wait_newer(node.inventory.version)
        assert vfs(machine, FLEX) == 0
        assert await node.unprepare("whole") is None
        while vfs(machine, FLEX) == 0:
            await node.inventory.wait_newer(node.inventory.version)


async def test_a_card_pulled_out_in_the_middle_is_a_failure_and_no_crash(autojump_clock: MockClock) -> None:
    machine = kernel()
    owned = machine.write

    def pulled(path: str, text: str) -> None:
        owned(path, text)
        if path == NUMVFS:
            machine.unplug(FLEX)

    machine.write = pulled  # type: ignore[method-assign]
    async with ClaimNode(ClaimServer(vf("a", FLEX, 1), vf("b", OTHER, 1)), kernel=machine, sriov=sriov()).running() as node:
        assert isinstance(await node.prepare("a"), str)
        assert any("waiting for the VFs of 0000:4d:00.0 failed" in fault and "(ENOENT)" in fault for fault in node.faults)
        assert not isinstance(await node.prepare("b"), str)
        assert await node.unprepare("a") is None
        await trio.sleep(10 * cards.AGAIN_SECONDS)  # nobody is busy with a card that is gone: else this time would not pass


async def test_vfs_that_could_not_be_made_are_offered_again_when_nobody_waits_for_them(autojump_clock: MockClock) -> None:
    machine = kernel()
    machine.fail(f"*/{FLEX}/sriov_numvfs", "sriov", errno.ENOSPC)
    async with ClaimNode(ClaimServer(vf("a", FLEX, 1)), kernel=machine, sriov=sriov()).running() as node:

        def offered() -> list[str]:
            desired = node.offering.desired.value
            return [device.name for device in desired.pool.devices if device.name.startswith("0000-4d-00-")] if desired else []

        while not offered():
            await node.offering.desired.wait_newer(node.offering.desired.version)
        assert len(offered()) == 5
        assert isinstance(await node.prepare("a"), str)
        assert await node.unprepare("a") is None
        assert len(offered()) == 1, "what cannot be made is not offered"
        await trio.sleep(cards.AGAIN_SECONDS + 1)
        assert len(offered()) == 5


async def test_vfs_on_their_way_out_are_never_offered(autojump_clock: MockClock) -> None:
    only = msgspec.convert({"mode": "fixed", "make": "eager", "layouts": [{"select": {"bdf": FLEX}, "vfs": "flex170_m4"}]}, Sriov)
    machine = kernel()
    async with ClaimNode(ClaimServer(), kernel=machine, sriov=only).running() as node:
        while vfs(machine, FLEX) == 0:
            await node.inventory.wait_newer(node.inventory.version)
        await trio.sleep(1)
        node.sriov.set(Sriov())
        offered: list[list[str]] = []
        with trio.move_on_after(60):
            while True:
                await node.offering.desired.wait_newer(node.offering.desired.version)
                assert node.offering.desired.value is not None
                names = [device.name for device in node.offering.desired.value.pool.devices]
                offered.append([name for name in names if name.startswith("0000-4d-00-")])
        assert offered[-1] == ["0000-4d-00-0-0x56c0"] and set(map(len, offered)) <= {0, 1}
        assert FLEX not in node.journal.ledger.value.carvings


FOR_A_VM = {"apiVersion": "gpu.intel.com/v1alpha1", "kind": "GpuConfig", "driver": "vfio-pci"}


@pytest.mark.parametrize("claimed", ["vf", "card-for-a-vm", "vf-for-a-vm"])
@pytest.mark.parametrize("step", range(18))
async def test_a_program_that_ends_at_any_step_leaves_a_card_that_the_next_one_understands(
    claimed: str, step: int, autojump_clock: MockClock
) -> None:
    machine = kernel()
    machine.modprobe("vfio-pci")
    wanted = vf("a", FLEX, 0 if claimed == "card-for-a-vm" else 1)
    if claimed != "vf":
        wanted["status"]["allocation"]["devices"]["config"] = [{"opaque": {"driver": "gpu.intel.com", "parameters": FOR_A_VM}}]
    server = ClaimServer(wanted)
    first = ClaimNode(server, kernel=machine, sriov=sriov())
    with trio.CancelScope() as scope:
        done = 0

        def count(bdf: Bdf, name: str, seconds: float) -> None:
            nonlocal done
            done += 1
            if done > step:
                scope.cancel()

        first.cards._on_step = count
        async with first.running():
            await first.prepare("a")
            await first.unprepare("a")
    second = ClaimNode(server, kernel=machine, sriov=sriov(), disks=first.disks)
    async with second.running():
        assert not isinstance(await second.prepare("a"), str)
        assert await second.unprepare("a") is None
    assert vfs(machine, FLEX) == 0 and second.journal.ledger.value.carvings == {}
    assert discovery.scan(machine) == discovery.scan(kernel()), "as if nothing had been"


async def test_two_owners_of_one_card_in_a_rolling_update_take_nothing_from_a_claim(autojump_clock: MockClock) -> None:
    machine, server = kernel(), ClaimServer(vf("a", FLEX, 1), vf("b", FLEX, 2))
    old = ClaimNode(server, kernel=machine, sriov=sriov())
    async with old.running():
        assert not isinstance(await old.prepare("a"), str)
        new = ClaimNode(server, kernel=machine, sriov=sriov(), disks=old.disks)
        new.state = old.state
        async with new.running():
            assert not isinstance(await new.prepare("b"), str)
            assert await old.unprepare("a") is None  # the old one does not know of b
            assert vfs(machine, FLEX) == 4
            assert ClaimUid("b") in new.journal.ledger.value.claims
            assert isinstance(new.journal.ledger.value.carvings[FLEX], Carving)


async def test_a_wedged_card_is_bound_anew_when_nobody_uses_it_and_its_vfs_are_taken_away_first(autojump_clock: MockClock) -> None:
    only = msgspec.convert({"mode": "fixed", "make": "eager", "layouts": [{"select": {"bdf": FLEX}, "vfs": "flex170_m4"}]}, Sriov)
    machine = kernel()
    async with ClaimNode(ClaimServer(), kernel=machine, sriov=only).running() as node:
        while vfs(machine, FLEX) == 0:
            await node.inventory.wait_newer(node.inventory.version)
        await trio.sleep(1)
        machine.wedge(FLEX)
        while node.inventory.value.by_bdf()[FLEX].state is not State.WEDGED:
            await node.inventory.wait_newer(node.inventory.version)
        node.recoveries.set({FLEX: "rebind"})
        await trio.sleep(10)
        assert node.recovered == [(FLEX, None)]
        assert node.states_after == [State.HEALTHY], "or it would be tried again at once"
        steps = [step for bdf, step in node.steps if bdf == FLEX]
        assert steps[3:] == ["RemoveVfs", "Provision", "Remember", "Unbind", "Probe", "Remember", "Provision", "MakeVfs"]
        assert vfs(machine, FLEX) == 4


@pytest.mark.parametrize("used", ["card", "vf"])
async def test_a_card_that_a_claim_holds_is_never_bound_anew(used: str, autojump_clock: MockClock) -> None:
    machine = kernel()
    server = ClaimServer(vf("a", FLEX, 1) if used == "vf" else claim("a", "0000-4d-00-0-0x56c0"))
    async with ClaimNode(server, kernel=machine, sriov=sriov()).running() as node:
        assert not isinstance(await node.prepare("a"), str)
        node.recoveries.set({FLEX: "bus-reset"})
        await trio.sleep(10)
        assert node.recovered == [(FLEX, "0000:4d:00.0 or VFs of it are held by claim a")]
        assert (FLEX, "Unbind") not in node.steps and vfs(machine, FLEX) == (4 if used == "vf" else 0)


async def test_vfs_of_somebody_else_keep_their_wedged_card_bound(autojump_clock: MockClock) -> None:
    machine = kernel()
    theirs = Bdf("0000:2c:00.0")
    async with ClaimNode(ClaimServer(), kernel=machine).running() as node:
        assert vfs(machine, theirs) == 4
        node.recoveries.set({theirs: "rebind"})
        await trio.sleep(10)
        [(_, why)] = node.recovered
        assert "4 VFs that somebody else made" in str(why) and vfs(machine, theirs) == 4


async def test_a_reset_that_the_kernel_refuses_leaves_the_card_bound(autojump_clock: MockClock) -> None:
    machine = kernel()
    machine.fail(f"*/{OTHER}/reset", "reset", errno.ENOTTY)
    async with ClaimNode(ClaimServer(), kernel=machine).running() as node:
        node.recoveries.set({OTHER: "bus-reset"})
        await trio.sleep(10)
        [(_, why)] = node.recovered
        assert "reset" in str(why) and "ENOTTY" in str(why)
        assert discovery.scan(machine).by_bdf()[OTHER].driver == "i915"

"""The power is cut at durable steps and writes to the kernel, and calls are cut off at every step, in the lives of classic claims: the next
life or the next call finishes what was begun, and nothing is left of it in the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
import trio.testing

from dra import discovery
from dra.devices import Kind
from dra.names import Bdf
from dra.sim_kernel.kernel import SimKernel
from tests.fakes import machines
from tests.fakes.at_step import AtStep, armed
from tests.fakes.claim_node import Disks
from tests.fakes.classic_node import ClassicNode, count, text, vfs, whole
from tests.fakes.cut_kernel import CutKernel
from tests.fakes.kube_api import until
from tests.fakes.state_dir import Power, PowerCut

ONE, TWO = "0000:4d:00.0", "0000:5d:00.0"
CARD, OTHER = f"{ONE}-0x56c0", f"{TWO}-0x56c0"
LAYOUT = (("flex170_m2", 1), ("flex170_m8", 2))
HANDLES = {
    "a": text(vfs(CARD, (1,), *LAYOUT)),
    "b": text(vfs(CARD, (3,), *LAYOUT), vfs(OTHER, (1,), ("flex170_m4", 2))),
    "rival": text(vfs(CARD, (2,), ("flex170_m4", 4))),
    "card": text(whole(CARD)),
}
BEFORE_IT_IS_HOPELESS = 400


Story = Callable[[ClassicNode], Awaitable[None]]


def kernel() -> CutKernel:
    made = CutKernel.load(machines.document("server-8x-flex170"))
    for gpu in discovery.scan(made).gpus:
        if gpu.kind is Kind.PF and gpu.bdf not in (ONE, TWO):
            made.unplug(gpu.bdf)
    return made


def is_clean(machine: SimKernel) -> bool:
    cards = {pf: discovery.scan(machine).by_bdf()[Bdf(pf)].card for pf in (ONE, TWO)}
    quotas = [f"sys/bus/pci/devices/{pf}/drm/card{cards[pf]}/prelim_iov/vf{vf}/gt/lmem_quota" for pf in cards for vf in (1, 2, 3)]
    return count(machine, ONE) == count(machine, TWO) == 0 and all(machine.read(path) == "0\n" for path in quotas)


async def prepare_both(node: ClassicNode) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.prepare, "a")
        nursery.start_soon(node.prepare, "b")


async def unprepare_both(node: ClassicNode) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.unprepare, "a")
        nursery.start_soon(node.unprepare, "b")


def live(machine: CutKernel, disks: Disks, power: Power, *stories: Story, boot: str = "boot-1") -> None:
    """Until the stories are over or the power is cut."""

    async def life() -> None:
        async with ClassicNode(HANDLES, kernel=machine, disks=disks, power=power, boot=boot).running() as node:
            for story in stories:
                await story(node)

    machine.power = power
    try:
        trio.run(life, clock=trio.testing.MockClock(autojump_threshold=0))
    except PowerCut:
        return
    except BaseExceptionGroup as group:
        if group.subgroup(PowerCut) is None:
            raise


async def finish(node: ClassicNode) -> None:
    """What the kubelet asks sooner or later, and who must not get in between."""
    for uid in ("a", "b"):
        assert not isinstance(answer := await node.prepare(uid), str), answer
    for uid in ("rival", "card"):
        assert isinstance(await node.prepare(uid), str)
    for uid in ("a", "b"):
        assert await node.unprepare(uid) is None
    for uid in ("rival", "card"):
        assert not isinstance(answer := await node.prepare(uid), str), answer
        assert await node.unprepare(uid) is None
    await until(lambda: node.journal.ledger.value.carvings == {})
    assert node.journal.ledger.value.claims == {}


@pytest.mark.slow
@pytest.mark.parametrize("reboot", [False, True], ids=["same-boot", "reboot"])
def test_cut_at_every_point_of_two_claims_on_one_card(reboot: bool) -> None:
    whole_life, machine, disks = Power(), kernel(), Disks()
    live(machine, disks, whole_life, prepare_both, unprepare_both)
    assert whole_life.points > 50 and is_clean(machine)
    for point in range(0, whole_life.points, 3):  # every third: each durable step has three points, each write to the kernel two
        machine, disks = kernel(), Disks()
        live(machine, disks, Power(cut_at=point), prepare_both, unprepare_both)
        if reboot:
            machine.reboot("22222222-0000-4000-8000-000000000002")
            for gpu in discovery.scan(machine).gpus:
                if gpu.kind is Kind.PF and gpu.bdf not in (ONE, TWO):
                    machine.unplug(gpu.bdf)
            disks.reboot()
        live(machine, disks, Power(), finish, boot="boot-2" if reboot else "boot-1")
        assert is_clean(machine) and disks.cdi == {}, point


@pytest.mark.slow
def test_a_caller_that_goes_away_at_any_step_finds_the_work_done_or_going_on_when_it_comes_back() -> None:
    async def story(step: int) -> bool:
        """Whether the call was cut off in the middle."""
        machine = kernel()
        async with ClassicNode(HANDLES, kernel=machine).running() as node:
            with trio.CancelScope() as scope:
                at = AtStep(step, scope.cancel)
                with armed(at):
                    await node.prepare("b")
            assert not isinstance(await node.prepare("b"), str)
            assert await node.unprepare("b") is None
            await until(lambda: node.journal.ledger.value.carvings == {})
        assert is_clean(machine)
        return at.fired

    steps = 0
    while trio.run(partial(story, steps + 1), clock=trio.testing.MockClock(autojump_threshold=0)):
        steps += 1
        assert steps < BEFORE_IT_IS_HOPELESS
    assert steps > 20

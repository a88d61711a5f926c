"""What is awaited, what is removed, and that dying anywhere on the way comes to the same end."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial

import msgspec
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from dra import discovery
from dra.decommissioning import Stage
from dra.devices import Kind
from dra.names import Bdf
from dra.sriov_settings import Sriov
from tests.fakes import machines
from tests.fakes.claim_node import ClaimNode, Disks, gpu
from tests.fakes.claim_server import ClaimServer, claim
from tests.fakes.cut_kernel import CutKernel
from tests.fakes.kube_api import until
from tests.fakes.state_dir import Power, PowerCut

FLEX, LENT = Bdf("0000:4d:00.0"), Bdf("0000:ac:00.0")
SRIOV = msgspec.convert(
    {"mode": "fixed", "make": "eager", "keep": "keep", "layouts": [{"select": {"bdf": FLEX}, "vfs": "flex170_m4"}]}, Sriov
)
VFIO = {"apiVersion": "gpu.intel.com/v1alpha1", "kind": "GpuConfig", "driver": "vfio-pci"}


def name(pf: str, index: int = 0) -> str:
    return f"{pf[:7].replace(':', '-')}-00-{index}-0x56c0"


def flex() -> CutKernel:
    """Only the cards of the story: fewer are scanned sooner."""
    made = CutKernel.load(machines.document("server-8x-flex170"))
    for found in discovery.scan(made).gpus:
        if found.kind is Kind.PF and found.bdf not in (FLEX, LENT):
            made.unplug(found.bdf)
    made.modprobe("vfio-pci")
    return made


def server() -> ClaimServer:
    config = [{"opaque": {"driver": "gpu.intel.com", "parameters": VFIO}}]
    return ClaimServer(claim("vf", name(FLEX, 1)), claim("vm", name(LENT), config=config), claim("late", name(FLEX, 2)))


def vfs(kernel: CutKernel) -> int:
    return discovery.scan(kernel).by_bdf()[FLEX].vfs_now


async def test_new_claims_are_refused_and_known_ones_are_answered(autojump_clock: MockClock) -> None:
    cards = gpu(1), gpu(2)
    claims = ClaimServer(claim("a", cards[0].name), claim("b", cards[1].name))
    async with ClaimNode(claims, *cards).running() as node:
        first = await node.prepare("a")
        node.set_decommission(True)
        assert "about to be removed" in str(await node.prepare("b"))
        assert await node.prepare("a") == first
        await until(lambda: node.stage.value is Stage.DRAINING)
        assert node.said[-1][0] == "Decommissioning" and "claim default/a" in node.said[-1][1]
        assert await node.unprepare("a") is None
        await until(lambda: node.stage.value is Stage.CLEAN)
        assert "about to be removed" in str(await node.prepare("a"))
        assert (node.disks.state, node.disks.cdi) == ({}, {})
        node.set_decommission(False)
        assert not isinstance(await node.prepare("b"), str)
        assert [reason for reason, _ in node.said] == ["Decommissioning", "Decommissioned", "BackInService"]
        assert "journal" in node.disks.state


async def test_a_node_goes_back_into_service_when_its_files_can_be_written_again(autojump_clock: MockClock) -> None:
    async with ClaimNode(ClaimServer(), gpu(1), decommission=True).running() as node:
        await until(lambda: node.stage.value is Stage.CLEAN)
        node.state.fail = lambda operation, _name: errno.EROFS if operation == "replace" else None
        node.set_decommission(False)
        await until(lambda: node.said[-1][0] == "DecommissionFailed")
        assert "cannot go back into service yet" in node.said[-1][1] and node.stage.value is Stage.CLEAN
        node.state.fail = lambda _operation, _name: None
        await until(lambda: node.said[-1][0] == "BackInService")
        assert node.stage.value is Stage.IN_SERVICE


async def test_a_claim_on_its_way_when_the_setting_comes_is_refused_at_the_journal(autojump_clock: MockClock) -> None:
    card = gpu(1)
    claims = ClaimServer(claim("a", card.name))
    async with ClaimNode(claims, gpu(2)).running() as node, trio.open_nursery() as nursery:
        answers: list[object] = []

        async def ask() -> None:
            answers.append(await node.prepare("a"))

        nursery.start_soon(ask)
        await trio.sleep(1)  # it waits for its card
        node.set_decommission(True)
        node.inventory.set(msgspec.structs.replace(node.inventory.value, gpus=(gpu(1), gpu(2))))
        await until(lambda: bool(answers))
        assert "about to be removed" in str(answers[0])
        assert node.disks.state == {}


async def test_a_card_that_is_gone_for_good_is_not_waited_for(autojump_clock: MockClock) -> None:
    kernel = flex()
    async with ClaimNode(server(), kernel=kernel, sriov=SRIOV).running() as node:
        await until(lambda: vfs(kernel) == 4)
        kernel.unplug(FLEX)
        await until(lambda: FLEX not in node.inventory.value.by_bdf())
        assert FLEX in node.journal.ledger.value.carvings
        node.set_decommission(True)
        await until(lambda: node.stage.value is Stage.CLEAN)
        assert node.disks.state == {}


async def test_a_file_that_cannot_be_removed_is_named_and_tried_again(autojump_clock: MockClock) -> None:
    card = gpu(1)
    async with ClaimNode(ClaimServer(claim("a", card.name)), card).running() as node:
        await node.prepare("a")
        await node.unprepare("a")
        node.state.fail = lambda operation, file: errno.EROFS if (operation, file) == ("remove", "journal") else None
        node.set_decommission(True)
        await until(lambda: bool(node.said))
        assert node.said[-1][0] == "DecommissionFailed" and "journal" in node.said[-1][1]
        assert node.stage.value is Stage.DRAINING
        node.state.fail = lambda operation, file: None
        await until(lambda: node.stage.value is Stage.CLEAN)
        assert node.disks.state == {}


async def test_files_of_others_stay(autojump_clock: MockClock) -> None:
    disks = Disks()
    theirs = {"nvidia.yaml": b"n", "intel.com-gpu.yaml": b"the original's"}
    disks.cdi |= theirs | {"intel.com-gpu_lost.json": b"{}"}
    disks.state |= {"preparedClaims.json.imported": b"{}", "dra-kind": b"structured\n", "health": b"{}"}
    disks.metadata["lost_gpu.json"] = b"{}"
    async with ClaimNode(ClaimServer(), gpu(1), disks=disks, decommission=True).running() as node:
        assert node.stage.value is Stage.CLEAN, "known before anything is published"
        assert (disks.cdi, disks.state, disks.metadata) == (theirs, {}, {})


# --- dying on the way -------------------------------------------------------------------------------------------------------------------


async def _drain(kernel: CutKernel, disks: Disks, power: Power, *, ask: bool, begun: list[int]) -> None:
    kernel.power = power
    async with ClaimNode(server(), disks=disks, power=power, kernel=kernel, sriov=SRIOV, decommission=not ask).running() as node:
        if ask:
            await until(lambda: vfs(kernel) == 4)
            for uid in ("vf", "vm"):
                assert not isinstance(await node.prepare(uid), str)
            begun.append(power.points)
            node.set_decommission(True)
        for uid in ("vf", "vm"):
            await node.unprepare(uid)
        while node.stage.value is not Stage.CLEAN:
            await node.stage.wait_newer(node.stage.version)
        assert (disks.state, disks.cdi, disks.metadata) == ({}, {}, {}), "nothing is said to be gone before it is"
        assert vfs(kernel) == 0 and discovery.scan(kernel).by_bdf()[LENT].driver == "i915"
        assert isinstance(await node.prepare("late"), str)


def live(kernel: CutKernel, disks: Disks, power: Power, *, ask: bool, begun: list[int]) -> bool:
    """Whether it came to its end; `begun` is told the point at which the setting came."""
    try:
        trio.run(partial(_drain, kernel, disks, power, ask=ask, begun=begun), clock=trio.testing.MockClock(autojump_threshold=0))
    except PowerCut:
        return False
    except BaseExceptionGroup as group:
        if group.subgroup(PowerCut) is None:
            raise
        return False
    return True


@pytest.mark.slow
def test_cut_at_every_point(figure: Callable[[str, int], None]) -> None:
    whole, begun = Power(), list[int]()
    assert live(flex(), Disks(), whole, ask=True, begun=begun)
    for point in range(begun[0], whole.points):
        kernel, disks = flex(), Disks()
        assert not live(kernel, disks, Power(cut_at=point), ask=True, begun=[])
        assert live(kernel, disks, Power(), ask=False, begun=[])
    figure("decommission, power cut: points", whole.points - begun[0])

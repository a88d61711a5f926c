"""The process dies before and after every write to the journal and to the kernel while cards are cut, made whole, lent and given back; or
the power goes. The next life leaks no VF and no quota, strands no GPU in vfio, and gives no device to two claims."""

from __future__ import annotations

import copy
import functools
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from dra import discovery
from dra.devices import Kind
from dra.names import Bdf, ClaimUid
from dra.sim_kernel.kernel import SimKernel
from dra.sriov_settings import Sriov
from tests.fakes import machines
from tests.fakes.claim_node import ClaimNode, Disks
from tests.fakes.claim_server import ClaimServer, claim
from tests.fakes.state_dir import Power, PowerCut

ONE, TWO, LENT = Bdf("0000:4d:00.0"), Bdf("0000:5d:00.0"), Bdf("0000:ac:00.0")
CUT = msgspec.convert(
    {"mode": "fixed", "layouts": [{"select": {"bdf": ONE}, "vfs": "flex170_m4"}, {"select": {"bdf": TWO}, "vfs": "flex170_m2"}]}, Sriov
)
WANTS_VFIO = {"apiVersion": "gpu.intel.com/v1alpha1", "kind": "GpuConfig", "driver": "vfio-pci"}
VFIO = [{"opaque": {"driver": "gpu.intel.com", "parameters": WANTS_VFIO}}]


def name(pf: Bdf, index: int) -> str:
    return f"{pf[:7].replace(':', '-')}-00-{index}-0x56c0"


def server() -> ClaimServer:
    return ClaimServer(
        claim("a", name(ONE, 1)),
        claim("b", name(ONE, 2), name(TWO, 1)),
        claim("vm", name(LENT, 0), config=VFIO),
        claim("rival", name(ONE, 0)),
    )


class CutKernel(SimKernel):
    """A kernel whose callers can be gone before a write, or after it and before they know."""

    power = Power()

    def write(self, path: str, text: str) -> None:
        self._point()
        super().write(path, text)
        self._point()

    def _point(self) -> None:
        if self.power.point():
            raise PowerCut


def kernel() -> CutKernel:
    made = CutKernel.load(machines.document("server-8x-flex170"))
    prepare_machine(made)
    return made


def prepare_machine(machine: CutKernel) -> None:
    """Only the cards of the story: fewer are scanned sooner."""
    for gpu in discovery.scan(machine).gpus:
        if gpu.kind is Kind.PF and gpu.bdf not in (ONE, TWO, LENT):
            machine.unplug(gpu.bdf)
    machine.modprobe("vfio-pci")


Story = Callable[[ClaimNode], Awaitable[None]]


async def prepare_all(node: ClaimNode) -> None:
    async with trio.open_nursery() as nursery:
        for uid in ("a", "b", "vm"):
            nursery.start_soon(node.prepare, uid)


async def unprepare_all(node: ClaimNode) -> None:
    async with trio.open_nursery() as nursery:
        for uid in ("a", "b", "vm"):
            nursery.start_soon(node.unprepare, uid)


async def _live(machine: CutKernel, disks: Disks, story: Story, power: Power, boot: str = "boot-1") -> None:
    machine.power = power
    async with ClaimNode(server(), disks=disks, power=power, boot=boot, kernel=machine, sriov=CUT).running() as node:
        await story(node)


def live_until_cut(machine: CutKernel, disks: Disks, story: Story, power: Power) -> None:
    try:
        trio.run(partial(_live, machine, disks, story, power), clock=trio.testing.MockClock(autojump_threshold=0))
    except PowerCut:
        return
    except BaseExceptionGroup as group:
        if group.subgroup(PowerCut) is None:
            raise


async def _afterwards(machine: CutKernel, disks: Disks, boot: str) -> None:
    async with ClaimNode(server(), disks=disks, boot=boot, kernel=machine, sriov=CUT).running() as node:
        held: list[str] = [grant.device for record in node.journal.ledger.value.records() for grant in record.grants]
        assert len(held) == len(set(held)), "a device is held twice"
        if ClaimUid("a") in node.journal.ledger.value.claims:
            assert "held by claim" in str(await node.prepare("rival"))
            await node.unprepare("rival")
        for uid in ("a", "b", "vm"):
            assert not isinstance(answer := await node.prepare(uid), str), answer
        assert "held by claim" in str(await node.prepare("rival"))
        for uid in ("rival", "a", "b", "vm"):
            assert await node.unprepare(uid) is None
    assert dict(node.journal.ledger.value.claims) == {} and dict(node.journal.ledger.value.carvings) == {}
    assert (disks.cdi, disks.metadata) == ({}, {})
    assert machine_of(machine) == untouched(), "something is left in the kernel"


def machine_of(machine: SimKernel) -> dict[str, Any]:
    """What must be as before: VFs, quotas, drivers, overrides."""
    found: dict[str, Any] = {}
    for gpu in discovery.scan(machine).gpus:
        if gpu.kind is Kind.PF:
            base = f"sys/bus/pci/devices/{gpu.bdf}"
            quotas = [machine.read(f"{base}/drm/card{gpu.card}/prelim_iov/vf{vf}/gt/lmem_quota") for vf in range(1, 32)]
            auto = machine.read(f"{base}/drm/card{gpu.card}/prelim_iov/pf/auto_provisioning")
            found[gpu.bdf] = (gpu.driver, gpu.vfs_now, quotas, auto, machine.read(f"{base}/driver_override"))
    return found


@functools.cache
def untouched() -> dict[str, Any]:
    return machine_of(kernel())


def prepared() -> tuple[CutKernel, Disks]:
    machine, disks = kernel(), Disks()
    live_until_cut(machine, disks, prepare_all, Power())
    return machine, disks


@pytest.mark.slow
@pytest.mark.parametrize("reboot", [False, True], ids=["same-boot", "reboot"])
@pytest.mark.parametrize("story", [prepare_all, unprepare_all], ids=["carve-and-bind", "uncarve-and-restore"])
def test_cut_at_every_point(story: Story, reboot: bool, figure: Callable[[str, int], None], request: pytest.FixtureRequest) -> None:
    whole = Power()
    machine, disks = prepared() if story is unprepare_all else (kernel(), Disks())
    saved = copy.deepcopy(disks)
    live_until_cut(machine, disks, story, whole)
    assert whole.points > 50
    points = range(0, whole.points, 2 if reboot else 1)  # half of them tell as much: nothing of the hardware outlives a reboot
    for point in points:
        machine, disks = prepared() if story is unprepare_all else (kernel(), copy.deepcopy(saved))
        live_until_cut(machine, disks, story, Power(cut_at=point))
        machine.power = Power()
        if reboot:
            machine.reboot("22222222-0000-4000-8000-000000000002")
            prepare_machine(machine)
            disks.reboot()
        trio.run(partial(_afterwards, machine, disks, "boot-2" if reboot else "boot-1"), clock=trio.testing.MockClock(autojump_threshold=0))
    figure(f"card power cut, {request.node.callspec.id}: points", len(points))

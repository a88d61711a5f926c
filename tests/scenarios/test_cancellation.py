"""Cancellation at every checkpoint of prepare and unprepare, from every side it can come from.

Whoever is cut off, the claim is afterwards either clean or finished by the kubelet's next call, and so are the cards that were being cut,
made whole, lent or taken back for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from dra import discovery
from dra.names import Bdf, ClaimUid
from dra.sim_kernel.kernel import SimKernel
from dra.sriov_settings import Sriov
from nursery_apps.node.claim_desk import PreparedReply
from tests.fakes import claim_node, machines
from tests.fakes.at_step import AtStep, armed
from tests.fakes.claim_node import ClaimNode, Disks
from tests.fakes.claim_server import ClaimServer, claim

G1 = claim_node.gpu(1)
CARD = Bdf("0000:18:00.0")
CUT = msgspec.convert({"mode": "fixed", "layouts": [{"select": {"bdf": CARD}, "vfs": "b60_n4"}]}, Sriov)
FOR_A_VM = {"apiVersion": "gpu.intel.com/v1alpha1", "kind": "GpuConfig", "driver": "vfio-pci"}
WANTED: dict[str, dict[str, Any]] = {
    "gpu": claim("a", G1.name),
    "vf": claim("a", "0000-18-00-2-0xe211"),
    "card-for-a-vm": claim("a", "0000-18-00-0-0xe211", config=[{"opaque": {"driver": "gpu.intel.com", "parameters": FOR_A_VM}}]),
}
VIRTUAL_SECONDS = 600.0
"""Longer than any wait of the driver: who gets here is stranded."""
LATEST_STEP = 400
"""No operation takes as many scheduler steps; reaching it means that the counting is broken."""


def machine() -> SimKernel:
    kernel = machines.kernel("server-4x-b60")
    for gpu in discovery.scan(kernel).gpus:
        if gpu.bdf != CARD:  # fewer are scanned sooner
            kernel.unplug(gpu.bdf)
    kernel.modprobe("vfio-pci")
    return kernel


def traces(kernel: SimKernel) -> object:
    """What a claim leaves on a machine while it lasts, and nothing may leave after it."""
    base = f"sys/bus/pci/devices/{CARD}"
    quotas = [kernel.read(f"{base}/sriov_admin/vf{index}/profile/vram_quota") for index in range(1, 25)]
    return discovery.scan(kernel), quotas, kernel.read(f"{base}/driver_override")


class Scene:
    """What outlives the program: its disks, and the kernel."""

    def __init__(self, wanted: str) -> None:
        self.disks = Disks()
        self.kernel = None if wanted == "gpu" else machine()
        self._server = ClaimServer(WANTED[wanted])

    def life(self) -> contextlib.AbstractAsyncContextManager[ClaimNode]:
        gpus = (G1,) if self.kernel is None else ()
        return ClaimNode(self._server, *gpus, disks=self.disks, kernel=self.kernel, sriov=CUT).running()

    def is_clean(self) -> bool:
        return self.disks.cdi == {} and (self.kernel is None or traces(self.kernel) == traces(machine()))


class SiblingFailed(Exception):
    """Some other task of the program crashed."""


async def _do(node: ClaimNode, verb: str) -> PreparedReply | str | None:
    return await (node.prepare("a") if verb == "prepare" else node.unprepare("a"))


async def _begin(node: ClaimNode, verb: str) -> None:
    if verb == "unprepare":
        assert not isinstance(await node.prepare("a"), str)


async def _until_idle(node: ClaimNode) -> None:
    """Cards are made whole after the claim's end."""
    while node.journal.ledger.value.carvings and not node.journal.ledger.value.claims:
        await node.journal.ledger.wait_newer(node.journal.ledger.version)


async def _client_gone(scene: Scene, verb: str, step: int) -> bool:
    """The caller is cancelled (deadline, reset stream); the program lives on and the kubelet asks again."""
    async with scene.life() as node:
        await _begin(node, verb)
        with trio.CancelScope() as caller:
            at = AtStep(step, caller.cancel)
            with armed(at):
                await _do(node, verb)
        await _retry_and_check(scene, node, verb)
    return at.fired


async def _stopped(scene: Scene, verb: str, step: int) -> bool:
    """SIGTERM with no grace at all: everything is cancelled at once; the next life is asked again."""
    with trio.CancelScope() as everything:
        at = AtStep(step, everything.cancel)
        async with scene.life() as node:
            await _begin(node, verb)
            with armed(at):
                await _do(node, verb)
                await _until_idle(node)
    await _next_life(scene, verb)
    return at.fired


async def _sibling_failed(scene: Scene, verb: str, step: int) -> bool:
    """Another task crashes: the program goes down without grace; the next life is asked again."""
    now = trio.Event()
    at = AtStep(step, now.set)

    async def sibling() -> None:
        await now.wait()
        raise SiblingFailed

    try:
        async with trio.open_nursery() as program:
            async with scene.life() as node:
                await _begin(node, verb)
                program.start_soon(sibling)
                with armed(at):
                    await _do(node, verb)
                    await _until_idle(node)
            program.cancel_scope.cancel()
    except* SiblingFailed:
        pass
    await _next_life(scene, verb)
    return at.fired


async def _next_life(scene: Scene, verb: str) -> None:
    async with scene.life() as node:
        await _retry_and_check(scene, node, verb)


async def _retry_and_check(scene: Scene, node: ClaimNode, verb: str) -> None:
    if verb == "prepare":
        answer = await node.prepare("a")
        assert not isinstance(answer, str), answer
        assert len(node.disks.cdi) == 1
        assert ClaimUid("a") in node.journal.ledger.value.claims
    assert await node.unprepare("a") is None
    assert dict(node.journal.ledger.value.claims) == {}
    await _until_idle(node)
    await trio.testing.wait_all_tasks_blocked()
    assert node.desk.busy() == 0
    assert scene.is_clean()


Side = Callable[[Scene, str, int], Awaitable[bool]]


async def _in_time(side: Side, scene: Scene, verb: str, step: int) -> bool:
    with trio.fail_after(VIRTUAL_SECONDS):
        return await side(scene, verb, step)


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("verb", ["prepare", "unprepare"])
@pytest.mark.parametrize("side", [_client_gone, _stopped, _sibling_failed], ids=["client-gone", "sigterm", "sibling-failed"])
def test_cancelled_at_every_step(
    side: Side, verb: str, wanted: str, figure: Callable[[str, int], None], request: pytest.FixtureRequest
) -> None:
    step = 0
    while step < LATEST_STEP:
        step += 1
        if not trio.run(partial(_in_time, side, Scene(wanted), verb, step), clock=trio.testing.MockClock(autojump_threshold=0)):
            break
    assert 5 < step < LATEST_STEP
    figure(f"cancellation, {request.node.callspec.id}: steps", step - 1)

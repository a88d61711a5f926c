"""What the original classic driver did wrong on nodes, each as the user would meet it here."""

from __future__ import annotations

import errno
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dra import discovery, vf_quotas
from dra.classic.handle import Part
from dra.devices import Kind, VfPlaces
from dra.names import Bdf
from dra.sim_kernel.kernel import SimKernel
from nursery_apps.latest import Latest
from nursery_apps.node.classic.state import StatePublisher
from nursery_apps.node.own_node import OwnNode
from nursery_apps.seams import Conflict
from tests.fakes import classic_node, machines
from tests.fakes.claim_node import Disks, gpu
from tests.fakes.classic_node import NAMESPACE, NODE_NAME, ClassicNode, count, text, vfs, whole
from tests.fakes.kube_api import until
from tests.fakes.vf_cards import MAX_1550

ONE, TWO = "0000:4d:00.0", "0000:5d:00.0"
CARD, OTHER = f"{ONE}-0x56c0", f"{TWO}-0x56c0"
M4, M8 = ("flex170_m4", 4), ("flex170_m8", 8)


def flex() -> SimKernel:
    """The cards of the stories: fewer are scanned sooner."""
    kernel = machines.kernel("server-8x-flex170")
    for found in discovery.scan(kernel).gpus:
        if found.kind is Kind.PF and found.bdf not in (ONE, TWO):
            kernel.unplug(found.bdf)
    return kernel


def quotas(kernel: SimKernel, pf: str) -> set[str]:
    """Quotas of memory that are not nought."""
    card = discovery.scan(kernel).by_bdf()[Bdf(pf)].card
    paths = [f"sys/bus/pci/devices/{pf}/drm/card{card}/prelim_iov/vf{vf}/gt/lmem_quota" for vf in range(1, 32)]
    return {path for path in paths if kernel.read(path) != "0\n"}


def holders(node: ClassicNode) -> set[str]:
    return set(node.journal.ledger.value.claims)


async def test_s3_many_calls_at_once_do_not_disturb_each_other(autojump_clock: MockClock) -> None:
    """Maps were read and written by concurrent calls without a lock."""
    kernel = flex()
    handles = {f"a{index}": text(vfs(CARD, (index,), M8)) for index in range(1, 9)}
    handles |= {f"b{index}": text(vfs(OTHER, (index,), M4)) for index in range(1, 5)}
    async with ClassicNode(handles, kernel=kernel).running() as node:
        for _ in range(2):
            replies = await node.desk.prepare([node.ref(uid) for uid in handles], 45)
            assert not [reply for reply in replies.values() if isinstance(reply, str)]
            assert len({device.cdi_ids for reply in replies.values() for device in reply}) == 12  # type: ignore[union-attr]
            async with trio.open_nursery() as nursery:
                for uid in handles:
                    nursery.start_soon(node.unprepare, uid)
                    nursery.start_soon(node.unprepare, uid)
            assert holders(node) == set()
    assert (count(kernel, ONE), count(kernel, TWO)) == (0, 0)


async def test_s4_somebody_who_writes_the_same_object_holds_up_no_pod(autojump_clock: MockClock) -> None:
    """Cards were cut inside a loop of get, modify and update: after a conflict the second round refused what the first had made."""
    server = classic_node.api()
    server.failures = [("*", Conflict(409, "Conflict", "changed meanwhile"))] * 1000
    kernel = flex()
    async with ClassicNode({"a": text(vfs(CARD, (1,), M4))}, kernel=kernel, server=server).running() as node:
        first = await node.cdi_ids("a")
        assert await node.cdi_ids("a") == first and count(kernel, ONE) == 4


async def test_s4_the_nodes_own_writes_never_conflict(autojump_clock: MockClock) -> None:
    """Every writer replaced the whole object, so each was in the others' way."""
    server = classic_node.api()
    server.put("gpuallocationstates", {"metadata": {"name": NODE_NAME}, "spec": {}}, namespace=NAMESPACE)
    taken: list[object] = []

    async def take_over(stored: object) -> None:
        # Somebody else writes between our look and our write.
        await trio.lowlevel.checkpoint()
        body = server.objects["gpuallocationstates", NAMESPACE, NODE_NAME]
        spec = body["spec"] | {"taintedDevices": {"x": {"reason": str(len(taken))}}}
        if len(taken) < 3:
            server.put("gpuallocationstates", body | {"spec": spec}, namespace=NAMESPACE)
        taken.append(stored)

    publisher = StatePublisher(
        server, NODE_NAME, NAMESPACE, node=Latest(OwnNode("u")), desired=Latest({}), take_over=take_over, random=lambda: 0.5
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(publisher.run)
        await until(lambda: publisher.status.value.in_sync)
        nursery.cancel_scope.cancel()
    stored = server.objects["gpuallocationstates", NAMESPACE, NODE_NAME]
    assert stored["spec"]["taintedDevices"] == {"x": {"reason": "2"}}


async def test_s5_vfs_that_cannot_be_removed_are_removed_later(autojump_clock: MockClock) -> None:
    """The claim was forgotten before its VFs went: when that failed nobody tried again, and the GPU was lost."""
    kernel = flex()
    handles = {"a": text(vfs(CARD, (1,), M4)), "b": text(whole(CARD))}
    async with ClassicNode(handles, kernel=kernel).running() as node:
        await node.cdi_ids("a")
        kernel.fail(f"*/{ONE}/sriov_numvfs", "write", errno.EBUSY, times=2)
        assert await node.unprepare("a") is None
        await trio.sleep(1)
        assert count(kernel, ONE) == 4 and "cannot take" in node.faults[0]
        await trio.sleep(300)
        assert count(kernel, ONE) == 0
        assert quotas(kernel, ONE) == set()
        await node.cdi_ids("b")


async def test_s6_a_claim_of_two_cards_leaves_none_half_made(autojump_clock: MockClock) -> None:
    """A failure on the second card left the first one cut and unannounced, or the quotas set."""
    kernel = flex()
    kernel.fail(f"*/{TWO}/sriov_numvfs", "sriov", errno.EIO, times=1)
    async with ClassicNode({"a": text(vfs(CARD, (1,), M4), vfs(OTHER, (1,), M4))}, kernel=kernel).running() as node:
        assert TWO in str(await node.prepare("a"))
        await until(lambda: node.journal.ledger.value.carvings == {})
        assert (count(kernel, ONE), count(kernel, TWO)) == (0, 0)
        assert quotas(kernel, ONE) | quotas(kernel, TWO) == set() and holders(node) == set()


async def test_s8_a_vf_that_cannot_be_placed_is_never_given_away_as_a_gpu(autojump_clock: MockClock) -> None:
    """Its parent could not be read, so it was offered as a whole GPU."""
    stray = gpu(1, kind=Kind.VF, parent=None, vf_index=None)
    async with ClassicNode({}, stray, gpu(2)).running() as node:
        await until(lambda: node.published(f"{gpu(2).bdf}-0x56c0") is not None)
        assert node.published(f"{stray.bdf}-0x56c0") is None


async def test_s10_a_claim_is_prepared_when_its_own_pod_comes_and_for_nobody_else(autojump_clock: MockClock) -> None:
    """The first prepare took in all other claims of the card and renumbered them: some were then held by nobody and their VFs for ever."""
    kernel = flex()
    handles = {"third": text(vfs(CARD, (3,), M4)), "first": text(vfs(CARD, (1,), M4), vfs(OTHER, (1,), M4))}
    async with ClassicNode(handles, kernel=kernel).running() as node:
        (third,) = await node.cdi_ids("third")
        assert third.endswith("-4d-00-3-0x56c0") and holders(node) == {"third"}
        assert len(await node.cdi_ids("first")) == 2
        await node.unprepare("first")
        await node.unprepare("third")
        await until(lambda: count(kernel, ONE) == 0)


@pytest.mark.parametrize(
    ("layout", "refusal"),
    [
        ((("flex170_m4", 40),), "40 VFs are more than the 31"),
        ((("flex170_m4", 4), ("flex170_m8", 1)), "bytes of memory"),
        ((("flex140_m3", 1),), "is for 0x56c1"),
    ],
)
async def test_s11_a_layout_that_cannot_be_is_refused_with_the_reason(
    layout: tuple[tuple[str, int], ...], refusal: str, autojump_clock: MockClock
) -> None:
    """Nobody counted: the kernel refused the write, or the plugin looked for ever for a profile that the model does not have."""
    kernel = flex()
    async with ClassicNode({"a": text(vfs(CARD, (1,), *layout))}, kernel=kernel).running() as node:
        assert refusal in str(await node.prepare("a"))
        assert count(kernel, ONE) == 0 and holders(node) == set()


async def test_s11_a_card_is_filled_to_the_last_byte(autojump_clock: MockClock) -> None:
    """A comparison that was too strict lost exact fits; and only the last VF was asked for."""
    kernel = flex()
    async with ClassicNode({"a": text(vfs(CARD, (16,), ("flex170_m16", 16)))}, kernel=kernel).running() as node:
        await node.cdi_ids("a")
        assert count(kernel, ONE) == 16


async def test_s14_a_vf_of_a_shared_class_is_prepared(autojump_clock: MockClock) -> None:
    """The allocation held what was asked for, the plugin compared it with what the VF has, and refused for ever."""
    part = Part(uid=CARD, memory=100, millicores=10, vfs=(1,), layout=(M4,))
    async with ClassicNode({"a": text(part, shared=True)}, kernel=flex()).running() as node:
        assert len(await node.cdi_ids("a")) == 1


async def test_s15_a_gpu_that_is_gone_at_start_stops_only_its_own_claim(autojump_clock: MockClock) -> None:
    """The plugin refused to start until somebody had edited the object."""
    kernel, disks = flex(), Disks()
    handles = {"a": text(whole(CARD)), "b": text(whole(OTHER)), "c": text(vfs(OTHER, (1,), M4))}
    async with ClassicNode(handles, kernel=kernel, disks=disks).running() as node:
        await node.cdi_ids("a")
    kernel.unplug(ONE)
    async with ClassicNode(handles, kernel=kernel, disks=disks).running() as node:
        await node.cdi_ids("b")
        assert "not on this node" in str(await node.prepare("a"))
        assert await node.unprepare("a") is None
        await until(lambda: node.published(OTHER) is not None)
        assert node.published(CARD) is None


def test_s16_quotas_of_cards_with_several_tiles_are_cleared_on_each() -> None:
    """Cleaning up always wrote to `gt`, which Max cards do not have."""
    paths = {write.path for write in vf_quotas.cleared(MAX_1550)}
    assert any(path.startswith("vf1/gt0/") for path in paths) and any(path.startswith("vf63/gt1/") for path in paths)
    assert not any("/gt/" in path for path in paths)


async def test_s17_cdi_files_of_other_drivers_are_left_as_they_are(autojump_clock: MockClock) -> None:
    """Devices that were not detected were deleted from every file of the vendor's."""
    disks = Disks()
    theirs = {"intel.com-npu.yaml": b"npu", "intel.com-gpu.yaml": b"the original's", "nvidia.yaml": b"n"}
    disks.cdi |= theirs
    async with ClassicNode({"a": text(whole(CARD))}, kernel=flex(), disks=disks).running(reconcile=True) as node:
        await node.cdi_ids("a")
        await node.unprepare("a")
    assert disks.cdi == theirs


async def test_s21_many_vfs_take_no_longer_than_the_kernel_does(autojump_clock: MockClock) -> None:
    """A quarter of a second was slept after every quota: 62 VFs took 93 s, twice what the kubelet waits."""
    async with ClassicNode({"a": text(vfs(CARD, tuple(range(1, 32)), ("fair-share", 31)))}, kernel=flex()).running() as node:
        began = trio.current_time()
        assert len(await node.cdi_ids("a")) == 31
        await node.unprepare("a")
        assert trio.current_time() - began < 1
        assert [step for _, step in node.steps].count("MakeVfs") == 1


async def test_s23_hardware_that_comes_later_is_offered_and_monitors_see_it(autojump_clock: MockClock) -> None:
    """Only a restart looked again, and a monitor never saw VFs that were made after it."""
    kernel = flex()
    kernel.unplug(TWO)
    async with ClassicNode({"m": text(monitor=True), "a": text(vfs(CARD, (1,), M4))}, kernel=kernel).running() as node:
        first = await node.cdi_ids("m")
        assert len(first) == 1 and node.published(OTHER) is None
        kernel.plug(TWO)
        await until(lambda: node.published(OTHER) is not None)
        await node.cdi_ids("a")
        later = await node.cdi_ids("m")
        assert len(later) == 2 + 4 and set(first) < set(later)
        assert await node.cdi_ids("m") == later


def test_a_card_of_another_slot_has_its_vfs_where_the_kernel_puts_them() -> None:
    """Guards the arithmetic by which a handle's numbers become addresses."""
    places: Any = VfPlaces(1, 1, "0x56c0")
    assert [places.bdf(Bdf(ONE), index) for index in (1, 7, 8, 31)] == ["0000:4d:00.1", "0000:4d:00.7", "0000:4d:01.0", "0000:4d:03.7"]

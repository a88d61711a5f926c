"""Bugs that Intel's own drivers had on the node, each shown not to exist here and named after what it spares users.

The comments give the defect, not its ticket: a pull-out of a VM's GPU by a monitor pod, a slice refused because of one taint, and so on.
Those of the health daemon's client are in `tests/nursery_apps/node/health/test_xpumd_source.py` (restarts, silence, unknown severity),
those of the kubelet's stream in `test_stream.py` beside it; defects of charts join with the charts.
"""

from __future__ import annotations

import errno
import itertools
import json
import random
import threading

import msgspec
import pytest
import trio
import trio.testing

from dra import attributes, cdi, discovery, journal, offer, opaque_config, slices
from dra.devices import Gpu, Inventory, Kind, State
from dra.errors import ClaimRefused
from dra.names import Bdf, ClaimUid, NodeName
from dra.offer import Sight
from dra.settings import Publish, selects
from dra.sim_kernel.kernel import SimKernel
from dra.slices import SliceApi
from tests.fakes import machines
from tests.fakes.claim_node import ClaimNode, Disks, gpu
from tests.fakes.claim_server import ClaimServer, claim

G1, G2 = gpu(1), gpu(2)
NODE = NodeName("node1")


def offered(inventory: Inventory, *in_use: Gpu) -> offer.Offer:
    return offer.offer(Sight(inventory), remembered={}, in_use={g.name for g in in_use}, selected=lambda g: selects(Publish(), g))


# --- main -----------------------------------------------------------------------------------------------------------------------------


async def test_a_monitor_pod_takes_no_gpu_from_a_virtual_machine() -> None:
    """adminAccess once switched every GPU in passthrough back to its DRM driver: VMs lost theirs."""
    vm = gpu(1, state=State.PASSTHROUGH, driver="vfio-pci", card_node=None, render_node=None, card=None, render=None, publishable=False)
    async with ClaimNode(ClaimServer(claim("monitor", vm.name, G2.name, adminAccess=True)), vm, G2).running() as node:
        answer = await node.prepare("monitor")
        assert not isinstance(answer, str)
        assert [device.cdi_ids for device in answer] == [(), (f"intel.com/gpu=monitor-{G2.name}",)], "nothing to give of a GPU in a VM"
        assert node.journal.ledger.value.in_use() == {}


def test_a_card_and_its_slices_are_never_offered_together() -> None:
    """PF and VFs were all offered at once, without counters."""
    names = {g.name for g in offered(discovery.scan(machines.kernel("server-4x-b60-4vf"))).gpus}
    assert "0000-18-00-0-0xe211" not in names
    assert {f"0000-18-00-{n}-0xe211" for n in (1, 2, 3, 4)} <= names


async def test_a_claim_prepared_before_a_reboot_gets_todays_device_nodes() -> None:
    """The checkpoint survived the reboot and was believed; card numbers and CDI files did not."""
    disks, server = Disks(), ClaimServer(claim("a", G1.name))
    async with ClaimNode(server, G1, disks=disks).running() as node:
        first = await node.prepare("a")
    disks.reboot()
    async with ClaimNode(server, gpu(1, minor=9), disks=disks, boot="boot-2").running() as node:
        assert await node.prepare("a") == first, "the same names for ever"
        assert b"/dev/dri/renderD137" in disks.cdi[cdi.file_name(ClaimUid("a"))]


@pytest.mark.parametrize("reason", [*offer.TAINTS.values(), offer.ABSENT])
def test_a_sick_gpu_is_marked_with_a_key_the_api_server_takes_and_a_toleration_can_name(reason: str) -> None:
    """All issue names went into one key, without limit: over 63 characters the slice was refused and the sick GPU stayed schedulable."""
    assert len(reason) <= 63 and reason.replace("-", "").isalpha()


def test_a_node_with_more_functions_than_a_slice_holds_offers_them_all() -> None:
    """One slice held everything: 8 cards with 16 VFs each were refused as a whole, 64 once one was tainted."""
    vfs = [
        gpu(card, bdf=Bdf(f"0000:{card:02x}:{vf // 8:02x}.{vf % 8}"), kind=Kind.VF)
        for card, vf in itertools.product(range(1, 9), range(1, 18))
    ]
    desired = slices.desired(NODE, vfs)
    rendered = slices.render(desired.pool, SliceApi.of("v1", "v1.36.0"), generation=1, owner=None)
    assert sum(len(item["spec"]["devices"]) for item in rendered) == 136
    assert max(len(item["spec"]["devices"]) for item in rendered) <= 128
    made = offer.offer(
        Sight(Inventory((gpu(1, state=State.WEDGED, publishable=False), *vfs[20:]))),
        remembered={},
        in_use={gpu(1).name},
        selected=lambda g: True,
    )
    tainted = slices.render(
        slices.desired(NODE, made.gpus, taints=made.taints).pool, SliceApi.of("v1", "v1.36.0"), generation=1, owner=None
    )
    assert max(len(item["spec"]["devices"]) for item in tainted) <= 64


def test_a_driver_bound_by_somebody_else_leaves_memory_and_nodes_right() -> None:
    """After an external rebind memory read 0 and the CDI file named old nodes, until a restart."""
    kernel = SimKernel.load(machines.document("server-4x-b60"), lock=threading.RLock())
    kernel.unbind("0000:18:00.0")
    kernel.plug("0000:5a:00.0", like="0000:3a:00.0")  # takes the freed numbers
    kernel.bind("0000:18:00.0", "xe")
    found = discovery.scan(kernel).by_bdf()
    assert found[Bdf("0000:18:00.0")].memory_bytes == 25669140480
    renders = [g.render for g in found.values()]
    assert len(set(renders)) == len(renders)


async def test_a_claim_of_two_gpus_that_gets_one_holds_none(autojump_clock: trio.testing.MockClock) -> None:
    """The first of two devices stayed switched and held when the second failed."""
    async with ClaimNode(ClaimServer(claim("two", G1.name, G2.name), claim("one", G1.name)), G1).running() as node:
        assert isinstance(await node.prepare("two"), str)
        assert not isinstance(await node.prepare("one"), str)


async def test_unprepare_removes_what_prepare_made_and_the_next_prepare_works() -> None:
    """Removal compared full names with bare ones: it never removed anything."""
    async with ClaimNode(ClaimServer(claim("a", G1.name), claim("b", G1.name)), G1).running() as node:
        for uid in ("a", "b", "a"):
            assert not isinstance(await node.prepare(uid), str)
            assert await node.unprepare(uid) is None
            assert node.disks.cdi == {}


async def test_a_torn_state_file_does_not_stop_the_node() -> None:
    """A truncated checkpoint ended the plugin at start, until somebody deleted the file and leaked the devices."""
    disks, server = Disks(), ClaimServer(claim("a", G1.name), claim("b", G2.name))
    async with ClaimNode(server, G1, G2, disks=disks).running() as node:
        await node.prepare("a")
    disks.state[journal.FILE] = disks.state[journal.FILE][:-7]
    async with ClaimNode(server, G1, G2, disks=disks).running() as node:
        assert not isinstance(await node.prepare("b"), str)
        assert not isinstance(await node.prepare("a"), str)


async def test_what_could_not_be_written_is_not_reported_as_done() -> None:
    """Memory was changed before the checkpoint was written: a failed write became a success on the retry."""
    node = ClaimNode(ClaimServer(claim("a", G1.name)), G1)
    async with node.running():
        node.state.fail = lambda operation, name: errno.EIO if operation == "append" else None
        for _ in range(2):
            assert isinstance(await node.prepare("a"), str)
        assert node.disks.cdi == {}


def test_a_wish_for_vfio_is_refused_by_name_and_never_answered_with_something_else() -> None:
    """Passthrough hung on one class name; any other class silently got DRM nodes."""
    wish = {"apiVersion": "gpu.intel.com/v1alpha1", "kind": "GpuConfig", "driver": "vfio"}
    with pytest.raises(ClaimRefused, match="field 'driver'"):
        opaque_config.decode(json.dumps(wish).encode())


def test_both_tiles_count_and_one_silent_card_costs_the_others_nothing() -> None:
    """Two-tile cards showed half their memory, and the first card that did not answer left all others at 0."""
    assert {g.memory_bytes for g in discovery.scan(machines.kernel("server-8x-max1550")).gpus} == {137438953472}
    kernel = machines.kernel("server-4x-b60")
    kernel.wedge("0000:18:00.0")
    assert [g.memory_bytes for g in discovery.scan(kernel).gpus][1:] == [25669140480] * 3


async def test_a_claim_that_waits_holds_nobody_up(autojump_clock: trio.testing.MockClock) -> None:
    """One lock was held over seconds of sleep: every other prepare waited."""
    async with (
        ClaimNode(ClaimServer(claim("waits", G1.name), claim("runs", G2.name)), G2).running() as node,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(node.prepare, "waits")
        await trio.testing.wait_all_tasks_blocked(0.01)
        begun = trio.current_time()
        assert not isinstance(await node.prepare("runs"), str)
        assert trio.current_time() - begun < 1
        nursery.cancel_scope.cancel()


def test_the_order_of_devices_never_changes_by_itself() -> None:
    """Random map order rewrote the slice at every publish and made the scheduler's first fit a lottery."""
    gpus = [gpu(number) for number in range(1, 30)]
    shuffled = random.Random(1).sample(gpus, len(gpus))
    assert slices.desired(NODE, offered(Inventory(tuple(shuffled))).gpus) == slices.desired(NODE, offered(Inventory(tuple(gpus))).gpus)


async def test_a_stop_ends_every_wait_at_once() -> None:
    """Sleeps could not be cancelled: the plugin outlived its grace period."""
    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:

            async def life() -> None:
                async with ClaimNode(ClaimServer(claim("a", G1.name))).running() as node:
                    nursery.start_soon(stop_soon)
                    await node.prepare("a")

            async def stop_soon() -> None:
                await trio.testing.wait_all_tasks_blocked(0.01)
                nursery.cancel_scope.cancel()

            nursery.start_soon(life)


def test_a_gpu_nobody_watches_is_not_called_healthy() -> None:
    """Severity UNKNOWN counted as healthy."""
    assert attributes.of(G1)["health"] == "Unknown"


# --- v0.3.0, node side -----------------------------------------------------------------------------------------------------------------


async def test_many_calls_at_once_for_many_claims_agree() -> None:
    """Maps were read and written without their lock by concurrent calls."""
    gpus = [gpu(number) for number in range(1, 9)]
    async with ClaimNode(ClaimServer(*(claim(f"c{n}", g.name) for n, g in enumerate(gpus))), *gpus).running() as node:
        async with trio.open_nursery() as nursery:
            for n, verb in itertools.product(range(8), (node.prepare, node.unprepare, node.prepare)):
                nursery.start_soon(verb, f"c{n}")
        for n in range(8):
            assert not isinstance(await node.prepare(f"c{n}"), str)
        assert len(node.disks.cdi) == 8


async def test_a_clean_up_that_failed_is_taken_up_again_instead_of_forgotten() -> None:
    """State was dropped before the clean-up: when that failed, the retry found nothing, answered success, and VFs leaked."""
    node = ClaimNode(ClaimServer(claim("a", G1.name)), G1)
    async with node.running():
        await node.prepare("a")
        node.cdi.fail = lambda operation, name: errno.EIO if operation == "remove" else None
        assert isinstance(await node.unprepare("a"), str)
        node.cdi.fail = lambda operation, name: None
        assert await node.unprepare("a") is None
        assert node.disks.cdi == {}


def test_a_vf_that_cannot_be_read_is_not_taken_for_a_whole_gpu() -> None:
    """A VF whose parent could not be read was offered as a full GPU with all its time."""
    kernel = machines.kernel("server-8x-flex170")
    for operation in ("list", "read"):
        kernel.fail("*/0000:2c:00.0*", operation, errno.EIO, times=99)
    vf = discovery.scan(kernel).by_bdf()[Bdf("0000:2c:00.1")]
    assert vf.kind is Kind.VF


async def test_a_gpu_that_is_missing_at_start_costs_its_claim_and_nothing_else() -> None:
    """A prepared GPU that was gone kept the plugin from starting, with exit code 0."""
    disks, server = Disks(), ClaimServer(claim("a", G1.name), claim("b", G2.name))
    async with ClaimNode(server, G1, G2, disks=disks).running() as node:
        await node.prepare("a")
    async with ClaimNode(server, G2, disks=disks).running() as node:
        assert not isinstance(await node.prepare("b"), str)
        assert await node.unprepare("a") is None


async def test_files_of_other_drivers_in_the_cdi_directory_are_not_touched() -> None:
    """Every spec of the vendor was edited: other Intel drivers' devices vanished."""
    disks = Disks()
    disks.cdi.update({"intel.com-qat.yaml": b"qat", "intel.com-gpu.yaml": b"generated by hand", "vendor.json": b"{}"})
    before = dict(disks.cdi)
    async with ClaimNode(ClaimServer(claim("a", G1.name)), G1, disks=disks).running() as node:
        await node.prepare("a")
        await node.unprepare("a")
        await node.reconciler.compare()
    assert disks.cdi == before


def test_a_record_says_everything_again_that_an_earlier_one_said() -> None:
    """The second write of a claim left out its name."""
    node = ClaimNode(ClaimServer(claim("a", G1.name)), G1)

    async def live() -> None:
        async with node.running():
            await node.prepare("a")
            record = node.journal.ledger.value.get(ClaimUid("a"))
            assert record is not None
            assert msgspec.structs.replace(record, grants=()).name == "a" and record.namespace == "default" and record.boot_id == "boot-1"

    trio.run(live)

"""A function goes to vfio and back in few writes, from wherever it was left, and is refused in a sentence where it must not go."""

from __future__ import annotations

import copy
import errno
from typing import Any

import msgspec
import pytest

from dra import binding, discovery
from dra.binding import Await, Facts, Neighbour, Override, Probe, Unbind
from dra.devices import DeviceNode, Gpu
from dra.errors import ClaimRefused, DriverError, HardwareFault, NotYet
from dra.names import Bdf
from dra.sim_kernel.kernel import SimKernel
from tests.fakes import machines

PF, VF, ITS_PF = Bdf("0000:3a:00.0"), Bdf("0000:18:00.1"), Bdf("0000:18:00.0")
MOST_WRITES = 4
"""Override, unbind, probe; and on the way back the override that a VF without autoprobe needed is cleared."""
FUNCTIONS = pytest.mark.parametrize(("bdf", "autoprobe"), [(PF, "1"), (VF, "1"), (VF, "0")])


def machine(autoprobe: str = "1") -> SimKernel:
    kernel = machines.kernel("server-4x-b60-4vf")
    for driver in ("vfio-pci", "xe-vfio-pci"):
        kernel.modprobe(driver)
    kernel.write(f"sys/bus/pci/devices/{ITS_PF}/sriov_drivers_autoprobe", autoprobe)
    return kernel


def go(kernel: SimKernel, bdf: Bdf, wanted: str | None, *, writes: int = MOST_WRITES) -> list[binding.Step]:
    """Take steps until there is none, or `writes` are made and the program ends."""
    taken: list[binding.Step] = []
    while len(taken) < writes and (step := binding.next_step(binding.facts(kernel, bdf), wanted)) is not None:
        assert not isinstance(step, Await)
        binding.perform(kernel, bdf, step)
        taken.append(step)
    return taken


def is_there(kernel: SimKernel, bdf: Bdf, wanted: str | None) -> bool:
    return binding.next_step(binding.facts(kernel, bdf), wanted) is None


def gpu(kernel: SimKernel, bdf: Bdf) -> Gpu:
    return discovery.scan(kernel).by_bdf()[bdf]


@FUNCTIONS
def test_there_and_back_leaves_the_machine_as_it_was(bdf: Bdf, autoprobe: str) -> None:
    kernel = machine(autoprobe)
    before = gpu(kernel, bdf)
    assert go(kernel, bdf, "vfio-pci") == [Override("vfio-pci"), Unbind("xe"), Probe()]
    there = gpu(kernel, bdf)
    assert (there.driver, there.card_node, [node.path for node in there.vfio_nodes]) == (
        "vfio-pci",
        None,
        ["/dev/vfio/vfio", f"/dev/vfio/{there.iommu_group}", "/dev/vfio/devices/vfio0"],
    )
    assert len(go(kernel, bdf, None)) <= MOST_WRITES
    assert is_there(kernel, bdf, None)
    assert gpu(kernel, bdf) == before
    assert kernel.read(f"sys/bus/pci/devices/{bdf}/driver_override") == "(null)\n"


@FUNCTIONS
@pytest.mark.parametrize("writes", range(MOST_WRITES))
@pytest.mark.parametrize("then", ["vfio-pci", None])
def test_what_a_crash_on_the_way_there_left_is_finished_or_undone(bdf: Bdf, autoprobe: str, writes: int, then: str | None) -> None:
    kernel = machine(autoprobe)
    before = gpu(kernel, bdf)
    go(kernel, bdf, "vfio-pci", writes=writes)
    go(kernel, bdf, then)
    assert is_there(kernel, bdf, then)
    assert gpu(kernel, bdf).driver == (then or "xe")
    assert (gpu(kernel, bdf) == before) is (then is None)


@FUNCTIONS
@pytest.mark.parametrize("writes", range(MOST_WRITES))
@pytest.mark.parametrize("then", ["vfio-pci", None])
def test_what_a_crash_on_the_way_back_left_is_finished_or_undone(bdf: Bdf, autoprobe: str, writes: int, then: str | None) -> None:
    kernel = machine(autoprobe)
    go(kernel, bdf, "vfio-pci")
    there = gpu(kernel, bdf)
    go(kernel, bdf, None, writes=writes)
    go(kernel, bdf, then)
    assert is_there(kernel, bdf, then)
    assert (gpu(kernel, bdf) == there) is (then is not None)


@FUNCTIONS
@pytest.mark.parametrize("wanted", ["vfio-pci", None])
@pytest.mark.parametrize(("file", "operation"), [("driver_override", "write"), ("*/unbind", "unbind"), ("*/drivers_probe", "bind")])
@pytest.mark.parametrize("code", [errno.ENODEV, errno.EBUSY, errno.EINVAL, errno.EACCES, errno.EIO])
def test_whatever_a_write_answers_is_told_and_the_next_try_starts_there(
    bdf: Bdf, autoprobe: str, wanted: str | None, file: str, operation: str, code: int
) -> None:
    kernel = machine(autoprobe)
    if wanted is None:
        go(kernel, bdf, "vfio-pci")
    kernel.fail(f"*{file}", operation, code)
    with pytest.raises(DriverError) as refused:
        go(kernel, bdf, wanted)
    assert str(refused.value).startswith(f"{bdf}: ")
    assert errno.errorcode[code] in str(refused.value)
    go(kernel, bdf, wanted)
    assert is_there(kernel, bdf, wanted)


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (errno.ENODEV, NotYet, "DeviceAbsent"),
        (errno.EBUSY, NotYet, "DeviceBusy"),
        (errno.EROFS, ClaimRefused, "SysfsReadOnly"),
        (errno.EINVAL, HardwareFault, "BindFailed"),
        (errno.EIO, HardwareFault, "BindFailed"),
    ],
)
def test_an_errno_says_whose_move_it_is(code: int, kind: type[DriverError], reason: str) -> None:
    kernel = machine()
    kernel.fail("*/driver_override", "write", code)
    with pytest.raises(kind) as refused:
        go(kernel, PF, "vfio-pci")
    assert refused.value.reason == reason


def test_somebody_who_unbinds_it_first_does_no_harm() -> None:
    kernel = machine()
    kernel.unbind(PF)
    binding.perform(kernel, PF, Unbind("xe"))
    assert [type(step) for step in go(kernel, PF, "vfio-pci")] == [Override, Probe]


def test_a_probe_that_fails_in_silence_is_not_repeated_for_ever_and_can_be_undone() -> None:
    kernel = machine()
    kernel.fail(PF, "probe", errno.EINVAL)
    with pytest.raises(HardwareFault, match="no driver took it"):
        go(kernel, PF, "vfio-pci")
    assert gpu(kernel, PF).driver is None
    assert go(kernel, PF, None) == [Override(None), Probe()]
    assert gpu(kernel, PF).driver == "xe"


def test_from_one_vfio_driver_to_the_other() -> None:
    kernel = machine()
    go(kernel, VF, "vfio-pci")
    assert go(kernel, VF, "xe-vfio-pci") == [Override("xe-vfio-pci"), Unbind("vfio-pci"), Probe()]
    assert gpu(kernel, VF).driver == "xe-vfio-pci"


def test_a_function_that_is_gone_can_go_nowhere_and_needs_nothing() -> None:
    kernel = machine()
    kernel.unplug(PF)
    gone = binding.facts(kernel, PF)
    assert binding.refusal(gone, "vfio-pci") == f"{PF} is not on the bus"
    assert (binding.refusal(gone, None), binding.next_step(gone, None)) == (None, None)


READY = Facts(bdf=VF, driver="xe", parent=ITS_PF, parent_driver="xe", iommu_group="7", loaded=frozenset({"vfio-pci", "xe-vfio-pci"}))
NODE = DeviceNode("/dev/vfio/7", 510, 0, 0o600, 0)


def test_bound_is_not_there_before_its_node_is() -> None:
    bound = msgspec.structs.replace(READY, driver="vfio-pci", override="vfio-pci")
    assert binding.next_step(bound, "vfio-pci") == Await("its node below /dev/vfio")
    assert binding.next_step(msgspec.structs.replace(bound, vfio_nodes=(NODE,)), "vfio-pci") is None


@pytest.mark.parametrize(
    ("wanted", "changes", "words"),
    [
        ("vfio-pci", {"boot_vga": True}, "shows the console"),
        ("vfio-pci", {"iommu_group": None}, "is in no IOMMU group"),
        ("vfio-pci", {"neighbours": (Neighbour("0000:18:00.7", "snd_hda_intel"),)}, "0000:18:00.7, which snd_hda_intel drives"),
        ("vfio-pci", {"vfs": 3, "parent": None}, "has 3 VFs"),
        ("vfio-pci", {"loaded": frozenset()}, "run `modprobe vfio-pci`"),
        ("vfio-pci", {"driver": "uio_pci_generic"}, "is bound to uio_pci_generic"),
        ("xe-vfio-pci", {"parent": None, "parent_driver": None}, "ask for vfio-pci"),
        ("xe-vfio-pci", {"parent_driver": "i915"}, f"{ITS_PF} is bound to i915"),
        ("xe-vfio-pci", {"parent_driver": None}, f"{ITS_PF} is bound to no driver"),
        (None, {"driver": "uio_pci_generic"}, "does not take away"),
        (None, {"driver": "vfio-pci", "autoprobe": False, "parent_driver": "vfio-pci"}, "its PF 0000:18:00.0 has none either"),
    ],
)
def test_refusals(wanted: str | None, changes: dict[str, Any], words: str) -> None:
    assert words in (binding.refusal(msgspec.structs.replace(READY, **changes), wanted) or "")


@pytest.mark.parametrize(
    ("wanted", "changes"),
    [
        ("vfio-pci", {}),
        ("xe-vfio-pci", {}),
        ("vfio-pci", {"neighbours": (Neighbour("a", "vfio-pci"), Neighbour("b", "pcieport"), Neighbour("c", None))}),
        ("vfio-pci", {"boot_vga": True, "driver": "vfio-pci"}),
        (None, {"boot_vga": True, "iommu_group": None, "loaded": frozenset(), "driver": "vfio-pci"}),
        (None, {"autoprobe": False, "driver": "vfio-pci"}),
    ],
)
def test_what_can_be_done_is_not_refused(wanted: str | None, changes: dict[str, Any]) -> None:
    assert binding.refusal(msgspec.structs.replace(READY, **changes), wanted) is None


@pytest.mark.parametrize(
    ("name", "bdf", "words"),
    [
        ("workstation-2xb580", "0000:03:00.0", "shows the console"),
        ("server-4x-b60-4vf", "0000:18:00.0", "has 4 VFs"),
        ("laptop-iris-xe", "0000:00:02.0", "shows the console"),
    ],
)
def test_refusals_on_machines(name: str, bdf: str, words: str) -> None:
    kernel = machines.kernel(name)
    kernel.modprobe("vfio-pci")
    assert words in (binding.refusal(binding.facts(kernel, Bdf(bdf)), "vfio-pci") or "")


def test_a_driver_that_is_not_loaded_is_named_with_what_loads_it() -> None:
    kernel = machines.kernel("server-4x-b60")
    assert "modprobe vfio-pci" in (binding.refusal(binding.facts(kernel, ITS_PF), "vfio-pci") or "")
    kernel.modprobe("vfio-pci")
    assert binding.refusal(binding.facts(kernel, ITS_PF), "vfio-pci") is None


def test_the_sound_device_in_the_same_group_keeps_the_card_from_virtual_machines_until_it_is_unbound() -> None:
    document = copy.deepcopy(machines.document("desktop-a770"))
    groups = document["machine"]["desktop-a770"]["tree"]["sys"]["kernel"]["iommu_groups"]
    groups["4"]["devices"] |= groups["6"]["devices"]  # as behind a port without ACS
    kernel, card = SimKernel.load(document), Bdf("0000:03:00.0")
    kernel.modprobe("vfio-pci")
    assert "group 4 with 0000:04:00.0, which snd_hda_intel drives" in (binding.refusal(binding.facts(kernel, card), "vfio-pci") or "")
    kernel.unbind("0000:04:00.0")
    assert binding.refusal(binding.facts(kernel, card), "vfio-pci") is None

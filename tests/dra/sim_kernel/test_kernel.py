"""Reading a machine, faults, cards in trouble, SR-IOV refusals, and the document's own errors."""

from __future__ import annotations

import copy
import errno
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dra import discovery
from dra.sim_kernel import sriov
from dra.sim_kernel.kernel import SimKernel
from tests.fakes import machines

B60 = "0000:18:00.0"


@pytest.fixture
def kernel() -> SimKernel:
    return machines.kernel("server-4x-b60")


def answered(call: Any, *arguments: Any) -> int | None:
    """The errno of a call, None if it succeeds."""
    try:
        call(*arguments)
    except OSError as error:
        return error.errno
    return None


def test_shared_directories_are_separate_once_written(kernel: SimKernel) -> None:
    first, second = (f"sys/bus/pci/devices/{bdf}/tile0/gt0/freq0/max_freq" for bdf in (B60, "0000:3a:00.0"))
    kernel.write(first, "1200")
    assert kernel.read(first) == "1200\n"
    assert kernel.read(second) == "2400\n"
    assert machines.kernel("server-4x-b60").read(first) == "2400\n", "the document is as it was"


# --- cards in trouble ----------------------------------------------------------------------------------------------------------------


def test_wedged_xe_answers_ecanceled_until_bound_again(kernel: SimKernel) -> None:
    events = machines.Events(kernel)
    kernel.wedge(B60)
    path = kernel.resolve(f"sys/bus/pci/devices/{B60}").removeprefix("sys")
    node = {"DEVNAME": "dri/card1", "DEVTYPE": "drm_minor", "MAJOR": "226", "MINOR": "1"}
    about = {"ACTION": "change", "SUBSYSTEM": "drm", "DEVPATH": f"{path}/drm/card1"}
    assert events.properties == [{**about, "WEDGED": "rebind,bus-reset", **node}]
    assert answered(kernel.memory_regions, "dev/dri/renderD128", "xe") == errno.ECANCELED
    assert kernel.exists(f"sys/bus/pci/devices/{B60}/driver"), "sysfs looks healthy"
    kernel.write(f"sys/bus/pci/devices/{B60}/reset", "1")
    assert answered(kernel.memory_regions, "dev/dri/renderD128", "xe") == errno.ECANCELED
    kernel.unwedge(B60)
    assert kernel.memory_regions("dev/dri/renderD128", "xe")


def test_wedged_with_methods_none_only_informs(kernel: SimKernel) -> None:
    kernel.wedge(B60, "none")
    assert kernel.memory_regions("dev/dri/renderD128", "xe")


def test_wedged_i915_answers_eio_and_prelim_has_an_event_of_its_own() -> None:
    kernel = machines.kernel("server-4x-flex140")
    events = machines.Events(kernel)
    kernel.wedge("0000:4e:00.0")
    assert answered(kernel.memory_regions, "dev/dri/renderD128", "i915") == errno.EIO
    assert {key: events.properties[0].get(key) for key in ("RESET_FAILED", "RESET_UNIT", "WEDGED")} == {
        "RESET_FAILED": "1",
        "RESET_UNIT": "gt0",
        "WEDGED": None,
    }


def test_survivability_at_boot_binds_without_nodes(kernel: SimKernel) -> None:
    kernel.survivability(B60, "Boot")
    here = f"sys/bus/pci/devices/{B60}"
    assert kernel.read(f"{here}/survivability_mode") == "Boot\n"
    assert kernel.exists(f"{here}/driver")
    assert not kernel.exists(f"{here}/drm")
    assert not kernel.exists("dev/dri/renderD128")
    kernel.unplug(B60)
    kernel.plug(B60)
    assert not kernel.exists(f"{here}/drm"), "firmware does not heal in the slot"
    kernel.survivability(B60, None)
    assert not kernel.exists(f"{here}/survivability_mode")
    assert kernel.memory_regions("dev/dri/renderD128", "xe")


def test_survivability_at_run_time_wedges_and_asks_for_firmware(kernel: SimKernel) -> None:
    events = machines.Events(kernel)
    kernel.survivability(B60, "Runtime")
    assert events.properties[0]["WEDGED"] == "vendor-specific"
    assert kernel.read(f"sys/bus/pci/devices/{B60}/survivability_mode") == "Runtime\n"
    assert kernel.exists("dev/dri/renderD128")
    kernel.survivability(B60, None)
    assert not kernel.exists(f"sys/bus/pci/devices/{B60}/survivability_info")
    with pytest.raises(ValueError, match="not bound to xe"):
        kernel.survivability("0000:02:00.0", "Boot")


def test_noise_resets_and_link_errors(kernel: SimKernel) -> None:
    events = machines.Events(kernel)
    kernel.display_noise(B60)
    kernel.reset_cycle(B60)
    kernel.pcie_error(B60, recovered=True)
    kernel.pcie_error(B60, recovered=False)
    told = [
        {key: value for key, value in event.items() if key not in ("ACTION", "DEVPATH", "SUBSYSTEM") and "PCI_" not in key}
        for event in events.properties
    ]
    pci = {"DRIVER": "xe", "MODALIAS": "pci:v00008086d0000E211sv00001849sd00006023bc03sc00i00"}
    assert told == [
        {"HOTPLUG": "1", "CONNECTOR": "203"},
        {"ERROR": "1"},
        {"RESET": "1"},
        {"ERROR": "0"},
        {**pci, "ERROR_EVENT": "BEGIN_RECOVERY", "DEVICE_ONLINE": "0"},
        {**pci, "ERROR_EVENT": "SUCCESSFUL_RECOVERY", "DEVICE_ONLINE": "1"},
        {**pci, "ERROR_EVENT": "BEGIN_RECOVERY", "DEVICE_ONLINE": "0"},
        {**pci, "ERROR_EVENT": "FAILED_RECOVERY", "DEVICE_ONLINE": "0"},
    ]


def test_memory_query_goes_to_the_driver_behind_the_node(kernel: SimKernel) -> None:
    assert answered(kernel.memory_regions, "dev/dri/renderD128", "i915") == errno.ENOTTY
    assert answered(kernel.memory_regions, "dev/dri/card0", "xe") == errno.ENOTTY, "the BMC's driver"
    assert answered(kernel.memory_regions, "dev/vfio/vfio", "xe") == errno.ENOTTY
    assert answered(kernel.memory_regions, "dev/dri/renderD200", "xe") == errno.ENOENT
    assert kernel.memory_regions(f"dev/dri/by-path/pci-{B60}-render", "xe")[0].kind == "system"
    stale = kernel._tree.find("dev/dri/renderD128")
    assert stale is not None
    kernel.unplug(B60)
    kernel._tree.put("dev/dri/renderD128", stale)  # a container's own copy of the node
    assert answered(kernel.memory_regions, "dev/dri/renderD128", "xe") == errno.ENODEV


# --- SR-IOV --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "bdf", "text", "outcome"),
    [
        ("server-4x-b60", B60, "many", errno.EINVAL),
        ("server-4x-b60", B60, "-1", errno.EINVAL),
        ("server-4x-b60", B60, "25\n", errno.ERANGE),
        ("server-4x-b60", B60, "0", None),
        ("laptop-iris-xe", "0000:00:02.0", "1", errno.ENOENT),
        ("laptop-iris-xe", "0000:00:02.0", "0", None),
        ("mixed-nvidia-amd", "0000:aa:00.0", "1", errno.ENOENT),
        ("server-4x-b60-4vf", B60, "6", errno.EBUSY),
        ("server-4x-b60-4vf", B60, "4", None),
        ("server-8x-max1550", "0000:18:00.0", "1", errno.ERANGE),
    ],
)
def test_numvfs_refuses_as_the_kernel_does(machine: str, bdf: str, text: str, outcome: int | None) -> None:
    kernel = machines.kernel(machine)
    path = f"sys/bus/pci/devices/{bdf}/sriov_numvfs"
    before = kernel.read(path)
    assert answered(kernel.write, path, text) == outcome
    assert kernel.read(path) == before


def test_nodes_can_stand_for_a_device_that_can_be_opened() -> None:
    kernel = SimKernel.load({**machines.document("server-4x-b60"), "openAs": "10:229"})
    gpu = discovery.scan(kernel).gpus[0]
    assert gpu.card_node is not None and gpu.render_node is not None
    assert [(node.major, node.minor) for node in (gpu.card_node, gpu.render_node)] == [(10, 229)] * 2
    assert gpu.memory_bytes == discovery.scan(machines.kernel("server-4x-b60")).gpus[0].memory_bytes, "the driver answers as before"


def test_numvfs_without_a_driver_and_on_a_wedged_card(kernel: SimKernel) -> None:
    path = f"sys/bus/pci/devices/{B60}/sriov_numvfs"
    kernel.wedge(B60)
    assert answered(kernel.write, path, "2") == errno.ECANCELED
    kernel.unbind(B60)
    assert answered(kernel.write, path, "2") == errno.ENOENT


def test_zero_takes_the_vfs_away_in_order_and_takes_a_second() -> None:
    slept: list[float] = []
    kernel = machines.kernel("server-4x-b60-4vf", sleep=slept.append)
    events = machines.Events(kernel)
    kernel.write(f"sys/bus/pci/devices/{B60}/sriov_numvfs", "0")
    assert slept == [1.0]
    assert [(action, name) for action, subsystem, name in events.short if subsystem == "pci"] == [
        (action, f"0000:18:00.{number}") for number in (1, 2, 3, 4) for action in ("unbind", "remove")
    ]
    assert kernel.read(f"sys/bus/pci/devices/{B60}/sriov_numvfs") == "0\n"
    assert not kernel.exists(f"sys/bus/pci/devices/{B60}/virtfn0")
    kernel.write("sys/bus/pci/rescan", "1")
    assert not kernel.exists("sys/bus/pci/devices/0000:18:00.1"), "a rescan finds no VFs"


@given(st.text(max_size=6))
def test_numbers_are_read_as_kstrtouint_reads_them(text: str) -> None:
    value = sriov.unsigned(text)
    if text.isascii() and text.isdigit() and not text.startswith("0"):
        assert value == int(text)
    elif value is not None:
        assert value == int(text.removesuffix("\n").removeprefix("+"), 0 if "x" in text.lower() else 8) or value == int(text)


# --- faults --------------------------------------------------------------------------------------------------------------------------


def test_a_failure_lasts_as_often_as_asked(kernel: SimKernel) -> None:
    kernel.fail("*/vendor", "read", errno.EIO, times=2)
    path = f"sys/bus/pci/devices/{B60}/vendor"
    assert [answered(kernel.read, path) for _ in range(3)] == [errno.EIO, errno.EIO, None]
    kernel.fail(f"*/{B60}", "unbind", errno.EIO)
    assert answered(kernel.unbind, B60) == errno.EIO
    kernel.unbind(B60)
    with pytest.raises(ValueError, match="not an operation"):
        kernel.fail("*", "reed", errno.EIO)


def test_delays_and_hangs_happen_before_the_act(kernel: SimKernel) -> None:
    slept: list[float] = []
    seen: list[bool] = []
    kernel = machines.kernel("server-4x-b60", sleep=slept.append)
    kernel.delay("unbind", 2.5)
    kernel.hang(B60, "unbind", lambda: seen.append(kernel.exists("dev/dri/renderD128")))
    kernel.unbind(B60)
    assert (slept, seen) == ([2.5], [True])
    kernel.bind(B60, "xe")
    kernel.delay("unbind", 0)
    kernel.release(B60, "unbind")
    kernel.unbind(B60)
    assert (len(slept), len(seen)) == (1, 1)


def test_what_vanishes_during_a_hang_is_gone_after_it(kernel: SimKernel) -> None:
    kernel.hang(B60, "unbind", lambda: kernel.unplug(B60))
    assert answered(kernel.unbind, B60) == errno.ENODEV
    kernel.release(B60, "unbind")


def test_a_reboot_brings_the_document_back_under_another_boot_id(kernel: SimKernel) -> None:
    events = machines.Events(kernel)
    first = kernel.read("proc/sys/kernel/random/boot_id")
    kernel.unplug(B60)
    kernel.fail("*", "read", errno.EIO, times=None)
    kernel.reboot("11111111-2222-4333-8444-555555555555")
    assert kernel.read("proc/sys/kernel/random/boot_id") == "11111111-2222-4333-8444-555555555555\n" != first
    assert kernel.exists("dev/dri/renderD128")
    assert events.overflows == ["the machine was rebooted"]
    kernel.overflow()
    assert len(events.overflows) == 2


def test_a_synthetic_event_repeats_the_device(kernel: SimKernel) -> None:
    events = machines.Events(kernel)
    kernel.write("sys/class/drm/renderD128/uevent", "change\n")
    assert events.short == [("change", "drm", "renderD128")]
    assert events.properties[0]["SYNTH_UUID"] == "0"
    assert answered(kernel.write, "sys/class/drm/renderD128/uevent", "explode") == errno.EINVAL


def test_who_left_hears_nothing(kernel: SimKernel) -> None:
    heard: list[str] = []
    leave = kernel.subscribe(lambda action, *_: heard.append(action))
    leave()
    kernel.unplug(B60)
    assert heard == []


# --- the document --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda top: [], "document: must be an object"),
        (lambda top: {}, "machine: must be an object"),
        (lambda top: top | {"machine": {"a": top["machine"]["laptop-iris-xe"], "b": {}}}, "holds 2 machines, name one of a, b"),
        (lambda top: _edit(top, "tree", "proc", value=None), r"machine\.laptop-iris-xe\.tree\.proc: must be an object"),
        (lambda top: _edit(top, "tree", "home", value={}), r"tree\.home: the roots are sys, dev, proc"),
        (lambda top: _edit(top, "tree", "sys", "bus", value=7), r"tree\.sys\.bus: must be an object"),
        (lambda top: _edit(top, "tree", "sys", "a/b", value="x"), r"tree\.sys: 'a/b' cannot be a file name"),
        (lambda top: _edit(top, "tree", "sys", "bus", value={"@": "rx"}), r"tree\.sys\.bus: 'rx' is not a kind of node"),
        (lambda top: _edit(top, "tree", "sys", "bus", value={"@": "link"}), r"tree\.sys\.bus\.to: the target"),
        (lambda top: _edit(top, "tree", "sys", "bus", value={"@": "shared", "id": "t99"}), "there is no shared 't99'"),
        (lambda top: _edit(top, "tree", "dev", "x", value={"@": "chr", "major": 1, "minor": 3, "mode": "rw"}), r"x\.mode"),
        (lambda top: _edit(top, "tree", "dev", "x", value={"@": "chr", "major": 1, "minor": 3, "mode": "0600", "group": "me"}), "x.group"),
        (lambda top: _edit(top, "ioctl", "0000:00:02.0", value={"driver": "nouveau"}), "neither i915 nor xe"),
        (lambda top: _edit(top, "ioctl", "0000:00:02.0", value={"driver": "xe", "mem_regions": [{"class": "gold"}]}), r"\[0\]\.class"),
        (lambda top: top | {"openAs": "fuse"}, "openAs: 'fuse' is not a device number such as 10:229"),
        (lambda top: top | {"shared": {**top["shared"], "t1": {"x": {"@": "shared", "id": "t1"}}}}, "'t1' contains itself"),
    ],
)
def test_a_bad_document_is_refused_with_its_place(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimKernel.load(change(copy.deepcopy(machines.document("laptop-iris-xe"))))


def _edit(document: Any, *path: str, value: Any) -> Any:
    place = document["machine"]["laptop-iris-xe"]
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return document


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(ValueError, match="no machine 'toaster', there is laptop-iris-xe"):
        SimKernel.load(machines.document("laptop-iris-xe"), "toaster")


KEYS = st.sampled_from(["machine", "m", "tree", "sys", "dev", "proc", "@", "to", "id", "v", "shared", "ioctl", "x"])
JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_no_document_brings_anything_but_a_valueerror(document: Any) -> None:
    try:
        SimKernel.load(document)
    except ValueError as error:
        assert str(error)


def test_a_machine_may_start_with_a_card_whose_driver_answers_an_error() -> None:
    document = copy.deepcopy(machines.document("server-4x-b60"))
    document["machine"]["server-4x-b60"]["ioctl"]["0000:18:00.0"] = {"driver": "xe", "errno": "ECANCELED"}
    with pytest.raises(OSError, match="cancel") as refused:
        SimKernel.load(document).memory_regions("dev/dri/renderD128", "xe")
    assert refused.value.errno == errno.ECANCELED

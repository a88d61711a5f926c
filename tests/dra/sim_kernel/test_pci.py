"""Cards that come, go and change drivers: what the tree shows, which errno writes get, and the events in kernel order."""

from __future__ import annotations

import errno
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dra.sim_kernel import tree
from dra.sim_kernel.kernel import SimKernel
from tests.fakes import machines

B60 = "0000:18:00.0"
PATH = "/devices/pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:01.0/0000:18:00.0"
SLOT = {"PCI_CLASS": "30000", "PCI_ID": "8086:E211", "PCI_SUBSYS_ID": "1849:6023", "PCI_SLOT_NAME": B60}
ALIAS = {"MODALIAS": "pci:v00008086d0000E211sv00001849sd00006023bc03sc00i00"}
PCI = {"DEVPATH": PATH, "SUBSYSTEM": "pci", **SLOT}
DRM = {"SUBSYSTEM": "drm", "MAJOR": "226", "DEVTYPE": "drm_minor"}
RENDER = {"DEVPATH": f"{PATH}/drm/renderD128", "MINOR": "128", "DEVNAME": "dri/renderD128", **DRM}
CARD = {"DEVPATH": f"{PATH}/drm/card1", "MINOR": "1", "DEVNAME": "dri/card1", **DRM}
HWMON = {"DEVPATH": f"{PATH}/hwmon/hwmon0", "SUBSYSTEM": "hwmon"}

APPEARS = [
    {"ACTION": "add", **RENDER},
    {"ACTION": "add", **CARD},
    {"ACTION": "add", **HWMON},
    {"ACTION": "bind", "DRIVER": "xe", **PCI, **ALIAS},
]
VANISHES = [
    {"ACTION": "remove", **HWMON},
    {"ACTION": "remove", **CARD},
    {"ACTION": "remove", **RENDER},
    {"ACTION": "unbind", **PCI},
]


@pytest.fixture
def kernel() -> SimKernel:
    return machines.kernel("server-4x-b60")


def refused(kernel: SimKernel, path: str, text: str) -> int | None:
    with pytest.raises(OSError) as caught:
        kernel.write(path, text)
    return caught.value.errno


def dangling(kernel: SimKernel) -> list[str]:
    """Links that lead nowhere."""
    inside = kernel._tree
    return [path[1:] for path, entry in tree.walk(inside.root, "") if isinstance(entry, tree.Link) and inside.find(path[1:]) is None]


def test_unbind_takes_everything_the_driver_made(kernel: SimKernel) -> None:
    events = machines.Events(kernel)
    kernel.write("sys/bus/pci/drivers/xe/unbind", f"{B60}\n")
    assert events.properties == VANISHES
    here = f"sys/bus/pci/devices/{B60}"
    assert set(kernel.list(here)).isdisjoint({"driver", "drm", "hwmon", "tile0", "sriov_admin", "xe.mei-gscfi.256"})
    assert {"vendor", "sriov_numvfs", "remove", "iommu_group"} <= set(kernel.list(here))
    assert "DRIVER=" not in kernel.read(f"{here}/uevent")
    for gone in ("dev/dri/card1", "dev/dri/renderD128", f"dev/dri/by-path/pci-{B60}-render", "sys/class/drm/card1", "dev/mei0"):
        assert not kernel.exists(gone), gone
    assert not kernel.exists("sys/devices/xe_0000_18_00.0")
    assert kernel.exists("dev/dri/renderD129"), "the other cards stay"
    assert dangling(kernel) == []


def test_bind_brings_everything_back(kernel: SimKernel) -> None:
    kernel.unbind(B60)
    events = machines.Events(kernel)
    kernel.bind(B60, "xe")
    assert events.properties == APPEARS
    assert kernel.resolve("sys/class/drm/renderD128") == f"sys{PATH}/drm/renderD128"
    assert kernel.link(f"dev/dri/by-path/pci-{B60}-card") == "../card1"
    assert kernel.node("dev/dri/renderD128").mode == 0o660
    assert kernel.node("dev/dri/renderD128").gid == 105
    assert kernel.memory_regions("dev/dri/renderD128", "xe")[1].size_bytes == 25669140480
    assert dangling(kernel) == []


def test_bind_and_unbind_refuse_as_the_kernel_does(kernel: SimKernel) -> None:
    drivers = "sys/bus/pci/drivers"
    assert refused(kernel, f"{drivers}/xe/bind", "0000:ff:00.0") == errno.ENODEV
    assert refused(kernel, f"{drivers}/xe/bind", B60) == errno.EBUSY
    assert refused(kernel, f"{drivers}/ast/bind", B60) == errno.ENODEV, "no id of it matches"
    assert refused(kernel, f"{drivers}/ast/unbind", B60) == errno.ENODEV, "another driver has it"
    assert refused(kernel, f"{drivers}/vfio-pci/bind", B60) == errno.ENOENT, "the module is not loaded"
    kernel.unbind(B60)
    assert refused(kernel, f"{drivers}/xe/unbind", B60) == errno.ENODEV


def test_bind_of_a_bound_function_was_enodev_before_5_14() -> None:
    document = machines.document("server-4x-flex140")
    kernel = SimKernel.load(document)
    assert refused(kernel, "sys/bus/pci/drivers/i915/bind", "0000:4e:00.0") == errno.EBUSY
    old = {**document, "machine": {"old": {**document["machine"]["server-4x-flex140"]}}}
    old["machine"]["old"]["tree"] = {**old["machine"]["old"]["tree"], "proc": {"sys": {"kernel": {"osrelease": "5.10.0-9-amd64\n"}}}}
    assert refused(SimKernel.load(old), "sys/bus/pci/drivers/i915/bind", "0000:4e:00.0") == errno.ENODEV


def test_override_binds_vfio_and_back(kernel: SimKernel) -> None:
    here = f"sys/bus/pci/devices/{B60}"
    kernel.modprobe("vfio-pci")
    kernel.write(f"{here}/driver_override", "vfio-pci\n")
    assert kernel.read(f"{here}/driver_override") == "vfio-pci\n"
    kernel.unbind(B60)
    assert refused(kernel, "sys/bus/pci/drivers/xe/bind", B60) == errno.ENODEV, "the override names another"
    events = machines.Events(kernel)
    kernel.write("sys/bus/pci/drivers_probe", B60)
    vfio = {"ACTION": "add", "SUBSYSTEM": "vfio", "DEVPATH": "/devices/virtual/vfio/6", "MAJOR": "510", "MINOR": "0", "DEVNAME": "vfio/6"}
    device = {"MAJOR": "511", "MINOR": "0", "DEVNAME": "vfio/devices/vfio0"}
    assert sorted(events.properties[:2], key=lambda event: event["SUBSYSTEM"]) == [
        vfio,
        {"ACTION": "add", "SUBSYSTEM": "vfio-dev", "DEVPATH": f"{PATH}/vfio-dev/vfio0", **device},
    ]
    assert events.properties[2:] == [{"ACTION": "bind", "DRIVER": "vfio-pci", **PCI, **ALIAS}]
    assert events.short[0][1] == "vfio-dev", "the device comes before its group"
    assert kernel.list(f"{here}/vfio-dev") == ["vfio0"]
    assert (kernel.node("dev/vfio/6").mode, kernel.node("dev/vfio/devices/vfio0").major) == (0o600, 511)
    kernel.unbind(B60)
    assert not kernel.exists("dev/vfio/6")
    assert not kernel.exists("sys/devices/virtual/vfio/6")
    kernel.write(f"{here}/driver_override", "\n")
    assert kernel.read(f"{here}/driver_override") == "(null)\n"
    kernel.write("sys/bus/pci/drivers_probe", B60)
    assert kernel.link(f"{here}/driver").endswith("/xe")
    assert dangling(kernel) == []


def test_probe_is_content_where_no_driver_wants_the_function(kernel: SimKernel) -> None:
    kernel.write(f"sys/bus/pci/devices/{B60}/driver_override", "nothing")
    kernel.unbind(B60)
    kernel.write("sys/bus/pci/drivers_probe", B60)
    assert not kernel.exists(f"sys/bus/pci/devices/{B60}/driver")
    assert refused(kernel, "sys/bus/pci/drivers_probe", "0000:ff:00.0") == errno.ENODEV


def test_vfio_needs_an_iommu() -> None:
    kernel = machines.kernel("workstation-2xb580")
    assert not kernel.exists("sys/bus/pci/devices/0000:03:00.0/iommu_group") or kernel.exists("sys/kernel/iommu_groups")
    directory = kernel._tree.directory("sys/bus/pci/devices/0000:03:00.0")
    assert directory is not None
    directory.entries.pop("iommu_group", None)
    kernel.modprobe("vfio-pci")
    kernel.write("sys/bus/pci/devices/0000:03:00.0/driver_override", "vfio-pci")
    kernel.unbind("0000:03:00.0")
    assert refused(kernel, "sys/bus/pci/drivers/vfio-pci/bind", "0000:03:00.0") == errno.EINVAL


def test_new_id_lets_a_driver_bind_what_it_did_not_know(kernel: SimKernel) -> None:
    kernel.modprobe("vfio-pci")
    kernel.write("sys/bus/pci/devices/0000:18:00.0/driver_override", "none")
    kernel.unbind(B60)
    place = "sys/bus/pci/drivers/vfio-pci"
    kernel.write("sys/bus/pci/devices/0000:18:00.0/driver_override", "\n")
    kernel.fail("*", "probe", errno.EIO)
    kernel.write("sys/bus/pci/drivers_probe", B60)
    assert refused(kernel, f"{place}/new_id", "8086") == errno.EINVAL
    kernel.write(f"{place}/new_id", "1002 7480")
    assert refused(kernel, f"{place}/new_id", "1002 7480") == errno.EEXIST
    kernel.write(f"{place}/remove_id", "1002 7480")
    assert refused(kernel, f"{place}/remove_id", "1002 7480") == errno.ENODEV


def test_a_failed_probe_answers_its_errno_and_leaves_no_driver(kernel: SimKernel) -> None:
    kernel.unbind(B60)
    kernel.fail("*/0000:18:00.0", "probe", errno.EIO)
    assert refused(kernel, "sys/bus/pci/drivers/xe/bind", B60) == errno.EIO
    assert not kernel.exists(f"sys/bus/pci/devices/{B60}/driver")
    kernel.bind(B60, "xe")
    assert kernel.exists("dev/dri/renderD128")


def test_hot_remove_and_hot_add(kernel: SimKernel) -> None:
    events = machines.Events(kernel)
    kernel.unplug(B60)
    assert events.properties == [*VANISHES, {"ACTION": "remove", **PCI, **ALIAS}]
    assert not kernel.exists(f"sys/bus/pci/devices/{B60}")
    assert not kernel.exists(f"sys{PATH}")
    assert not kernel.exists("sys/kernel/iommu_groups/6")
    assert dangling(kernel) == []
    events.properties.clear()
    kernel.write("sys/bus/pci/rescan", "1")
    assert events.properties == [], "a pulled card is not found"
    kernel.plug(B60)
    assert events.properties == [{"ACTION": "add", **PCI, **ALIAS}, *APPEARS]
    assert kernel.exists("sys/kernel/iommu_groups/6/devices/0000:18:00.0")
    assert dangling(kernel) == []


def test_remove_and_rescan_make_a_new_device(kernel: SimKernel) -> None:
    kernel.write(f"sys/bus/pci/devices/{B60}/driver_override", "xe")
    kernel.write(f"sys/bus/pci/devices/{B60}/remove", "1\n")
    assert not kernel.exists(f"sys/bus/pci/devices/{B60}")
    with pytest.raises(FileNotFoundError):
        kernel.memory_regions("dev/dri/renderD128", "xe")
    kernel.write("sys/bus/pci/rescan", "1\n")
    assert kernel.read(f"sys/bus/pci/devices/{B60}/driver_override") == "(null)\n"
    assert kernel.exists("dev/dri/renderD128")
    assert refused(kernel, f"sys/bus/pci/devices/{B60}/remove", "yes") == errno.EINVAL


def test_removing_a_bridge_takes_what_is_behind_it(kernel: SimKernel) -> None:
    events = machines.Events(kernel)
    kernel.unplug("0000:16:00.0")
    removed = [name for action, subsystem, name in events.short if (action, subsystem) == ("remove", "pci")]
    assert removed == [B60, "0000:17:01.0", "0000:16:00.0"]
    kernel.plug("0000:16:00.0")
    assert kernel.memory_regions("dev/dri/renderD128", "xe")
    assert dangling(kernel) == []


def test_minors_are_the_lowest_free_ones_and_no_identity(kernel: SimKernel) -> None:
    kernel.unplug(B60)
    kernel.unplug("0000:3a:00.0")
    kernel.plug("0000:3a:00.0")
    assert kernel.resolve("sys/class/drm/renderD128").split("/")[-3] == "0000:3a:00.0"
    assert "card1-DP-5" in kernel.list("sys/class/drm/card1")
    assert kernel.read("sys/class/drm/card1/dev") == "226:1\n"
    assert kernel.link("sys/bus/pci/devices/0000:3a:00.0/drm/controlD65") == "card1"
    kernel.plug(B60)
    assert kernel.list(f"sys/bus/pci/devices/{B60}/drm") == ["card2", "controlD66", "renderD129"]
    assert dangling(kernel) == []


def test_minors_held_open_are_not_given_away(kernel: SimKernel) -> None:
    kernel.hold_minor(B60)
    kernel.unplug(B60)
    kernel.plug(B60)
    assert kernel.list(f"sys/bus/pci/devices/{B60}/drm") == ["card5", "controlD69", "renderD132"]
    kernel.release_minors()
    kernel.unplug(B60)
    kernel.plug(B60)
    assert "card1" in kernel.list(f"sys/bus/pci/devices/{B60}/drm")


def test_minors_above_the_first_64_come_from_one_pool() -> None:
    kernel = machines.kernel("monster-64gpu")
    kernel.plug("0001:cb:00.0", like="0001:ca:00.0")
    assert kernel.list("sys/bus/pci/devices/0001:cb:00.0/drm") == ["card194", "controlD258", "renderD193"]


def test_a_second_card_like_another(kernel: SimKernel) -> None:
    events = machines.Events(kernel)
    kernel.plug("0000:19:00.0", like=B60)
    assert events.short == [
        ("add", "pci", "0000:19:00.0"),
        ("add", "drm", "renderD132"),
        ("add", "drm", "card5"),
        ("add", "hwmon", "hwmon4"),
        ("bind", "pci", "0000:19:00.0"),
    ]
    assert events.properties[0]["PCI_SLOT_NAME"] == "0000:19:00.0"
    assert kernel.memory_regions("dev/dri/renderD132", "xe") == kernel.memory_regions("dev/dri/renderD128", "xe")
    assert kernel.exists("sys/devices/xe_0000_19_00.0/events/gt-c6-residency")
    assert kernel.link("sys/bus/pci/devices/0000:19:00.0/drm/renderD132/device").endswith("0000:19:00.0")
    assert kernel.link("sys/bus/pci/devices/0000:19:00.0/iommu_group") != kernel.link(f"sys/bus/pci/devices/{B60}/iommu_group")
    assert dangling(kernel) == []


def test_a_card_nobody_saw_before(kernel: SimKernel) -> None:
    described = {
        "vendor": "0x8086\n",
        "device": "0xe20b\n",
        "class": "0x030000\n",
        "uevent": {"@": "rw", "v": "PCI_CLASS=30000\nPCI_ID=8086:E20B\nPCI_SLOT_NAME=0000:19:00.0\n"},
        "driver_override": {"@": "rw", "v": "(null)\n"},
        "subsystem": {"@": "link", "to": "../../../../../../bus/pci"},
    }
    parent = f"sys{PATH}".rpartition("/")[0]
    regions = {"driver": "xe", "mem_regions": [{"class": "vram", "instance": 1, "total_size": 4096}]}
    kernel.plug_fragment("0000:19:00.0", parent, described, regions)
    assert [region.size_bytes for region in kernel.memory_regions("dev/dri/renderD132", "xe")] == [4096]
    with pytest.raises(ValueError, match=r"directory.x: 'nonsense' is not a kind of node"):
        kernel.plug_fragment("0000:1a:00.0", parent, {"x": {"@": "nonsense"}})
    with pytest.raises(ValueError, match="no directory below sys/devices"):
        kernel.plug_fragment("0000:1a:00.0", "sys/nowhere", described)


@pytest.mark.parametrize(
    ("bdf", "like", "message"),
    [
        ("0000:ff:00.0", None, "ever on this machine"),
        (B60, None, "on the bus already"),
        ("nonsense", B60, "not a PCI address"),
        ("0000:3a:00.0", B60, "known already"),
    ],
)
def test_plug_says_why_not(kernel: SimKernel, bdf: str, like: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernel.plug(bdf, like)


@pytest.mark.parametrize("name", machines.NAMES)
def test_every_gpu_of_every_machine_goes_and_comes_back(name: str) -> None:
    kernel = machines.kernel(name)
    before = _names(kernel)
    assert dangling(kernel) == []
    gpus = [
        gpu["bdf"] for gpu in machines.expected(name) if gpu["kind"] == "pf" and gpu["vfs_now"] == 0 and gpu["driver"] in ("i915", "xe")
    ]
    for bdf in gpus:
        kernel.unplug(bdf)
        kernel.plug(bdf)
    assert dangling(kernel) == []
    assert _names(kernel) == before


def _names(kernel: SimKernel) -> dict[str, type]:
    return {path: type(entry) for path, entry in tree.walk(kernel._tree.root, "")}


def test_pulling_a_card_takes_its_vfs_first() -> None:
    kernel = machines.kernel("server-4x-b60-4vf")
    events = machines.Events(kernel)
    kernel.unplug(B60)
    removed = [name for action, subsystem, name in events.short if (action, subsystem) == ("remove", "pci")]
    assert removed == ["0000:18:00.1", "0000:18:00.2", "0000:18:00.3", "0000:18:00.4", B60]
    assert dangling(kernel) == []


def test_a_vf_without_autoprobe_binds_by_override_only() -> None:
    kernel = machines.kernel("server-4x-b60-4vf")
    vf = "0000:18:00.1"
    kernel.write(f"sys/bus/pci/devices/{B60}/sriov_drivers_autoprobe", "0")
    kernel.unbind(vf)
    assert refused(kernel, "sys/bus/pci/drivers/xe/bind", vf) == errno.ENODEV
    kernel.write("sys/bus/pci/drivers_probe", vf)
    assert not kernel.exists(f"sys/bus/pci/devices/{vf}/driver")
    kernel.write(f"sys/bus/pci/devices/{vf}/driver_override", "xe")
    kernel.bind(vf, "xe")
    assert kernel.exists(f"sys/bus/pci/devices/{vf}/drm")


def test_xe_vfio_wants_a_vf_whose_pf_is_on_xe() -> None:
    kernel = machines.kernel("server-4x-b60-4vf")
    kernel.modprobe("xe-vfio-pci")
    for bdf, outcome in (("0000:3a:00.0", errno.ENODEV), ("0000:18:00.1", None)):
        kernel.write(f"sys/bus/pci/devices/{bdf}/driver_override", "xe-vfio-pci")
        kernel.unbind(bdf)
        if outcome:
            assert refused(kernel, "sys/bus/pci/drivers/xe-vfio-pci/bind", bdf) == outcome
        else:
            kernel.bind(bdf, "xe-vfio-pci")
            assert kernel.exists(f"sys/bus/pci/devices/{bdf}/vfio-dev/vfio0")


def test_a_card_that_started_on_vfio_is_given_back() -> None:
    kernel = machines.kernel("mixed-nvidia-amd")
    bdf = "0000:aa:00.0"
    kernel.unbind(bdf)
    assert not kernel.exists("dev/vfio/25")
    assert not kernel.exists("dev/vfio/devices/vfio0")
    kernel.write(f"sys/bus/pci/devices/{bdf}/driver_override", "\n")
    kernel.write("sys/bus/pci/drivers_probe", bdf)
    assert kernel.link(f"sys/bus/pci/devices/{bdf}/driver").endswith("/xe"), "another B60 shows that xe takes this model"
    assert kernel.exists(f"dev/dri/by-path/pci-{bdf}-render")
    assert dangling(kernel) == []


def test_nothing_binds_by_itself_without_autoprobe(kernel: SimKernel) -> None:
    kernel.unplug(B60)
    kernel.write("sys/bus/pci/drivers_autoprobe", "0")
    kernel.plug(B60)
    assert not kernel.exists(f"sys/bus/pci/devices/{B60}/driver")
    kernel.bind(B60, "xe")
    assert kernel.exists("dev/dri/renderD128")


def test_threads_see_whole_machines_only() -> None:
    """Readers race with a card that comes and goes: they meet ENOENT, never half a change."""
    kernel = machines.kernel("workstation-2xb580", lock=threading.RLock())
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            try:
                for name in kernel.list("sys/class/drm"):
                    kernel.read(f"sys/class/drm/{name}/uevent")
            except (FileNotFoundError, NotADirectoryError):  # `version` is a file
                continue

    with ThreadPoolExecutor(3) as pool:
        looking = [pool.submit(look) for _ in range(3)]
        for _ in range(30):
            kernel.unplug("0000:03:00.0")
            kernel.plug("0000:03:00.0")
        stop.set()
        for each in looking:
            each.result()
    assert dangling(kernel) == []

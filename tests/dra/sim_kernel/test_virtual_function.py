"""What a VF looks like from outside: its files, its events, its driver, and that nothing of it stays behind."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from dra import discovery
from dra.devices import Kind, State
from dra.names import Bdf
from dra.sim_kernel import tree
from dra.sim_kernel.kernel import SimKernel
from tests.fakes import machines

B60, FLEX = "0000:18:00.0", "0000:4d:00.0"
PARENT = "/devices/pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:01.0"
ALIAS = {"MODALIAS": "pci:v00008086d0000E211sv00001849sd00006023bc03sc00i00"}


def pci(action: str, bdf: str, **more: str) -> dict[str, str]:
    slot = {"PCI_CLASS": "30000", "PCI_ID": "8086:E211", "PCI_SUBSYS_ID": "1849:6023", "PCI_SLOT_NAME": bdf}
    return {"ACTION": action, "DEVPATH": f"{PARENT}/{bdf}", "SUBSYSTEM": "pci", **slot, **more}


def drm(action: str, bdf: str, name: str, minor: int) -> dict[str, str]:
    node = {"MAJOR": "226", "MINOR": str(minor), "DEVNAME": f"dri/{name}", "DEVTYPE": "drm_minor"}
    return {"ACTION": action, "DEVPATH": f"{PARENT}/{bdf}/drm/{name}", "SUBSYSTEM": "drm", **node}


def made(bdf: str, minor: int) -> list[dict[str, str]]:
    """What one VF of the B60 is announced with, up to its driver."""
    return [
        pci("add", bdf, **ALIAS),
        pci("change", bdf, **ALIAS),
        drm("add", bdf, f"renderD{minor + 127}", minor + 127),
        drm("add", bdf, f"card{minor}", minor),
        pci("bind", bdf, DRIVER="xe", **ALIAS),
    ]


def gone(bdf: str, minor: int) -> list[dict[str, str]]:
    return [
        drm("remove", bdf, f"card{minor}", minor),
        drm("remove", bdf, f"renderD{minor + 127}", minor + 127),
        pci("unbind", bdf),
        pci("remove", bdf, **ALIAS),
    ]


def numvfs(kernel: SimKernel, bdf: str, count: int) -> None:
    kernel.write(f"sys/bus/pci/devices/{bdf}/sriov_numvfs", str(count))


def everything(kernel: SimKernel) -> dict[str, object]:
    """Every path and what is there."""
    seen: dict[str, object] = {}
    for path, entry in tree.walk(kernel._tree.root, ""):
        match entry:
            case tree.File():
                seen[path] = (entry.text, entry.mode)
            case tree.Link():
                assert kernel._tree.find(path[1:]) is not None, f"{path} leads nowhere"
                seen[path] = entry.target
            case tree.Node():
                seen[path] = (entry.major, entry.minor, entry.mode, entry.gid)
            case tree.Directory():
                seen[path] = ""
    return seen


# --- files ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("machine", "bdf"), [("server-4x-b60-4vf", B60), ("server-8x-flex170", "0000:2c:00.0")])
def test_vfs_made_anew_look_as_the_documents_vfs_do(machine: str, bdf: str) -> None:
    kernel = machines.kernel(machine)
    before = everything(kernel)
    numvfs(kernel, bdf, 0)
    assert len(everything(kernel)) < len(before) - 4 * 50
    numvfs(kernel, bdf, 4)
    assert everything(kernel) == before


@pytest.mark.parametrize(
    ("machine", "bdf", "count"), [("server-4x-b60", B60, 24), ("server-8x-flex170", FLEX, 31), ("server-2x-b60-debugfs", B60, 7)]
)
def test_nothing_stays_of_vfs_that_were_taken_away(machine: str, bdf: str, count: int) -> None:
    kernel = machines.kernel(machine)
    before = everything(kernel)
    for _ in range(2):
        numvfs(kernel, bdf, count)
        with_vfs = everything(kernel)
        numvfs(kernel, bdf, 0)
        assert everything(kernel) == before
    numvfs(kernel, bdf, count)
    assert everything(kernel) == with_vfs, "the same numbers are given again"


def test_a_vf_has_what_the_core_gives_it_and_not_what_is_the_pfs() -> None:
    kernel = machines.kernel("server-4x-b60")
    numvfs(kernel, B60, 8)
    pf, vf = f"sys/bus/pci/devices/{B60}", "sys/bus/pci/devices/0000:18:01.0"
    assert kernel.link(f"{pf}/virtfn7") == "../0000:18:01.0", "the eighth VF is beyond the PF's own slot"
    assert kernel.link(f"{vf}/physfn") == f"../{B60}"
    assert kernel.read(f"{vf}/device") == "0xe211\n"
    assert kernel.read(f"{vf}/numa_node") == kernel.read(f"{pf}/numa_node")
    names = kernel.list(vf)
    assert not [name for name in names if name.startswith(("sriov", "virtfn", "hwmon", "xe.mei"))]
    assert "freq0" not in kernel.list(f"{vf}/tile0/gt0") and "gtidle" not in kernel.list(f"{vf}/tile0/gt0")
    groups = {kernel.link(f"sys/bus/pci/devices/0000:18:00.{function}/iommu_group") for function in range(8)}
    assert len(groups) == 8, "each has a group of its own"


@pytest.mark.parametrize(("machine", "bdf", "count"), [("server-4x-b60", B60, 24), ("server-8x-flex170", FLEX, 31)])
def test_discovery_finds_all_of_a_full_card(machine: str, bdf: str, count: int) -> None:
    kernel = machines.kernel(machine)
    numvfs(kernel, bdf, count)
    gpus = discovery.scan(kernel).by_bdf()
    pf = gpus[Bdf(bdf)]
    assert (pf.vfs_now, pf.publishable) == (count, False) and pf.vf_places is not None and pf.memory_bytes is not None
    for index in range(1, count + 1):
        vf = gpus[pf.vf_places.bdf(pf.bdf, index)]
        assert (vf.kind, vf.parent, vf.vf_index, vf.state, vf.driver) == (Kind.VF, bdf, index, State.HEALTHY, pf.driver)
        assert vf.memory_bytes == (pf.memory_bytes - (128 << 20)) // count // (2 << 20) * (2 << 20)
        assert vf.card_node is not None and vf.render_node is not None
        assert (vf.render_node.minor, vf.card_node.minor) == (vf.render, vf.card)
        assert {link for link, _ in vf.by_path} == {f"/dev/dri/by-path/pci-{vf.bdf}-{kind}" for kind in ("card", "render")}


# --- events --------------------------------------------------------------------------------------------------------------------------


def test_events_of_making_and_taking_away() -> None:
    kernel = machines.kernel("server-4x-b60")
    kernel.unplug("0000:3a:00.0")  # its card2 and renderD129 are free now
    events = machines.Events(kernel)
    numvfs(kernel, B60, 2)
    assert events.properties == [
        *made("0000:18:00.1", 2),
        *made("0000:18:00.2", 5),
        pci("change", B60, DRIVER="xe", **ALIAS),
    ]
    events.properties.clear()
    numvfs(kernel, B60, 0)
    assert events.properties == [*gone("0000:18:00.1", 2), *gone("0000:18:00.2", 5)]


def test_events_without_autoprobe() -> None:
    kernel = machines.kernel("server-4x-b60")
    kernel.write(f"sys/bus/pci/devices/{B60}/sriov_drivers_autoprobe", "0")
    events = machines.Events(kernel)
    numvfs(kernel, B60, 1)
    assert events.properties == [
        pci("add", "0000:18:00.1", **ALIAS),
        pci("change", "0000:18:00.1", **ALIAS),
        pci("change", B60, DRIVER="xe", **ALIAS),
    ]


def test_links_and_the_number_appear_between_the_events() -> None:
    kernel, seen = machines.kernel("server-4x-b60"), []
    vf = "sys/bus/pci/devices/0000:18:00.1"

    def look(action: str, _subsystem: str, path: str, _properties: Any) -> None:
        links = kernel.exists(f"{vf}/physfn"), kernel.exists(f"sys/bus/pci/devices/{B60}/virtfn0")
        seen.append((action, path.rpartition("/")[2], *links, kernel.read(f"sys/bus/pci/devices/{B60}/sriov_numvfs").strip()))

    kernel.subscribe(look)
    numvfs(kernel, B60, 1)
    assert seen[:2] == [("add", "0000:18:00.1", False, False, "0"), ("change", "0000:18:00.1", True, True, "0")]
    assert seen[-1] == ("change", B60, True, True, "0"), "the PF's event comes before its number"
    assert kernel.read(f"sys/bus/pci/devices/{B60}/sriov_numvfs") == "1\n"
    seen.clear()
    numvfs(kernel, B60, 0)
    assert [entry[2:4] for entry in seen] == [(False, False)] * 4, "links go first"


@pytest.mark.parametrize("act", [SimKernel.unplug, SimKernel.unbind])
def test_vfs_go_before_their_pf_does(act: Any) -> None:
    kernel = machines.kernel("server-4x-b60")
    numvfs(kernel, B60, 2)
    events = machines.Events(kernel)
    act(kernel, B60)
    assert events.properties[:8] == [*gone("0000:18:00.1", 5), *gone("0000:18:00.2", 6)]
    assert events.short[8:11] == [("remove", "hwmon", "hwmon0"), ("remove", "drm", "card1"), ("remove", "drm", "renderD128")]
    assert not [path for path in everything(kernel) if "0000:18:00.1" in path]


# --- drivers -------------------------------------------------------------------------------------------------------------------------


def test_a_vf_goes_to_a_virtual_machine_and_comes_back() -> None:
    kernel = machines.kernel("server-4x-b60")
    numvfs(kernel, B60, 1)
    vf, before = "0000:18:00.1", everything(kernel)
    kernel.modprobe("vfio-pci")
    events = machines.Events(kernel)
    kernel.write(f"sys/bus/pci/devices/{vf}/driver_override", "vfio-pci")
    kernel.unbind(vf)
    kernel.write("sys/bus/pci/drivers_probe", vf)
    assert [(event["ACTION"], event["SUBSYSTEM"]) for event in events.properties] == [
        ("remove", "drm"), ("remove", "drm"), ("unbind", "pci"), ("add", "vfio-dev"), ("add", "vfio"), ("bind", "pci"),
    ]  # fmt: skip
    kernel.write(f"sys/bus/pci/devices/{vf}/driver_override", "\n")
    kernel.unbind(vf)
    kernel.write("sys/bus/pci/drivers_probe", vf)
    after = everything(kernel)
    assert {path for path in before.keys() ^ after.keys() if "vfio" not in path} <= {"/sys/devices/virtual"}
    assert {path: after[path] for path in before} == before
    assert discovery.scan(kernel).by_bdf()[Bdf(vf)].memory_bytes == 25534922752


@pytest.mark.parametrize("pattern", ["0000:18:00.2", "*/0000:18:00.2"])
def test_a_probe_that_fails_leaves_one_vf_without_nodes(pattern: str) -> None:
    kernel = machines.kernel("server-4x-b60")
    kernel.fail(pattern, "probe", errno.EIO)
    numvfs(kernel, B60, 3)
    gpus = discovery.scan(kernel).by_bdf()
    assert [gpus[Bdf(f"0000:18:00.{index}")].state for index in (1, 2, 3)] == [State.HEALTHY, State.NO_DRIVER, State.HEALTHY]
    kernel.bind("0000:18:00.2", "xe")
    assert discovery.scan(kernel).by_bdf()[Bdf("0000:18:00.2")].state is State.HEALTHY, "it failed once"


def test_a_driver_may_make_fewer_than_it_is_asked_for() -> None:
    kernel = machines.kernel("server-4x-b60")
    kernel.limit_vfs(B60, 2)
    numvfs(kernel, B60, 4)
    assert kernel.read(f"sys/bus/pci/devices/{B60}/sriov_numvfs") == "2\n"
    assert discovery.scan(kernel).by_bdf()[Bdf(B60)].vfs_now == 2
    numvfs(kernel, B60, 0)
    kernel.limit_vfs(B60, 0)
    events = machines.Events(kernel)
    numvfs(kernel, B60, 4)
    assert kernel.read(f"sys/bus/pci/devices/{B60}/sriov_numvfs") == "0\n" and events.short == []


def test_a_vf_can_be_removed_alone_and_no_scan_finds_it() -> None:
    kernel = machines.kernel("server-4x-b60")
    numvfs(kernel, B60, 3)
    kernel.write("sys/bus/pci/devices/0000:18:00.2/remove", "1")
    kernel.write("sys/bus/pci/rescan", "1")
    assert not kernel.exists("sys/bus/pci/devices/0000:18:00.2")
    for act in (kernel.unplug, kernel.plug):
        with pytest.raises(ValueError, match="is a VF"):
            act("0000:18:00.2")
    numvfs(kernel, B60, 0)
    numvfs(kernel, B60, 3)
    assert kernel.exists("sys/bus/pci/devices/0000:18:00.2/drm")

"""What every KernelTree promises, over the fake kernel, over real files that show the same machine, and over its tree mounted."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dra.kernel_tree import KernelTree
from nursery_apps.edges.kernel_tree import RealKernelTree
from tests.fakes import machines
from tests.fakes.materialise import can_make_nodes, materialise
from tests.tools.gpulab import labs

MACHINE = "server-2x-b60-debugfs"
BDF = "0000:18:00.0"
DEVICE = "sys/devices/pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:01.0/0000:18:00.0"


def files(base: Path, inside: str = "") -> RealKernelTree:
    return RealKernelTree(*(str(base / inside / root) for root in ("sys", "dev", "proc")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("machine")
    materialise(machines.document(MACHINE), base, make_nodes=can_make_nodes(base))
    return base


@pytest.fixture(scope="module")
def mounted() -> Iterator[RealKernelTree]:
    with labs.serving(MACHINE) as lab:
        yield lab.tree


@pytest.fixture(params=["sim", "real", "lab"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def kernel(kind: str, request: pytest.FixtureRequest, folder: Path) -> KernelTree:
    if kind == "lab":
        tree: RealKernelTree = request.getfixturevalue("mounted")
        return tree
    return machines.kernel(MACHINE) if kind == "sim" else files(folder)


def refused(call: Any, *arguments: Any) -> int | None:
    with pytest.raises(OSError) as caught:
        call(*arguments)
    assert str(arguments[0]) in str(caught.value) or caught.value.filename, "the message names the file"
    return caught.value.errno


def test_reads_through_links(kernel: KernelTree) -> None:
    assert kernel.read(f"sys/bus/pci/devices/{BDF}/device") == "0xe211\n"
    assert kernel.read("sys/class/drm/renderD128/device/vendor") == "0x8086\n"
    assert kernel.read("proc/sys/kernel/osrelease") == "6.17.8\n"


def test_what_is_missing_is_enoent(kernel: KernelTree) -> None:
    for call in (kernel.read, kernel.list, kernel.link, kernel.resolve, kernel.node):
        assert refused(call, f"sys/bus/pci/devices/{BDF}/nothing") == errno.ENOENT
    assert refused(kernel.write, f"sys/bus/pci/devices/{BDF}/nothing", "1") == errno.ENOENT
    assert not kernel.exists(f"sys/bus/pci/devices/{BDF}/nothing")


@pytest.mark.parametrize("path", ["/sys/bus", "etc/passwd", "", "system/x"])
def test_only_the_three_roots_exist(kernel: KernelTree, path: str) -> None:
    for call in (kernel.read, kernel.list, kernel.link, kernel.resolve, kernel.node):
        with pytest.raises(FileNotFoundError):
            call(path)
    assert not kernel.exists(path)


def test_a_file_is_no_directory_and_a_directory_no_file(kernel: KernelTree) -> None:
    device = f"sys/bus/pci/devices/{BDF}"
    assert refused(kernel.list, f"{device}/vendor") == errno.ENOTDIR
    assert refused(kernel.read, f"{device}/vendor/x") == errno.ENOTDIR
    assert refused(kernel.resolve, f"{device}/vendor/x") == errno.ENOTDIR
    assert refused(kernel.read, device) == errno.EISDIR
    assert refused(kernel.write, device, "1") == errno.EISDIR
    assert refused(kernel.link, f"{device}/vendor") == errno.EINVAL
    assert refused(kernel.node, f"{device}/vendor") == errno.ENODEV


def test_lists_are_sorted(kernel: KernelTree) -> None:
    assert kernel.list("sys/bus/pci/drivers/xe") == sorted(
        [BDF, "0000:3a:00.0", "bind", "module", "new_id", "remove_id", "uevent", "unbind"]
    )
    names = kernel.list(f"sys/bus/pci/devices/{BDF}")
    assert names == sorted(names)


def test_links_are_read_and_resolved(kernel: KernelTree) -> None:
    assert kernel.link(f"sys/bus/pci/devices/{BDF}") == f"../../../{DEVICE.removeprefix('sys/')}"
    assert kernel.resolve(f"sys/bus/pci/devices/{BDF}") == DEVICE
    assert kernel.resolve("sys/class/drm/card1/device/driver") == "sys/bus/pci/drivers/xe"
    assert kernel.resolve(f"dev/dri/by-path/pci-{BDF}-render") == "dev/dri/renderD128"
    assert kernel.resolve("sys") == "sys"
    assert kernel.resolve("sys/class/../bus/./pci/") == "sys/bus/pci"


def test_nodes_have_numbers_and_permissions(kind: str, kernel: KernelTree, folder: Path) -> None:
    if kind == "real" and not can_make_nodes(folder):
        pytest.skip("this process may not make device nodes (CAP_MKNOD)")
    node = kernel.node("dev/dri/renderD128")
    assert (node.major, node.minor, node.mode, node.uid, node.gid) == (226, 128, 0o660, 0, 105)
    assert kernel.node(f"dev/dri/by-path/pci-{BDF}-card").minor == 1


def test_files_have_modes_and_nothing_else_has(kernel: KernelTree) -> None:
    assert kernel.mode(f"{DEVICE}/vendor") & 0o222 == 0
    assert kernel.mode(f"sys/bus/pci/devices/{BDF}/sriov_numvfs") & 0o600 == 0o600
    assert kernel.mode("sys/bus/pci/drivers/xe/bind") == 0o200
    assert refused(kernel.mode, DEVICE) == errno.EINVAL
    assert refused(kernel.mode, f"{DEVICE}/nothing") == errno.ENOENT


def test_write_then_read(kernel: KernelTree) -> None:
    path = f"sys/bus/pci/devices/{BDF}/tile0/gt0/freq0/max_freq"
    kernel.write(path, "1300\n")
    assert kernel.read(path) == "1300\n"
    kernel.write(path, "")
    assert kernel.read(path) == "1300\n", "an empty write reaches nobody"


def test_modes_forbid(kind: str, kernel: KernelTree) -> None:
    if kind == "real" and os.geteuid() == 0:
        pytest.skip("in a plain directory modes do not bind root; the test below asks sysfs itself")
    assert refused(kernel.write, f"sys/bus/pci/devices/{BDF}/vendor", "0x8086") == errno.EACCES
    assert refused(kernel.read, "sys/bus/pci/rescan") == errno.EACCES


def test_sysfs_modes_bind_root_too() -> None:
    real = RealKernelTree()
    if not real.exists("sys/bus/pci/drivers_probe"):
        pytest.skip("this machine has no PCI bus")
    assert refused(real.read, "sys/bus/pci/drivers_probe") == errno.EACCES
    assert refused(real.write, "sys/kernel/uevent_seqnum", "1") in (errno.EACCES, errno.EROFS)


def test_links_in_circles_are_eloop(tmp_path: Path) -> None:
    kernel = machines.kernel(MACHINE)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/a").symlink_to("b")
    (tmp_path / "dev/b").symlink_to("a")
    from dra.sim_kernel import tree

    kernel._tree.put("dev/a", tree.Link("b"))
    kernel._tree.put("dev/b", tree.Link("a"))
    for each in (kernel, files(tmp_path)):
        assert refused(each.read, "dev/a") == errno.ELOOP
        assert refused(each.resolve, "dev/a") == errno.ELOOP
        assert not each.exists("dev/a")


def test_an_absolute_link_stays_below_the_roots(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys/there").write_text("here\n")
    (tmp_path / "dev/absolute").symlink_to("/sys/there")
    (tmp_path / "dev/outside").symlink_to("/etc/hostname")
    kernel = files(tmp_path)
    assert kernel.resolve("dev/absolute") == "sys/there"
    assert refused(kernel.resolve, "dev/outside") == errno.ENOENT

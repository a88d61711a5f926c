"""The mounted tree has sysfs' manners: modes, sizes, errno, writes that block alone, files that go while they are open."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.tools.gpulab.labs import Lab, serving

BDF = "0000:18:00.0"
DEVICE = f"sys/bus/pci/devices/{BDF}"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with serving("server-4x-b60") as lab:
        yield lab


def shell(lab: Lab, line: str) -> str:
    """What a shell says, errors included, in the directory of the card."""
    done = subprocess.run(
        ["bash", "-c", line], check=False, cwd=f"{lab.files}/{DEVICE}", capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}
    )
    return done.stdout + done.stderr


def refused(act: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as caught:
        act()
    return caught.value.errno


def test_the_shell_sees_sysfs(lab: Lab) -> None:
    assert shell(lab, "cat device sriov_numvfs") == "0xe211\n0\n"
    assert shell(lab, "ls -l sriov_numvfs").startswith("-rw-r--r-- 1 root root 4096 ")
    assert shell(lab, "ls -l remove").startswith("--w------- 1 root root 4096 ")
    assert shell(lab, "ls -l driver").endswith(" driver -> ../../../../../../bus/pci/drivers/xe\n")
    assert shell(lab, "ls -d tile*; cat drm") == "tile0\ncat: drm: Is a directory\n"
    assert "Numerical result out of range" in shell(lab, "echo 99 > sriov_numvfs")
    assert "Invalid argument" in shell(lab, "echo x > sriov_numvfs")
    assert "Permission denied" in shell(lab, "echo 0x8086 > vendor")
    assert "Permission denied" in shell(lab, "touch new")
    assert "Operation not permitted" in shell(lab, "rm device")
    assert "Operation not permitted" in shell(lab, "mkdir new")


def test_nodes_are_seen_and_not_opened(lab: Lab) -> None:
    path = f"{lab.files}/dev/dri/renderD128"
    found = os.stat(path)
    assert (stat.S_IFMT(found.st_mode), found.st_rdev) == (stat.S_IFCHR, os.makedev(226, 128))
    assert refused(lambda: os.open(path, os.O_RDWR)) == errno.EACCES, "these may be the numbers of a GPU that is really here"


def test_one_write_is_one_store_wherever_the_offset_is(lab: Lab) -> None:
    path = f"{lab.files}/{DEVICE}/driver_override"
    with open(path, "wb", buffering=0) as file:
        file.write(b"xe\n")
        file.write(b"vfio-pci\n")
    assert lab.tree.read(f"{DEVICE}/driver_override") == "vfio-pci\n"


def test_an_errno_that_is_asked_for_arrives(lab: Lab) -> None:
    device = lab.tree.resolve(DEVICE)
    for operation, name, act in (
        ("read", "EIO", lambda: lab.tree.read(f"{DEVICE}/device")),
        ("write", "ENOSPC", lambda: lab.tree.write(f"{DEVICE}/driver_override", "xe")),
        ("list", "EINTR", lambda: lab.tree.list(f"{DEVICE}/drm")),
    ):
        lab.simulate(op="fail", path=f"{device}/*", operation=operation, errno=name)
        assert refused(act) == getattr(errno, name), operation
        lab.tree.read(f"{DEVICE}/device")
    lab.simulate(op="fail", path="dev/dri/renderD128", operation="node", errno="ENXIO")
    assert refused(lambda: lab.tree.node("dev/dri/renderD128")) == errno.ENXIO


def test_a_write_that_hangs_makes_only_its_writer_wait(lab: Lab) -> None:
    file = f"{lab.tree.resolve(DEVICE)}/driver_override"
    lab.simulate(op="hang", path=file, operation="write")
    wrote = threading.Event()

    def write() -> None:
        lab.tree.write(file, "xe")
        wrote.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for path in lab.tree.list(DEVICE):
            lab.tree.exists(f"{DEVICE}/{path}")
        assert lab.tree.read(f"{DEVICE}/driver_override") == "(null)\n"
        assert not wrote.is_set()
    finally:
        lab.simulate(op="release", path=file, operation="write")
        writer.join(5)
    assert wrote.is_set()
    assert lab.tree.read(file) == "xe\n"


def test_what_goes_while_it_is_open_is_enodev(lab: Lab) -> None:
    with open(f"{lab.files}/{DEVICE}/device", "rb", buffering=0) as file:
        assert file.read() == b"0xe211\n"
        lab.simulate(op="unplug", bdf=BDF)
        file.seek(0)
        assert refused(file.read) == errno.ENODEV
    assert not lab.tree.exists(DEVICE)
    assert BDF not in lab.tree.list("sys/bus/pci/devices")
    lab.simulate(op="plug", bdf=BDF)
    assert lab.tree.read(f"{DEVICE}/device") == "0xe211\n"

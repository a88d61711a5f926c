"""Profiles of xe's VFs: what is refused, what is read back, and what happens to memory."""

from __future__ import annotations

import errno

import pytest

from dra import discovery
from dra.names import Bdf
from dra.sim_kernel import tree
from dra.sim_kernel.kernel import SimKernel
from tests.fakes import machines

B60, HERE = "0000:18:00.0", "sys/bus/pci/devices/0000:18:00.0"
ADMIN, DEBUG = f"{HERE}/sriov_admin", f"sys/kernel/debug/dri/{B60}"
TOTAL, SPARE, GIB = 25669140480, 128 << 20, 1 << 30


@pytest.fixture
def kernel() -> SimKernel:
    return machines.kernel("server-4x-b60")


def answered(kernel: SimKernel, path: str, text: object) -> int | None:
    try:
        kernel.write(path, str(text))
    except OSError as error:
        return error.errno
    return None


def numvfs(kernel: SimKernel, count: int) -> int | None:
    return answered(kernel, f"{HERE}/sriov_numvfs", count)


def quota(kernel: SimKernel, vf: int) -> int:
    return int(kernel.read(f"{ADMIN}/vf{vf}/profile/vram_quota"))


def memory(kernel: SimKernel) -> list[int | None]:
    return [gpu.memory_bytes for gpu in discovery.scan(kernel).gpus if gpu.parent == B60]


# --- one write -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "text", "outcome"),
    [
        ("vf1/profile/vram_quota", "1", f"{2 << 20}\n"),
        ("vf1/profile/vram_quota", str(TOTAL - SPARE), f"{TOTAL - SPARE}\n"),
        ("vf1/profile/vram_quota", str(TOTAL - SPARE + 1), errno.ENOSPC),
        ("vf1/profile/vram_quota", str(1 << 64), errno.ERANGE),
        ("vf1/profile/vram_quota", "much", errno.EINVAL),
        ("vf1/profile/exec_quantum_ms", "16", "16\n"),
        ("vf1/profile/exec_quantum_ms", "-1", errno.EINVAL),
        ("vf1/profile/preempt_timeout_us", str(1 << 32), errno.ERANGE),
        ("vf1/profile/sched_priority", "normal", errno.EACCES),
        ("vf1/stop", "1", None),
        ("vf1/stop", "perhaps", errno.EINVAL),
        ("pf/profile/exec_quantum_ms", "20", "20\n"),
        ("pf/profile/sched_priority", "high", "low normal [high]\n"),
        ("pf/profile/sched_priority", "highest", errno.EINVAL),
        (".bulk_profile/sched_priority", "normal", None),
        (".bulk_profile/sched_priority", "high", errno.EOPNOTSUPP),
        (".bulk_profile/vram_quota", str(2 * GIB), errno.ENOSPC),
        (".bulk_profile/exec_quantum_ms", "8 ms", errno.EINVAL),
    ],
)
def test_a_value_is_taken_or_refused(kernel: SimKernel, path: str, text: str, outcome: int | str | None) -> None:
    refused = answered(kernel, f"{ADMIN}/{path}", text)
    if isinstance(outcome, int):
        assert refused == outcome
    else:
        assert refused is None
        assert outcome is None or kernel.read(f"{ADMIN}/{path}") == outcome


def test_the_bulk_file_means_all_vfs_and_for_scheduling_the_pf_too(kernel: SimKernel) -> None:
    kernel.write(f"{ADMIN}/.bulk_profile/vram_quota", str(GIB // 2 - 1))
    kernel.write(f"{ADMIN}/.bulk_profile/preempt_timeout_us", "9")
    kernel.write(f"{ADMIN}/.bulk_profile/sched_priority", "normal")
    assert answered(kernel, f"{ADMIN}/.bulk_profile/vram_quota", GIB) == errno.ENOSPC, "24 of them are more than there is"
    for who in ("pf", "vf1", "vf24"):
        assert kernel.read(f"{ADMIN}/{who}/profile/preempt_timeout_us") == "9\n"
        assert "[normal]" in kernel.read(f"{ADMIN}/{who}/profile/sched_priority")
    assert {quota(kernel, vf) for vf in range(1, 25)} == {GIB // 2}
    with pytest.raises(PermissionError):
        kernel.read(f"{ADMIN}/.bulk_profile/vram_quota")


@pytest.mark.parametrize("path", ["vf1/profile/vram_quota", "pf/profile/sched_priority", ".bulk_profile/exec_quantum_ms"])
def test_a_wedged_card_takes_nothing(kernel: SimKernel, path: str) -> None:
    kernel.wedge(B60)
    assert answered(kernel, f"{ADMIN}/{path}", "1") == errno.ECANCELED
    kernel.unwedge(B60)
    assert answered(kernel, f"{ADMIN}/vf1/profile/vram_quota", "1") is None


# --- making VFs ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 24])
def test_memory_is_split_evenly_and_all_taken_back(kernel: SimKernel, count: int) -> None:
    kernel.write(f"{ADMIN}/vf1/profile/exec_quantum_ms", "16")
    assert numvfs(kernel, count) is None
    share = (TOTAL - SPARE) // count // (2 << 20) * (2 << 20)
    assert memory(kernel) == [share] * count == [quota(kernel, vf) for vf in range(1, count + 1)]
    assert numvfs(kernel, 0) is None
    assert {quota(kernel, vf) for vf in range(1, 25)} == {0}
    assert kernel.read(f"{ADMIN}/vf1/profile/exec_quantum_ms") == "16\n", "times stay"


def test_quotas_by_hand_are_kept_and_released_too(kernel: SimKernel) -> None:
    kernel.write(f"{ADMIN}/vf1/profile/vram_quota", str(4 * GIB))
    kernel.write(f"{ADMIN}/vf2/profile/vram_quota", str(8 * GIB))
    assert answered(kernel, f"{ADMIN}/vf3/profile/vram_quota", TOTAL - SPARE - 12 * GIB + 1) == errno.ENOSPC
    assert numvfs(kernel, 2) is None
    assert memory(kernel) == [4 * GIB, 8 * GIB]
    assert numvfs(kernel, 0) is None
    assert quota(kernel, 1) == quota(kernel, 2) == 0


def test_a_vf_that_was_left_out_does_not_start(kernel: SimKernel) -> None:
    kernel.write(f"{ADMIN}/vf2/profile/vram_quota", str(GIB))
    assert numvfs(kernel, 2) is None
    assert [kernel.exists(f"sys/bus/pci/devices/0000:18:00.{vf}/driver") for vf in (1, 2)] == [False, True]


def test_without_sysfs_files_the_split_is_even_all_the_same() -> None:
    kernel = machines.kernel("server-2x-b60-debugfs")
    assert numvfs(kernel, 5) is None
    assert memory(kernel) == [(TOTAL - SPARE) // 5 // (2 << 20) * (2 << 20)] * 5


@pytest.mark.parametrize(("vf", "outcome"), [(2, errno.EUCLEAN), (3, None)])
def test_quotas_from_debugfs_are_leftovers_to_an_older_driver(vf: int, outcome: int | None) -> None:
    kernel = machines.kernel("server-2x-b60-debugfs")
    kernel.write(f"{DEBUG}/gt0/vf{vf}/lmem_quota", str(GIB))
    assert numvfs(kernel, 2) == outcome


def test_debugfs_can_forbid_vfs(kernel: SimKernel) -> None:
    kernel._tree.put(f"{DEBUG}/sriov/lockdown_vfs_enabling", tree.File("0\n", 0o644))
    kernel.write(f"{DEBUG}/sriov/lockdown_vfs_enabling", "1")
    assert numvfs(kernel, 2) == errno.EPERM
    kernel.write(f"{DEBUG}/sriov/lockdown_vfs_enabling", "0")
    assert numvfs(kernel, 2) is None


def test_there_must_be_enough_for_everybody() -> None:
    described = machines.document("server-4x-b60")
    here = described["machine"]["server-4x-b60"]
    small = {"driver": "xe", "mem_regions": [{"class": "vram", "instance": 1, "total_size": SPARE + (23 * 2 << 20)}]}
    kernel = SimKernel.load(described | {"machine": {"server-4x-b60": here | {"ioctl": here["ioctl"] | {B60: small}}}})
    assert numvfs(kernel, 24) == errno.ENOSPC
    assert numvfs(kernel, 23) is None
    assert memory(kernel) == [2 << 20] * 23


def test_no_vfs_where_the_driver_is_no_pf(kernel: SimKernel) -> None:
    kernel.survivability(B60, "Boot")
    assert numvfs(kernel, 1) == errno.ENODEV
    kernel.survivability(B60, None)
    kernel.wedge(B60)
    assert numvfs(kernel, 1) == errno.ECANCELED


def test_xe_on_a_platform_without_sriov_makes_none_whatever_the_hardware_shows() -> None:
    kernel = machines.kernel("laptop-iris-xe")
    gpu = "sys/bus/pci/devices/0000:00:02.0"
    for name, text in (("device", "0x64a0\n"), ("driver_override", "xe\n")):
        entry = kernel._tree.lookup(f"{gpu}/{name}")[1]
        assert isinstance(entry, tree.File)
        entry.text = text
    kernel.modprobe("xe")
    kernel.unbind("0000:00:02.0")
    kernel.bind("0000:00:02.0", "xe")
    assert answered(kernel, f"{gpu}/sriov_numvfs", 1) == errno.ENODEV


def test_an_integrated_gpu_shares_no_memory_out() -> None:
    kernel = machines.kernel("laptop-iris-xe")
    kernel.modprobe("xe")
    kernel.write("sys/bus/pci/devices/0000:00:02.0/driver_override", "xe")
    kernel.unbind("0000:00:02.0")
    kernel.bind("0000:00:02.0", "xe")
    kernel.write("sys/bus/pci/devices/0000:00:02.0/sriov_numvfs", "7")
    vfs = [gpu for gpu in discovery.scan(kernel).gpus if gpu.parent == "0000:00:02.0"]
    assert [(gpu.bdf, gpu.memory_bytes) for gpu in vfs] == [(Bdf(f"0000:00:02.{vf}"), None) for vf in range(1, 8)]


def test_directories_of_vfs_lead_to_those_that_are_there(kernel: SimKernel) -> None:
    assert numvfs(kernel, 2) is None
    there = [kernel.exists(f"{ADMIN}/vf{vf}/device") for vf in (1, 2, 3)]
    assert there == [True, True, False]
    assert kernel.resolve(f"{ADMIN}/vf2/device").endswith("/0000:18:00.2")
    assert numvfs(kernel, 0) is None
    assert not kernel.exists(f"{ADMIN}/vf1/device") and "device" not in kernel.list(f"{ADMIN}/vf1")

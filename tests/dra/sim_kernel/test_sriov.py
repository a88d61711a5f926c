"""VFs of a simulated PF: who appears where and in which order, what the drivers hand out, and every refusal (kernel sources as named in
`dra.sim_kernel`)."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

import pytest

from dra import discovery
from dra.names import Bdf
from dra.sim_kernel import control
from dra.sim_kernel.kernel import SimKernel
from tests.fakes import machines
from tests.fakes.machines import Events

FLEX, DIRTY, B60, XE = "0000:4d:00.0", "0000:3d:00.0", "0000:18:00.0", "server-4x-b60"


def at(bdf: str, name: str = "") -> str:
    return f"sys/bus/pci/devices/{bdf}/{name}".rstrip("/")


def iov(kernel: SimKernel, bdf: str) -> str:
    return f"{at(bdf)}/drm/card{discovery.scan(kernel).by_bdf()[Bdf(bdf)].card}/prelim_iov"


def number(kernel: SimKernel, path: str) -> int:
    return int(kernel.read(path))


def answered(act: Callable[..., object], *arguments: object) -> int | None:
    try:
        act(*arguments)
    except OSError as error:
        return error.errno
    return None


# --- what appears and goes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "pf", "count", "last"),
    [("server-8x-flex170", FLEX, 31, "0000:4d:03.7"), (XE, B60, 24, "0000:18:03.0"), ("server-2x-b60-debugfs", B60, 5, "0000:18:00.5")],
)
def test_vfs_are_found_by_discovery_as_real_ones_are(machine: str, pf: str, count: int, last: str) -> None:
    kernel = machines.kernel(machine)
    kernel.write(at(pf, "sriov_numvfs"), str(count))
    found = [gpu for gpu in discovery.scan(kernel).gpus if gpu.parent == pf]
    assert (len(found), found[-1].bdf) == (count, last)
    assert [gpu.vf_index for gpu in found] == list(range(1, count + 1))
    assert all(gpu.publishable and gpu.render_node and gpu.memory_bytes for gpu in found)
    assert len({gpu.render for gpu in found} | {gpu.card for gpu in found}) == 2 * count
    whole = discovery.scan(kernel).by_bdf()[Bdf(pf)].memory_bytes
    assert whole is not None and sum(gpu.memory_bytes or 0 for gpu in found) <= whole
    kernel.write(at(pf, "sriov_numvfs"), "0")
    assert discovery.scan(kernel) == discovery.scan(machines.kernel(machine)), "as if there had been none"


def test_events_come_in_the_kernels_order() -> None:
    kernel = machines.kernel(XE)
    events = Events(kernel)
    kernel.write(at(B60, "sriov_numvfs"), "2")
    one = [
        ("add", "pci", "0000:18:00.1"),
        ("change", "pci", "0000:18:00.1"),
        ("add", "drm", "renderD132"),
        ("add", "drm", "card5"),
        ("bind", "pci", "0000:18:00.1"),
    ]
    assert events.short[:5] == one
    assert events.short[-1] == ("change", "pci", "0000:18:00.0") and len(events.short) == 11
    events.properties.clear()
    kernel.write(at(B60, "sriov_numvfs"), "0")
    assert events.short[:4] == [
        ("remove", "drm", "card5"),
        ("remove", "drm", "renderD132"),
        ("unbind", "pci", "0000:18:00.1"),
        ("remove", "pci", "0000:18:00.1"),
    ]
    assert len(events.short) == 8, "and none of the PF"


def test_physfn_is_there_only_after_the_first_event() -> None:
    kernel, seen = machines.kernel(XE), []
    kernel.subscribe(lambda action, _s, path, _p: seen.append((action, kernel.exists(f"sys{path}/physfn"))) if "18:00.1" in path else None)
    kernel.write(at(B60, "sriov_numvfs"), "1")
    assert seen[:2] == [("add", False), ("change", True)]


def test_without_autoprobe_vfs_get_no_driver_and_bind_by_an_override_only() -> None:
    kernel = machines.kernel(XE)
    kernel.write(at(B60, "sriov_drivers_autoprobe"), "0")
    kernel.write(at(B60, "sriov_numvfs"), "1")
    vf = "0000:18:00.1"
    assert not kernel.exists(at(vf, "driver"))
    assert answered(kernel.bind, vf, "xe") == errno.ENODEV
    kernel.write(at(vf, "driver_override"), "xe")
    kernel.bind(vf, "xe")
    assert kernel.exists(at(vf, "drm"))


def test_a_vf_that_fails_to_probe_has_no_nodes() -> None:
    kernel = machines.kernel(XE)
    kernel.fail("0000:18:00.2", "probe", errno.EIO)
    kernel.write(at(B60, "sriov_numvfs"), "3")
    assert [kernel.exists(at(f"0000:18:00.{index}", "drm")) for index in (1, 2, 3)] == [True, False, True]


def test_vfs_go_with_their_pf_and_its_driver_forgets_them() -> None:
    for go in (lambda kernel: kernel.unbind(FLEX), lambda kernel: kernel.unplug(FLEX)):
        kernel = machines.kernel("server-8x-flex170")
        kernel.write(at(FLEX, "sriov_numvfs"), "4")
        go(kernel)
        assert not any(gpu.parent == FLEX for gpu in discovery.scan(kernel).gpus)


def test_numbers_of_nodes_are_used_again() -> None:
    kernel = machines.kernel(XE)
    for _ in range(2):
        kernel.write(at(B60, "sriov_numvfs"), "3")
        assert sorted(name for name in kernel.list("dev/dri") if name.startswith("renderD"))[-1] == "renderD134"
        kernel.write(at(B60, "sriov_numvfs"), "0")


def test_it_takes_the_kernels_time_with_the_machine_free_for_others() -> None:
    slept: list[tuple[float, int]] = []
    kernel = machines.kernel(XE, sleep=lambda seconds: slept.append((seconds, len(discovery.scan(kernel).by_bdf()[Bdf(B60)].why or ""))))
    kernel.delay("vf", 0.5)
    kernel.write(at(B60, "sriov_numvfs"), "3")
    assert [seconds for seconds, _ in slept] == [0.1, 0.5, 0.5, 0.5]
    slept.clear()
    kernel.write(at(B60, "sriov_numvfs"), "0")
    assert [seconds for seconds, _ in slept] == [0.5, 0.5, 0.5, 1.0]


def test_a_reader_of_the_number_waits_for_the_cards_lock() -> None:
    begun, gate = threading.Event(), threading.Event()
    kernel = machines.kernel(XE, lock=threading.RLock(), make_lock=threading.RLock)

    def block() -> None:
        begun.set()
        gate.wait()

    kernel.hang("0000:18:00.2", "vf", block)
    writer = threading.Thread(target=kernel.write, args=(at(B60, "sriov_numvfs"), "3"))
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(kernel.read(at(B60, "sriov_numvfs"))))
    writer.start()
    assert begun.wait(5)
    reader.start()
    assert len(discovery.scan(kernel).gpus) == 6, "two VFs are there, and everybody else goes on"
    assert read == []
    gate.set()
    writer.join(5)
    reader.join(5)
    assert read == ["3\n"]


def test_the_same_changes_make_the_same_machine_again() -> None:
    kernel, changes = machines.kernel(XE), []
    kernel.record(changes.append)
    kernel.write(at(B60, "sriov_numvfs"), "3")
    again = machines.kernel(XE)
    for change in changes:
        control.perform(again, change, gate=lambda _path, _operation: lambda: None)
    assert discovery.scan(again) == discovery.scan(kernel)


# --- prelim i915 -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def flex() -> SimKernel:
    return machines.kernel("server-8x-flex170")


def test_values_are_rounded_up_and_read_back_so(flex: SimKernel) -> None:
    base = f"{iov(flex, FLEX)}/vf1/gt"
    for name, written, kept in (
        ("ggtt_quota", 65537, 131072),
        ("contexts_quota", 1000, 1024),
        ("lmem_quota", 1, 2 << 20),
        ("doorbells_quota", 7, 7),
        ("exec_quantum_ms", 16, 16),
    ):
        flex.write(f"{base}/{name}", str(written))
        assert number(flex, f"{base}/{name}") == kept
    assert flex.read(f"{iov(flex, FLEX)}/pf/auto_provisioning") == "0\n", "a hand on any of them switches the automatic off"


def test_what_is_given_is_gone_from_what_is_left_and_comes_back(flex: SimKernel) -> None:
    base, free = f"{iov(flex, FLEX)}/vf1/gt/lmem_quota", f"{iov(flex, FLEX)}/pf/gt/available/lmem_free"
    before = number(flex, free)
    flex.write(base, str(4 << 30))
    assert number(flex, free) == before - (4 << 30)
    assert answered(flex.write, f"{iov(flex, FLEX)}/vf2/gt/lmem_quota", str(before)) == errno.EDQUOT
    assert answered(flex.write, base, str(before + (8 << 30))) == errno.EDQUOT
    flex.write(base, "0")
    assert number(flex, free) == before


def test_the_automatic_comes_back_only_when_nothing_is_left(flex: SimKernel) -> None:
    auto = f"{iov(flex, DIRTY)}/pf/auto_provisioning"
    assert answered(flex.write, auto, "1") == errno.ESTALE
    for vf in range(1, 32):
        for name in ("contexts_quota", "doorbells_quota", "exec_quantum_ms", "ggtt_quota", "lmem_quota", "preempt_timeout_us"):
            flex.write(f"{iov(flex, DIRTY)}/vf{vf}/gt/{name}", "0")
    flex.write(auto, "1")


def test_an_even_split_is_taken_back_and_quotas_by_hand_stay(flex: SimKernel) -> None:
    flex.write(at(FLEX, "sriov_numvfs"), "4")
    shares = [number(flex, f"{iov(flex, FLEX)}/vf{vf}/gt/lmem_quota") for vf in range(1, 6)]
    assert len(set(shares[:4])) == 1 and shares[0] > 3 << 30 and shares[4] == 0
    assert flex.read(f"{iov(flex, FLEX)}/pf/auto_provisioning") == "1\n"
    flex.write(at(FLEX, "sriov_numvfs"), "0")
    assert number(flex, f"{iov(flex, FLEX)}/vf1/gt/lmem_quota") == 0
    for name, value in (("contexts_quota", 1024), ("ggtt_quota", 1 << 28), ("lmem_quota", 1 << 30)):
        flex.write(f"{iov(flex, FLEX)}/vf1/gt/{name}", str(value))
    flex.write(at(FLEX, "sriov_numvfs"), "1")
    assert discovery.scan(flex).by_bdf()[Bdf("0000:4d:00.1")].memory_bytes == 1 << 30
    flex.write(at(FLEX, "sriov_numvfs"), "0")
    assert number(flex, f"{iov(flex, FLEX)}/vf1/gt/lmem_quota") == 1 << 30


def test_a_vf_with_a_part_of_its_quotas_is_refused_and_one_with_none_cannot_start(flex: SimKernel) -> None:
    flex.write(f"{iov(flex, FLEX)}/vf1/gt/lmem_quota", str(1 << 30))
    assert answered(flex.write, at(FLEX, "sriov_numvfs"), "2") == errno.ENOKEY
    for name, value in (("contexts_quota", 1024), ("ggtt_quota", 1 << 28)):
        flex.write(f"{iov(flex, FLEX)}/vf1/gt/{name}", str(value))
    flex.write(at(FLEX, "sriov_numvfs"), "2")
    assert [flex.exists(at(f"0000:4d:00.{index}", "drm")) for index in (1, 2)] == [True, False]


# --- xe --------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def xe() -> SimKernel:
    return machines.kernel(XE)


def test_memory_by_hand_suppresses_the_split_and_all_of_it_is_taken_back(xe: SimKernel) -> None:
    quota = at(B60, "sriov_admin/vf1/profile/vram_quota")
    xe.write(quota, str((1 << 30) + 1))
    assert number(xe, quota) == (1 << 30) + (2 << 20)
    xe.write(at(B60, "sriov_numvfs"), "2")
    assert discovery.scan(xe).by_bdf()[Bdf("0000:18:00.1")].memory_bytes == (1 << 30) + (2 << 20)
    assert not xe.exists(at("0000:18:00.2", "drm")), "it owns nothing"
    xe.write(at(B60, "sriov_numvfs"), "0")
    assert number(xe, quota) == 0


def test_all_vfs_are_meant_by_the_bulk_file(xe: SimKernel) -> None:
    xe.write(at(B60, "sriov_admin/.bulk_profile/vram_quota"), str(1 << 29))
    assert {number(xe, at(B60, f"sriov_admin/vf{vf}/profile/vram_quota")) for vf in range(1, 25)} == {1 << 29}
    assert answered(xe.write, at(B60, "sriov_admin/.bulk_profile/vram_quota"), str(2 << 30)) == errno.ENOSPC
    assert answered(xe.read, at(B60, "sriov_admin/.bulk_profile/vram_quota")) == errno.EACCES


@pytest.mark.parametrize(
    ("name", "text", "outcome"),
    [("vram_quota", "much", errno.EINVAL), ("vram_quota", str(1 << 40), errno.ENOSPC), ("sched_priority", "high", errno.EACCES)],
)
def test_profiles_refuse_as_the_driver_does(xe: SimKernel, name: str, text: str, outcome: int) -> None:
    assert answered(xe.write, at(B60, f"sriov_admin/vf1/profile/{name}"), text) == outcome


@pytest.mark.parametrize(("machine", "pf", "outcome"), [(XE, B60, errno.ECANCELED), ("server-8x-flex170", FLEX, errno.EIO)])
def test_a_wedged_card_makes_no_vfs_and_can_still_lose_them(machine: str, pf: str, outcome: int) -> None:
    kernel = machines.kernel(machine)
    kernel.write(at(pf, "sriov_numvfs"), "2")
    kernel.wedge(pf)
    kernel.write(at(pf, "sriov_numvfs"), "0")
    assert answered(kernel.write, at(pf, "sriov_numvfs"), "2") == outcome


def test_provisioning_directories_lead_to_the_vfs_that_are_there(xe: SimKernel, flex: SimKernel) -> None:
    for kernel, pf, where in ((xe, B60, at(B60, "sriov_admin")), (flex, FLEX, iov(flex, FLEX))):
        kernel.write(at(pf, "sriov_numvfs"), "2")
        assert [kernel.exists(f"{where}/vf{vf}/device/vendor") for vf in (1, 2, 3)] == [True, True, False]
        kernel.write(at(pf, "sriov_numvfs"), "0")
        assert not kernel.exists(f"{where}/vf1/device")

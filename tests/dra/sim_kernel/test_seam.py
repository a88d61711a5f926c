"""What takes several steps: who waits for whom, what others see meanwhile, and how a log tells it."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from dra.sim_kernel import control, requests, tree
from dra.sim_kernel.kernel import SimKernel
from tests.fakes import machines

B60, OTHER = "0000:18:00.0", "0000:3a:00.0"
NUMVFS = "sys/bus/pci/devices/0000:18:00.0/sriov_numvfs"
VFS = [f"0000:18:00.{function}" for function in (1, 2, 3)]


class Gate:
    """Where a thread is stopped, and known to be."""

    def __init__(self) -> None:
        self._reached, self._open = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self._reached.set()
        assert self._open.wait(5)

    def reached(self) -> None:
        assert self._reached.wait(5)

    def open(self) -> None:
        self._open.set()


class DeviceLock:
    """An RLock that says when somebody has to wait for it."""

    def __init__(self, contended: threading.Event) -> None:
        self._lock, self._contended = threading.RLock(), contended

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._contended.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.fixture
def contended() -> threading.Event:
    """Somebody waits for a device's lock."""
    return threading.Event()


@pytest.fixture
def kernel(contended: threading.Event) -> SimKernel:
    return machines.kernel("server-4x-b60", lock=threading.RLock(), make_lock=lambda: DeviceLock(contended))


def there(kernel: SimKernel) -> list[tuple[bool, bool, bool]]:
    """By VF: on the bus, linked to its PF, with a node."""
    place = "sys/bus/pci/devices"
    return [(kernel.exists(f"{place}/{vf}"), kernel.exists(f"{place}/{vf}/physfn"), kernel.exists(f"{place}/{vf}/drm")) for vf in VFS]


def everything(kernel: SimKernel) -> dict[str, object]:
    return {
        path: entry.text if isinstance(entry, tree.File) else entry.target if isinstance(entry, tree.Link) else type(entry)
        for path, entry in tree.walk(kernel._tree.root, "")
    }


# --- others meanwhile ----------------------------------------------------------------------------------------------------------------


def test_vfs_come_and_go_one_by_one_and_others_see_it(kernel: SimKernel, pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    kernel.hang(VFS[1], "vf", gate)
    making = pool.submit(kernel.write, NUMVFS, "3")
    gate.reached()
    assert there(kernel) == [(True, True, True), (True, True, False), (False, False, False)]
    assert kernel.exists(f"sys/bus/pci/devices/{B60}/virtfn1")
    kernel.unbind(OTHER)  # the machine goes on
    gate.open()
    making.result(5)
    assert there(kernel) == [(True, True, True)] * 3
    kernel.release(VFS[1], "vf")
    gate = Gate()
    kernel.hang(VFS[1], "vf", gate)
    taking = pool.submit(kernel.write, NUMVFS, "0")
    gate.reached()
    assert there(kernel) == [(False, False, False), (True, True, True), (True, True, True)]
    gate.open()
    taking.result(5)
    assert there(kernel) == [(False, False, False)] * 3


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        (lambda kernel: kernel.read(NUMVFS), "3\n"),
        (lambda kernel: kernel.read("sys/class/drm/card1/device/sriov_numvfs"), "3\n"),
        (lambda kernel: kernel.write(NUMVFS, "2"), errno.EBUSY),
        (lambda kernel: kernel.write(NUMVFS, "3"), None),
        (lambda kernel: kernel.bind(B60, "xe"), errno.EBUSY),
        (lambda kernel: kernel.unbind(B60), None),
        (lambda kernel: kernel.write(f"sys/bus/pci/devices/{B60}/remove", "1"), None),
        (lambda kernel: kernel.unplug(B60), None),
        (lambda kernel: kernel.unwedge(B60), None),
    ],
)
def test_who_needs_the_pfs_lock_waits_for_the_last_vf(
    kernel: SimKernel, pool: ThreadPoolExecutor, contended: threading.Event, act: Callable[[SimKernel], object], outcome: object
) -> None:
    gate = Gate()
    kernel.hang(VFS[2], "vf", gate)
    making = pool.submit(kernel.write, NUMVFS, "3")
    gate.reached()
    waiting = pool.submit(act, kernel)
    assert contended.wait(5)
    assert kernel.read(f"sys/bus/pci/devices/{OTHER}/sriov_numvfs") == "0\n", "other cards have locks of their own"
    assert not waiting.done()
    gate.open()
    making.result(5)
    if isinstance(outcome, int):
        with pytest.raises(OSError) as caught:
            waiting.result(5)
        assert caught.value.errno == outcome
    else:
        assert waiting.result(5) == outcome


def test_one_thread_alone_never_waits_for_itself() -> None:
    """Without locks, and with those that let their holder in again."""
    for settings in ({}, {"lock": threading.RLock(), "make_lock": threading.RLock}):
        read: list[str] = []
        kernel = machines.kernel("server-4x-b60", sleep=lambda _seconds: read.append(kernel.read(NUMVFS)), **settings)  # noqa: B023
        kernel.write(NUMVFS, "1")
        kernel.write(NUMVFS, "0")
        assert read == ["0\n", "1\n"]


def test_a_quota_can_hang_and_be_refused(kernel: SimKernel, pool: ThreadPoolExecutor) -> None:
    quota = f"sys/bus/pci/devices/{B60}/sriov_admin/vf1/profile/vram_quota"
    gate = Gate()
    kernel.hang("*/vf1/profile/vram_quota", "write", gate)
    writing = pool.submit(kernel.write, quota, str(1 << 30))
    gate.reached()
    assert kernel.read(quota) == "0\n"
    kernel.wedge(B60)
    gate.open()
    with pytest.raises(OSError) as caught:
        writing.result(5)
    assert caught.value.errno == errno.ECANCELED


def test_a_reboot_ends_what_was_under_way(kernel: SimKernel, pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    kernel.hang(VFS[1], "vf", gate)
    making = pool.submit(kernel.write, NUMVFS, "3")
    gate.reached()
    kernel.reboot("11111111-2222-4333-8444-555555555555")
    assert kernel.read(NUMVFS) == "0\n", "nobody holds the lock of the life before"
    gate.open()
    with pytest.raises(OSError) as caught:
        making.result(5)
    assert caught.value.errno == errno.ENODEV
    assert everything(kernel) == everything(machines.kernel("server-4x-b60", boot_id="11111111-2222-4333-8444-555555555555"))


# --- virtual machines ----------------------------------------------------------------------------------------------------------------


def lend(kernel: SimKernel, bdf: str) -> None:
    kernel.modprobe("vfio-pci")
    kernel.write(f"sys/bus/pci/devices/{bdf}/driver_override", "vfio-pci")
    kernel.unbind(bdf)
    kernel.write("sys/bus/pci/drivers_probe", bdf)


@pytest.mark.parametrize(
    "act",
    [
        lambda kernel: kernel.unbind(VFS[1]),
        lambda kernel: kernel.write(f"sys/bus/pci/devices/{VFS[1]}/remove", "1"),
        lambda kernel: kernel.write(NUMVFS, "0"),
        lambda kernel: kernel.unbind(B60),
        lambda kernel: kernel.unplug(B60),
    ],
)
def test_a_vf_that_a_virtual_machine_has_is_not_taken_from_it(
    kernel: SimKernel, pool: ThreadPoolExecutor, act: Callable[[SimKernel], object]
) -> None:
    kernel.write(NUMVFS, "3")
    lend(kernel, VFS[1])
    gate = Gate()
    kernel.hold_vfio(VFS[1], gate)
    taking = pool.submit(act, kernel)
    gate.reached()
    driver = kernel.link(f"sys/bus/pci/devices/{VFS[1]}/driver")
    assert driver.endswith("/vfio-pci") and kernel.exists(f"sys/bus/pci/devices/{B60}/driver")
    kernel.release_vfio(VFS[1])
    gate.open()
    taking.result(5)
    assert not kernel.exists(f"sys/bus/pci/devices/{VFS[1]}/driver")


def test_both_who_wait_for_a_virtual_machine_go_on(kernel: SimKernel, pool: ThreadPoolExecutor) -> None:
    kernel.write(NUMVFS, "2")
    lend(kernel, VFS[1])
    first, second = Gate(), Gate()
    kernel.hold_vfio(VFS[1], first)
    unbinding = pool.submit(kernel.unbind, VFS[1])
    first.reached()
    kernel.hold_vfio(VFS[1], second)
    taking = pool.submit(kernel.write, NUMVFS, "0")
    second.reached()
    assert there(kernel)[:2] == [(False, False, False), (True, False, False)], "its link to the PF is gone, it is not"
    second.open()
    taking.result(5)
    first.open()
    unbinding.result(5)
    assert kernel.read(NUMVFS) == "0\n"


def test_only_what_vfio_has_can_be_held(kernel: SimKernel) -> None:
    with pytest.raises(ValueError, match="not bound to vfio"):
        kernel.hold_vfio(B60, lambda: None)
    lend(kernel, B60)
    kernel.hold_vfio(B60, lambda: pytest.fail("it was given back"))
    kernel.release_vfio(B60)
    kernel.unbind(B60)


# --- the log -------------------------------------------------------------------------------------------------------------------------


def again(changes: list[requests.Change], **settings: object) -> SimKernel:
    """The machine that a log of these changes leads to."""
    kernel = machines.kernel("server-4x-b60", **settings)
    for change in changes:
        written = requests.parse(msgspec.json.decode(msgspec.json.encode(change)))
        control.perform(kernel, written, gate=lambda _path, _operation: lambda: None)
    return kernel


def test_interleaved_changes_lead_to_the_same_numbers_again(kernel: SimKernel) -> None:
    """Two cards make their VFs at once and a third comes in between: who got which node is told by the order of the steps."""
    changes: list[requests.Change] = []
    kernel.record(changes.append)
    kernel.hang(VFS[0], "vf", lambda: kernel.write(f"sys/bus/pci/devices/{OTHER}/sriov_numvfs", "2"))
    kernel.hang("0000:3a:00.1", "vf", lambda: kernel.unplug("0000:9a:00.0"))
    kernel.hang("0000:3a:00.2", "vf", lambda: kernel.plug("0000:9a:00.0"))
    kernel.write(NUMVFS, "3")
    assert kernel.read("sys/class/drm/card1/device/sriov_numvfs") == "3\n"
    assert kernel.list(f"sys/bus/pci/devices/{VFS[0]}/drm") == ["card7", "controlD71", "renderD134"], "it was overtaken"
    assert everything(again(changes)) == everything(kernel)


@pytest.mark.parametrize("kept", range(1, 9))
def test_what_was_begun_is_ended_in_the_next_life(kernel: SimKernel, kept: int) -> None:
    changes: list[requests.Change] = []
    kernel.record(changes.append)
    kernel.write(NUMVFS, "3")
    kernel.write(NUMVFS, "0")
    kernel.write(NUMVFS, "3")
    second = again(changes[: -kept or None])
    more: list[requests.Change] = []
    second.record(more.append)
    second.finish()
    ended = everything(second)
    assert second.read(NUMVFS) == ("3\n" if kept < 5 else "0\n")
    assert everything(again([*changes[:-kept], *more])) == ended, "and the life after that knows in which order"


def test_a_step_of_nothing_is_refused(kernel: SimKernel) -> None:
    with pytest.raises(ValueError, match="nothing was begun under the number 7"):
        kernel.step(7)


def test_what_was_refused_is_not_told(kernel: SimKernel) -> None:
    changes: list[requests.Change] = []
    kernel.record(changes.append)
    kernel.fail("*/sriov_numvfs", "sriov", errno.EIO)
    for text in ("3", "25", "many"):
        with pytest.raises(OSError):
            kernel.write(NUMVFS, text)
    with pytest.raises(ValueError, match="ever on this machine"):
        kernel.unplug("0000:ff:00.0")
    assert changes == []

"""A fake machine outlives its process, and is one for all that have it."""

from __future__ import annotations

import errno
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio

from dra import discovery
from dra.settings import SettingsInvalid
from dra.sim_kernel.kernel import SimKernel
from nursery_apps.edges.file_watch import InotifyWatch
from nursery_apps.edges.machine_log import LOG_NAME, MachineLog
from nursery_apps.edges.simulator import SimDeviceEvents
from nursery_apps.seams import DeviceEvent
from tests.fakes import machines

GPU = "0000:03:00.0"
MACHINE = "workstation-2xb580"
HOST, FRESH, OTHER = (f"{digit * 8}-{digit * 4}-{digit * 4}-{digit * 4}-{digit * 12}" for digit in "abc")


def start(directory: Path, *, host: str = HOST, machine: str = MACHINE) -> SimKernel:
    return logged(directory, host=host, machine=machine)[1]


def logged(directory: Path, *, host: str = HOST, machine: str = MACHINE, fresh: str = FRESH) -> tuple[MachineLog, SimKernel]:
    log = MachineLog(str(directory))
    document = machines.document(machine)
    return log, log.load(document, None, host_boot_id=host, fresh_boot_id=lambda: fresh, sleep=lambda _seconds: None)


def boot_id(kernel: SimKernel) -> str:
    return kernel.read("proc/sys/kernel/random/boot_id").strip()


def test_the_machine_goes_on_where_it_was(tmp_path: Path) -> None:
    first = start(tmp_path)
    assert boot_id(first) == FRESH
    first.modprobe("vfio-pci")
    first.unplug("0000:07:00.0")
    first.wedge(GPU)
    first.write(f"sys/bus/pci/devices/{GPU}/driver_override", "vfio-pci")  # as the daemon itself does it
    first.plug("0000:07:00.0")
    with pytest.raises(ValueError, match="on the bus already"):
        first.plug("0000:07:00.0")
    second = start(tmp_path)
    assert second.state() == first.state()
    assert second.read(f"sys/bus/pci/devices/{GPU}/driver_override") == "vfio-pci\n"
    assert boot_id(second) == FRESH


def test_a_reboot_forgets(tmp_path: Path) -> None:
    first = start(tmp_path)
    first.unplug(GPU)
    first.reboot(OTHER)
    second = start(tmp_path)
    assert second.exists(f"sys/bus/pci/devices/{GPU}")
    assert boot_id(second) == OTHER, "it is still the boot that was asked for"
    second.unplug(GPU)
    assert boot_id(start(tmp_path, host=OTHER)) == FRESH, "the host itself was booted"
    assert start(tmp_path, host=OTHER).exists(f"sys/bus/pci/devices/{GPU}")


def test_another_machine_starts_anew(tmp_path: Path) -> None:
    start(tmp_path).unplug(GPU)
    assert "0000:00:02.0" in start(tmp_path, machine="laptop-iris-xe").state()


@pytest.mark.parametrize("kept", range(1, 30))
def test_a_line_cut_off_in_the_writing_is_left_out(tmp_path: Path, kept: int) -> None:
    start(tmp_path).unplug(GPU)
    log = tmp_path / LOG_NAME
    whole = log.read_bytes()
    log.write_bytes(whole[:-kept])
    second = start(tmp_path)
    assert second.exists(f"sys/bus/pci/devices/{GPU}")
    second.unplug(GPU)
    assert log.read_bytes() == whole


def test_a_log_that_does_not_fit_says_what_to_do(tmp_path: Path) -> None:
    start(tmp_path)
    log = tmp_path / LOG_NAME
    with log.open("a") as file:
        file.write('{"op":"unplug","bdf":"0000:ff:00.0"}\n')
    with pytest.raises(SettingsInvalid, match=r"simulated-machine.log:2: .* remove the file"):
        start(tmp_path)
    log.write_text("x\n")
    with pytest.raises(SettingsInvalid, match=r"simulated-machine.log:1: .* remove the file"):
        start(tmp_path)


# --- Virtual Functions ---------------------------------------------------------------------------------------------------------------

FLEX, CUT = "server-8x-flex170", "0000:4d:00.0"


def nodes(kernel: SimKernel) -> dict[str, object]:
    return {gpu.bdf: (gpu.card, gpu.render, gpu.memory_bytes, gpu.vf_index) for gpu in discovery.scan(kernel).gpus}


def test_vfs_and_quotas_outlive_the_process(tmp_path: Path) -> None:
    first = start(tmp_path, machine=FLEX)
    iov = f"sys/bus/pci/devices/{CUT}/drm/card6/prelim_iov"
    for quota, value in (("ggtt_quota", 1 << 28), ("contexts_quota", 1024), ("lmem_quota", 1 << 30)):
        first.write(f"{iov}/vf1/gt/{quota}", str(value))
    first.unplug("0000:2c:00.0")  # whose numbers the VF gets
    first.write(f"sys/bus/pci/devices/{CUT}/sriov_numvfs", "1")
    second = start(tmp_path, machine=FLEX)
    assert nodes(second) == nodes(first)
    assert nodes(second)["0000:4d:00.1"] == (0, 128, 1 << 30, 1)
    second.write(f"sys/bus/pci/devices/{CUT}/sriov_numvfs", "0")
    third = start(tmp_path, machine=FLEX)
    assert nodes(third) == nodes(second) and third.read(f"{iov}/vf1/gt/lmem_quota") == f"{1 << 30}\n"
    third.reboot(OTHER)
    assert nodes(start(tmp_path, machine=FLEX)) == nodes(machines.kernel(FLEX)), "a boot starts from the document"


def test_vfs_in_the_making_are_there_in_the_next_life(tmp_path: Path) -> None:
    """The process dies in the middle; the kernel does not."""
    first = start(tmp_path, machine=FLEX)
    first.hang("0000:4d:00.3", "vf", lambda: shutil.copy(tmp_path / LOG_NAME, tmp_path / "middle"))
    first.write(f"sys/bus/pci/devices/{CUT}/sriov_numvfs", "5")
    (tmp_path / "middle").replace(tmp_path / LOG_NAME)
    second = start(tmp_path, machine=FLEX)
    assert nodes(second) == nodes(first)
    assert nodes(start(tmp_path, machine=FLEX)) == nodes(first)


# --- several processes ---------------------------------------------------------------------------------------------------------------

NUMVFS = f"sys/bus/pci/devices/{CUT}/sriov_numvfs"


def test_a_daemon_and_its_successor_act_on_one_machine(tmp_path: Path) -> None:
    old = start(tmp_path, machine=FLEX)
    old.write(NUMVFS, "2")
    log, new = logged(tmp_path, machine=FLEX)
    old.write(NUMVFS, "0")
    log.look()
    assert new.read(NUMVFS) == "0\n"
    new.write(NUMVFS, "3")
    with pytest.raises(OSError, match="busy"):
        old.write(NUMVFS, "2")  # whoever acts has seen everything
    assert nodes(old) == nodes(new) == nodes(start(tmp_path, machine=FLEX))


def test_vfs_are_made_to_the_end_although_a_successor_starts_in_the_middle(tmp_path: Path) -> None:
    old, started = start(tmp_path, machine=FLEX), []
    old.hang("0000:4d:00.3", "vf", lambda: started.append(start(tmp_path, machine=FLEX)))
    old.write(NUMVFS, "5")
    (new,) = started
    assert old.read(NUMVFS) == "5\n"
    assert nodes(old) == nodes(new) == nodes(start(tmp_path, machine=FLEX))


def test_who_wants_a_card_that_another_process_is_at_comes_after_it(tmp_path: Path) -> None:
    old, new = start(tmp_path, machine=FLEX), start(tmp_path, machine=FLEX)
    there: list[str] = []

    def take_away() -> None:
        new.subscribe(lambda action, _subsystem, path, _properties: there.append(f"{action} {path.rpartition('/')[2]}"))
        new.write(NUMVFS, "0")

    old.hang("0000:4d:00.3", "vf", take_away)
    old.write(NUMVFS, "5")
    made, gone = ([f"{action} 0000:4d:00.{index}" for index in range(1, 6)] for action in ("bind", "unbind"))
    assert [event for event in there if event in (*made, *gone)] == made + gone
    assert old.read(NUMVFS) == new.read(NUMVFS) == "0\n"
    assert nodes(old) == nodes(new) == nodes(start(tmp_path, machine=FLEX))


def test_faults_of_one_process_are_not_met_by_what_another_did(tmp_path: Path) -> None:
    """They would have been met there."""
    old, (log, new) = start(tmp_path), logged(tmp_path)
    new.fail(GPU, "unplug", errno.EIO)
    old.unplug(GPU)
    log.look()
    assert not new.exists(f"sys/bus/pci/devices/{GPU}")


def test_who_dies_in_the_writing_does_not_hold_up_the_others(tmp_path: Path) -> None:
    kernel = start(tmp_path)
    with (tmp_path / LOG_NAME).open("a") as file:
        file.write('{"op":"unplug","bd')
    kernel.unplug(GPU)
    assert start(tmp_path).state() == kernel.state()


def test_nonsense_from_another_process_is_said_and_keeps_nobody_out(tmp_path: Path) -> None:
    log, kernel = logged(tmp_path)
    with log.path.open("a") as file:
        file.write("nonsense\n")
    with pytest.raises(SettingsInvalid, match=r"log:2: .* remove the file"):
        log.look()
    with ThreadPoolExecutor(1) as threads:  # the lock is free
        threads.submit(kernel.exists, "sys").result(5)


def test_those_that_start_at_once_start_one_machine(tmp_path: Path) -> None:
    ids = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(8)]
    with ThreadPoolExecutor(len(ids)) as threads:
        assert len(set(threads.map(lambda fresh: boot_id(logged(tmp_path, fresh=fresh)[1]), ids))) == 1


async def test_what_another_process_does_is_heard(tmp_path: Path, nursery: trio.Nursery) -> None:
    log, kernel = logged(tmp_path)
    await nursery.start(InotifyWatch().appended, str(log.path), log.look)
    send, heard = trio.open_memory_channel[object](100)
    await nursery.start(SimDeviceEvents(kernel).listen, send)
    start(tmp_path).unplug(GPU)
    with trio.fail_after(5):
        while not (isinstance(event := await heard.receive(), DeviceEvent) and (event.action, GPU in event.sys_path) == ("remove", True)):
            pass

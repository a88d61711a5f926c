"""What every source of device events promises, over the fake kernel, over real netlink, and over real netlink that tells of a fake machine.

The real source is asked for the `mem` subsystem: a synthetic event of /dev/null disturbs nobody.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from nursery_apps.edges.simulator import SimDeviceEvents
from nursery_apps.edges.udev import UdevEvents
from nursery_apps.seams import DeviceEvent, DeviceEvents, Resync
from tests.fakes import machines
from tests.tools.gpulab import labs

MACHINE = "workstation-2xb580"
CARD = "sys/class/drm/renderD128"
NULL = "/sys/devices/virtual/mem/null/uevent"
Source = tuple[DeviceEvents, Callable[[], None], str]
"""The source, a way to make one event, and the path it is told with."""


def _netlink() -> str | None:
    """Why real events cannot be made here."""
    if not os.access(NULL, os.W_OK) or os.geteuid() != 0:
        return "only root on a writable /sys can make synthetic events"
    return None


def real(**settings: Any) -> Source:
    if why := _netlink():
        pytest.skip(why)

    def make() -> None:
        with open(NULL, "w") as file:
            file.write("change")

    return UdevEvents("kernel", subsystems=("mem",), **settings), make, "/devices/virtual/mem/null"


def simulated() -> Source:
    kernel = machines.kernel(MACHINE)
    path = kernel.resolve(CARD)
    return SimDeviceEvents(kernel), lambda: kernel.write(f"{path}/uevent", "change"), path.removeprefix("sys")


@pytest.fixture(scope="module")
def lab() -> Iterator[labs.Lab]:
    with labs.serving(MACHINE) as lab:
        yield lab


def mounted(lab: labs.Lab, events: UdevEvents) -> Source:
    path = lab.tree.resolve(CARD)
    return events, lambda: lab.tree.write(f"{path}/uevent", "change"), path.removeprefix("sys")


@pytest.fixture(params=["sim", "real", "lab", "lab-udev"])
def source(request: pytest.FixtureRequest) -> Source:
    match request.param:
        case "sim":
            return simulated()
        case "real":
            return real()
        case kind:
            return mounted(request.getfixturevalue("lab"), UdevEvents("udev" if kind == "lab-udev" else "kernel"))


@pytest.fixture(params=["real", "lab"])
def short_of_memory(request: pytest.FixtureRequest) -> Source:
    """A real source that can keep some ten messages."""
    if request.param == "real":
        return real(receive_buffer_bytes=4096)
    return mounted(request.getfixturevalue("lab"), UdevEvents(receive_buffer_bytes=4096))


@pytest.fixture
def real_events() -> Source:
    return real()


async def receive(channel: trio.MemoryReceiveChannel[DeviceEvent | Resync]) -> DeviceEvent | Resync:
    with trio.fail_after(5):
        return await channel.receive()


async def test_events_after_started_arrive(source: Source, nursery: trio.Nursery) -> None:
    events, make, path = source
    send, channel = trio.open_memory_channel[DeviceEvent | Resync](8)
    await nursery.start(events.listen, send)
    make()
    event = await receive(channel)
    assert isinstance(event, DeviceEvent)
    assert (event.action, event.sys_path) == ("change", path)
    assert event.subsystem in ("drm", "mem")
    assert event.properties["ACTION"] == "change"
    assert event.properties["DEVPATH"] == path
    nursery.cancel_scope.cancel()


async def test_a_full_channel_costs_events_and_brings_one_resync(source: Source, nursery: trio.Nursery) -> None:
    events, make, _ = source
    send, channel = trio.open_memory_channel[DeviceEvent | Resync](1)
    await nursery.start(events.listen, send)
    for _ in range(20):
        make()
    with trio.fail_after(5):
        while channel.statistics().tasks_waiting_send == 0:  # until the source has seen that it is full
            await trio.lowlevel.checkpoint()
    assert isinstance(await receive(channel), DeviceEvent)
    resync = await receive(channel)
    assert isinstance(resync, Resync)
    assert "full" in resync.why
    make()
    assert isinstance(await receive(channel), DeviceEvent), "after the resync events flow again"
    nursery.cancel_scope.cancel()


async def test_cancelling_closes_the_channel(source: Source) -> None:
    events, _, _ = source
    send, channel = trio.open_memory_channel[DeviceEvent | Resync](0)
    async with trio.open_nursery() as nursery:
        await nursery.start(events.listen, send)
        nursery.cancel_scope.cancel()
    with pytest.raises(trio.EndOfChannel), trio.fail_after(5):
        await channel.receive()


async def test_a_closed_receiver_is_no_error(source: Source, nursery: trio.Nursery) -> None:
    events, make, _ = source
    send, channel = trio.open_memory_channel[DeviceEvent | Resync](0)
    await nursery.start(events.listen, send)
    channel.close()
    make()
    await trio.testing.wait_all_tasks_blocked(0.01)
    nursery.cancel_scope.cancel()


async def test_other_subsystems_are_not_told(real_events: Source, nursery: trio.Nursery) -> None:
    _, make, _ = real_events
    send, channel = trio.open_memory_channel[DeviceEvent | Resync](8)
    mine, heard = trio.open_memory_channel[DeviceEvent | Resync](8)
    await nursery.start(UdevEvents("kernel").listen, send)
    await nursery.start(UdevEvents("kernel", subsystems=("mem",)).listen, mine)
    make()
    await receive(heard)
    assert channel.statistics().current_buffer_used == 0
    nursery.cancel_scope.cancel()


async def test_a_full_kernel_buffer_is_a_resync(short_of_memory: Source, nursery: trio.Nursery) -> None:
    events, make, _ = short_of_memory
    send, channel = trio.open_memory_channel[DeviceEvent | Resync](2000)
    await nursery.start(events.listen, send)
    for _ in range(500):  # no other task runs meanwhile: the socket fills
        make()
    while not isinstance(received := await receive(channel), Resync):
        pass
    assert "kernel's buffer" in received.why
    make()
    while not isinstance(await receive(channel), DeviceEvent):
        pass
    nursery.cancel_scope.cancel()


async def test_the_fake_kernel_overflows_too_and_is_heard_from_threads(nursery: trio.Nursery) -> None:
    kernel = machines.kernel("workstation-2xb580")
    send, channel = trio.open_memory_channel[DeviceEvent | Resync](64)
    await nursery.start(SimDeviceEvents(kernel).listen, send)
    await trio.to_thread.run_sync(kernel.unplug, "0000:03:00.0")
    told = [await receive(channel) for _ in range(4)]
    assert [(event.action, event.subsystem) for event in told if isinstance(event, DeviceEvent)] == [
        ("remove", "drm"),
        ("remove", "drm"),
        ("unbind", "pci"),
        ("remove", "pci"),
    ], "hwmon is not listened to"
    await trio.to_thread.run_sync(kernel.overflow)
    assert isinstance(await receive(channel), Resync)
    nursery.cancel_scope.cancel()


def test_the_udev_source_hears_udevd() -> None:
    """Not a coroutine: the reason of a skip would be lost on its way through the nurseries."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can have a network namespace to be udevd in")
    root = Path(__file__).parents[2]
    command = ["unshare", "--net", sys.executable, str(root / "tests/fakes/udev_daemon.py")]
    done = subprocess.run(command, capture_output=True, check=False, timeout=20, env={**os.environ, "PYTHONPATH": str(root)})
    if b"unshare failed" in done.stderr:
        pytest.skip("this container may not make network namespaces")
    assert done.stdout.decode().splitlines() == ["bind pci 0000:03:00.0 xe", "change drm card0 rebind"], done.stderr.decode()

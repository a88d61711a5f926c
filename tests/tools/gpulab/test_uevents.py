"""Events of a mounted machine are the kernel's own and udevd's, to whoever listens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
import trio

from nursery_apps.edges.udev import UdevEvents
from nursery_apps.seams import DeviceEvent, Resync
from tests.tools.gpulab.labs import Lab, serving
from tools.gpulab import uevents

BDF = "0000:18:00.0"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with serving("server-4x-b60") as lab:
        yield lab


@pytest.mark.parametrize("source", ["kernel", "udev"])
async def test_a_card_that_is_pulled_out_is_told_of(source: Literal["kernel", "udev"], lab: Lab, nursery: trio.Nursery) -> None:
    send, channel = trio.open_memory_channel[DeviceEvent | Resync](64)
    await nursery.start(UdevEvents(source).listen, send)
    node = lab.tree.resolve("sys/class/drm/renderD128")
    lab.simulate(op="unplug", bdf=BDF)
    told = [await channel.receive() for _ in range(4)]
    assert [(event.action, event.subsystem, event.sys_path.rpartition("/")[2]) for event in told if isinstance(event, DeviceEvent)] == [
        ("remove", "drm", "card1"),
        ("remove", "drm", "renderD128"),
        ("unbind", "pci", BDF),
        ("remove", "pci", BDF),
    ]
    render = told[1]
    assert isinstance(render, DeviceEvent)
    assert render.sys_path == node.removeprefix("sys")
    assert render.properties["DEVNAME"] == "/dev/dri/renderD128"
    assert int(render.properties["SEQNUM"]) > 0
    assert not lab.tree.exists(f"sys/bus/pci/devices/{BDF}"), "who hears of it finds it gone"
    lab.simulate(op="plug", bdf=BDF)
    back = await channel.receive()
    assert isinstance(back, DeviceEvent)
    assert (back.action, back.subsystem) == ("add", "pci")
    nursery.cancel_scope.cancel()


def test_what_the_kernel_is_given_to_say() -> None:
    properties = {"ACTION": "add", "DEVPATH": "/devices/x", "SUBSYSTEM": "pci"}
    assert uevents.kernel_message(properties) == b"add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0SUBSYSTEM=pci\0"

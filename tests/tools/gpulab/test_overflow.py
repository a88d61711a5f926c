"""An overflow that is asked for happens on the sockets of all who listen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from nursery_apps.edges.udev import UdevEvents
from nursery_apps.seams import DeviceEvent, Resync
from tests.tools.gpulab.labs import Lab, serving
from tools.gpulab import overflow


@pytest.fixture
def lab() -> Iterator[Lab]:
    with serving("server-4x-b60") as lab:
        yield lab


async def test_every_listener_is_told_that_it_lost_something(lab: Lab, nursery: trio.Nursery) -> None:
    channels = []
    for _ in range(2):
        send, channel = trio.open_memory_channel[DeviceEvent | Resync](64)
        await nursery.start(UdevEvents("kernel").listen, send)
        channels.append(channel)
    await trio.to_thread.run_sync(lambda: lab.simulate(op="overflow"))
    for channel in channels:
        received = await channel.receive()
        assert isinstance(received, Resync), "the events it is made of are of no subsystem we listen to"
        assert "kernel's buffer" in received.why
        while not isinstance(received, DeviceEvent):  # until the socket has been read empty all is lost, as ever
            await trio.to_thread.run_sync(lambda: lab.simulate(op="display_noise", bdf="0000:18:00.0"))
            if channel.statistics().current_buffer_used:
                received = channel.receive_nowait()
    nursery.cancel_scope.cancel()


def test_listeners_of_the_kernel_and_what_they_lost() -> None:
    table = (
        "sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode\n"
        "0000000000000000 0   0  00000000 0 0 0 2 0 11\n"
        "0000000000000000 15  71 00000001 0 0 0 2 5 12\n"
        "0000000000000000 15  72 00000002 0 0 0 2 7 13\n"
    )
    assert overflow.lost_by_listener(table) == {"12": 5}

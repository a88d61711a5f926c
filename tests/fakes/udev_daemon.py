"""Speaks as udevd does on its netlink group, in a network namespace of its own, and prints what our edge hears.

Run as root by `unshare --net`: python udev_daemon.py
"""

from __future__ import annotations

import socket

import trio

from nursery_apps.edges.udev import UdevEvents
from nursery_apps.seams import DeviceEvent, Resync
from tools.gpulab.uevents import udev_message

NETLINK_KOBJECT_UEVENT = 15
UDEV_GROUP = 2


def announce(properties: dict[str, str]) -> None:
    """Send one message as udevd would."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT_UEVENT) as sender:
        sender.sendto(udev_message(properties, int(properties["SEQNUM"])), (0, UDEV_GROUP))


async def main() -> None:
    send, channel = trio.open_memory_channel[DeviceEvent | Resync](8)
    device = "/devices/pci0000:00/0000:00:06.0/0000:03:00.0"
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(UdevEvents("udev").listen, send)
            announce({"ACTION": "bind", "DEVPATH": device, "SUBSYSTEM": "pci", "DRIVER": "xe", "SEQNUM": "1"})
            announce({"ACTION": "add", "DEVPATH": "/devices/x", "SUBSYSTEM": "net", "SEQNUM": "2"})
            card = {"DEVPATH": f"{device}/drm/card0", "SUBSYSTEM": "drm", "DEVTYPE": "drm_minor"}
            announce({"ACTION": "change", **card, "WEDGED": "rebind", "SEQNUM": "3"})
            for _ in range(2):
                event = await channel.receive()
                assert isinstance(event, DeviceEvent)
                detail = event.properties.get("DRIVER") or event.properties.get("WEDGED")
                print(event.action, event.subsystem, event.sys_path.rpartition("/")[2], detail)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)

"""Uevents on netlink: from the kernel itself, and as udevd repeats them.

What root sends to the kernel's own uevent socket the kernel broadcasts to group 1 of that network namespace, as a message of its own
(uevent_net_rcv_skb, lib/kobject_uevent.c): listeners cannot tell it from the real thing. udevd's group 2 takes what root multicasts.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from typing import Final

from dra.sim_kernel.kernel import SimKernel
from tools.gpulab import overflow

NETLINK_KOBJECT_UEVENT: Final = 15
UDEV_GROUP: Final = 2
_NLMSG_ERROR: Final = 2
_REQUEST_WITH_ANSWER: Final = 1 | 4
"""NLM_F_REQUEST and NLM_F_ACK of include/uapi/linux/netlink.h."""
_TYPE: Final = 16
"""NLMSG_MIN_TYPE: the first that is not netlink's own; the uevent socket does not look at it."""
_PAD_BYTES: Final = 1900
"""A whole message is at most 2048 (UEVENT_BUFFER_SIZE, include/linux/kobject.h)."""
_UDEV_HEADER: Final = struct.Struct("=8s8I")
_UDEV_MAGIC: Final = 0xFEEDCAFE
_MASK: Final = 0xFFFFFFFF


class Broadcast:
    """Tells this network namespace what happens to a fake machine. To be closed."""

    def __init__(self, kernel: SimKernel) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT_UEVENT)
        self._socket.bind((0, 0))
        self._sequence = 0
        self._leave = kernel.subscribe(self._tell, self._overflow)

    def close(self) -> None:
        self._leave()
        self._socket.close()

    def _tell(self, _action: str, _subsystem: str, _path: str, properties: dict[str, str]) -> None:
        """The kernel first, then udevd, as on a machine whose rules take no time. Called under the fake kernel's lock, so in order."""
        self._sequence += 1
        self._to_kernel(kernel_message(properties))
        self._socket.sendto(udev_message(properties, self._sequence), (0, UDEV_GROUP))

    def _overflow(self, _why: str) -> None:
        """With an event of no subsystem, which nobody minds, and so long that a small buffer holds one of it."""
        event = kernel_message({"ACTION": "change", "DEVPATH": "/none", "SUBSYSTEM": "none", "PAD": "x" * _PAD_BYTES})
        overflow.provoke(lambda: self._to_kernel(event))

    def _to_kernel(self, body: bytes) -> None:
        # One in a message, and not padded: the kernel passes on all that follows the first header (struct nlmsghdr).
        self._socket.sendto(struct.pack("=IHHII", 16 + len(body), _TYPE, _REQUEST_WITH_ANSWER, 0, 0) + body, (0, 0))
        answer = self._socket.recv(4096)  # it is there: the kernel works on a request before sendto returns
        kind, error = struct.unpack_from("=4xH10xi", answer)
        if kind == _NLMSG_ERROR and error:
            raise OSError(-error, f"the kernel does not pass on a uevent ({os.strerror(-error)})")


def kernel_message(properties: Mapping[str, str]) -> bytes:
    """`add@/devices/...`, then `KEY=value` each; the kernel appends SEQNUM."""
    return b"".join(f"{line}\0".encode() for line in (f"{properties['ACTION']}@{properties['DEVPATH']}", *_lines(properties)))


def udev_message(properties: Mapping[str, str], sequence: int) -> bytes:
    """struct monitor_netlink_header of sd-device, then `KEY=value` each; with what udevd adds or alters."""
    known = dict(properties) | {"SEQNUM": str(sequence)}
    if "DEVNAME" in known:
        known["DEVNAME"] = f"/dev/{known['DEVNAME']}"
    body = b"".join(f"{line}\0".encode() for line in _lines(known))
    subsystem, kind = (socket.htonl(murmur2(known[key].encode())) if key in known else 0 for key in ("SUBSYSTEM", "DEVTYPE"))
    size = _UDEV_HEADER.size
    return _UDEV_HEADER.pack(b"libudev\0", socket.htonl(_UDEV_MAGIC), size, size, len(body), subsystem, kind, 0, 0) + body


def _lines(properties: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in properties.items()]


def murmur2(data: bytes) -> int:
    """The hash by which libudev's socket filter tells subsystems apart (MurmurHash2, seed 0)."""
    mixed, multiplier = len(data), 0x5BD1E995
    whole = len(data) - len(data) % 4
    for (word,) in struct.iter_unpack("<I", data[:whole]):
        scrambled = word * multiplier & _MASK
        scrambled = (scrambled ^ scrambled >> 24) * multiplier & _MASK
        mixed = mixed * multiplier & _MASK ^ scrambled
    if rest := data[whole:]:
        mixed = (mixed ^ int.from_bytes(rest, "little")) * multiplier & _MASK
    mixed = (mixed ^ mixed >> 13) * multiplier & _MASK
    return mixed ^ mixed >> 15

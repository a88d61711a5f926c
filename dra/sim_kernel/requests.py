"""What people and tests may ask of a fake machine, as JSON objects with `op`: the control socket's vocabulary, and what a log replays."""

from __future__ import annotations

import errno as errnos
from typing import Any, Literal

import msgspec


class Unplug(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="unplug"):
    bdf: str


class Plug(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="plug"):
    bdf: str
    like: str | None = None


class PlugFragment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="plug_fragment"):
    bdf: str
    parent: str
    directory: dict[str, Any]
    ioctl: dict[str, Any] | None = None


class Bind(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="bind"):
    bdf: str
    driver: str


class Unbind(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="unbind"):
    bdf: str


class Modprobe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="modprobe"):
    driver: str


class Rescan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="rescan"):
    pass


class HoldMinor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="hold_minor"):
    bdf: str


class ReleaseMinors(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="release_minors"):
    pass


class Wedge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="wedge"):
    bdf: str
    methods: str = "rebind,bus-reset"


class Unwedge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="unwedge"):
    bdf: str


class Survivability(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="survivability"):
    bdf: str
    mode: Literal["Boot", "Runtime"] | None = None


class ResetCycle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="reset_cycle"):
    bdf: str


class PcieError(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="pcie_error"):
    bdf: str
    recovered: bool = True


class DisplayNoise(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="display_noise"):
    bdf: str


class Fail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="fail"):
    path: str
    operation: str
    errno: str
    """By name, `EIO`."""
    times: int | None = 1


class Delay(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="delay"):
    operation: str
    seconds: float
    path: str = "*"


class Hang(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="hang"):
    path: str
    operation: str


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="release"):
    path: str
    operation: str


class Overflow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="overflow"):
    pass


class Write(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="write"):
    path: str
    text: str


class HoldVfio(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="hold_vfio"):
    bdf: str


class ReleaseVfio(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="release_vfio"):
    bdf: str


class LimitVfs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="limit_vfs"):
    bdf: str
    at_most: int | None = None


class Read(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="read"):
    path: str


class List(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="list"):
    path: str


class GetState(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="state"):
    pass


class Reboot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="reboot"):
    boot_id: str


class Begin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="begin"):
    """A change that takes several steps, between which others may act: its first step is done."""

    number: int
    change: Write | Unplug


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="step"):
    """The next step of a change that was begun."""

    number: int


class Heat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="heat"):
    """Its hwmon sensors show this temperature, or only the one with the label."""

    bdf: str
    celsius: float
    sensor: str | None = None


class Consume(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="consume"):
    """It has used so much more energy; over how long is for whoever looks twice to say."""

    bdf: str
    joules: float


class Idle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="idle"):
    """Its GTs have slept for so much longer, or only the one named."""

    bdf: str
    milliseconds: int
    gt: str | None = None


class Aer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="aer"):
    """The kernel has counted more errors on its link."""

    bdf: str
    severity: Literal["fatal", "nonfatal", "correctable"]
    count: int = 1


class Narrow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="narrow"):
    """The link of its slot has this many lanes."""

    bdf: str
    lanes: int


class OffBus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="off_bus"):
    """It no longer answers: its configuration space reads all ones, and nothing tells the kernel."""

    bdf: str


class CountErrors(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="count_errors"):
    """A counter of prelim i915, `gt0/fatal_guc`, has grown."""

    bdf: str
    counter: str
    count: int = 1


class MemoryHealth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="memory_health"):
    """What prelim i915 thinks of its memory; it tells by uevent too."""

    bdf: str
    state: Literal["ok", "alarm", "pending", "degraded", "unknown"]


class Throttle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="throttle"):
    """Its GTs are slowed down for this reason and no other, `thermal`; `none` ends it."""

    bdf: str
    reason: str


class GpuHealth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="gpu_health"):
    """The word of an xe card on itself."""

    bdf: str
    state: Literal["ok", "warning", "critical"]


Symptom = Heat | Consume | Idle | Aer | Narrow | OffBus | CountErrors | MemoryHealth | Throttle | GpuHealth
"""What a card's own files show of its health."""


Change = (
    Unplug
    | Plug
    | PlugFragment
    | Modprobe
    | HoldMinor
    | ReleaseMinors
    | Wedge
    | Unwedge
    | Survivability
    | LimitVfs
    | Symptom
    | Write
    | Begin
    | Step
    | Reboot
)
"""What alters the machine for as long as it runs; asking again in the same order leads to the same machine."""

Request = (
    Change
    | Bind
    | Unbind
    | Rescan
    | ResetCycle
    | PcieError
    | DisplayNoise
    | Fail
    | Delay
    | Hang
    | Release
    | HoldVfio
    | ReleaseVfio
    | Overflow
    | Read
    | List
    | GetState
)


def parse(value: object) -> Request:
    """Read a request from its JSON value.

    Raises:
        ValueError: it is none; the message says what is wrong with it.
    """
    request: Request = msgspec.convert(value, Request)
    return request


def errno_of(name: str) -> int:
    """`EIO` -> 5.

    Raises:
        ValueError: there is no such errno.
    """
    for number, known in errnos.errorcode.items():
        if known == name:
            return number
    raise ValueError(f"{name!r} is not the name of an errno")

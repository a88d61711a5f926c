"""Which GPUs are offered to the scheduler, and which carry a taint: inventory × settings × claims, decided in one place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec

from dra.devices import Gpu, Inventory, State
from dra.names import DRIVER_NAME, DeviceName
from dra.pool import Effect, Taint

TAINTS: Final = {
    State.WEDGED: "wedged",
    State.SURVIVABILITY: "survivability",
    State.PASSTHROUGH: "passthrough",
    State.NO_DRIVER: "no-driver",
    State.NO_NODES: "no-nodes",
}
"""Name part of the taint key for each state that breaks the pods of a GPU in use. Stable and short, so that tolerations can be written."""
ABSENT: Final = "absent"


class Offer(msgspec.Struct, frozen=True):
    gpus: tuple[Gpu, ...]
    """In order of address."""
    taints: Mapping[DeviceName, tuple[Taint, ...]]
    withheld: Mapping[DeviceName, str]
    """Why a GPU that is there is not offered, for people."""


def offer(
    inventory: Inventory, *, remembered: Mapping[DeviceName, Gpu], in_use: Collection[DeviceName], selected: Callable[[Gpu], bool]
) -> Offer:
    """Decide.

    A GPU that is fit and selected is offered. One that broke or vanished while a claim holds it stays with a NoExecute taint, which
    evicts the pods that cannot work any more (API servers that drop taints get it withdrawn); unused it is simply withdrawn. A PF whose
    VFs are on is withdrawn without a taint: the pods on it still work.

    Args:
        remembered: what was last known of GPUs that may be gone by now.
        in_use: devices held by claims.
        selected: the settings' opinion.
    """
    gpus: dict[DeviceName, Gpu] = {}
    taints: dict[DeviceName, tuple[Taint, ...]] = {}
    withheld: dict[DeviceName, str] = {}
    for gpu in inventory.gpus:
        if not selected(gpu):
            withheld[gpu.name] = "not selected by the settings"
        elif gpu.publishable:
            gpus[gpu.name] = gpu
        elif gpu.name in in_use and (reason := TAINTS.get(gpu.state)) is not None:
            gpus[gpu.name] = gpu
            taints[gpu.name] = (_taint(reason),)
        else:
            withheld[gpu.name] = gpu.why or str(gpu.state)
    present = inventory.by_name
    for name in in_use:
        if name not in present and (gone := remembered.get(name)) is not None and selected(gone):
            gpus[name] = gone
            taints[name] = (_taint(ABSENT),)
    ordered = tuple(sorted(gpus.values(), key=lambda gpu: (len(gpu.bdf), gpu.bdf)))
    return Offer(ordered, taints, withheld)


def _taint(reason: str) -> Taint:
    return Taint(f"{DRIVER_NAME}/{reason}", Effect.NO_EXECUTE)

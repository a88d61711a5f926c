"""What is known of Intel's GPUs by PCI device id; the table is `models.json`, its sources are named in it."""

from __future__ import annotations

import functools
import pkgutil
from typing import Literal

import msgspec


class Model(msgspec.Struct, frozen=True, gc=False):
    """One device id. None: nobody has published it."""

    model: str | None
    """Marketing name, `Arc A770`."""
    family: str
    """`Arc A-Series`, `Data Center Flex`; the platform (`Raptor Lake-P`) for integrated GPUs and ids without a name."""
    architecture: str | None
    codename: str
    kmd: Literal["i915", "xe"]
    """The kernel driver it belongs to when nobody forces another."""
    integrated: bool = False
    tiles: int = 1
    max_vfs: int | None = None
    """Most VFs the card's firmware serves; the kernel's sriov_totalvfs can be lower, or one too high (Max 1550: 63 shown, 62 work)."""


class Models(msgspec.Struct, frozen=True):
    card_ports: tuple[str, ...]
    """Ids of the switch ports on discrete cards: the slot's link is above them."""
    models: dict[str, Model]
    """By id as sysfs spells it, `0x56a0`."""


@functools.cache
def table() -> Models:
    """The whole table, read once."""
    data = pkgutil.get_data("dra", "models.json")  # importlib.resources does the same for 0.5 MB more of memory
    assert data is not None
    return msgspec.json.decode(data, type=Models)


def find(device: str) -> Model | None:
    """The model of a PCI device id of Intel's (`0x56a0`), None if it is not known as a GPU."""
    return table().models.get(device)

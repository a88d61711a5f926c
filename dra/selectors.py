"""How settings name GPUs: by address, PCI id, model, or kind."""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec

from dra.devices import Gpu
from dra.names import is_bdf

_BDF: Final = r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$"
_PCI_ID: Final = r"^0x[0-9a-f]{4}$"


class Selector(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True):
    """Which GPUs are meant: all fields given must match."""

    bdf: Annotated[str | None, msgspec.Meta(description="PCI address.", examples=["0000:18:00.0"], extra_json_schema={"pattern": _BDF})] = (
        None
    )
    pci_id: Annotated[
        str | None, msgspec.Meta(description="PCI device id.", examples=["0x56c0"], extra_json_schema={"pattern": _PCI_ID})
    ] = None
    model: Annotated[str | None, msgspec.Meta(description="Model as published.", examples=["Arc A770"])] = None
    integrated: Annotated[bool | None, msgspec.Meta(description="Integrated GPUs, or all others.", examples=[True])] = None


def matches(selector: Selector, gpu: Gpu) -> bool:
    """Whether all fields that are given fit the GPU."""
    return (
        selector.bdf in (None, gpu.bdf)
        and selector.pci_id in (None, gpu.device)
        and selector.model in (None, gpu.model)
        and selector.integrated in (None, gpu.integrated)
    )


def selector_fault(selector: Selector) -> str | None:
    """What is wrong with it, for people; None if it can be used."""
    if selector == Selector():
        return "a selector that names nothing would match every GPU"
    if selector.bdf is not None and not is_bdf(selector.bdf):
        return f"{selector.bdf!r} is not a PCI address such as 0000:18:00.0 (lower case)"
    if selector.pci_id is not None and not re.fullmatch(_PCI_ID, selector.pci_id):
        return f"{selector.pci_id!r} is not a PCI device id such as 0x56c0 (lower case)"
    return None

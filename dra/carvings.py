"""What the journal keeps of a card that this driver cuts into VFs: written before the first quota, dropped when nothing of it is left.

It tells VFs of ours from those somebody else made, and what each of them is: the kernel forgets a layout when the VFs go.
"""

from __future__ import annotations

from typing import Final

import msgspec

from dra.classic import handle
from dra.layouts import Layout
from dra.names import Bdf, BootId
from dra.vf_profiles import VfProfile

KIND: Final = "carving"


class Carving(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """The layout of one physical function."""

    bdf: Bdf
    pci_id: str
    """`0x56c0`: another card in the same slot is not the one that was cut."""
    profiles: tuple[VfProfile, ...]
    """Of VF 1, 2, ...: whole, so that a later driver with another table still knows what it made."""
    boot_id: BootId
    """No VF outlives a reboot: those of another boot are somebody else's."""

    @property
    def layout(self) -> Layout:
        return self.profiles

    @property
    def names(self) -> handle.Layout:
        """The same by names alone, as resource handles have it."""
        return handle.run_length(profile.name for profile in self.profiles)

    def tells_of(self, pci_id: str, boot_id: BootId) -> bool:
        """Whether the card in its slot, and the VFs that this boot has of it, can be the ones that were cut."""
        return (self.pci_id, self.boot_id) == (pci_id, boot_id)


class Uncarve(msgspec.Struct, frozen=True):
    """A change: nothing of ours is left on this card."""

    bdf: Bdf


def to_json(change: Carving | Uncarve) -> bytes:
    """One line's JSON, deterministic."""
    return msgspec.json.encode({KIND: change} if isinstance(change, Carving) else {"uncarve": change.bdf}, order="sorted")


def from_json(data: bytes) -> Carving | Uncarve:
    """The inverse of `to_json`.

    Raises:
        ValueError: it is neither.
    """
    raw = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    if KIND in raw:
        return msgspec.json.decode(raw[KIND], type=Carving)
    if "uncarve" in raw:
        return Uncarve(Bdf(msgspec.json.decode(raw["uncarve"], type=str)))
    raise ValueError("neither a carving nor an end of one")

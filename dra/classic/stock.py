"""What of a node can still be given away: its inventory, less what is tainted, less what the handles of claims say is held."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from dra.classic import vf_planning
from dra.classic.handle import Handle, Part, profiles_of
from dra.classic.inventory import AllocatableGpu, DeviceType, GpuAllocationState
from dra.classic.vf_planning import VfSize


class CardStock(msgspec.Struct, gc=False):
    """One physical GPU. A placement works on copies of it."""

    gpu: AllocatableGpu
    memory: int
    """MiB that nobody holds."""
    millicores: int
    usable: bool = True
    """False: tainted, or cut by somebody else."""
    shared: bool = False
    """Claims of shared classes have amounts of it."""
    whole: bool = False
    """A claim has all of it."""
    sizes: tuple[VfSize, ...] = ()
    """Of VF 1, 2, ... while claims hold VFs of it, or a placement cuts it."""
    free: tuple[int, ...] = ()
    """Numbers of the VFs that nobody holds."""

    @property
    def untouched(self) -> bool:
        """Whether it may be had whole, or be cut."""
        return self.usable and not (self.shared or self.whole or self.sizes)


class FoundVf(msgspec.Struct, frozen=True, gc=False):
    """A VF that an administrator made, and nobody holds."""

    vf: AllocatableGpu
    card_name: str

    @property
    def size(self) -> VfSize:
        return VfSize("", self.vf.memory, self.vf.millicores)


class Stock(msgspec.Struct, frozen=True, gc=False):
    cards: tuple[CardStock, ...]
    """By uid."""
    vfs: tuple[FoundVf, ...]
    """By uid."""


def of_node(state: GpuAllocationState, handles: Iterable[Handle]) -> Stock:
    """What is left of a node. Devices that claims hold and the node no longer has are nobody's worry here.

    Args:
        handles: of all claims on this node.
    """
    devices, tainted = state.devices, state.tainted
    cards: dict[str, CardStock] = {}
    vfs: dict[str, FoundVf] = {}
    spoilt: dict[str, set[int]] = {}
    for uid in sorted(devices):
        device = devices[uid]
        if device.type is DeviceType.GPU:
            cards[uid] = CardStock(device, device.memory, device.millicores, usable=uid not in tainted)
    for uid in sorted(devices):
        vf = devices[uid]
        if vf.type is not DeviceType.VF or vf.profile:
            # What this driver made it can unmake: such VFs count only by the claims that hold them.
            if uid in tainted:
                spoilt.setdefault(vf.parentuid, set()).add(vf.vfindex + 1)
            continue
        card = cards.get(vf.parentuid)
        if uid not in tainted and vf.parentuid not in tainted:
            vfs[uid] = FoundVf(vf, card.gpu.name if card is not None else "")
        if card is not None:
            card.usable = False
    for handle in handles:
        for part in handle.parts:
            _take(part, handle.shared, cards, vfs)
    for uid, numbers in spoilt.items():
        if (card := cards.get(uid)) is not None:
            card.free = tuple(number for number in card.free if number not in numbers)
    # Somebody may have cut a card that a claim has: its VFs are that claim's too.
    held = {uid for uid, card in cards.items() if card.whole or card.shared or card.sizes}
    return Stock(tuple(cards.values()), tuple(found for found in vfs.values() if found.vf.parentuid not in held))


def _take(part: Part, shared: bool, cards: Mapping[str, CardStock], vfs: dict[str, FoundVf]) -> None:
    if part.parent:
        vfs.pop(part.uid, None)
        if (card := cards.get(part.parent)) is not None:
            card.usable = False  # also if the node does not see the VF at the moment
        return
    card = cards.get(part.uid)
    if card is None:
        return
    if part.vfs:
        if not card.sizes:
            card.sizes = vf_planning.sizes(vf_planning.shape_of(card.gpu), profiles_of(part.layout))
            card.free = tuple(range(1, len(card.sizes) + 1)) if card.usable else ()
        card.free = tuple(number for number in card.free if number not in part.vfs)
        # A claim of the original driver does not say how its card is cut: nothing of it is given away while that claim lives.
        card.whole = card.whole or not part.layout
    else:
        card.memory -= part.memory
        card.millicores -= part.millicores
        card.shared, card.whole = card.shared or shared, card.whole or not shared

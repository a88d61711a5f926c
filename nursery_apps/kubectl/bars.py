"""A card as a bar: cut in VFs or shares, each filled by who has it. What the terminal and the page draw; pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from dra import quantities
from dra.explaining.gpus import Card, Device, Holder, Node, free


class Fill(enum.StrEnum):
    HELD = "held"
    FREE = "free"
    TAINTED = "tainted"
    """Nobody has it, and no pod gets it."""
    CLOSED = "closed"
    """Nobody has it, and nobody can: its card, or VFs of it, are in use."""


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    part: float
    """Of the bar; those of a bar add up to 1."""
    fill: Fill
    device: Device
    owner: str = ""
    """`namespace/pod`, or `namespace/claim` where no pod uses it."""
    share: str = ""
    """What of a shared device this is."""


class Counts(msgspec.Struct, frozen=True):
    cards: int
    vfs: int
    held: int
    """Devices."""
    free: int
    tainted: int
    """Devices that nobody can get for a taint; in use or not."""


def bar(card: Card) -> list[Segment]:
    """From left to right."""
    whole = card.whole
    if whole is not None and (not card.vfs or whole.held):
        return _shares(whole) if whole.shared and whole.held else [_segment(card, whole, 1.0)]
    weights = [vf.memory_bytes or vf.millicores for vf in card.vfs]
    if not all(weights):
        weights = [1] * len(card.vfs)
    return [_segment(card, vf, weight / sum(weights)) for vf, weight in zip(card.vfs, weights, strict=True)]


def owner_of(holder: Holder) -> str:
    return f"{holder.namespace}/{', '.join(holder.pods) or f'claim {holder.claim}'}"


def owners(nodes: Iterable[Node]) -> tuple[str, ...]:
    """All that have something, in the order in which they are drawn."""
    drawn = (segment.owner for node in nodes for card in node.cards for segment in bar(card) if segment.owner)
    return tuple(dict.fromkeys(drawn))


def marks(names: Sequence[str]) -> Mapping[str, str]:
    """Owner -> what stands for it where colours do not: A to Z, then A1, B1, ..."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return {name: letters[at % 26] + (str(at // 26) if at >= 26 else "") for at, name in enumerate(names)}


def counts(nodes: Iterable[Node]) -> Counts:
    listed = [(card, device) for node in nodes for card in node.cards for device in card.devices]
    return Counts(
        cards=len({id(card) for card, _ in listed}),
        vfs=sum(device.kind == "vf" for _, device in listed),
        held=sum(device.held for _, device in listed),
        free=sum(free(card, device) and not device.blocked for card, device in listed),
        tainted=sum(bool(device.blocked) for _, device in listed),
    )


def ailments(card: Card) -> list[str]:
    """What keeps pods from its devices, a sentence each; of all devices of a card it is mostly the same."""
    found: dict[str, list[str]] = {}
    for device in card.devices:
        for taint in device.blocked:
            found.setdefault(f"{taint} by {taint.by}", []).append(device.name)
    return [said + ("" if len(names) == len(card.devices) else f" ({', '.join(names)})") for said, names in found.items()]


def _segment(card: Card, device: Device, part: float) -> Segment:
    working = [holder for holder in device.holders if not holder.admin]
    if working:
        return Segment(part=part, fill=Fill.HELD, device=device, owner=", ".join(dict.fromkeys(map(owner_of, working))))
    fill = Fill.TAINTED if device.blocked else Fill.FREE if free(card, device) else Fill.CLOSED
    return Segment(part=part, fill=fill, device=device)


def _shares(device: Device) -> list[Segment]:
    working = [holder for holder in device.holders if not holder.admin]
    parts = [_part(device, holder) for holder in working]
    scale = max(1.0, sum(parts))
    found = [
        Segment(
            part=part / scale,
            fill=Fill.HELD,
            device=device,
            owner=owner_of(holder),
            share=", ".join(f"{name} {amount}" for name, amount in sorted(holder.share.items())),
        )
        for holder, part in zip(working, parts, strict=True)
    ]
    left = 1.0 - sum(segment.part for segment in found)
    if left > 0.01:
        found.append(Segment(part=left, fill=Fill.TAINTED if device.blocked else Fill.FREE, device=device))
    return found


def _part(device: Device, holder: Holder) -> float:
    """The largest part that it has of any capacity; a sliver where that is not known, for it is there."""
    sizes = {"memory": device.memory_bytes, "millicores": device.millicores}
    parts = []
    for name, text in holder.share.items():
        size = sizes.get(name.rpartition("/")[2], 0)
        try:
            parts.append(quantities.parse(text) / size if size else 0.0)
        except ValueError:
            continue
    return min(1.0, max([0.05, *parts]))
